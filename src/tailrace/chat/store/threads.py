"""Threads that carry out what would hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """They take calls in the order they came, and each carries out one after the other.

    The last one to end calls `last`. Those of a ThreadPoolExecutor would be waited for at the end of the process, even
    if they hang for ever.
    """

    def __init__(self, name: str, count: int, last: Callable[[], None]) -> None:
        # Never more than there are requests, because each waits for its call. None ends the thread that takes it.
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._last = last
        self._running = count
        self._lock = Lock()
        self._ended: Future[None] = Future()
        self._ended.set_running_or_notify_cancel()  # so that nobody cancels it
        self._threads = [Thread(target=self._work, name=name, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises. Who is cancelled waits no longer: what has begun then goes on to its end."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return await asyncio.wrap_future(future)

    async def close(self, patience: float) -> None:
        """Let them end when they have done what was asked for. One that hangs for so many seconds is left alone."""
        for _ in self._threads:
            self._calls.put(None)
        try:
            async with asyncio.timeout(patience):
                await asyncio.wrap_future(self._ended)
        except TimeoutError:
            return
        for thread in self._threads:
            thread.join()  # each has done its last step

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if call[0].set_running_or_notify_cancel():
                _carry_out(*call)
            del call  # who waits for the next one holds on to nothing
        with self._lock:
            self._running -= 1
            is_last = self._running == 0
        if is_last:
            _carry_out(self._ended, self._last)


def _carry_out(future: Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:  # for the one who waits
        future.set_exception(error)
    else:
        future.set_result(result)
