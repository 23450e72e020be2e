"""A cluster of real servers: the contract, slots that move under load, and a master that dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest
from redis.crc import key_slot

from tailrace.events import DONE
from tailrace.flow import Retention
from tailrace.log.redis.cluster import Cluster, seeds_of, slot_of
from tailrace.log.redis.scripts import Keys
from tailrace.log.redis.server import Server
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.log.store import LogStore
from tailrace.testing import LogContract, Relay, relayed

from .redis_server import ClusterServers, RedisServer, redis_cluster
from .stores import LIMIT, QUICK, attached, data_of, stores, take, until, write

PACE = replace(QUICK, linger=60.0, patience=20.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    with redis_cluster() as servers:
        yield servers


@pytest.mark.parametrize("key", [b"a", b"{a}b", b"x{a}", b"{}a", b"{a", b"a}{b}", b"{{a}}", b"\xff{\xe9}", b""])
def test_a_key_has_the_slot_that_a_server_gives_it(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


class RelayedCluster(Cluster):
    """A cluster that is reached through relays."""

    relays: dict[int, Relay]

    def _server(self, host: str, port: int) -> Server:
        relay = self.relays.get(port)
        return super()._server(host, port if relay is None else int(relay.url.rpartition(":")[2]))


class TestCluster(LogContract):
    slack = 2
    pace = Pace(interval=0.3)

    @pytest.fixture(autouse=True)
    def _use(self, cluster: ClusterServers) -> None:
        self.servers = cluster
        cluster.kill_clients()
        cluster.ask("FLUSHALL")

    @asynccontextmanager
    async def open_stores(self) -> AsyncIterator[Sequence[LogStore]]:
        self.relays: dict[LogStore, list[Relay]] = {}
        async with AsyncExitStack() as stack:
            for _ in range(2):
                relays = {
                    server.port: await stack.enter_async_context(relayed(server.url)) for server in self.servers.masters
                }
                kind = type("Relayed", (RelayedCluster,), {"relays": relays})
                store = RedisStore(self.servers.url, pace=self.pace)
                store._servers_of = partial(kind, seeds_of(self.servers.url))
                self.relays[store] = list(relays.values())
            yield list(self.relays)
            for opened in self.relays:
                await opened.aclose()

    async def disconnect(self, store: LogStore) -> None:
        for relay in self.relays[store]:
            relay.cut()

    @asynccontextmanager
    async def refuse(self) -> AsyncIterator[None]:
        self.servers.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            yield
        finally:
            self.servers.ask("CONFIG", "SET", "maxmemory", "0")

    @asynccontextmanager
    async def rollback(self) -> AsyncIterator[None]:
        kept = [
            (server, key, server.ask("DUMP", key)) for server in self.servers.masters for key in server.ask("KEYS", "*")
        ]
        yield
        self.servers.ask("FLUSHALL")
        for server, key, dump in kept:
            server.ask("RESTORE", key, 0, dump)
        self.servers.kill_clients()

    async def kill(self, store: LogStore) -> None:
        for relay in self.relays[store]:
            relay.refuse()
            relay.cut()


class TestClusterWithoutRounds(TestCluster):
    pace = Pace(interval=60)
    cannot: ClassVar = {"kill": "nobody notices a death without rounds"}
    kill = LogContract.kill


def beaten(store: RedisStore) -> bool:
    return store._beat._count > 3


@pytest.mark.parametrize("url", ["redis+cluster://a/1", "redis+cluster://", "redis+cluster://a?so=1"])
def test_a_wrong_url_is_told(url: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        RedisStore(url)


async def test_streams_are_on_all_servers(cluster: ClusterServers) -> None:
    async with stores(cluster.url, pace=PACE) as (one, other):
        for number in range(12):
            await (await one.attach(f"/log-{number}", Retention())).append(number)
        assert all(any(b"log-" in key for key in keys) for keys in cluster.ask("KEYS", "*"))
        assert await one.secret() == await other.secret()
        for store in (one, other):
            await until(partial(beaten, store))
        names = [f"tailrace-{store.process.decode()}" for store in (one, other)]
        for server in cluster.masters:
            there = [client["name"] for client in server.clients()]
            assert [there.count(name) for name in names] == [2, 2]


async def test_servers_may_want_tls_and_a_user() -> None:
    with redis_cluster(tls=True) as cluster:
        patterns = "~tailrace:*", "~{tailrace*", "&tailrace:*"
        kinds = "hash", "set", "stream", "string", "keyspace", "pubsub", "scripting", "connection"
        allowed = [*(f"+@{kind}" for kind in kinds), "-@dangerous", "+cluster|slots"]
        cluster.ask("ACL", "SETUSER", "app", "on", ">secret", *patterns, *allowed)
        async with stores(cluster.url.replace("://", "://app:secret@"), pace=PACE) as (one, other):
            for number in range(6):
                writer = await one.lease(await one.create(f"/log-{number}", Retention()))
                log = await attached(other, f"/log-{number}")
                with log.tail() as tail:
                    write(writer, number)
                    assert await take(tail, 1) == [number]
            await until(partial(beaten, one))
            assert {client["user"] for client in cluster.servers[0].clients() if "tailrace" in client["name"]} == {
                "app"
            }


def move(cluster: ClusterServers, slot: int, source: RedisServer, to: RedisServer) -> Iterator[str]:
    """Move a slot with its keys, as redis-cli does, and pause after each step."""
    to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(to))
    yield "begun"
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
        source.ask("MIGRATE", "127.0.0.1", to.port, keys[0], 0, 5000)
        yield "moved a key"
    for server in (to, source, *cluster.masters):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(to))
    yield "done"


async def test_a_slot_that_moves_while_writers_write_loses_nothing() -> None:
    with redis_cluster() as cluster:
        async with asyncio.timeout(3 * LIMIT), stores(cluster.url, pace=PACE) as (one, other):
            name = "/stream"
            writer = await one.lease(await one.create(name, Retention()))
            log = await attached(other, name)
            read: list[Any] = []
            number = 0
            running = True

            async def produce() -> None:
                nonlocal number
                while running:
                    number += 1
                    write(writer, number)
                    await asyncio.sleep(0.002)

            async def follow() -> None:
                with log.tail() as tail:
                    async for entries in tail:
                        read.extend(data_of(entries))

            async with asyncio.TaskGroup() as group:
                producing = group.create_task(produce())
                group.create_task(follow())
                key = Keys.of("tailrace", name).log
                source = cluster.master_of(key)
                to = next(server for server in cluster.masters if server is not source)
                for begin, end in ((source, to), (to, source)):
                    await until(lambda: len(read) > 20)
                    for _ in move(cluster, slot_of(key.encode()), begin, end):
                        await asyncio.sleep(0.05)
                    reached = number
                    await until(partial(lambda reached: read and read[-1] >= reached, reached))
                running = False
                await producing
                assert await writer.end(DONE, patience=LIMIT) == DONE
            assert read == list(range(1, number + 1))


async def test_a_replica_takes_the_place_of_a_master_that_is_killed() -> None:
    with redis_cluster(3, 3) as cluster:
        async with asyncio.timeout(4 * LIMIT), stores(cluster.url, pace=PACE) as (one, other):
            key = Keys.of("tailrace", "/log").log
            master = cluster.master_of(key)
            replica = cluster.replicas[cluster.masters.index(master)]
            here, there = await one.attach("/log", Retention()), await other.attach("/log", Retention())
            with there.tail() as tail:
                assert list(await here.append(1)) == [1]
                assert await take(tail, 1) == [1]
                await until(lambda: master.ask("SET", "{/log}step", 1) and master.ask("WAIT", 1, 1000) == 1)
                assert replica.ask("ROLE")[0] == b"slave"
                master.kill()
                assert list(await here.append(2)) == [2]
                assert await take(tail, 1) == [2]
            master.start()
