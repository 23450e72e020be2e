"""Iterate over an application's items, which may come from sync code."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Generic, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from .errors import StreamError
from .events import BYTES_LIKE

# A job's function gets the `Producer`, which is in a higher layer.
P = TypeVar("P")


class Job(Generic[P]):
    """A function that sends its items itself, in the place of a generator.

        async def run(producer: Producer) -> None:
            await producer.send("an item")

        producer = await engine.produce(log, Job(run))

    The producer's own task awaits the function. When it returns, the log ends as done. An exception, a stop and what
    the function does in a `finally` mean the same as in a generator.
    """

    def __init__(self, function: Callable[[P], Awaitable[None]]) -> None:
        self.function = function

    def steps(self, producer: P) -> AsyncIterator[Any]:
        """Return an async iterator without items. Its only step runs the function."""
        return _Steps(self.function, producer)


class _Steps(Generic[P]):
    def __init__(self, function: Callable[[P], Awaitable[None]], producer: P) -> None:
        self._function = function
        self._producer = producer

    def __aiter__(self) -> _Steps[P]:
        return self

    async def __anext__(self) -> Any:
        try:
            await self._function(self._producer)
        except StopAsyncIteration as error:  # a bug of the function, but here it would mean that all went well
            raise RuntimeError("a job raised StopAsyncIteration") from error
        raise StopAsyncIteration


Iterables: TypeAlias = AsyncIterable[Any] | Iterable[Any]
Items: TypeAlias = Iterables | Job[Any]


def as_async(items: Iterables) -> AsyncIterator[Any]:
    """Return an async iterator over items. A str or bytes is one item.

    Close the iterator with `close_items`, even if you never use it.
    """
    if isinstance(items, (str, *BYTES_LIKE)):
        items = (items,)
    return aiter(items) if isinstance(items, AsyncIterable) else _InThread(items)


async def close_items(items: AsyncIterator[Any]) -> None:
    """Close a generator. Do nothing for iterators without `aclose`."""
    if (aclose := getattr(items, "aclose", None)) is not None:
        try:
            await aclose()
        except BaseExceptionGroup as group:
            # A task group around a `yield` wraps the GeneratorExit that closes it.
            if (failures := group.split(GeneratorExit)[1]) is not None:
                raise failures from None


class Threads:
    """A bound on an engine's sync generators that run at once. Each takes one worker thread at a time.

    A generator that was given up keeps its place until its thread returns, so this bounds the threads too.

    It is separate from anyio's default limiter, under which FastAPI runs `def` routes. That one has 40 tokens for the
    whole process, so 40 sync generators that merely wait for their next item would block all such routes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def take(self) -> None:
        """Take a place. Raise StreamError (503) if there is none, because a waiting stream would look stuck."""
        if self.taken >= self.limit:
            message = f"expected at most {self.limit} streams from sync generators at once, but all places are taken"
            raise StreamError(message, code="overloaded", status=503)
        self.taken += 1

    def give_back(self) -> None:
        """Give a place back."""
        self.taken -= 1


# An application's generator may call `as_async` at any depth, where only the task's context tells the engine.
THREADS: ContextVar[Threads | None] = ContextVar("tailrace_threads", default=None)

_EXHAUSTED = object()


class _InThread:
    """An async iterator that advances and closes a sync iterator in worker threads, one thread at a time.

    Cancelling the wait for a thread does not end the thread. So an item that arrives later is kept for the next call,
    and the iterator is closed, and its place given back, only after the thread has left it.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._iterator = iter(items)
        self._place: Threads | None = None
        self._begun = False
        self._limiter = anyio.CapacityLimiter(1)
        self._call: Future[Any] | None = None  # a call of `next` whose outcome has not been taken yet
        self._closing: asyncio.Task[None] | None = None

    def __aiter__(self) -> _InThread:
        return self

    async def __anext__(self) -> Any:
        if self._closing is not None:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            if (threads := THREADS.get()) is not None:
                threads.take()
                self._place = threads
        call = await self._advance()
        self._call = None
        if (item := call.result()) is _EXHAUSTED:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._closing)

    async def _advance(self) -> Future[Any]:
        """Return a completed call of `next`: the one whose wait was cancelled, or else a new one."""
        if (call := self._call) is not None:
            await _returned(call)
            return call
        self._call = call = Future()
        try:
            await anyio.to_thread.run_sync(self._take, call, limiter=self._limiter)
        except BaseException:  # a cancellation of the wait, above all
            if call.cancel():  # the thread has not begun, and will not touch the iterator
                self._call = None
            raise
        return call

    def _take(self, call: Future[Any]) -> None:
        if call.set_running_or_notify_cancel():
            try:
                call.set_result(next(self._iterator, _EXHAUSTED))
            except BaseException as error:  # the task that waits for the call raises it
                call.set_exception(error)

    async def _close(self) -> None:
        try:
            if self._call is not None:
                await _returned(self._call)
            if _needs_close(self._iterator):
                await anyio.to_thread.run_sync(self._iterator.close, limiter=self._limiter)  # type: ignore[attr-defined]
            if self._call is not None:
                self._call.result()
        finally:
            if self._place is not None:
                self._place.give_back()


def _needs_close(iterator: Iterator[Any]) -> bool:
    if inspect.isgenerator(iterator):
        # Only a suspended generator has code left to run, so others need no thread.
        return inspect.getgeneratorstate(iterator) == inspect.GEN_SUSPENDED
    return hasattr(iterator, "close")


async def _returned(call: Future[Any]) -> None:
    """Wait until a running call is done. Do not raise its error."""
    await asyncio.gather(asyncio.wrap_future(call), return_exceptions=True)
