"""The common base of the contract suite: the hooks that a store's tests define, and helpers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn, TypeVar
from unittest import SkipTest

from ..cursor import Cursor
from ..errors import LogReset
from ..events import Entries, encode_event
from ..flow import Retention
from ..log.base import Log, Tail
from ..log.store import LogStore
from ..log.writer import Writer

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

NAME = "/contract"
"""The name of the log in most tests."""

FAULTS = frozenset({"disconnect", "refuse", "rollback", "kill"})


async def raised(kind: type[E], awaitable: Awaitable[object]) -> E:
    """Return the exception that an awaitable raises. Raise AssertionError if it raises none of the given kind."""
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, but got {result!r}")


class Contract:
    """Opens a store for each test, breaks it where a test says so, and bounds every wait."""

    limit: float = 30.0
    """Seconds after which a wait fails."""

    pause: float = 0.2
    """Seconds to wait for something that must not happen."""

    slack: int = 128
    """The number of entries that a log may keep beyond its retention's bound."""

    age: float = 0.1
    """Seconds to keep entries in the tests of retention by age."""

    cannot: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The faults that cannot happen to this store, with the reason: `{"rollback": "its logs end with the process"}`.

    Their tests are skipped and show the reason. A fault that is neither defined nor named here fails its tests.
    """

    # What a store's tests define

    def open_stores(self) -> AbstractAsyncContextManager[Sequence[LogStore]]:
        """Return an async context manager that gives two handles of one empty store, and closes them.

        The handles are what two processes would have. If there can be only one process, give the same one twice.
        """
        self._undefined("open_stores")

    async def disconnect(self, store: LogStore) -> None:
        """Cut a handle's connections, in whatever it is doing. It has to come back by itself."""
        self._undefined("disconnect")

    def refuse(self) -> AbstractAsyncContextManager[None]:
        """Return an async context manager in which the store accepts no write: it is full, or gone."""
        self._undefined("refuse")

    def rollback(self) -> AbstractAsyncContextManager[None]:
        """Return an async context manager at whose end the store loses all that it took meanwhile.

        Let it cut all connections as well, as a failover does to a replica that was behind.
        """
        self._undefined("rollback")

    async def kill(self, store: LogStore) -> None:
        """Let a handle's process die: its connections end, it says nothing more, and nothing is cleaned up."""
        self._undefined("kill")

    def _undefined(self, hook: str) -> NoReturn:
        cannot = f", or to give a reason in `cannot`: {{{hook!r}: …}}" if hook in FAULTS else ""
        raise NotImplementedError(f"expected {type(self).__name__} to define {hook}{cannot}")

    def _needs(self, fault: str) -> None:
        """Skip the test if the fault cannot happen to this store."""
        name = type(self).__name__
        if unknown := set(self.cannot) - FAULTS:
            raise TypeError(f"expected {name}.cannot to name {', '.join(sorted(FAULTS))}, but got {sorted(unknown)}")
        if (reason := self.cannot.get(fault)) is None:
            return
        if getattr(type(self), fault) is not getattr(Contract, fault):
            raise TypeError(f"expected {name} to define {fault} or to name it in `cannot`, but got both")
        raise SkipTest(f"{fault} cannot happen: {reason}")

    # Logs and streams for a test

    @asynccontextmanager
    async def _logs(self, retention: Retention | None = None) -> AsyncIterator[tuple[Log, Log]]:
        """Attach both handles to one log."""
        async with self.open_stores() as (one, other):
            here = await self._soon(one.attach(NAME, retention or Retention()))
            yield here, await self._soon(other.attach(NAME, retention or Retention()))

    @asynccontextmanager
    async def _stream(self, retention: Retention | None = None) -> AsyncIterator[tuple[Writer, Log]]:
        """Make a stream. Give its writer at one handle, and its log at the other."""
        async with self.open_stores() as (one, other):
            writer = await self._soon(one.lease(await self._soon(one.create(NAME, retention or Retention()))))
            yield writer, await self._find(other, NAME)

    async def _find(self, store: LogStore, name: str) -> Log:
        log = await self._soon(store.find(name))
        assert log is not None, f"expected a log named {name!r}, but found none"
        return log

    async def _lease(self, store: LogStore, name: str = NAME) -> Writer:
        return await self._soon(store.lease(await self._soon(store.create(name, Retention()))))

    async def _write(self, writer: Writer, *items: object) -> None:
        """Write items, and wait until they are stored and the writer's own log has them."""
        write(writer, *items)
        await self._soon(writer.flush())
        await self._reach(writer.top, writer.log)

    # Waiting

    async def _soon(self, awaitable: Awaitable[T]) -> T:
        async with asyncio.timeout(self.limit):
            return await awaitable

    async def _waiting(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task, and let it run until it waits for something that is yet to happen."""
        task = asyncio.create_task(work)
        await turns(10)
        assert not task.done(), f"expected {task.get_coro()} to wait, but it is done"
        return task

    async def _told(self, log: Log, expected: Callable[[Log], object]) -> None:
        """Wait until something is true of a log. Its listeners must be called when it becomes so."""
        happened = asyncio.Event()

        def listener(log: Log) -> None:
            if expected(log):
                happened.set()

        log.listen(listener)
        try:
            listener(log)
            await self._soon(happened.wait())
        finally:
            log.unlisten(listener)

    async def _ended(self, *logs: Log) -> None:
        for log in logs:
            await self._told(log, lambda log: log.outcome)

    async def _reach(self, top: int, *logs: Log) -> None:
        """Wait until logs know of all entries up to an offset."""
        async with asyncio.timeout(self.limit):
            for log in logs:
                while log.top < top:
                    # Otherwise there is no news to wait for.
                    assert (log.outcome, log.lost) == (None, None), f"expected {top} entries, but got {log.top}"
                    with log.tail(log.top) as tail:
                        await tail.wait()

    async def _append(self, log: Log, *items: Any, at: Sequence[Log] = ()) -> range:
        """Append items, and wait until the log knows of them, and so do the logs `at` other handles."""
        offsets = await self._soon(log.append(*items))
        await self._reach(offsets[-1], log, *at)
        return offsets

    # Reading

    async def _read(self, log: Log, count: int, after: int | None = None) -> list[Any]:
        """Return the data of the next `count` entries. Wait for them."""
        with log.tail(after) as tail:
            return await self._take(tail, count)

    async def _take(self, tail: Tail, count: int) -> list[Any]:
        data: list[Any] = []
        while len(data) < count:
            entries = await self._soon(anext(tail, None))
            assert entries is not None, f"expected {count} entries, but the log has ended after {data!r:.200}"
            data += data_of(entries)
        assert len(data) == count, f"expected {count} entries, but got {data!r:.200}"
        return data

    async def _rest(self, tail: Tail) -> list[Any]:
        """Return the data of all entries up to the end. Wait for it."""
        async with asyncio.timeout(self.limit):
            return [entry.data async for entries in tail for entry in entries]

    async def _after_reset(self, log: Log, cursor: Cursor, reason: str, count: int) -> list[Any]:
        """Return the data of the `count` entries that a reader gets from the `resume` cursor of a reset."""
        reset = await raised(LogReset, self._soon(log.resolve(cursor)))
        assert (reset.name, reset.reason) == (log.name, reason)
        return await self._read(log, count, await self._soon(log.resolve(Cursor.parse(reset.resume))))

    async def _base(self, log: Log) -> int:
        """Return the last offset that was trimmed, or 0."""
        try:
            await self._soon(log.read(0, 1))
        except LogReset as reset:
            return trimmed_to(reset)
        return 0

    async def _fill(self, log: Log, *, at: Sequence[Log] = ()) -> tuple[int, int]:
        """Append 1, 2, 3 … until an entry is trimmed. Return the log's base and top."""
        most = (log.retention.count or 0) + self.slack + 1
        for number in range(1, most + 1):
            await self._append(log, number, at=at)
            if base := await self._base(log):
                return base, number
        raise AssertionError(f"expected a log of {most} entries to be trimmed, but nothing was")


async def turns(count: int) -> None:
    """Let everything else run for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


async def offsets_of(tail: Tail, chance: random.Random) -> list[int]:
    """Return the offsets of all entries up to the end, as a reader that is now and then slow."""
    offsets: list[int] = []
    async for entries in tail:
        offsets += entries.offsets
        await turns(chance.randrange(5))
    return offsets


def data_of(entries: Entries) -> list[Any]:
    return [entry.data for entry in entries]


def trimmed_to(reset: LogReset) -> int:
    """Return the offset after which a reader goes on whose next entry was trimmed."""
    assert reset.reason == "trimmed", f"expected a reset by trimming, but got {reset}"
    return Cursor.parse(reset.resume).offset


def cursors_of(log: Log, entries: Entries) -> list[Cursor]:
    """Return the cursors of a batch as a wire writes them."""
    return [Cursor.parse(f"{log.stream}.{log.epoch}.{place.decode()}") for place in entries.spelled]


def write(writer: Writer, *items: Any) -> None:
    for item in items:
        writer.write(*encode_event(item))


def watched(log: Log) -> bool:
    """Tell whether a log has readers, in this process or in another."""
    return log.readers + log.control.elsewhere > 0
