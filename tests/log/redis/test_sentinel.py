"""Masters that Sentinels know by name: real Sentinels, real failovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from tailrace.events import DONE
from tailrace.flow import Retention
from tailrace.log.redis.address import Address
from tailrace.log.redis.connection import NotSent
from tailrace.log.redis.sentinel import Sentinels, target_of
from tailrace.log.redis.store import RedisStore
from tailrace.log.store import LogStore
from tailrace.testing import Relay, relayed

from . import test_contract
from .redis_server import RedisServer, Watched, redis_server, watched_servers
from .stores import LIMIT, QUICK, Traffic, attached, read_all, stores, take, until, write

NAME = "/log"
PACE = replace(QUICK, linger=60.0, patience=20.0)


@pytest.fixture(scope="module")
def sentinel() -> Iterator[RedisServer]:
    with redis_server("--sentinel") as server:
        yield server


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watched_servers() as servers:
        yield servers


def names(server: RedisServer) -> list[str]:
    return [client["name"] for client in server.clients()]


# Addresses


@pytest.mark.parametrize(
    ("url", "database", "asked", "greeting"),
    [
        ("redis+sentinel://there/it", 0, ["there:26379"], [("HELLO", 3)]),
        ("redis+sentinel://a,b:7,/it/", 0, ["a:26379", "b:7"], [("HELLO", 3)]),
        (
            "rediss+sentinel://me:p%40ss@a:1/it/2?ssl_cert_reqs=none&max_connections=3",
            2,
            ["a:1"],
            [("HELLO", 3, "AUTH", "me", "p@ss"), ("SELECT", 2)],
        ),
        ("redis+sentinel://:x@[::1]:5,[::2]/it", 0, ["::1:5", "::2:26379"], [("HELLO", 3, "AUTH", "default", "x")]),
    ],
)
def test_a_url_names_the_sentinels_and_the_master(
    url: str, database: int, asked: list[str], greeting: list[tuple[object, ...]]
) -> None:
    sentinels = target_of(url)
    assert isinstance(sentinels, Sentinels)
    assert str(sentinels) == "the master it"
    assert sentinels.database == database
    assert [str(address) for address in sentinels._sentinels.once()] == asked
    assert [address.greeting("") for address in sentinels._sentinels.once()] == [[("HELLO", 3)]] * len(asked)
    assert sentinels._master.greeting("") == greeting
    assert {address.tls is not None for address in (*sentinels._sentinels.once(), sentinels._master)} == {
        "rediss" in url
    }


def test_sentinels_may_have_a_user_of_their_own() -> None:
    sentinels = Sentinels("redis+sentinel://me:mine@a,b/it?sentinel_username=they&sentinel_password=th%40rs")
    assert next(sentinels._sentinels.once()).greeting("") == [("HELLO", 3, "AUTH", "they", "th@rs")]
    assert sentinels._master.greeting("") == [("HELLO", 3, "AUTH", "me", "mine")]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+sentinel://:secret@a", "the master's name in a URL like redis"),
        ("redis+sentinel://:secret@/it", "a URL like redis[+]sentinel://host:26379,host2:26379"),
        ("http+sentinel://:secret@a/it", "a URL like redis[+]sentinel://host:26379,host2:26379"),
        ("redis+sentinel://:secret@a/it/x", "the number of a database after the master's name, but got 'x'"),
        ("redis+sentinel://:secret@a/it?so=1", "only the options db, username, password, but got 'so'"),
        ("redis+sentinel://a/it?sentinel_pass=secret", "the options sentinel_username and sentinel_password, but got "),
    ],
)
def test_any_other_url_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^expected {message}") as caught:
        target_of(url)
    assert "secret" not in str(caught.value)


# Asking


async def test_any_sentinel_that_answers_tells_the_master(sentinel: RedisServer) -> None:
    sentinel.ask("SENTINEL", "MONITOR", "it", "127.0.0.1", 7, 1)
    place = sentinel.url.removeprefix("redis://")
    with redis_server("--sentinel") as other, redis_server("--sentinel") as frozen, frozen.frozen():
        ports = f"127.0.0.1:1,127.0.0.1:{frozen.port},127.0.0.1:{other.port},{place}"
        sentinels = Sentinels(f"redis+sentinel://:x@{ports}/it/3")
        for _ in range(2):
            address = await sentinels.locate()
            assert str(address) == "127.0.0.1:7"
            assert address.greeting("") == [("HELLO", 3, "AUTH", "default", "x"), ("SELECT", 3)]
    sentinel.ask("SENTINEL", "REMOVE", "it")
    with pytest.raises(NotSent, match=f"^expected a Sentinel that knows the master it, but got: {place} does not know"):
        await Sentinels(f"redis+sentinel://{place}/it").locate()


async def test_a_sentinel_that_refuses_says_where_its_password_belongs(sentinel: RedisServer) -> None:
    sentinel.ask("SENTINEL", "MONITOR", "it", "127.0.0.1", 7, 1)
    place = sentinel.url.removeprefix("redis://")
    where = f"{place} takes its user and password from sentinel_username and sentinel_password"
    sentinel.ask("ACL", "SETUSER", "default", ">theirs")
    try:
        for url, code in ((f":secret@{place}/it", "NOAUTH"), (f"{place}/it?sentinel_password=secret", "WRONGPASS")):
            with pytest.raises(NotSent, match=f"but got: {where}: Redis .*: {code} ") as caught:
                await Sentinels(f"redis+sentinel://{url}").locate()
            assert "secret" not in str(caught.value)
    finally:
        sentinel.ask("ACL", "SETUSER", "default", "nopass")


async def test_news_of_another_master_is_not_heeded() -> None:
    told: list[str] = []
    watch = Sentinels("redis+sentinel://there/it").watch("", told.append)
    channel = b"+switch-master"
    for push in ([b"pong", b""], [b"message", channel, b"other a 1 b 2"], [b"message", channel, b"it a 1 b 2"]):
        watch._told(push)
    assert told == ["b:2"]


async def test_an_address_is_that_of_a_server() -> None:
    address = target_of("redis://there")
    assert isinstance(address, Address)
    assert await address.locate() is address


async def test_sentinels_and_servers_may_want_tls_and_passwords() -> None:
    user = "user", "app", "on", ">mine", "allkeys", "allchannels", "allcommands"
    options = ["--" + " ".join(user), "--masteruser", "app", "--masterauth", "mine"]
    with watched_servers(*options, tls=True) as watched:
        for option, value in (("auth-user", "app"), ("auth-pass", "mine")):
            watched.sentinel.ask("SENTINEL", "SET", watched.name, option, value)
        watched.sentinel.ask("ACL", "SETUSER", "default", ">theirs")
        url = watched.url.replace("://", "://app:mine@") + "&sentinel_password=theirs"
        async with stores(url.replace("?", "/2?"), pace=PACE) as (one, other):
            await (await one.attach(NAME, Retention())).append(1)
            assert await read_all(await attached(other, NAME), 1) == [1]
            assert {client["user"] for client in watched.master.clients() if client["name"].startswith("tailrace")} == {
                "app"
            }
            assert watched.master.ask("INFO", "keyspace").keys() == {"db2"}


# Connections


async def test_a_process_has_two_connections_to_the_master_and_one_to_a_sentinel(watched: Watched) -> None:
    async with stores(watched.url, 1) as (store,):
        for number in range(20):
            log = await store.attach(f"{NAME}-{number}", Retention())
            await log.append(number)
            with log.tail() as tail:
                assert await take(tail, 1) == [number]
        name = f"tailrace-{store.process.decode()}"
        await until(lambda: names(watched.sentinel).count(name) == 1)
        assert names(watched.master).count(name) == 2


# Failovers


async def test_a_master_that_was_replaced_is_left_before_it_knows(watched: Watched) -> None:
    async with stores(watched.url, pace=PACE) as (one, other):
        writer = await one.lease(await one.create(NAME, Retention()))
        log = await attached(other, NAME)
        names = {f"tailrace-{store.process.decode()}" for store in (one, other)}
        with log.tail() as tail:
            write(writer, 1)
            assert await take(tail, 1) == [1]
            assert watched.in_step()
            watched.sentinel.ask("SENTINEL", "FAILOVER", watched.name)
            await until(watched.replaced)
            await until(lambda: names <= {client["name"] for client in watched.replica.clients()})
            assert not watched.demoted()
            write(writer, 2)
            assert await take(tail, 1) == [2]
            assert await writer.end(DONE, patience=LIMIT) == DONE
            assert [entries async for entries in tail] == []


async def test_a_frozen_master_is_left_and_loses_nothing_silently(watched: Watched) -> None:
    async with (
        asyncio.timeout(4 * LIMIT),
        stores(watched.url, pace=PACE) as two,
        AsyncExitStack() as stack,
        Traffic(two, NAME).flowing(),
    ):
        stack.enter_context(watched.master.frozen())
        await until(watched.replaced)


async def test_a_frozen_sentinel_is_left_before_it_has_news(watched: Watched) -> None:
    with redis_server("--sentinel") as other:
        other.ask("SENTINEL", "MONITOR", watched.name, "127.0.0.1", watched.master.port, 1)
        url = watched.url.replace("//", f"//127.0.0.1:{other.port},")
        async with asyncio.timeout(4 * LIMIT), stores(url, 1, pace=PACE) as (store,):
            log = await store.attach(NAME, Retention())
            await log.append(1)
            name = f"tailrace-{store.process.decode()}"
            sentinels = [watched.sentinel, other]

            def watching(sentinel: RedisServer) -> bool:
                return any(client["name"] == name for client in sentinel.clients())

            await until(lambda: any(map(watching, sentinels)))
            sentinels.sort(key=watching)
            free, frozen = sentinels
            await until(lambda: watched.watched(free))
            with frozen.frozen():
                await until(lambda: watching(free))
                assert watched.in_step()
                free.ask("SENTINEL", "FAILOVER", watched.name)
                await until(watched.replaced)
                await until(lambda: any(client["name"] == name for client in watched.replica.clients()))
                assert not watched.demoted()
                assert list(await log.append(2)) == [2]


# The contract


class TestBySentinel(test_contract.TestRedisStore):
    """Each store knows the one server by a name of its own, which leads through its relay."""

    @pytest.fixture(autouse=True)
    def _ask(self, sentinel: RedisServer) -> None:
        self.sentinel = sentinel

    @asynccontextmanager
    async def open_stores(self) -> AsyncIterator[Sequence[LogStore]]:
        async with relayed(self.server.url) as relay, relayed(self.server.url) as other:
            self.relays: dict[LogStore, Relay] = {}
            for name, each in (("one", relay), ("other", other)):
                port = each.url.rpartition(":")[2]
                self.sentinel.ask("SENTINEL", "MONITOR", name, "127.0.0.1", port, 1)
                url = self.sentinel.url.replace("redis://", "redis+sentinel://")
                self.relays[RedisStore(f"{url}/{name}", pace=self.pace)] = each
            try:
                yield list(self.relays)
            finally:
                for name in ("one", "other"):
                    self.sentinel.ask("SENTINEL", "REMOVE", name)
            for store in self.relays:
                await store.aclose()
