"""The common base of the contract suites."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from ..cursor import Cursor
from ..errors import LogReset
from ..events import Entries
from ..flow import Retention
from ..log.base import Log, Tail

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


async def raised(kind: type[E], awaitable: Awaitable[object]) -> E:
    """Return the exception that an awaitable raises. Raise AssertionError if it raises none of the given kind."""
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, but got {result!r}")


class Contract:
    """Makes logs for the tests, and bounds every wait for them."""

    limit: float = 10.0
    """Seconds after which a wait fails."""

    slack: int = 128
    """The number of entries that a log may keep beyond its retention's bound."""

    age: float = 0.1
    """Seconds to keep entries in the test of retention by age."""

    def make_log(self, retention: Retention) -> AbstractAsyncContextManager[Log]:
        """Return an async context manager that gives an empty log and cleans up after it."""
        raise NotImplementedError(f"expected {type(self).__name__} to define make_log")

    async def reopen(self, log: Log) -> Log:
        """Return the log as another process would find it, or the same log if its store ends with the process."""
        return log

    # Helpers

    async def _soon(self, awaitable: Awaitable[T]) -> T:
        async with asyncio.timeout(self.limit):
            return await awaitable

    async def _waiting(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task, and let it run until it waits for something that is yet to happen."""
        task = asyncio.create_task(work)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done(), f"expected {task.get_coro()} to wait, but it is done"
        return task

    async def _rest(self, tail: Tail) -> list[Any]:
        async with asyncio.timeout(self.limit):
            return [entry.data async for entries in tail for entry in entries]

    async def _offsets(self, tail: Tail, chance: random.Random) -> list[int]:
        offsets: list[int] = []
        async for entries in tail:
            offsets += entries.offsets
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
        return offsets

    async def _after_reset(self, log: Log, cursor: Cursor, reason: str) -> list[Any]:
        """Return the data that a reader gets from the `resume` cursor of a reset."""
        reset = await raised(LogReset, self._open(log, cursor))
        assert reset.reason == reason
        with log.tail(await log.resolve(Cursor.parse(reset.resume))) as tail:
            return data_of(await tail.read())

    async def _open(self, log: Log, cursor: Cursor) -> Tail:
        return log.tail(await log.resolve(cursor))

    async def _fill(self, log: Log) -> None:
        """Append 1, 2, 3 … until an entry is trimmed."""
        most = (log.retention.count or 0) + self.slack + 1
        while log.base == 0:
            assert log.top < most, f"expected a log of {log.top} entries to be trimmed, but nothing was"
            await log.append(log.top + 1)


def data_of(entries: Entries) -> list[Any]:
    return [entry.data for entry in entries]
