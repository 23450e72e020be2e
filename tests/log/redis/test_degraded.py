"""What readers are told while Redis is out of reach, and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

import tailrace.log.redis.held as module
from tailrace import NDJSON, SSE, Log, OpenAIChunks, Retention, StreamResponse, StreamSettings, Text, Wire
from tailrace.client import Retry, tail
from tailrace.errors import StoreUnavailable
from tailrace.log.redis.scripts import Keys
from tailrace.log.redis.store import Pace
from tailrace.testing import Relay, relayed
from tests.asgi.apps import Served, small_engine
from tests.asgi.apps import Server as Request
from tests.raw import exchange, values
from tests.serving import serving

from .redis_server import RedisServer, redis_cluster, redis_server
from .stores import QUICK, SLOW, FlakyStore, listening, server_of, settled, shared, stores, take, until

LIMIT = 30.0
PATIENT = replace(QUICK, interval=1.0, patience=LIMIT)
"""The pace of a store that does not take a busy machine for an outage: it would be told of as one."""

NAME = "/log"


class Told:
    """What a listener of a log was told: whether it is degraded, and its top at that moment."""

    def __init__(self, log: Log, order: list[tuple[Told, bool]] | None = None) -> None:
        """Also add what each of several listeners was told to a common `order`."""
        self.all: list[tuple[bool, int]] = []
        self._order = [] if order is None else order
        log.listen(self._heed)

    @property
    def states(self) -> list[bool]:
        return [degraded for degraded, _ in self.all]

    def _heed(self, log: Log) -> None:
        if log.degraded is not (self.all[-1][0] if self.all else False):
            self.all.append((log.degraded, log.top))
            self._order.append((self, log.degraded))

    async def wait(self, *states: bool) -> None:
        await until(lambda: self.states == [*states], LIMIT)


class Reader(Request):
    """A request for a log by SSE."""

    async def wait(self, *expected: object) -> None:
        """Wait until the body has these values, and no others."""
        await until(lambda: values(self.body) == [*expected], LIMIT)


@asynccontextmanager
async def cut_off(relay: Relay) -> AsyncIterator[None]:
    """Lose the connections that go through a relay, and have no others until the block ends."""
    relay.refuse()
    relay.cut()
    try:
        yield
    finally:
        relay.refuse(False)


@asynccontextmanager
async def reading(store: FlakyStore, name: str = NAME, *headers: tuple[bytes, bytes]) -> AsyncIterator[Reader]:
    """A reader of a log by SSE."""
    engine = small_engine(url=store)
    response = StreamResponse(await engine.log(name), engine=engine)
    reader = Reader(headers=headers)
    answering = asyncio.create_task(response(reader.scope, reader.receive, reader.send))
    try:
        yield reader
    finally:
        reader.gone.set()
        await asyncio.wait_for(answering, LIMIT)


async def test_a_server_that_is_frozen_is_told_and_then_that_it_goes_on(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, pace=PATIENT) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        told = Told(there)
        async with reading(other) as reader:
            await settled(one, other)
            with own_redis.frozen():
                await told.wait(True)
                await reader.wait("degraded")
            await told.wait(True, False)
            await here.append(1)
            await reader.wait("degraded", "degraded", 1)
            assert b'data: {"degraded":true}' in reader.body
            assert b'data: {"degraded":false}' in reader.body


async def test_a_server_that_stands_still_for_less_than_the_deadline_of_a_command(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, 1, pace=replace(PATIENT, interval=0.4)) as (store,):
        told = Told(await store.attach(NAME, Retention()))
        await settled(store)
        before = {client["id"] for client in own_redis.clients()}
        own_redis.ask("CLIENT", "PAUSE", 1000, "ALL")
        await told.wait(True)
        await told.wait(True, False)
        assert {client["id"] for client in own_redis.clients()} == before


@pytest.mark.parametrize("kept", [True, False])
async def test_a_server_that_is_killed_is_told(kept: bool) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always") if kept else ()
    with redis_server(*options) as server:
        async with stores(server.url, 1, pace=PATIENT) as (store,):
            log = await store.attach(NAME, Retention())
            await log.append(1)
            told = Told(log)
            async with reading(store) as reader:
                await reader.wait(1)
                server.kill()
                await reader.wait(1, "degraded")
                server.start()
                end = "degraded" if kept else "reset"
                await reader.wait(1, "degraded", end)
                assert told.states == [True, False]


@asynccontextmanager
async def outage(store: FlakyStore, server: RedisServer, wire: Wire) -> AsyncIterator[Outage]:
    """A log with one entry on a real server, at whose Redis a test makes an outage."""
    engine = small_engine(url=store)
    log = await engine.log(NAME)
    await log.append("one")
    app = Served(engine, x=StreamResponse(log, StreamSettings(wires=[wire]), websocket=True))
    async with serving(app) as url:
        yield Outage(url, log, server)


@dataclass
class Outage:
    """`url` is the stream's server."""

    url: str
    log: Log
    server: RedisServer

    async def begin(self) -> None:
        self.server.kill()
        await until(lambda: self.log.degraded, LIMIT)

    async def end(self) -> None:
        self.server.start()
        await until(lambda: not self.log.degraded, LIMIT)
        await self.log.append("two")


@pytest.fixture
def lasting_redis() -> Iterator[RedisServer]:
    """A server that still has everything after it was killed."""
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


TOLD: dict[Wire, tuple[bytes, bytes]] = {
    SSE(): (b'event: degraded\ndata: {"degraded":true}\n\n', b'event: degraded\ndata: {"degraded":false}\n\n'),
    NDJSON(): (b'"event":"degraded","data":{"degraded":true}}\n', b'"event":"degraded","data":{"degraded":false}}\n'),
    OpenAIChunks("m"): (b": degraded true\n", b": degraded false\n"),
    Text(): (b"", b""),
}


@pytest.mark.parametrize(("wire", "told"), TOLD.items(), ids=["sse", "ndjson", "openai", "text"])
async def test_every_wire_tells_it_and_goes_on(
    lasting_redis: RedisServer, wire: Wire, told: tuple[bytes, bytes]
) -> None:
    async with stores(lasting_redis.url, 1, pace=PATIENT) as (store,), outage(store, lasting_redis, wire) as out:
        async with exchange(out.url, "/x", {"Accept": wire.media_type}) as got:
            body = await got.until(b"one")
            await out.begin()
            body += await got.until(told[0])
            await out.end()
            body += await got.until(told[1])
            body += await got.until(b"two")
        parts = [b"one", told[0], told[1], b"two"]
        places = [body.index(part) for part in parts]
        assert places == sorted(places)
        if not told[0]:
            assert body == b"onetwo"


async def test_sockets_and_clients_are_told(lasting_redis: RedisServer) -> None:
    async with stores(lasting_redis.url, 1, pace=PATIENT) as (store,), outage(store, lasting_redis, NDJSON()) as out:
        heard: list[bool] = []
        tails = [
            tail(f"{url}/x", retry=Retry(limit=0), on_degraded=heard.append)
            for url in (out.url, out.url.replace("http", "ws", 1))
        ]
        async with asyncio.timeout(LIMIT), tails[0] as one, tails[1] as other:
            for events in (one, other):
                assert (await anext(events)).data == "one"
            reading = [asyncio.create_task(anext(events)) for events in (one, other)]
            await out.begin()
            await until(lambda: one.degraded and other.degraded, LIMIT)
            await out.end()
            assert [event.data for event in await asyncio.gather(*reading)] == ["two", "two"]
            assert heard == [True, True, False, False]
            assert not one.degraded


async def test_connections_that_are_back_at_once_are_told_to_nobody(redis: RedisServer) -> None:
    async with stores(redis.url, 2, pace=replace(SLOW, patience=LIMIT)) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        told = Told(there)
        with there.tail() as tail:
            for number in range(3):
                await settled(one, other)
                redis.kill_clients()
                await here.append(number)
                assert await take(tail, 1) == [number]
        await until(lambda: server_of(other)._doubt is None, LIMIT)
        assert told.states == []


async def test_a_deaf_subscription_is_told_and_then_repaired(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PATIENT) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        told = Told(there)
        async with reading(other) as reader:
            await settled(one, other)
            other.deaf = lambda _: True
            await here.append(1)
            await told.wait(True)
            other.deaf = lambda _: False
            await told.wait(True, False)
            assert told.all[-1] == (False, 1)
            await until(lambda: sorted(map(str, values(reader.body))) == ["1", "degraded", "degraded"], LIMIT)


async def test_new_connections_that_are_as_deaf_are_no_news(redis: RedisServer) -> None:
    async with stores(redis.url, 1, pace=replace(QUICK, patience=LIMIT)) as (store,):
        log = await store.attach(NAME, Retention())
        told = Told(log)
        await settled(store)
        store.deaf = lambda _: True
        await told.wait(True)
        for _ in range(3):
            await until(lambda: not listening(store), LIMIT)
            await until(lambda: listening(store), LIMIT)
            assert told.states == [True]
            await log.refresh()
            assert log.degraded
        store.deaf = lambda _: False
        await told.wait(True, False)


async def test_a_log_that_is_not_degraded_any_more_has_what_it_missed(redis: RedisServer) -> None:
    async with (
        relayed(redis.url) as relay,
        stores(redis.url, 1) as (here,),
        stores(relay.url, 1, pace=PATIENT) as (there,),
    ):
        publisher, log = await here.attach(NAME, Retention()), await there.attach(NAME, Retention())
        order: list[tuple[Told, bool]] = []
        told, second = Told(log, order), Told(log, order)
        async with reading(there) as one, reading(there) as other:
            await settled(there)
            async with cut_off(relay):
                await told.wait(True)
                await publisher.append(*range(10))
            await told.wait(True, False)
            assert told.all == [(True, 0), (False, 10)]
            assert order == [(told, True), (second, True), (told, False), (second, False)]
            for reader in (one, other):
                await reader.wait("degraded", *range(10), "degraded")


async def test_a_process_serves_what_it_holds_and_refuses_the_rest(redis: RedisServer) -> None:
    async with relayed(redis.url) as relay, stores(relay.url, 1, pace=replace(QUICK, linger=60.0)) as (store,):
        [log] = await shared(store)
        await log.append(1, 2)
        await settled(store)
        async with cut_off(relay):
            await until(lambda: log.degraded, LIMIT)
            cursor = str(log.cursor(1)).encode()
            async with reading(store, NAME, (b"last-event-id", cursor)) as reader:
                await reader.wait(2, "degraded")
                for refused in (log.append(3), store.find("/other"), store.create("/new", Retention())):
                    with pytest.raises(StoreUnavailable):
                        await refused
                assert values(reader.body) == [2, "degraded"]


async def test_a_reader_of_history_that_is_not_held_waits_for_the_store(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 1)
    quick = replace(QUICK, patience=0.5)
    async with relayed(redis.url) as relay, stores(relay.url, 1, pace=quick) as (store,):
        log = await store.attach(NAME, Retention())
        for number in range(9):
            await log.append(number)
        await settled(store)
        start = b"last-event-id", str(log.cursor(0)).encode()
        # Somebody reads it already, so a request asks the store for the history alone.
        async with reading(store) as first:
            await first.wait(*range(9))
            await settled(store)  # what is still loading would have to be loaded by the next request, too
            async with cut_off(relay), reading(store, NAME, start) as early:
                assert not log.degraded
                await early.wait("degraded")
                async with reading(store, NAME, start) as late:
                    await late.wait("degraded")
                    relay.refuse(False)
                    for reader in (early, late):
                        await reader.wait("degraded", "degraded", *range(9))


async def test_history_that_a_store_in_reach_does_not_give_breaks_the_body_off(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 1)
    async with stores(redis.url, 1, pace=replace(SLOW, patience=0.1)) as (store,):
        log = await store.attach(NAME, Retention())
        for number in range(9):
            await log.append(number)
        with log.tail(log.top):
            reader, response = Reader(), StreamResponse(log, engine=small_engine(url=store))
            store.refuse = True
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(response(reader.scope, reader.receive, reader.send), LIMIT)
        assert not reader.body


async def test_a_store_that_is_closed_leaves_no_timer(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, 1, pace=Pace(interval=5.0)) as (store,):
        await store.attach(NAME, Retention())
        await settled(store)
        server = server_of(store)
        own_redis.kill()
        await until(lambda: server._doubt is not None, LIMIT)
        await store.aclose()
        assert server._doubt is None
        store._reach_changed()  # as a timer may that was due
        assert store._servers is None
        assert not server.away


async def test_only_the_logs_of_the_server_that_is_away_are_degraded() -> None:
    with redis_cluster(3) as cluster:
        async with stores(cluster.url, 1, pace=PATIENT) as (store,):
            names = [f"/log{number}" for number in range(12)]
            logs = [await store.attach(name, Retention()) for name in names]
            master = cluster.master_of(Keys.of("tailrace", names[0]).log)
            away = [cluster.master_of(Keys.of("tailrace", name).log) is master for name in names]
            told = [Told(log) for log in logs]
            with master.frozen():
                await until(lambda: [log.degraded for log in logs] == away, LIMIT)
            await until(lambda: not any(log.degraded for log in logs), LIMIT)
            for each, was_away in zip(told, away, strict=True):
                assert each.states == ([True, False] if was_away else [])


async def test_a_log_is_degraded_until_a_replica_has_taken_over() -> None:
    with redis_cluster(3, 3) as cluster:
        async with stores(cluster.url, 1, pace=PATIENT) as (store,):
            log = await store.attach(NAME, Retention())
            master = cluster.master_of(Keys.of("tailrace", NAME).log)
            await log.append(1)
            await until(lambda: master.ask("SET", "{/log}step", 1) and master.ask("WAIT", 1, 1000) == 1, LIMIT)
            told = Told(log)
            with log.tail(1) as tail:
                master.kill()
                await told.wait(True, False)
                assert list(await log.append(2)) == [2]
                assert await take(tail, 1) == [2]
            master.start()
