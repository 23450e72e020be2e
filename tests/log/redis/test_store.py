"""The Redis store: its connections, what it keeps and for how long, and what it shares."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace

import pytest

from tailrace import Engine
from tailrace.errors import LogClosed, LogReset, StoreUnavailable
from tailrace.events import DONE
from tailrace.flow import Retention
from tailrace.log.redis import held
from tailrace.log.redis.scripts import CREATE, Keys
from tailrace.log.redis.store import RedisStore
from tailrace.log.store import Keeping
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.log.redis.stores import (
    LIMIT,
    QUICK,
    SLOW,
    attached,
    data_of,
    found,
    read_all,
    settled,
    shared,
    stores,
    take,
    until,
    write,
)

NAME = "/log"
KEYS = Keys.of("tailrace", NAME)


def subscribers(server: RedisServer, name: str = NAME) -> int:
    return int(server.ask("PUBSUB", "NUMSUB", Keys.of("tailrace", name).log)[1])


def expiries(server: RedisServer, keys: Keys = KEYS) -> list[float]:
    return [server.ask("PTTL", key) / 1000 for key in (keys.meta, keys.log)]


# Connections


async def test_a_process_has_two_connections(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        for number in range(20):
            await (await store.attach(f"/log-{number}", Retention())).append(number)
        assert [client["name"] for client in redis.clients()] == [f"tailrace-{store.process.decode()}"] * 2
    await until(lambda: not redis.clients())


async def test_a_server_that_forgets_its_scripts_gets_them_again(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        writer = await one.lease(await one.create(NAME, Retention()))
        there = await attached(other, NAME)
        with there.tail() as tail:
            for number in range(5):
                redis.ask("SCRIPT", "FLUSH")
                write(writer, number)
                assert await take(tail, 1) == [number]
            redis.ask("SCRIPT", "FLUSH")
            assert await writer.end(DONE, patience=LIMIT) == DONE
            await until(lambda: tail.ended)


async def test_a_server_that_stood_still_is_caught_up_with(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, pace=replace(QUICK, patience=LIMIT)) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        with there.tail() as tail:
            with own_redis.frozen():
                appending = asyncio.create_task(here.append(1))
                await asyncio.sleep(0.5)
                assert not appending.done()
            assert list(await appending) == [1]
            assert await take(tail, 1) == [1]


async def test_a_server_that_restarts_empty_resets_everybody(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, pace=replace(QUICK, patience=LIMIT)) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        await here.append(1)
        await there.refresh()
        with here.tail(1) as near, there.tail(1) as far:
            own_redis.restart()
            for tail in (near, far):
                async with asyncio.timeout(LIMIT):
                    with pytest.raises(LogReset, match="epoch_changed"):
                        await anext(tail)
        new = await one.attach(NAME, Retention())
        await new.append(2)
        assert await read_all(await attached(other, NAME), 1) == [2]


async def test_a_server_that_restarts_with_its_data_resets_nobody() -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        await _outlive(server)


async def _outlive(server: RedisServer) -> None:
    async with stores(server.url, pace=replace(QUICK, patience=LIMIT)) as (one, other):
        writer = await one.lease(await one.create(NAME, Retention()))
        there = await attached(other, NAME)
        with there.tail() as tail:
            write(writer, 1)
            assert await take(tail, 1) == [1]
            server.restart()
            write(writer, 2)
            assert await take(tail, 1) == [2]


async def test_a_server_that_became_a_replica_is_left(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, 1, pace=replace(SLOW, patience=LIMIT)) as (store,):
        log = await store.attach(NAME, Retention())
        await log.append(1)
        before = {client["id"] for client in own_redis.clients()}
        own_redis.ask("REPLICAOF", "127.0.0.1", "1")
        appending = asyncio.create_task(log.append(2))
        await until(lambda: not before & {client["id"] for client in own_redis.clients()})
        own_redis.ask("REPLICAOF", "NO", "ONE")
        assert list(await appending) == [2]


async def test_a_server_may_speak_tls() -> None:
    with redis_server(tls=True) as server:
        async with stores(server.url) as (one, other):
            await (await one.attach(NAME, Retention())).append(1)
            assert await read_all(await attached(other, NAME), 1) == [1]


async def test_without_a_server_calls_fail_in_time(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with stores(own_redis.url, 1, pace=replace(SLOW, patience=0.1)) as (store,):
        for call in (
            store.find(NAME),
            store.attach(NAME, Retention()),
            store.create(NAME, Retention()),
            store.secret(),
        ):
            async with asyncio.timeout(LIMIT):
                with pytest.raises(StoreUnavailable):
                    await call
        own_redis.start()
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    log = await store.attach(NAME, Retention())
                except StoreUnavailable:
                    continue
                break
        assert list(await log.append(1)) == [1]


async def test_what_is_forgotten_as_soon_as_it_is_made_is_not_written(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):

        async def forget() -> None:
            redis.ask("FLUSHALL")

        store.after[CREATE] = forget
        log = await store.create(NAME, Retention())
        with pytest.raises(LogClosed, match="epoch_changed"):
            await store.lease(log)


# Mirrors


async def test_a_mirror_is_let_go_of_and_taken_up_again(redis: RedisServer) -> None:
    async with stores(redis.url, pulse=0.05) as (one, other):
        here, there = await shared(one, other)
        with here.tail(), there.tail():
            await until(lambda: subscribers(redis) == 2)
        await until(lambda: subscribers(redis) == 0)
        assert not there.attached
        assert list(await here.append(1)) == [1]
        assert await there.resolve(here.cursor(1)) == 1
        with there.tail() as tail:
            await here.append(2)
            assert await take(tail, 2) == [1, 2]
            assert subscribers(redis) >= 1
        await until(lambda: subscribers(redis) == 0)
        assert await attached(other, NAME) is there
        await here.append(3)
        assert await read_all(there, 3) == [1, 2, 3]


@pytest.mark.parametrize("state", ["written", "leased", "ended"])
async def test_a_mirror_is_let_go_of_whatever_others_do(redis: RedisServer, state: str) -> None:
    async with stores(redis.url, 1, pace=replace(QUICK, linger=60.0)) as (one,):
        here = await one.attach(NAME, Retention())
        await here.append(1)
        if state == "leased":
            await one.lease(here)
        elif state == "ended":
            await here.close()
        async with stores(redis.url, 1, pulse=0.05) as (other,):
            there = await attached(other, NAME)
            assert there.attached

            async def write_on() -> None:
                while state == "written":
                    await here.append(1)
                    await asyncio.sleep(0.01)

            writing = asyncio.create_task(write_on())
            await until(lambda: not there.attached)
            writing.cancel()


async def test_a_mirror_is_kept_while_somebody_waits_for_its_end(redis: RedisServer) -> None:
    async with stores(redis.url, pulse=0.05) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        waiting = asyncio.create_task(there.wait_end())
        await until(lambda: not here.attached)
        await asyncio.sleep(3 * QUICK.linger)
        await here.close()
        async with asyncio.timeout(LIMIT):
            assert await waiting == DONE


@pytest.mark.parametrize("use", ["listen", "lease"])
async def test_a_mirror_is_taken_up_again_by_who_listens_or_writes(redis: RedisServer, use: str) -> None:
    async with stores(redis.url, pulse=0.05) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        await until(lambda: not there.attached)
        if use == "listen":
            waiting = asyncio.create_task(there.wait_end())
            await until(lambda: there.attached)
            await here.close()
            async with asyncio.timeout(LIMIT):
                assert await waiting == DONE
        else:
            await other.lease(there)
            await here.stop()
            await until(lambda: there.control.stopping)


async def test_mirrors_without_readers_are_bounded(redis: RedisServer) -> None:
    keeping = Keeping(count=3)
    async with stores(redis.url, 1, pace=replace(QUICK, linger=60.0), keeping=keeping) as (store,):
        for number in range(10):
            log = await store.attach(f"/{number}", Retention())
            await log.append("x")
            await log.close()
        del log
        assert store.kept == (3, 9)
        assert sorted(log.name for log in store._mirrors.held) == ["/7", "/8", "/9"]
        assert await read_all(await attached(store, "/0"), 1) == ["x"]


async def test_a_log_is_looked_up_anew_where_nobody_reads_it(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.attach(NAME, Retention())
        await attached(other, NAME)
        redis.ask("UNLINK", KEYS.meta, KEYS.log)
        assert await other.find(NAME) is None
        assert await one.find(NAME) is None
        assert here.lost == "epoch_changed"


async def test_a_reader_of_a_lost_log_does_not_take_the_news_of_the_next(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        [lost] = await shared(one)
        await other.drop(await attached(other, NAME))
        await until(lambda: lost.lost)
        there = await other.attach(NAME, Retention())
        here = await attached(one, NAME)
        with here.tail() as tail, lost.tail():
            await until(lambda: not one._telling)
            await there.append(1)
            assert await take(tail, 1) == [1]


async def test_who_attaches_while_connections_break_misses_nothing(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        for number in range(6):
            here = await one.attach(f"/{number}", Retention())
            attaching = asyncio.create_task(found(other, f"/{number}"))
            for _ in range(3 * number):
                await asyncio.sleep(0)
            redis.kill_clients(f"tailrace-{other.process.decode()}")
            await here.append(number)
            assert await read_all(await attaching, 1) == [number]


async def test_channels_that_are_lost_as_soon_as_they_are_subscribed_are_subscribed_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a slot of a cluster moves in that moment, and nobody has to send a command to learn where it is."""
    async with stores(redis.url, pace=replace(SLOW, patience=LIMIT)) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        servers = other._servers
        assert servers is not None
        subscribe = servers.subscribe

        async def lose(channels: Collection[bytes]) -> None:
            monkeypatch.undo()
            await subscribe(channels)
            for channel in channels:
                servers.unsubscribe(channel)
            other._mirrors.renew()  # as a new map of slots does

        monkeypatch.setattr(servers, "subscribe", lose)
        with there.tail() as tail:
            await until(lambda: there.hears == 2)
            await settled(one, other)
            await here.append(1)
            assert await take(tail, 1) == [1]


async def test_what_was_published_before_channels_were_subscribed_anew_is_loaded(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.attach(NAME, Retention())
        there = await attached(other, NAME)
        await settled(one, other)
        assert other._servers is not None
        subscribe, loaded = other._servers.subscribe, asyncio.Event()

        async def late(channels: Collection[bytes]) -> None:
            await loaded.wait()
            await subscribe(channels)

        monkeypatch.setattr(other._servers, "subscribe", late)
        redis.kill_clients(f"tailrace-{other.process.decode()}")
        await here.append(1)
        # By the connection for commands, which is back first. Perhaps the process has yet to notice that it was lost.
        await there.catch_up()
        await here.append(2)
        loaded.set()
        assert await read_all(there, 2) == [1, 2]


# Keeping


async def test_an_open_log_expires_when_it_is_idle(redis: RedisServer) -> None:
    async with stores(redis.url, 1, keeping=Keeping(idle=60.0, keep=30.0)) as (store,):
        log = await store.attach(NAME, Retention())
        await log.append(1)
        assert all(50 < left <= 60 for left in expiries(redis))
        await log.close()
        assert all(20 < left <= 30 for left in expiries(redis))


async def test_an_open_log_may_be_kept_for_ever(redis: RedisServer) -> None:
    async with stores(redis.url, 1, keeping=Keeping(idle=None, keep=30.0)) as (store,):
        log = await store.attach(NAME, Retention())
        await log.append(1)
        assert expiries(redis) == [-0.001, -0.001]
        await log.close()
        assert all(20 < left <= 30 for left in expiries(redis))


async def test_what_is_read_is_kept_and_what_was_left_is_forgotten(redis: RedisServer) -> None:
    async with stores(redis.url, pace=replace(QUICK, interval=0.5), keeping=Keeping(keep=0.3)) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        await here.append(1)
        with there.tail() as tail:
            await here.close()
            await asyncio.sleep(3.0)  # longer than the five rounds for which it is kept at a time
            assert await take(tail, 1) == [1]
            assert await one.find(NAME) is not None
        del here
        await until(lambda: not redis.ask("EXISTS", KEYS.meta, KEYS.log))


async def test_what_is_written_is_kept(redis: RedisServer) -> None:
    async with stores(redis.url, keeping=Keeping(idle=2.5)) as (one, other):
        leased, room = await one.attach("/leased", Retention()), await one.attach("/room", Retention())
        writer = await one.lease(leased)
        for number in range(15):
            await room.append(number)
            await asyncio.sleep(0.2)
        write(writer, 1)
        await writer.flush()
        assert await other.find("/leased") is not None
        assert await other.find("/room") is not None


async def test_what_an_application_holds_open_is_kept(redis: RedisServer) -> None:
    async with stores(redis.url, 1, keeping=Keeping(idle=0.9), pulse=0.05) as (store,):
        held = await store.attach("/held", Retention())
        await store.attach("/gone", Retention())
        await until(lambda: not held.attached)
        await until(lambda: not redis.ask("EXISTS", Keys.of("tailrace", "/gone").meta))
        assert list(await held.append(1)) == [1]


# Sharing


async def test_databases_and_prefixes_are_apart(redis: RedisServer) -> None:
    apart = [
        RedisStore(redis.url),
        RedisStore(f"{redis.url}/1"),
        RedisStore(f"{redis.url}/2"),
        RedisStore(redis.url, prefix="other"),
    ]
    logs = [await store.attach(NAME, Retention()) for store in apart]
    for number, log in enumerate(logs):
        await log.append(number)
    assert [await read_all(log, 1) for log in logs] == [[0], [1], [2], [3]]
    assert len({await store.secret() for store in apart}) == 4
    for store in apart:
        await store.aclose()


async def test_the_secret_is_the_same_everywhere(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        secrets = set(await asyncio.gather(one.secret(), other.secret(), one.secret()))
        assert len(secrets) == 1
        redis.ask("FLUSHALL")
        assert await other.secret() == await one.secret() not in secrets


async def test_a_log_goes_on_after_its_store_was_closed(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        log = await one.attach(NAME, Retention())
        await log.append(1)
        await one.aclose()
        await one.aclose()
        await (await other.attach(NAME, Retention())).append(2)
        with log.tail() as tail:
            assert list(await log.append(3)) == [3]
            assert await take(tail, 3) == [1, 2, 3]


@pytest.mark.parametrize("use", ["read", "catch_up"])
async def test_a_log_is_asked_about_after_its_store_was_closed(
    redis: RedisServer, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "HELD_BYTES", 1)
    async with stores(redis.url) as (one, other):
        log = await one.attach(NAME, Retention())
        await log.append(1)
        await log.append(2)
        await one.aclose()
        await (await other.attach(NAME, Retention())).append(3)
        if use == "read":
            assert data_of(await log.read(0, 1)) == [1]
        else:
            await log.catch_up()
            assert log.top == 3


async def test_a_store_that_is_used_while_it_closes_closes(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        log = await store.attach(NAME, Retention())
        closed = asyncio.Event()

        async def append() -> None:
            while not closed.is_set():
                await log.append(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(append())
            await until(lambda: log.top > 100)
            async with asyncio.timeout(LIMIT):
                await store.aclose()
            closed.set()
        assert data_of(await log.read(0, log.top)) == [1] * log.top


async def test_a_failure_in_the_background_is_logged(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with stores(redis.url, 1) as (store,):
        await store.attach(NAME, Retention())
        await asyncio.wait([store.spawn(fail())])
        assert ["failed" in record.message for record in caplog.records] == [True]


async def test_a_user_needs_no_more_than_its_own_keys_and_channels(own_redis: RedisServer) -> None:
    kinds = "hash", "set", "sortedset", "stream", "string", "keyspace", "pubsub", "scripting", "connection"
    allowed = [*(f"+@{kind}" for kind in kinds), "+time"]
    patterns = "~tailrace:*", "~{tailrace*", "&tailrace:*"
    own_redis.ask("ACL", "SETUSER", "app", "on", ">secret", *patterns, *allowed, "-@dangerous")
    url = own_redis.url.replace("redis://", "redis://app:secret@")
    async with stores(url) as (one, other):
        writer = await one.lease(await one.create(NAME, Retention()))
        log = await attached(other, NAME)
        with log.tail() as tail:
            write(writer, 1)
            assert await take(tail, 1) == [1]
            await until(lambda: one._beat._count > 2)
            await writer.end(DONE, patience=LIMIT)
            await other.expire(log, 60)
            await other.drop(log)
        aged = await other.attach(f"{NAME}/aged", Retention(count=1, age=60))
        for number in range(3):
            await aged.append(number, key=f"key {number}")
        assert len(await one.secret()) == 32


async def test_a_user_that_may_not_publish_is_told(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    own_redis.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-publish")
    async with stores(own_redis.url.replace("redis://", "redis://app:secret@"), 1) as (store,):
        assert await store.find(NAME) is None
        await until(lambda: len(caplog.records) > 1)
        refused, deaf, *_ = [record.getMessage() for record in caplog.records]
    advice = 'the ACL user lacks a permission of those under "What Redis needs" in docs/deploy.md: NOPERM'
    assert refused.startswith(f"a round of the beat failed: {advice}")
    assert "'publish'" in refused
    assert deaf.endswith("what was published did not come back")


# The engine


async def test_an_engine_opens_it_by_url(redis: RedisServer) -> None:
    for url in (redis.url, f"{redis.url}/3", f"{redis.unix_url}?db=4"):
        engine = Engine(url, keep=30.0)
        log = await engine.log(NAME)
        await log.append(1)
        await log.close()
        assert isinstance(engine.store, RedisStore)
        assert engine.statistics().kept == 1
        await engine.aclose()


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_redis_is_imported_only_for_it() -> None:
    code = "import sys, tailrace; tailrace.Engine(); print({'redis', 'hiredis'} & set(sys.modules))"
    assert run(code) == "set()"


@pytest.mark.parametrize("missing", ["redis", "hiredis"])
def test_a_missing_extra_is_named(missing: str) -> None:
    code = f"""
import sys, tailrace
sys.modules[{missing!r}] = None
try:
    tailrace.Engine("redis://localhost")
except ImportError as error:
    print(error)
"""
    told = run(code)
    assert missing in told
    assert "pip install 'tailrace[redis]'" in told
