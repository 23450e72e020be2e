"""The lives of the processes that share a store.

Each process with members holds the lease of its own log, which is its life. A process ends its life when its server is
about to stop. If it crashes, the store ends its life, as it ends any stream whose producer is lost. The other processes
read that end. They wait a little, because the members may reconnect to one of them, and announce those who do not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_urlsafe
from weakref import WeakValueDictionary

from ..engine.engine import Engine
from ..errors import LogReset, StoreUnavailable
from ..events import DONE
from ..log.base import Tail
from ..log.writer import Writer

logger = logging.getLogger("tailrace")

AGAIN = 1.0
"""Seconds before the next attempt to do what follows the end of a life, if the store does not answer."""

PATIENCE = 1.0
"""Seconds in which a process that stops must end its life. If it cannot, it is taken for dead."""

Ended = Callable[[str], Awaitable[None]]
"""A function to call with a process whose life has ended, after the delay."""


class Lives:
    """The life of this process, and those of the others that it has been told of."""

    def __init__(self, engine: Engine | None, name: str, ended: Ended, *, delay: float) -> None:
        """Name the lives below `name`. Without an engine, or if its store is not shared, there is only this process.

        `delay` is the seconds in which the members of a process that has ended may come back elsewhere.
        """
        self.engine = engine
        self._name = name
        self._ended = ended
        self._delay = delay
        self._own = token_urlsafe(6)
        self._writer: Writer | None = None
        self._beginning = asyncio.Lock()
        self._watched: WeakValueDictionary[str, _Watch] = WeakValueDictionary()  # those that continue

    @property
    def shared(self) -> bool:
        """True if there may be other processes."""
        return self.engine is not None and self.engine.store.shared

    @property
    def hands_over(self) -> bool:
        """True if the server is about to stop, so the other processes tell which members have left."""
        return self.engine is not None and self.engine.draining and self.shared

    async def own(self) -> str:
        """Return the name of this process, which lives at this moment. It has another name after it was taken for dead.

        Raise StoreUnavailable if the store does not answer.
        """
        if self.engine is not None and self.shared:
            if self._writer is not None:
                # If the store has just lost its data, the others know before this process is told.
                await self._writer.log.catch_up()
            async with self._beginning:
                if self._writer is None or self._writer.lost:
                    await self._begin(self.engine)
        return self._own

    def watch(self, process: str) -> None:
        """Call `ended` when the life of a process has ended."""
        if self.engine is not None and self.shared and process not in self._watched:
            name, own = f"{self._name}/{process}", self._writer if process == self._own else None
            self._watched[process] = _Watch(self.engine, name, process, self._finish, delay=self._delay, own=own)

    async def pause(self, seconds: float) -> None:
        """Wait for some seconds, or until the server is about to stop."""
        if self.engine is None:
            await asyncio.sleep(seconds)
        else:
            await _Pause(self.engine).wait(seconds)

    async def _begin(self, engine: Engine) -> None:
        process = token_urlsafe(6)
        self._writer = await engine.store.lease(await engine.log(f"{self._name}/{process}"))
        self._own = process
        self.watch(process)

    async def _finish(self, process: str) -> None:
        self._watched.pop(process, None)
        await self._ended(process)


class _Pause:
    """A wait that the end of the server cuts short."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._leaving = asyncio.Event()
        if engine.draining:
            self._leaving.set()

    def leave(self) -> None:
        """Wait no longer, because the server is about to stop."""
        self._leaving.set()

    abandon = leave

    async def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the server is about to stop."""
        self._engine.readers.join(self)
        try:
            await _until(self._leaving, seconds)
        finally:
            self._engine.readers.part(self)


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for at most that many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class _Watch:
    """Waits for the end of a life. The engine waits for it at the end of the server."""

    def __init__(
        self, engine: Engine, name: str, process: str, ended: Ended, *, delay: float, own: Writer | None
    ) -> None:
        """`own` is the writer of the life if it is that of this process."""
        self._engine = engine
        self._name = name
        self._process = process
        self._ended = ended
        self._delay = delay
        self._own = own
        self._tail: Tail | None = None
        self._leaving = asyncio.Event()
        if engine.draining:
            self._leaving.set()
        self._task = asyncio.create_task(self._run(), name=f"tailrace watch {name}")
        engine.readers.join(self)

    def leave(self) -> None:
        """Watch no longer, because the server is about to stop. That ends this process's own life."""
        self._leaving.set()
        if self._tail is not None:
            self._tail.close()

    def abandon(self) -> None:
        """Give up the work that follows the end."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._watch()
            if self._own is not None and self._leaving.is_set():
                await self._own.end(DONE, patience=PATIENCE)
        finally:
            self._engine.readers.part(self)

    async def _watch(self) -> None:
        while not self._leaving.is_set():
            try:
                await self._see_out()
            except StoreUnavailable as error:
                logger.warning("the members at process %s are still in their rooms: %s", self._process, error)
                await _until(self._leaving, AGAIN)
            else:
                return

    async def _see_out(self) -> None:
        await self._wait()
        await _until(self._leaving, self._delay)
        if not self._leaving.is_set():
            await self._ended(self._process)

    async def _wait(self) -> None:
        log = await self._engine.find(self._name)
        if log is None or self._leaving.is_set():
            return
        with suppress(LogReset), log.tail() as self._tail:  # a reset means that the store has lost it
            async for _ in self._tail:
                pass  # pragma: no cover - a life has no entries
