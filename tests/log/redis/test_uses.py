"""What a process hears of the logs that it uses, and what the others know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest

from tailrace.errors import LogClosed, LogExists
from tailrace.events import DONE
from tailrace.flow import Retention
from tailrace.log.redis.scripts import LOAD, Keys
from tailrace.log.redis.store import RedisStore
from tailrace.log.store import Keeping
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import (
    QUICK,
    SLOW,
    Snapshot,
    attached,
    read_all,
    server_of,
    settled,
    shared,
    stores,
    until,
    write,
)

NAME = "/log"
KEYS = Keys.of("tailrace", NAME)


def channels(server: RedisServer) -> set[bytes]:
    """The channels of logs that somebody has subscribed."""
    return {channel for channel in server.ask("PUBSUB", "CHANNELS") if b"{" in channel}


def used(server: RedisServer, store: RedisStore) -> set[bytes]:
    """The names that would be looked after if the process of a store died."""
    names: Collection[bytes] = server.ask("SMEMBERS", f"{{tailrace}}:used:{store.process.decode()}")
    return set(names)


# Hearing


async def test_a_process_hears_only_what_it_lacks(redis: RedisServer) -> None:
    facts, batches = KEYS.meta.encode(), KEYS.log.encode()
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        log = await store.attach(NAME, Retention())
        await log.append(1)
        assert channels(redis) == set()
        writer = await store.lease(log)
        await until(lambda: channels(redis) == {facts})
        with log.tail():
            write(writer, 2)
            await writer.flush()
            assert channels(redis) == {facts}
            await writer.release()
            await until(lambda: channels(redis) == {facts, batches})


async def test_a_stream_that_is_made_is_heard_until_it_begins(redis: RedisServer) -> None:
    async with stores(redis.url, pulse=0.05) as (one, other):
        made = await one.create(NAME, Retention())
        await until(lambda: one.calls.count(LOAD) == 1)  # as soon as it hears its channels
        await asyncio.sleep(5 * QUICK.linger)
        assert (made.attached, one.calls.count(LOAD)) == (True, 1)
        await (await other.attach(NAME, Retention())).stop()
        await until(lambda: made.control.stopping)


async def test_a_log_that_was_let_go_of_during_an_absence_is_looked_up(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, pace=replace(QUICK, linger=1.0), pulse=0.05) as (one, other):
        [log] = await shared(one)
        await settled(one)
        servers = one._servers
        assert servers is not None
        with own_redis.frozen():
            await until(lambda: log.degraded)
            await until(lambda: not log.attached)
        there = await other.attach(NAME, Retention())
        await there.append(1)
        await there.close()
        await until(lambda: not servers.is_away(log.channel))
        assert await one.find(NAME) is log
        assert (log.top, log.outcome, log.degraded) == (1, DONE, False)


async def test_a_log_is_looked_up_as_soon_as_the_store_answers(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        [log] = await shared(one)
        with log.tail():
            await settled(one)
            one.deaf = lambda _: True
            await other.drop(await other.attach(NAME, Retention()))
            made = await other.attach(NAME, Retention())
            log.set_degraded(True)  # as after an absence, until its channels are heard again
            found = await one.find(NAME)
            assert found is not None
            assert (found.epoch, log.lost) == (made.epoch, "epoch_changed")


async def test_a_log_is_looked_up_while_it_is_subscribed_again(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        [log] = await shared(one)
        with log.tail():
            await settled(one)
            one.deaf = lambda _: True
            await other.drop(await other.attach(NAME, Retention()))
            server = server_of(one)
            server.news.drop("the test drops it")
            await until(lambda: server.is_lost(log.channel) or log.lost is not None)
            assert await one.find(NAME) is None
            assert log.lost == "epoch_changed"


async def test_a_log_in_use_is_not_looked_up_while_the_store_is_out_of_reach(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, 1, pace=SLOW) as (store,):
        [log] = await shared(store)
        with log.tail():
            await settled(store)
            own_redis.kill()
            await until(lambda: not server_of(store).connected)
            finding = asyncio.create_task(store.find(NAME))
            await asyncio.sleep(0)
            assert finding.done()
            assert finding.result() is log
            assert not log.degraded


async def test_a_log_that_is_lost_during_its_subscription_is_not_heard(redis: RedisServer) -> None:
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        log = await store.attach(NAME, Retention())
        await settled(store)
        assert store._servers is not None
        store._servers.drop("the test drops them")
        with log.tail():
            await until(lambda: log.hears)
            log.lose("epoch_changed")
        await settled(store)
        await until(lambda: not channels(redis))


# Appending without hearing


async def test_who_hears_nothing_learns_from_its_appends_what_was_trimmed(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = [await store.attach(NAME, Retention(8)) for store in (one, other)]
        for number in range(20):
            await there.append(number)
        await here.append("mine")
        assert (here.base, here.size()) == (12, (9, 22))
        assert await read_all(here, 9) == [*range(12, 20), "mine"]


@pytest.mark.parametrize("rows", [1, 2, 3], ids=["below", "as high", "higher"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_who_hears_nothing_learns_from_its_appends_what_was_lost(
    redis: RedisServer, rows: int, replaced: bool
) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.attach(NAME, Retention())
        await here.append(1)
        kept = Snapshot(redis)
        await here.append(2)
        await here.append(3)
        kept.restore()
        if replaced:
            there = await other.attach(NAME, Retention())
            await there.append("x")
            await there.append("y")
        await here.append(*range(rows))
        await until(lambda: here.lost == "diverged")


async def test_who_hears_nothing_does_not_keep_what_has_ended(redis: RedisServer) -> None:
    keeping = Keeping(keep=2.0, idle=1_000.0)
    async with stores(redis.url, keeping=keeping) as (one, other):
        here = await one.attach(NAME, Retention())
        await (await other.attach(NAME, Retention())).close()
        here.touched -= 500.0  # so that its expiry is to be renewed
        await until(lambda: here.outcome == DONE)
        assert redis.ask("PTTL", KEYS.meta) <= 2_000


async def test_who_hears_nothing_learns_of_the_end_when_it_is_refused(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.attach(NAME, Retention())
        await (await other.attach(NAME, Retention())).close()
        with pytest.raises(LogClosed):
            await here.append(1)
        await until(lambda: here.outcome == DONE)


# What others know


async def test_a_reader_that_leaves_while_the_store_is_away_is_not_counted_for_good(redis: RedisServer) -> None:
    async with stores(redis.url, pulse=0.05) as (one, other):
        [there] = await shared(other)
        await other.lease(there)
        with (await attached(one, NAME)).tail():
            await until(lambda: there.control.elsewhere)
            one.refuse = True
        await asyncio.sleep(5 * QUICK.linger)
        one.refuse = False
        await until(lambda: not there.control.elsewhere)
        await until(lambda: not used(redis, one))


async def test_who_drops_a_stream_looks_after_the_next_of_that_name(redis: RedisServer) -> None:
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        old = await store.create(NAME, Retention())
        with old.tail():
            await until(lambda: old.told)
            await store.drop(old)
            await store.lease(await store.create(NAME, Retention()))
            await until(lambda: not store._telling)
            assert used(redis, store) == {NAME.encode()}
        await until(lambda: not store._telling)
        assert used(redis, store) == {NAME.encode()}


async def test_who_makes_nothing_looks_after_nothing(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        there = await other.attach(NAME, Retention())
        await other.lease(there)
        with pytest.raises(LogExists):
            await one.create(NAME, Retention())
        await until(lambda: not used(redis, one))
        assert used(redis, other) == {NAME.encode()}
