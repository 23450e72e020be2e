"""Stores for tests, as processes would have them, and failures of theirs on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

from tailrace.errors import LogClosed, LogReset, StoreUnavailable
from tailrace.events import Entries, encode_event
from tailrace.flow import Retention
from tailrace.log.base import Log, Tail
from tailrace.log.redis.address import Part
from tailrace.log.redis.connection import Lost, NotSent, Reply
from tailrace.log.redis.frames import Batch
from tailrace.log.redis.link import Call, Script
from tailrace.log.redis.log import RedisLog
from tailrace.log.redis.mirror import Mirror
from tailrace.log.redis.scripts import Keys
from tailrace.log.redis.server import Server
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.log.store import Keeping
from tailrace.log.writer import Writer
from tailrace.pulse import Pulse

from .redis_server import RedisServer

LIMIT = 30.0
"""Seconds after which a wait fails."""

QUICK = Pace(interval=0.2, linger=0.1, patience=2.0)
SLOW = Pace(interval=60.0)
"""The pace of a store whose beat does not help: what it would find too late, something else has to find."""


class FlakyStore(RedisStore):
    """A store whose calls a test counts, loses and refuses."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls: list[Script] = []
        self.lose: list[Script] = []  # scripts whose next reply is lost, after they have run
        self.refuse = False  # True while Redis seems not to answer
        self.after: dict[Script, Callable[[], Awaitable[object]]] = {}  # what happens before the next reply is taken
        self.fetches = 0
        self.deaf: Callable[[bytes], bool] = lambda channel: False
        self.missed: list[bytes] = []  # the frames that came while it was deaf

    async def run(self, name: str, keys: Keys, script: Script, *arguments: Part) -> list[Any]:
        self.calls.append(script)
        if self.refuse:
            raise StoreUnavailable(name, "the test refuses it")
        answer = await super().run(name, keys, script, *arguments)
        if (happening := self.after.pop(script, None)) is not None:
            await happening()
        if script in self.lose:
            self.lose.remove(script)
            raise StoreUnavailable(name, "the test has lost the reply")
        return answer

    def post(self, call: Call, packed: bytes, reply: Reply) -> None:
        self.calls.append(call.script)
        if self.refuse:
            raise NotSent("the test refuses it")
        super().post(call, packed, FlakyReply(self, call.script, reply))

    async def fetch(self, log: Mirror, after: int, size: int) -> list[Batch]:
        self.fetches += 1
        return await super().fetch(log, after, size)

    def _pushed(self, push: list[Any]) -> None:
        if not self.deaf(push[1]):
            super()._pushed(push)
        elif push[0] in (b"message", b"smessage"):
            self.missed.append(push[2])

    @asynccontextmanager
    async def missing(self, kinds: str) -> AsyncIterator[None]:
        """Hear nothing in the block. It ends when frames of these kinds have come, such as `++=`, and were missed."""
        self.missed.clear()
        self.deaf = lambda _: True
        yield
        await until(lambda: not Counter(kinds) - Counter(frame[:1].decode() for frame in self.missed))
        self.deaf = lambda _: False


class FlakyReply:
    """The reply to a posted call, before which something happens, or which is lost."""

    def __init__(self, store: FlakyStore, script: Script, reply: Reply) -> None:
        self.store = store
        self.script = script
        self.reply = reply

    def done(self) -> bool:
        return self.reply.done()

    def set_result(self, result: Any) -> None:
        if (happening := self.store.after.pop(self.script, None)) is not None:
            self.store.spawn(self.give(result, happening))
        else:
            self.give_now(result)

    def set_exception(self, error: Any) -> None:
        self.reply.set_exception(error)

    async def give(self, result: Any, happening: Callable[[], Awaitable[object]]) -> None:
        await happening()
        self.give_now(result)

    def give_now(self, result: Any) -> None:
        if self.script in self.store.lose:
            self.store.lose.remove(self.script)
            self.set_exception(Lost("the test has lost the reply"))
        else:
            self.reply.set_result(result)


def server_of(store: RedisStore) -> Server:
    """The only server of a store that is open."""
    assert isinstance(store._servers, Server)
    return store._servers


@asynccontextmanager
async def stores(
    url: str, count: int = 2, *, pace: Pace = QUICK, keeping: Keeping | None = None, pulse: float = 0.1
) -> AsyncIterator[list[FlakyStore]]:
    """Stores over one server, which are closed with the block."""
    async with AsyncExitStack() as stack:
        opened = [FlakyStore(url, keeping, Pulse(pulse), pace=pace) for _ in range(count)]
        for store in opened:
            stack.push_async_callback(store.aclose)
        yield opened


async def found(store: RedisStore, name: str) -> RedisLog:
    log = await store.find(name)
    assert log is not None, f"expected a log named {name!r}"
    return log


async def attached(store: RedisStore, name: str) -> RedisLog:
    """Return a log that hears its channels, as after its first use."""
    log = await found(store, name)
    await heard(store, log)
    return log


async def shared(*stores: RedisStore, name: str = "/log") -> list[RedisLog]:
    """Return a log as each store has it. All of them hear its channels."""
    logs = [await store.attach(name, Retention()) for store in stores]
    for store, log in zip(stores, logs, strict=True):
        await heard(store, log)
    return logs


async def heard(store: RedisStore, log: RedisLog) -> None:
    """Let a log hear its channels."""
    log.listen(_use)
    try:
        await store._mirrors.attach(log)
    finally:
        log.unlisten(_use)


def _use(_: Log) -> None:
    """Use a log, because it is listened to."""


async def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Wait for something that nothing tells."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def settled(*stores: RedisStore) -> None:
    """Wait until stores have done all that follows a new connection or reader, so that nothing is loaded for that."""
    await until(lambda: all(listening(store) and not stale(store) for store in stores))


def stale(store: RedisStore) -> bool:
    """True if a mirror of a store may have missed something, or has yet to hear its channels."""
    return bool(store._telling or store._mirrors._unheard) or any(log.stale for log in store._mirrors)


def listening(store: RedisStore) -> bool:
    """True if a store expects to hear what it publishes."""
    servers: Any = store._servers
    return servers is not None and bool(servers._listening)


def write(writer: Writer, *items: Any) -> None:
    for item in items:
        writer.write(*encode_event(item))


def data_of(entries: Entries) -> list[Any]:
    return [entry.data for entry in entries]


class Snapshot:
    """What a server has at some moment. `restore` brings it back, as a failover to a replica that was behind does."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._kept = {key: server.ask("DUMP", key) for key in server.ask("KEYS", "*{*")}

    def restore(self) -> None:
        if made := set(self._server.ask("KEYS", "*{*")) - self._kept.keys():
            self._server.ask("DEL", *made)
        for key, dump in self._kept.items():
            self._server.ask("RESTORE", key, 0, dump, "REPLACE")


async def take(tail: Tail, count: int) -> list[Any]:
    data: list[Any] = []
    async with asyncio.timeout(LIMIT):
        while len(data) < count:
            data += data_of(await anext(tail))
    return data


async def read_all(log: Log, count: int) -> list[Any]:
    with log.tail() as tail:
        return await take(tail, count)


class Traffic:
    """A process that appends numbers to a log, and readers in several processes that read it as it is now.

    `acknowledged` are the appends that succeeded, and `resets` the reasons why readers began anew.
    """

    def __init__(self, stores: Sequence[RedisStore], name: str) -> None:
        self.acknowledged: list[int] = []
        self.resets: list[str] = []
        self._stores = stores
        self._name = name
        self._last = False
        self._reads: list[list[list[int]]] = [[] for _ in stores]

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Let it flow during the block, and for some more appends. Then end the log, and check what readers have."""
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self._publish())
            for store, read in zip(self._stores, self._reads, strict=True):
                group.create_task(self._follow(store, read))
            await self.grow(50)
            yield
            await self.grow(50)
            self._last = True
            await publishing
            log = await self._stores[0].attach(self._name, Retention())
            await log.close()
        self._check(log)

    async def grow(self, count: int) -> None:
        """Wait until so many more appends have succeeded."""
        enough = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= enough, 30)

    async def _publish(self) -> None:
        number = 0
        while not self._last:
            number += 1
            with suppress(LogClosed):  # the log is another one, or has lost entries
                await (await self._stores[0].attach(self._name, Retention())).append(number)
                self.acknowledged.append(number)
            await asyncio.sleep(0.002)

    async def _follow(self, store: RedisStore, read: list[list[int]]) -> None:
        while True:
            log = await store.attach(self._name, Retention())
            read.append([])
            try:
                with log.tail() as tail:
                    async for entries in tail:
                        read[-1] += data_of(entries)
                    return
            except LogReset as reset:
                self.resets.append(reset.reason)

    def _check(self, log: Log) -> None:
        """Each reader has a run of the true log, or a reset. Nothing is there twice."""
        truth = self._reads[0][-1]
        assert len(truth) == log.top
        assert all(later > earlier for earlier, later in pairwise(truth))
        assert [read[-1] for read in self._reads] == [truth] * len(self._reads)
        if not self.resets:
            assert set(self.acknowledged) <= set(truth)
        assert set(self.resets) <= {"diverged"}
