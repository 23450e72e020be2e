"""Processes that publish to a room, write a stream and read both, while a test breaks what is below them.

Each process is an engine with a store of its own. Those in the test's own event loop are as far from each other as any:
they share nothing but the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from tailrace import Engine, Producer, Retention
from tailrace.cursor import Cursor
from tailrace.errors import LogClosed, LogReset, StoreUnavailable
from tailrace.log.base import Log
from tailrace.log.redis.store import Pace, RedisStore
from tests.log.redis.redis_server import RedisServer
from tests.system.servers import Running

from .clock import Clock, listening
from .oracle import LIMIT, Client, Item, Published, Stored, judge
from .workers import HttpClient

ROOM = "/rooms/main"
STREAM = "/stream"

PAUSE = 0.01
"""Seconds between two items of a publisher."""

STAY = 50
"""How many items a client that wanders reads in one process, before it goes on in the next one."""

Rest = Callable[["StoreClient"], Awaitable[None]]
Find = Callable[[], Awaitable[Log | None]]


class StoreClient(Client):
    """A client in the processes of a scene. If there are several, it goes from one to the next with its cursor."""

    def __init__(self, finds: Sequence[Find], *about: Any, cursor: str | None = None, rest: Rest | None = None) -> None:
        """`rest` is called after each batch."""
        super().__init__(*about)
        self.cursor = cursor
        self._finds = finds
        self._at = 0
        self._rest = rest

    async def follow(self) -> None:
        while not self.ended:
            try:
                log = await self._finds[self._at % len(self._finds)]()
                if log is None:
                    self.finish("gone")
                else:
                    await self._read(log)
            except LogReset as reset:
                self.cursor = reset.resume
                self.reset(reset.reason)
            except StoreUnavailable:
                self._told("unavailable")

    async def _read(self, log: Log) -> None:
        after = None if self.cursor is None else await log.resolve(Cursor.parse(self.cursor))
        left = STAY
        with self._heeding(log), log.tail(after) as tail:
            async for entries in tail:
                self.take(log.epoch, zip(entries.offsets, (entry.data for entry in entries), strict=True))
                self.cursor = str(tail.cursor())
                if self._rest is not None:
                    await self._rest(self)
                left -= len(entries)
                if left <= 0 and len(self._finds) > 1:
                    self._at += 1
                    return
        assert log.outcome is not None
        self.finish(log.outcome.code or log.outcome.state)

    @contextmanager
    def _heeding(self, log: Log) -> Iterator[None]:
        log.listen(self._heed)
        try:
            self._heed(log)
            yield
        finally:
            log.unlisten(self._heed)

    def _heed(self, log: Log) -> None:
        self.degrade(log.degraded)


class Scene:
    """Two publishers of a room, the writer of a stream, and clients of both in each process.

    The room's second publisher gives each append a key, and repeats it until it has an answer. The stream is written in
    the first process, in which the room's first publisher is as well.
    """

    def __init__(self, engines: Sequence[Engine], clock: Clock, *, retention: Retention, padding: str) -> None:
        self.engines = list(engines)
        self.clock = clock
        self.room, self.stream = Published(ROOM), Published(STREAM, sole=True)
        self.clients: list[Client] = []
        self._rooms = [self.room]
        self.refused: list[str] = []  # what publishers were told instead of an offset
        self._retention = retention
        self._padding = padding
        self._finishing = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._producer: Producer | None = None
        self._publishing: list[asyncio.Task[None]] = []

    async def begin(self, group: asyncio.TaskGroup, *, quiet: bool) -> None:
        """Start everything, and return once every client has something."""
        self._group = group
        if quiet:
            self._attend(self.room, self.finds)
            await self.publish()
        else:
            await self._begin_to_write()
            self._attend(self.room, self.finds)
            self._attend(self.stream, [partial(engine.find, STREAM) for engine in self.engines])
        await self.until(lambda: all(client.count for client in self.clients), "items for every client")

    @property
    def stores(self) -> list[RedisStore]:
        return [engine.store for engine in self.engines if isinstance(engine.store, RedisStore)]

    @property
    def finds(self) -> list[Find]:
        """The ways to the room in each process."""
        return [self.room_of(engine) for engine in self.engines]

    def room_of(self, engine: Engine) -> Find:
        """The way to the room in a process."""
        return partial(engine.log, ROOM, retention=self._retention)

    def client(self, finds: Sequence[Find], published: Published, **options: Any) -> StoreClient:
        """One more client, which reads from now on."""
        client = StoreClient(finds, published, self.clock.changes, self.clock.notice, **options)
        self._join(client)
        return client

    def visitor(self, served: Sequence[Running], path: str, published: Published) -> HttpClient:
        """One more client, which reads by HTTP."""
        client = HttpClient(served, path, published, self.clock.changes, self.clock.notice)
        self._join(client)
        return client

    def _join(self, client: Client) -> None:
        self.clients.append(client)
        self._group.create_task(client.follow())

    def another(self, url: str) -> Engine:
        """One more process, which knows nothing yet."""
        self.engines.append(engine := Engine(RedisStore(url)))
        return engine

    def open_room(self, name: str) -> Published:
        """One more room, which is closed when the scene finishes."""
        self._rooms.append(room := Published(name))
        return room

    async def publish(self, room: Published | None = None) -> None:
        """Publish one item in a room, by default in the main one."""
        room = room or self.room
        room.begin(item := Item("one", len(room.begun) + 1))
        await self._append(self.engines[0], room, item, None)

    def _attend(self, published: Published, finds: Sequence[Find]) -> None:
        for find in finds:
            self.client([find], published)
        self.client(finds, published)

    async def _begin_to_write(self) -> None:
        log = await self.engines[0].store.create(STREAM, self._retention)
        self._producer = await self.engines[0].produce(log, self._numbers(log.epoch))
        for index, engine in enumerate(self.engines[:2]):
            self._publishing.append(self._group.create_task(self._publish(engine, keyed=index == 1)))

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await self.clock.changes.until(condition, what)

    async def repaired(self) -> None:
        """Wait until each client has something that was published after the fault, or has been told of an end."""
        await self.news(self.clock.over)
        self.clock.repaired()

    async def news(self, since: float | None = None) -> None:
        """Wait until each client has something that was published after a moment, by default now, or has an end."""
        after = time.monotonic() if since is None else since
        await self.until(
            lambda: all((client.freshest > after and not client.degraded) or client.ended for client in self.clients),
            "all clients to have what is new",
        )

    async def finish(self) -> None:
        """Let the publishers end, and each client read to the end."""
        self._finishing.set()
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*self._publishing)
            for room in self._rooms:
                await (await self.engines[0].log(room.name)).close()
            if self._producer is not None:
                await self._producer.wait()
        await self.until(lambda: all(client.ended for client in self.clients), "all clients to have the end")

    async def check_new_logs(self, server: RedisServer) -> None:
        """Check, after Redis has forgotten both logs, that each reader was reset and that the room goes on."""
        await self.repaired()
        await self.finish()
        self.judge(server, may_lose=True)
        for resets in (*self.resets_of(self.room), *self.resets_of(self.stream)):
            assert resets == {"epoch_changed"}
        assert self.ends == {"done", "gone"}

    def judge(self, server: RedisServer, *, may_lose: bool = False) -> None:
        """Ask the oracle."""
        for published in {client.published for client in self.clients}:
            clients = [client for client in self.clients if client.published is published]
            judge(published, clients, Stored.of(server, published.name), may_lose=may_lose)

    @property
    def resets(self) -> set[str]:
        """The reasons of all resets."""
        return {reason for client in self.clients for reason in client.resets}

    def resets_of(self, published: Published) -> list[set[str]]:
        """The reasons of the resets of each client of a log."""
        return [set(client.resets) for client in self.clients if client.published is published]

    @property
    def ends(self) -> set[str]:
        """The ends that clients were told of."""
        return {client.ended for client in self.clients}

    async def _numbers(self, epoch: str) -> AsyncIterator[Any]:
        number = 0
        while not self._finishing.is_set():
            self.stream.begin(item := Item("writer", number := number + 1))
            yield [*item, self._padding]
            await asyncio.sleep(PAUSE)
        for written in self.stream.begun:
            self.stream.store(written, epoch, written.number)

    async def _publish(self, engine: Engine, *, keyed: bool) -> None:
        publisher = "keyed" if keyed else "plain"
        number = 0
        while not self._finishing.is_set():
            self.room.begin(item := Item(publisher, number := number + 1))
            await self._append(engine, self.room, item, f"key {number}" if keyed else None)
            await asyncio.sleep(PAUSE)

    async def _append(self, engine: Engine, room: Published, item: Item, key: str | None) -> None:
        """Append an item. With a key, repeat it until there is an answer."""
        while True:
            try:
                log = await engine.log(room.name, retention=self._retention)
                [offset] = await log.append([*item, self._padding], key=key)
            except (LogClosed, StoreUnavailable) as error:
                room.unsure.add(item)
                self.refused.append(type(error).__name__)
                self.clock.notice(f"publisher {type(error).__name__}")
                if key is None:
                    return
            else:
                room.store(item, log.epoch, offset)
                self.clock.changes.tell()
                return


KEPT, PACE = Retention(), Pace()


@asynccontextmanager
async def scene(
    clock: Clock,
    *urls: str,
    quiet: bool = False,
    retention: Retention = KEPT,
    padding: str = "",
    pace: Pace = PACE,
) -> AsyncIterator[Scene]:
    """Run a scene with a process for each URL. If all went well, end the block with `finish`.

    In a `quiet` one, there is nothing but the room, and what the test publishes there itself.
    """
    engines = [Engine(RedisStore(url, pace=pace)) for url in urls]
    played = Scene(engines, clock, retention=retention, padding=padding)
    with listening(clock):
        try:
            async with asyncio.TaskGroup() as group:
                await played.begin(group, quiet=quiet)
                yield played
        finally:
            for engine in played.engines:
                await engine.aclose()
