"""Writers on a real server: how writes become batches, and what becomes of a writer that the store refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tailrace.errors import LogClosed, LogFenced, StoreUnavailable
from tailrace.events import DONE, Event, Outcome
from tailrace.flow import Retention
from tailrace.log.redis import writer as module
from tailrace.log.redis.beat import PRODUCER_LOST
from tailrace.log.redis.frames import parse_batch
from tailrace.log.redis.log import RedisLog
from tailrace.log.redis.scripts import APPEND, END, RELEASE
from tailrace.log.redis.writer import ENTRIES_LOST, RedisWriter
from tailrace.log.writer import UNAVAILABLE
from tailrace.testing.writers import wait_room
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import (
    LIMIT,
    SLOW,
    FlakyStore,
    Snapshot,
    attached,
    data_of,
    read_all,
    settled,
    stores,
    until,
    write,
)

NAME = "/stream"


async def leased(store: FlakyStore, retention: Retention | None = None) -> RedisWriter:
    return await store.lease(await store.create(NAME, retention or Retention()))


def batches(server: RedisServer, log: RedisLog) -> list[int]:
    """The number of entries in each batch of a log."""
    return [len(parse_batch(fields[b"f"]).json) for _, fields in server.ask("XRANGE", log.keys.log, "-", "+")]


# Batches


async def test_what_is_written_in_one_turn_is_one_batch_and_the_rest_gathers_behind_it(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        writer = await leased(store)

        async def meanwhile() -> None:
            for number in range(100, 150):
                write(writer, number)
                await asyncio.sleep(0)

        store.after[APPEND] = meanwhile
        write(writer, *range(100))
        await writer.flush()
        await writer.flush()
        assert batches(redis, writer.log) == [100, 50]
        assert store.calls.count(APPEND) == 2
        assert await read_all(writer.log, 150) == list(range(150))


async def test_names_stay_with_their_entries(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        writer = await leased(one)
        for items in ((1, Event(2, "two"), 3), (4,), (Event(5, "five"),)):
            write(writer, *items)
            await writer.flush()
        for log in (writer.log, await attached(other, NAME)):
            entries = [(entry.event, entry.data) for entry in await log.read(0, 9)]
            assert entries == [(None, 1), ("two", 2), (None, 3), (None, 4), ("five", 5)]


async def test_a_batch_is_bounded_in_bytes(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    async with stores(redis.url, 1) as (store,):
        writer = await leased(store)
        write(writer, *["x" * 28] * 5, "x" * 200, Event(1, "last"))
        await writer.flush()
        assert batches(redis, writer.log) == [3, 2, 1, 1]
        assert (await writer.log.read(6, 1))[0].event == "last"


async def test_a_batch_whose_reply_is_lost_is_written_once(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        writer = await leased(one)
        write(writer, 0)
        await writer.flush()
        one.lose = [APPEND] * 3
        write(writer, 1, 2)
        await asyncio.sleep(0)
        write(writer, 3)
        assert await writer.end(DONE, patience=LIMIT) == DONE
        for log in (writer.log, await attached(other, NAME)):
            assert data_of(await log.read(0, 9)) == [0, 1, 2, 3]
            assert log.top == writer.top == 4


async def test_an_append_with_the_writer_s_fence_goes_through_the_writer(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        writer = await leased(store)
        write(writer, 1)
        assert list(await writer.log.append(2, 3, fence=writer.fence)) == [2, 3]
        write(writer, 4)
        await writer.flush()
        assert await read_all(writer.log, 4) == [1, 2, 3, 4]


# Room


async def test_an_append_through_the_writer_is_repeated_like_any_other(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        writer = await leased(store)
        store.lose = [APPEND]
        assert list(await writer.log.append(1, 2, fence=writer.fence)) == [1, 2]
        assert data_of(await writer.log.read(0, 9)) == [1, 2]


async def test_a_writer_that_blocks_lets_nothing_unread_be_trimmed(redis: RedisServer) -> None:
    for retention in (Retention(count=10), Retention(size=20)):
        async with stores(redis.url, 1) as (store,):
            writer = await leased(store, retention)
            log = writer.log
            log.held = True
            with log.tail() as tail:
                for number in range(200):
                    if log.full:
                        async with asyncio.timeout(LIMIT):
                            reading = asyncio.create_task(anext(tail))
                            await wait_room(writer, 1_000, without_readers=True)
                            await reading
                    write(writer, number % 10)
                    await writer.flush()
                assert not log.resets
            await store.drop(log)


async def test_a_reader_elsewhere_is_not_waited_for(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        writer = await leased(one, Retention(count=10))
        with (await attached(other, NAME)).tail():
            write(writer, *range(50))
            await writer.flush()
            assert not writer.log.full


# What the store refuses


async def test_a_flush_says_that_the_store_does_not_answer(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        writer = await leased(store)
        store.refuse = True
        write(writer, 1)
        cancelled = asyncio.create_task(writer.flush())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(StoreUnavailable):
            await writer.flush()
        write(writer, 2)
        store.refuse = False
        await until(lambda: writer.log.top == 2)
        await writer.flush()
        assert data_of(await writer.log.read(0, 9)) == [1, 2]


async def test_a_writer_does_not_try_for_ever(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    async with stores(redis.url, 1) as (store,):
        writer = await leased(store)
        store.refuse = True
        write(writer, 1)
        await until(lambda: writer.lost)
        assert writer.log.outcome == UNAVAILABLE
        with pytest.raises(LogClosed):
            write(writer, 2)
        with pytest.raises(LogClosed):
            await writer.flush()


async def test_an_end_that_could_not_be_stored_reaches_others_later(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        writer = await leased(one)
        there = await attached(other, NAME)
        with there.tail() as tail:
            one.refuse = True
            assert await writer.end(DONE, patience=0.1) == UNAVAILABLE
            calls = one.calls.count(END)
            await until(lambda: one.calls.count(END) > calls)
            assert there.outcome is None
            one.refuse = False
            await until(lambda: tail.ended)
        assert there.outcome == UNAVAILABLE
        await until(lambda: not redis.ask("KEYS", "{tailrace}:used:*"))


async def test_an_end_that_could_not_be_stored_is_buried_with_its_process(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        writer = await leased(one)
        there = await attached(other, NAME)
        with there.tail() as tail:
            one.refuse = True
            assert await writer.end(DONE, patience=0.1) == UNAVAILABLE
            await one.aclose()
            await until(lambda: tail.ended)
        assert there.outcome == PRODUCER_LOST


async def test_a_release_that_the_store_does_not_answer_can_be_repeated(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        writer = await leased(one)
        write(writer, 1)
        await writer.flush()
        one.refuse = True
        with pytest.raises(StoreUnavailable):
            await writer.release()
        one.refuse = False
        one.lose = [RELEASE]
        with pytest.raises(StoreUnavailable):
            await writer.release()
        await writer.release()
        await writer.release()
        assert (await other.lease(await attached(other, NAME))).fence > writer.fence


# What the store has lost


async def test_a_writer_writes_nothing_behind_a_gap(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        writer = await leased(one)
        write(writer, 1)
        await writer.flush()
        kept = Snapshot(redis)
        write(writer, 2)
        await writer.flush()
        kept.restore()
        write(writer, 3)
        with pytest.raises(LogClosed, match="diverged"):
            await writer.flush()
        with pytest.raises(LogClosed, match="diverged"):
            write(writer, 4)
        assert await writer.end(DONE, patience=LIMIT) is None
        there = await attached(other, NAME)
        await until(lambda: there.outcome)
        assert (there.outcome, data_of(await there.read(0, 9))) == (ENTRIES_LOST, [1])


async def test_a_writer_whose_lease_was_rolled_back_writes_nothing_between_those_of_the_next(
    redis: RedisServer,
) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        log = await one.create(NAME, Retention())
        kept = Snapshot(redis)
        writer = await one.lease(log)
        kept.restore()
        successor = await other.lease(await attached(other, NAME))
        write(writer, 1)
        with pytest.raises(LogFenced):
            await writer.flush()
        write(successor, 2)
        assert await successor.end(DONE, patience=LIMIT) == DONE
        assert data_of(await successor.log.read(0, 9)) == [2]


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_a_stream_whose_only_lease_is_lost_ends(redis: RedisServer, acknowledged: bool) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        log = await one.create(NAME, Retention())
        kept = Snapshot(redis)
        writer = await one.lease(log)
        if acknowledged:
            write(writer, 1)
            await writer.flush()
        kept.restore()
        write(writer, 2)
        with pytest.raises(LogClosed if acknowledged else LogFenced):
            await writer.flush()
        there = await attached(other, NAME)
        await until(lambda: there.outcome)
        assert (there.outcome, there.top) == (ENTRIES_LOST, 0)


async def test_an_end_is_not_written_behind_a_gap(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        writer = await leased(one)
        write(writer, 1)
        await writer.flush()
        kept = Snapshot(redis)
        write(writer, 2)
        await writer.flush()
        kept.restore()
        assert await writer.end(DONE, patience=LIMIT) is None
        there = await attached(other, NAME)
        await until(lambda: there.outcome)
        assert there.outcome == ENTRIES_LOST


@pytest.mark.parametrize("ending", [False, True])
async def test_a_writer_learns_that_all_is_lost(redis: RedisServer, ending: bool) -> None:
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        writer = await leased(store)
        write(writer, 1)
        await writer.flush()
        await until(lambda: not store._telling)
        redis.ask("FLUSHALL")
        if not ending:
            write(writer, 2)
            with pytest.raises(LogClosed, match="epoch_changed"):
                await writer.flush()
        assert await writer.end(DONE, patience=LIMIT) is None
        assert writer.lost
        assert writer.log.lost == "epoch_changed"
        assert redis.ask("KEYS", "*{*") == []


# What others do


async def test_a_writer_whose_log_was_ended_or_leased_unheard_finds_out(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        one.deaf = lambda _: True
        writer = await leased(one)
        await (await attached(other, NAME)).close(Outcome("cancelled"))
        write(writer, 1)
        with pytest.raises(LogClosed, match="cancelled"):
            await writer.flush()
        assert await writer.end(DONE, patience=LIMIT) == Outcome("cancelled")

        writer = await one.lease(await one.attach("/other", Retention()))
        there = await other.attach("/other", Retention())
        redis.ask("HSET", there.keys.meta, "owner", "")
        await other.lease(there)
        write(writer, 1)
        with pytest.raises(LogFenced):
            await writer.flush()
        assert await writer.end(DONE, patience=LIMIT) is None


async def test_a_writer_that_hears_the_end_before_the_answer_to_its_batch_knows_how_its_log_ended(
    redis: RedisServer,
) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        writer, told = await leased(one), Outcome("error", "enough", "that was enough")
        await settled(one)
        seen: list[Outcome | None] = []
        writer.log.listen(lambda log: seen.append(log.outcome) if writer.lost else None)

        async def end() -> None:
            await (await attached(other, NAME)).close(told)
            await until(lambda: writer.lost)

        one.after[APPEND] = end
        write(writer, 1)
        await until(lambda: writer.lost)
        assert set(seen) == {told}


async def test_a_writer_that_cannot_ask_why_it_was_refused_is_lost_all_the_same(redis: RedisServer) -> None:
    async with stores(redis.url, pace=replace(SLOW, patience=0.1)) as (one, other):
        one.deaf = lambda _: True
        writer = await leased(one)
        await (await attached(other, NAME)).close()

        async def refuse() -> None:
            one.refuse = True

        one.after[APPEND] = refuse
        heard: list[bool] = []
        writer.log.listen(lambda log: heard.append(writer.lost))
        kept = writer.write
        write(writer, 1)
        with pytest.raises(LogFenced):
            await writer.flush()
        assert writer.lost
        assert heard == [True]
        with pytest.raises(LogFenced):
            kept(None, b"2")


async def test_a_writer_gives_up_what_cannot_be_stored_when_its_log_ends(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        writer = await leased(one)
        one.refuse = True
        write(writer, 1)
        with pytest.raises(StoreUnavailable):
            await writer.flush()
        await (await attached(other, NAME)).close()
        await until(lambda: writer.lost)
        with pytest.raises(LogClosed):
            await writer.flush()
        await until(lambda: not any("_send" in repr(task) for task in one._tasks))
        assert writer.log.top == 0


async def test_a_writer_whose_store_is_closed_waits_for_nothing(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, 1) as (store,):
        idle = await store.lease(await store.create("/idle", Retention()))
        writer = await leased(store)
        own_redis.freeze()
        write(writer, 1)
        flushing = asyncio.create_task(writer.flush())
        await store.aclose()
        own_redis.thaw()
        async with asyncio.timeout(LIMIT):
            with pytest.raises(LogFenced):
                await flushing
            for each in (writer, idle):
                with pytest.raises(LogFenced):
                    write(each, 2)
                await each.release()
            assert await writer.end(DONE, patience=LIMIT) is None
            assert await idle.end(DONE, patience=LIMIT) == DONE  # there is nothing that it has not stored


async def test_a_lease_is_given_once_at_a_time(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        log = await store.attach(NAME, Retention())
        results = await asyncio.gather(store.lease(log), store.lease(log), return_exceptions=True)
        assert [type(result) for result in results] == [RedisWriter, LogFenced]
        with pytest.raises(LogFenced):
            await store.lease(log)
        await log.close()
        with pytest.raises(LogClosed):
            await store.lease(log)
