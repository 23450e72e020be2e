"""The lives of the processes that share a store.

Each process with members holds the lease of its own log, which is its life. If a process crashes, the store ends its
life, as it ends any stream whose producer is lost. The other processes read that end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_urlsafe

from ..engine.engine import Engine
from ..errors import LogReset, StoreUnavailable
from ..log.base import Tail
from ..log.writer import Writer

logger = logging.getLogger("tailrace")

AGAIN = 1.0
"""Seconds before the next attempt to do what follows the end of a life, if the store does not answer."""

Ended = Callable[[str], Awaitable[None]]
"""A function to call with a process whose life has ended."""


class Lives:
    """The life of this process, and those of the others that it has been told of."""

    def __init__(self, engine: Engine | None, name: str, ended: Ended) -> None:
        """Name the lives below `name`. Without an engine, or if its store is not shared, there is only this process."""
        self.engine = engine
        self._name = name
        self._ended = ended
        self._own = token_urlsafe(6)
        self._writer: Writer | None = None
        self._beginning = asyncio.Lock()
        self._watched: dict[str, _Watch] = {}

    @property
    def shared(self) -> bool:
        """True if there may be other processes."""
        return self.engine is not None and self.engine.store.shared

    @property
    def last_ends(self) -> bool:
        """True if this process is the only one, and its server is about to stop."""
        return self.engine is not None and self.engine.draining and not self.shared

    async def own(self) -> str:
        """Return the name of this process, whose life has begun. It has another name after it was taken for dead."""
        if self.engine is not None and self.shared:
            async with self._beginning:
                if self._writer is None or self._writer.lost:
                    await self._begin(self.engine)
        return self._own

    def watch(self, process: str) -> None:
        """Call `ended` as soon as the life of a process has ended."""
        if self.engine is not None and self.shared and process not in self._watched:
            self._watched[process] = _Watch(self.engine, f"{self._name}/{process}", process, self._finish)

    async def _begin(self, engine: Engine) -> None:
        process = token_urlsafe(6)
        self._writer = await engine.store.lease(await engine.log(f"{self._name}/{process}"))
        self._own = process
        self.watch(process)

    async def _finish(self, process: str) -> None:
        self._watched.pop(process, None)
        await self._ended(process)


class _Watch:
    """Waits for the end of a life. The engine waits for it at the end of the server."""

    def __init__(self, engine: Engine, name: str, process: str, ended: Ended) -> None:
        self._engine = engine
        self._name = name
        self._process = process
        self._ended = ended
        self._tail: Tail | None = None
        self._leaving = asyncio.Event()
        if engine.draining:
            self._leaving.set()
        self._task = asyncio.create_task(self._run(), name=f"tailrace watch {name}")
        engine.readers.join(self)

    def leave(self) -> None:
        """Watch no longer, because the server is about to stop."""
        self._leaving.set()
        if self._tail is not None:
            self._tail.close()

    def abandon(self) -> None:
        """Give up what is being done because of the end."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while not self._leaving.is_set():
                try:
                    return await self._see_out()
                except StoreUnavailable as error:
                    logger.warning("the members at process %s are still in their rooms: %s", self._process, error)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._leaving.wait(), AGAIN)
        finally:
            self._engine.readers.part(self)

    async def _see_out(self) -> None:
        await self._wait()
        if not self._leaving.is_set():
            await self._ended(self._process)

    async def _wait(self) -> None:
        log = await self._engine.find(self._name)
        if log is None or self._leaving.is_set():
            return
        with suppress(LogReset), log.tail() as self._tail:  # a reset means that the store has lost it
            async for _ in self._tail:
                pass  # pragma: no cover - a life has no entries
