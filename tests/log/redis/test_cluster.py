"""A cluster of real servers: the contract, slots that move under load, and a master that dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, ClassVar

import pytest
from redis.crc import key_slot

from tailrace.errors import StoreUnavailable
from tailrace.events import DONE
from tailrace.flow import Retention
from tailrace.log.redis.address import Address
from tailrace.log.redis.beat import DEAD_AFTER, PRODUCER_LOST
from tailrace.log.redis.cluster import Cluster, seeds_of, slot_of
from tailrace.log.redis.connection import NotSent, Refused
from tailrace.log.redis.link import Link
from tailrace.log.redis.scripts import Keys
from tailrace.log.redis.server import Server
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.log.store import LogStore
from tailrace.testing import LogContract, Relay, relayed

from .redis_server import ClusterServers, RedisServer, redis_cluster, redis_server, until_true
from .stores import LIMIT, QUICK, SLOW, Traffic, attached, data_of, read_all, stores, take, until, write

PACE = replace(QUICK, linger=60.0, patience=20.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    with redis_cluster() as servers:
        yield servers


@pytest.fixture
def empty_cluster(cluster: ClusterServers) -> ClusterServers:
    """The cluster of all tests, without clients and data."""
    cluster.kill_clients()
    cluster.ask("FLUSHALL")
    return cluster


@pytest.mark.parametrize("key", [b"a", b"{a}b", b"x{a}", b"{}a", b"{a", b"a}{b}", b"{{a}}", b"\xff{\xe9}", b""])
def test_a_key_has_the_slot_that_a_server_gives_it(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


class RelayedCluster(Cluster):
    """A cluster that is reached through relays."""

    relays: dict[int, Relay]

    def _address(self, host: str, port: int, asked: Address) -> Address | None:
        relay = self.relays.get(port)
        return super()._address(host, port if relay is None else int(relay.url.rpartition(":")[2]), asked)


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
                stack.push_async_callback(store.aclose)
                store._servers_of = partial(kind, seeds_of(self.servers.url))
                self.relays[store] = list(relays.values())
            yield list(self.relays)

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


async def test_streams_are_on_all_servers(empty_cluster: ClusterServers) -> None:
    async with stores(empty_cluster.url, pace=PACE) as (one, other):
        for number in range(12):
            await (await one.attach(f"/log-{number}", Retention())).append(number)
        assert all(any(b"log-" in key for key in keys) for keys in empty_cluster.ask("KEYS", "*"))
        assert await one.secret() == await other.secret()
        for store in (one, other):
            await until(partial(beaten, store))
        names = [f"tailrace-{store.process.decode()}" for store in (one, other)]
        for server in empty_cluster.masters:
            there = [client["name"] for client in server.clients()]
            assert [there.count(name) for name in names] == [2, 2]


async def test_servers_may_want_tls_and_a_user() -> None:
    with redis_cluster(tls=True) as cluster:
        patterns = "~tailrace:*", "~{tailrace*", "&tailrace:*"
        kinds = "hash", "set", "sortedset", "stream", "string", "keyspace", "pubsub", "scripting", "connection"
        allowed = [*(f"+@{kind}" for kind in kinds), "+time", "-@dangerous", "+cluster|slots"]
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


# Slots that move


def move(cluster: ClusterServers, slot: int, source: RedisServer, to: RedisServer) -> Iterator[str]:
    """Move a slot with its keys, as redis-cli does, and pause after each step."""
    # Otherwise two servers may take the slot in the same epoch, and each sends to the other one for good.
    until_true(cluster.agrees, "servers that know of the last move")
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


async def test_a_log_of_which_half_has_moved_is_waited_for(empty_cluster: ClusterServers) -> None:
    """The server answers TRYAGAIN until both keys are at the same one. Then the append is made, once."""
    async with asyncio.timeout(2 * LIMIT), stores(empty_cluster.url, 1, pace=replace(PACE, patience=0.5)) as (store,):
        log = await store.attach("/half", Retention())
        await log.append(1)
        source = empty_cluster.master_of(log.keys.log)
        to = next(server for server in empty_cluster.masters if server is not source)
        steps = move(empty_cluster, slot_of(log.keys.log.encode()), source, to)
        assert [next(steps), next(steps)] == ["begun", "moved a key"]
        [left] = source.ask("CLUSTER", "GETKEYSINSLOT", slot_of(log.keys.log.encode()), 2)
        assert store._servers is not None
        for key in log.keys.log, log.keys.meta:  # by ASK, one of them
            assert await store._servers.call("EXISTS", key) == 1
        assert left.decode() in (log.keys.log, log.keys.meta)
        with pytest.raises(StoreUnavailable, match="TRYAGAIN"):
            await log.append(2, key="second")
        store.patience = LIMIT
        refused = len(store.calls)
        appending = asyncio.create_task(log.append(2, key="second"))
        await until(lambda: len(store.calls) > refused + 2)
        assert list(steps)[-1] == "done"
        assert list(await appending) == list(await log.append(2, key="second")) == [2]
        assert await read_all(log, 2) == [1, 2]
        for _ in move(empty_cluster, slot_of(log.keys.log.encode()), to, source):
            pass


async def test_a_subscription_follows_a_slot_that_has_moved(empty_cluster: ClusterServers) -> None:
    """The process does not know it yet, and subscribes before it sends any command about the slot."""
    async with asyncio.timeout(LIMIT), stores(empty_cluster.url, pace=replace(SLOW, patience=LIMIT)) as (one, other):
        await asyncio.gather(one.attach("/any", Retention()), other.attach("/any", Retention()))
        key = Keys.of("tailrace", "/new").log
        slot, source = slot_of(key.encode()), empty_cluster.master_of(key)
        to = next(server for server in empty_cluster.masters if server is not source)
        for _ in move(empty_cluster, slot, source, to):
            pass
        here = await one.attach("/new", Retention())
        there = await attached(other, "/new")
        with there.tail() as tail:
            await here.append(1)
            assert await take(tail, 1) == [1]
            for _ in move(empty_cluster, slot, to, source):
                pass
            await here.append(2)
            assert await take(tail, 1) == [2]


async def test_servers_that_send_to_each_other_are_given_up(empty_cluster: ClusterServers) -> None:
    async with asyncio.timeout(LIMIT), stores(empty_cluster.url, 1, pace=replace(SLOW, patience=0.1)) as (store,):
        log = await store.attach("/lost", Retention())
        slot, owner = slot_of(log.keys.log.encode()), empty_cluster.master_of(log.keys.log)
        source, other = owner, next(server for server in empty_cluster.masters if server is not owner)
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 2)
        source.ask("DEL", *keys)  # a server gives away only slots without keys
        for server, said in ((other, source), (source, other)):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", empty_cluster.id_of(said))
        try:
            with pytest.raises(StoreUnavailable, match=f"a server that has slot {slot}, but 5 of them sent elsewhere"):
                await log.append(1)
        finally:
            for server in (source, other):
                server.ask("CLUSTER", "SETSLOT", slot, "NODE", empty_cluster.id_of(source))


# Servers that are away


async def test_without_a_server_that_answers_calls_fail_in_time() -> None:
    url = "redis+cluster://127.0.0.1:1,127.0.0.1:2"
    async with asyncio.timeout(LIMIT), stores(url, 1, pace=replace(PACE, patience=0.1)) as (store,):
        told = (
            r"expected the cluster of 127.0.0.1:1, 127.0.0.1:2 to have a server for slot \d+, but expected 127.0.0.1:2"
        )
        with pytest.raises(StoreUnavailable, match=told):
            await store.find("/log")


async def test_a_wrong_kind_of_url_is_told(empty_cluster: ClusterServers, redis: RedisServer) -> None:
    """Each error names the kind of URL that leads to the server."""
    slot = slot_of(Keys.of("tailrace", "/log").log.encode())
    source = empty_cluster.master_of(Keys.of("tailrace", "/log").log)
    node = next(server for server in empty_cluster.masters if server is not source)
    place = redis.url.removeprefix("redis://")
    with redis_server("--sentinel") as sentinel:
        await _told(sentinel.url, r"to hold data, but it is a Sentinel, whose URL begins with redis\+sentinel://$")
    for url, told in (
        (node.url, rf"expected one server, but it is in a cluster, .* redis\+cluster://: MOVED {slot} "),
        (f"redis+cluster://{place}", "it is one server, whose URL begins with redis://: ERR "),
        (f"redis+sentinel://{place}/it", f"{place} is an ordinary server, whose URL begins with redis://: ERR "),
    ):
        await _told(url, told)


async def _told(url: str, told: str) -> None:
    async with asyncio.timeout(LIMIT), stores(url, 1, pace=replace(SLOW, patience=0.1)) as (store,):
        with pytest.raises(StoreUnavailable, match=told):
            await store.find("/log")


async def test_a_cluster_that_lacks_slots_is_waited_for() -> None:
    """All servers answer CLUSTERDOWN while nobody has one of the slots."""
    with redis_cluster() as cluster:
        async with asyncio.timeout(3 * LIMIT), stores(cluster.url, pace=PACE) as (one, other):
            here, there = [await store.attach("/log", Retention()) for store in (one, other)]
            slot = slot_of(here.keys.log.encode())
            lacking = (slot + 1) % 16384
            owner = cluster.masters[next(i for i in range(3) if lacking < 16384 * (i + 1) // 3)]
            with there.tail() as tail:
                for server in sorted(cluster.masters, key=lambda server: server is not owner):  # or it claims it again
                    server.ask("CLUSTER", "DELSLOTS", lacking)
                await until(lambda: all(map(cluster.is_down, cluster.masters)))
                one.patience = 0.3
                with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
                    await here.append(1, key="first")
                with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
                    await one._beat.use(here.name)
                one.patience = LIMIT
                appending = asyncio.create_task(here.append(1, key="first"))
                refused = len(one.calls)
                await until(lambda: len(one.calls) > refused + 2)
                owner.ask("CLUSTER", "ADDSLOTS", lacking)
                assert list(await appending) == [1]
                assert await take(tail, 1) == [1]


async def test_a_server_that_is_away_hinders_no_other_one() -> None:
    """Logs on other servers are read and written, what they lost is found, and their dead are buried."""
    with redis_cluster() as cluster:
        cluster.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        async with asyncio.timeout(3 * LIMIT), stores(cluster.url, 3, pace=PACE) as (one, other, dead):
            counting = cluster.master_of("{tailrace}")  # has the counters of the beat
            away = next(server for server in cluster.masters if server is not counting)
            names = [f"/log-{number}" for number in range(12)]
            for name in names:
                await one.attach(name, Retention())
            logs = [await attached(other, name) for name in names]
            tails = [log.tail() for log in logs]
            with ExitStack() as stack:
                for tail in tails:
                    stack.enter_context(tail)
                near = [log for log in logs if cluster.master_of(log.keys.log) is not away]
                far = [log for log in logs if log not in near]
                assert near
                assert far
                leased = await dead.lease(await dead.create(name_at(cluster, counting), Retention()))
                watched = await attached(other, leased.log.name)
                for store in (one, other, dead):
                    await until(partial(beaten, store))
                with away.frozen():
                    await until(lambda: not all(server.connected for server in servers_of(other)))
                    other.deaf = lambda channel: channel == near[0].channel
                    await (await one.attach(near[0].name, Retention())).append("deaf")
                    other.deaf = lambda _: False
                    assert await take(tails[logs.index(near[0])], 1) == ["deaf"]
                    dead._beating.cancel()
                    await until(lambda: watched.outcome == PRODUCER_LOST, 3 * LIMIT)
                    assert len(other._tasks) < 20  # however long it takes
                for log in far:
                    await (await one.attach(log.name, Retention())).append("back")
                    assert await take(tails[logs.index(log)], 1) == ["back"]


async def test_a_server_that_takes_the_counters_with_it_hinders_no_other_one() -> None:
    """Nobody is buried then. Still, what was lost elsewhere is found, and a deaf connection is replaced."""
    with redis_cluster() as cluster:
        cluster.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        async with asyncio.timeout(3 * LIMIT), stores(cluster.url, 3, pace=PACE) as (one, other, dead):
            away = cluster.master_of("{tailrace}")
            near = next(server for server in cluster.masters if server is not away)
            here = await one.attach(name_at(cluster, near), Retention())
            leased = await dead.lease(await dead.create(name_at(cluster, near, "dead"), Retention()))
            there = await attached(other, here.name)
            watched = await attached(other, leased.log.name)
            with there.tail() as tail:
                for store in (one, other, dead):
                    await until(partial(beaten, store))
                with away.frozen():
                    await until(lambda: not cluster_of(other).reaches(b"{tailrace}"))
                    dead._beating.cancel()
                    async with other.missing("+"):
                        await here.append("lost")
                    assert await take(tail, 1) == ["lost"]
                    server = cluster_of(other)._slots[slot_of(there.channel)]
                    assert server is not None
                    link, before = server.news, server.news.connection
                    other.deaf = lambda _: True
                    await until(partial(lambda link, before: link.connection not in (before, None), link, before))
                    other.deaf = lambda _: False
                    await here.append("heard")
                    assert await take(tail, 1) == ["heard"]
                    assert watched.outcome is None
                await until(lambda: watched.outcome == PRODUCER_LOST)


async def test_a_process_that_does_not_hear_the_server_of_the_counters_buries_nobody(
    empty_cluster: ClusterServers,
) -> None:
    """The connection may have led to a server on which nobody else counts. So it counts anew on the next one."""
    counting = empty_cluster.master_of("{tailrace}")
    async with asyncio.timeout(LIMIT), stores(empty_cluster.url, pace=PACE) as (dead, deaf):
        for store in (deaf, dead):
            await store.attach("/log", Retention())
            await until(partial(beaten, store))
            store._beating.cancel()
            await asyncio.wait([store._beating])
        for _ in range(DEAD_AFTER - 1):
            await deaf._beat._count_round()
            await until(lambda: all(server._listening and server._sent == server._heard for server in servers_of(deaf)))
        deaf.deaf = lambda _: True
        await deaf._beat._count_round()
        await deaf._beat._count_round()
        deaf.deaf = lambda _: False
        assert dead.process in counting.ask("HGETALL", "{tailrace}:processes")


def cluster_of(store: RedisStore) -> Cluster:
    assert isinstance(store._servers, Cluster)
    return store._servers


def servers_of(store: RedisStore) -> list[Server]:
    return list(cluster_of(store)._servers.values())


def name_at(cluster: ClusterServers, server: RedisServer, stem: str = "name") -> str:
    """A name of a log that is on a server."""
    names = (f"/{stem}-{number}" for number in count())
    return next(name for name in names if cluster.master_of(Keys.of("tailrace", name).log) is server)


async def test_a_frozen_master_is_replaced_and_loses_nothing_silently() -> None:
    with redis_cluster(3, 3) as cluster:
        master = cluster.master_of(Keys.of("tailrace", "/log").log)
        replica = cluster.replicas[cluster.masters.index(master)]
        await until(lambda: cluster.in_step(master))
        async with (
            asyncio.timeout(6 * LIMIT),
            stores(cluster.url, pace=PACE) as two,
            AsyncExitStack() as stack,
            Traffic(two, "/log").flowing(),
        ):
            stack.enter_context(master.frozen())
            await until(lambda: replica.ask("ROLE")[0] == b"master", 3 * LIMIT)


async def test_connections_that_are_dropped_are_made_again(empty_cluster: ClusterServers) -> None:
    async with asyncio.timeout(LIMIT), stores(empty_cluster.url, pace=replace(SLOW, patience=LIMIT)) as (one, other):
        here, there = [await store.attach("/drop", Retention()) for store in (one, other)]
        with there.tail() as tail:
            for number in range(3):
                assert other._servers is not None
                other._servers.drop("the test wants it")
                await here.append(number)
                assert await take(tail, 1) == [number]


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
                await until(lambda: cluster.in_step(master))
                assert replica.ask("ROLE")[0] == b"slave"
                master.kill()
                assert list(await here.append(2)) == [2]
                assert await take(tail, 1) == [2]
            master.start()


async def test_a_process_finds_the_new_master_if_it_did_nothing_when_the_old_one_was_killed() -> None:
    """None of its commands fails, and the server that is gone has its counter, so that its rounds cannot begin."""
    pace = replace(PACE, interval=1.0)
    with redis_cluster(3, 3) as cluster:
        async with asyncio.timeout(4 * LIMIT), stores(cluster.url, pace=pace) as (one, other):
            master = cluster.master_of("{tailrace}")
            name = name_at(cluster, master)
            here, there = await one.attach(name, Retention()), await attached(other, name)
            with there.tail() as tail:
                assert list(await here.append(1)) == [1]
                assert await take(tail, 1) == [1]
                await until(lambda: cluster.in_step(master))
                await until(lambda: rests(other))
                master.kill()
                assert list(await here.append(2)) == [2]
                assert await take(tail, 1) == [2]
            master.start()


def rests(store: RedisStore) -> bool:
    """Tell whether a store has nothing under way but the pause between two rounds."""
    return store._beat._count > 0 and store._tasks == {store._beating} and not cluster_of(store)._tasks


# What nobody waits for


async def test_an_error_that_nobody_expects_is_logged(
    empty_cluster: ClusterServers, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are not: they go to whoever has made the call, if anybody waits for it."""
    async with asyncio.timeout(LIMIT), stores(empty_cluster.url, 1, pace=SLOW) as (store,):
        log = await store.attach("/log", Retention())
        servers = cluster_of(store)
        with pytest.raises(Refused):
            await servers.call("WRONG", log.keys.log)
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
        servers._on_news = lambda: [][1]
        servers.moved(log.channel)
        await until(lambda: "ERROR" in [record.levelname for record in caplog.records])
        [told] = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "Cluster._look" in told.getMessage()
        assert told.exc_info is not None
        assert told.exc_info[0] is IndexError


# Maps that do not say where servers are


async def test_servers_whose_hostnames_nobody_knows_are_not_used(empty_cluster: ClusterServers) -> None:
    """The cluster calls them all `?`."""
    async with asyncio.timeout(LIMIT), stores(empty_cluster.url, 1, pace=replace(SLOW, patience=0.1)) as (store,):
        empty_cluster.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
        try:
            with pytest.raises(StoreUnavailable, match=r"slot \d+, but the map of slots names none with an address"):
                await store.find("/log")
        finally:
            empty_cluster.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")
        assert servers_of(store) == []
        await store.attach("/log", Retention())
        assert len(servers_of(store)) == 3


async def test_a_server_that_has_left_its_cluster_is_not_believed(empty_cluster: ClusterServers) -> None:
    with redis_server("--cluster-enabled", "yes") as alone:
        assert ports_of(alone) == set()
        url = empty_cluster.url.replace("://", f"://127.0.0.1:{alone.port},")
        async with asyncio.timeout(LIMIT), stores(url, 1, pace=replace(SLOW, patience=1.0)) as (store,):
            await store.attach("/log", Retention())
            assert len(servers_of(store)) == 3


async def test_a_server_that_has_forgotten_others_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its map lacks their slots. The next one is asked, even if it is asked first."""
    with redis_cluster() as cluster:
        alone, *others = cluster.masters

        def sort(links: list[Link]) -> None:
            links.sort(key=lambda link: str(link.address).endswith(f":{alone.port}"), reverse=True)

        monkeypatch.setattr(random, "shuffle", sort)
        async with asyncio.timeout(LIMIT), stores(cluster.url, 1, pace=replace(SLOW, patience=1.0)) as (store,):
            logs = [await store.attach(name_at(cluster, server), Retention()) for server in cluster.masters]
            before = servers_of(store)
            for server in others:
                alone.ask("CLUSTER", "FORGET", cluster.id_of(server))
            assert ports_of(alone) == {alone.port}
            cluster_of(store).moved(logs[0].channel)
            await until(lambda: not cluster_of(store)._tasks)
            for log in logs[1:]:
                assert list(await log.append(1)) == [1]
            assert servers_of(store) == before


async def test_servers_that_do_not_say_their_host_are_at_the_one_that_was_asked(empty_cluster: ClusterServers) -> None:
    empty_cluster.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        url = empty_cluster.url.replace("://", "://127.0.0.2:1,")
        async with asyncio.timeout(LIMIT), stores(url, 1, pace=replace(SLOW, patience=1.0)) as (store,):
            log = await store.attach("/log", Retention())
            servers, slot = cluster_of(store), slot_of(log.channel)
            owner = servers._slots[slot]
            servers._slots[slot] = next(server for server in servers_of(store) if server is not owner)
            assert await servers.call("EXISTS", log.keys.log) == 0
            assert servers._slots[slot] is owner
    finally:
        empty_cluster.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_a_server_without_an_address_is_waited_for() -> None:
    """While it was down, another one came to its place. So the cluster does not know where it is."""
    with redis_cluster() as cluster:
        cluster.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        lost, *others = cluster.masters
        async with asyncio.timeout(3 * LIMIT), stores(cluster.url, 1, pace=PACE) as (store,):
            log, near = [await store.attach(name_at(cluster, server), Retention()) for server in (lost, others[0])]
            slot, servers = slot_of(log.channel), cluster_of(store)
            server = servers._slots[slot_of(near.channel)]
            lost.kill()
            with redis_server("--cluster-enabled", "yes", port=lost.port) as stranger:
                await until(lambda: all(lost.port not in ports_of(server) for server in others))
                assert ports_of(stranger) == set()
                await until(lambda: servers._slots[slot] is None)
                store.patience = 0.3
                told = f"to have a server for slot {slot}, but the map of slots names none with an address"
                with pytest.raises(StoreUnavailable, match=told):
                    await log.append(1)
                servers._slots[slot] = server  # as in an older map
                told = f"to have a server for slot {slot}, but one of its servers answered MOVED {slot} :0"
                with pytest.raises(NotSent, match=told):
                    await servers.call("EXISTS", log.keys.log)
                assert len(servers_of(store)) == 2
                assert list(await near.append(1)) == [1]
            lost.start()
            store.patience = LIMIT
            assert list(await (await store.attach(log.name, Retention())).append(1)) == [1]


def ports_of(server: RedisServer) -> set[int]:
    """The ports of the servers that one takes for those of its cluster."""
    return {master[1] for _, _, master, *_ in server.ask("CLUSTER", "SLOTS")}
