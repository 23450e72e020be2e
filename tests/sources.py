"""Generators that tests hold in their hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from tests.raw import BOUND


class Faucet:
    """A source whose items the test lets out, and whose life it can follow."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.put(*items)
        self.started = asyncio.Event()
        self.closed = asyncio.Event()

    def put(self, *items: Any) -> None:
        """Let items out; an exception is raised instead."""
        for item in items:
            self._queue.put_nowait(item)

    def end(self) -> None:
        self._queue.put_nowait(self)

    async def run(self) -> AsyncIterator[Any]:
        self.started.set()
        try:
            while (item := await self._queue.get()) is not self:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.closed.set()


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(BOUND):
        await event.wait()


async def turns(count: int = 10) -> None:
    """Let everything that is ready run, some times over."""
    for _ in range(count):
        await asyncio.sleep(0)
