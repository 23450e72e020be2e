"""Mirrors of streams on a real server: what they hold, fetch and load, and how they find out what is wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tailrace.cursor import Cursor
from tailrace.errors import LogClosed, LogReset, StoreUnavailable
from tailrace.events import DONE, Event, Outcome
from tailrace.flow import Retention
from tailrace.log.redis import held, mirror
from tailrace.log.redis.log import RedisLog
from tailrace.log.redis.scripts import APPEND, CREATE, END, LEASE, LOAD, Keys
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import (
    LIMIT,
    SLOW,
    Snapshot,
    attached,
    data_of,
    read_all,
    settled,
    shared,
    stores,
    take,
    until,
    write,
)

NAME = "/log"


async def reset_of(log: RedisLog, cursor: Cursor) -> str:
    with pytest.raises(LogReset) as caught:
        await log.resolve(cursor)
    return caught.value.reason


# Holding and fetching


async def test_history_that_is_not_held_is_fetched(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "HELD_BYTES", 500)
    monkeypatch.setattr(mirror, "LOADED_BYTES", 500)
    async with stores(redis.url) as (one, other):
        here = await one.attach(NAME, Retention())
        for number in range(0, 400, 4):
            await here.append(Event(number, "first"), *range(number + 1, number + 4))
        there = await attached(other, NAME)
        for log in (here, there):
            assert log.read_nowait(0, 10) is None
            assert await read_all(log, 400) == list(range(400))
            entries = await log.read(100, 8)
            assert [entry.event for entry in entries] == ["first", None, None, None] * 2
            places = [Cursor.parse(f"{log.stream}.{log.epoch}.{place.decode()}") for place in entries.spelled]
            assert [await log.resolve(cursor) for cursor in places] == list(range(101, 109))
            assert await reset_of(log, replace(places[3], tag="wrong")) == "diverged"
            assert len(await log.read(100, 400, 12)) == 4


async def test_a_page_of_large_entries_is_bounded(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "HELD_BYTES", 500)
    async with stores(redis.url, 1) as (store,):
        log = await store.attach(NAME, Retention(size=None))
        for _ in range(60):
            await log.append("x" * 50_000)
        for number in range(100):  # what is held says nothing about what is fetched
            await log.append(number)
        before = redis.ask("INFO", "stats")["total_net_output_bytes"]
        assert len(await read_all(log, 160)) == 160
        assert redis.ask("INFO", "stats")["total_net_output_bytes"] - before < 5_000_000


async def test_readers_at_one_place_share_a_fetch(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "HELD_BYTES", 100)
    async with stores(redis.url, 1) as (store,):
        log = await store.attach(NAME, Retention())
        for number in range(100):
            await log.append(number)
        batches = await asyncio.gather(*(log.read(0, 50) for _ in range(20)))
        assert all(data_of(batch) == list(range(50)) for batch in batches)
        assert store.fetches == 1


async def test_a_cursor_at_the_base_is_checked_by_the_batch_behind_it(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "HELD_BYTES", 1)
    async with stores(redis.url, 1) as (store,):
        log = await store.attach(NAME, Retention(count=8))
        cursors = []
        for number in range(1, 11):
            await log.append(number)
            cursors.append(log.cursor(number))
        assert log.base == 2
        assert await log.resolve(cursors[1]) == 2
        assert await log.resolve(replace(cursors[1], tag="")) == 2
        assert await reset_of(log, replace(cursors[1], tag="wrong")) == "diverged"
        assert await reset_of(log, cursors[0]) == "trimmed"
        assert data_of(await log.read(2, 99)) == list(range(3, 11))


async def test_an_application_s_epoch_and_facts_reach_other_processes(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        here = await one.create(NAME, Retention(5, 1_000, 7.5), epoch="mine", fingerprint=b"\x00 \xff")
        there = await attached(other, NAME)
        assert (there.epoch, there.fingerprint, there.passing) == ("mine", b"\x00 \xff", True)
        assert (there.retention, there.created) == (Retention(5, 1_000, 7.5), here.created)


# Loading


async def test_a_frame_that_is_lost_is_loaded_when_the_next_comes(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.create(NAME, Retention())
        there = await attached(other, NAME)
        with there.tail() as tail:
            await here.append(1)
            assert await take(tail, 1) == [1]
            async with other.missing("++!"):
                await here.append(2)
                await here.append(3)
                await here.stop()
            await here.append(4)
            assert await take(tail, 3) == [2, 3, 4]
            assert there.control.stopping


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("+ {epoch} 2 1 other wrong 2 0\n2", id="tag"),
        pytest.param("+ {epoch} 3 1 other {tag} 2 0\n3", id="offset"),
        pytest.param("+ wrong 2 1 other {tag} 2 0\n2", id="epoch"),
    ],
)
async def test_a_frame_that_is_not_the_next_is_not_taken(redis: RedisServer, frame: str) -> None:
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        [log] = await shared(store)
        await log.append(1)
        store.calls.clear()
        tag = log.cursor(1).tag
        log.hear(frame.format(epoch=log.epoch, tag=tag).encode())
        assert (log.top, log.stale) == (1, True)
        await until(lambda: not log.stale)
        await log.refresh()
        assert (log.top, store.calls.count(LOAD)) == (1, 2)
        log.lose("diverged")
        top = log.top
        log.hear(f"+ {log.epoch} 2 1 other {tag} 2 0\n2".encode())
        assert log.top == top


@pytest.mark.parametrize("rows", ["2", "name\n2", "2\n3"])
async def test_a_frame_that_comes_again_is_no_news(redis: RedisServer, rows: str) -> None:
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        [log] = await shared(store)
        await log.append(1)
        count = 2 if rows.endswith("3") else 1
        frame = f"+ {log.epoch} {1 + count} {count} other {log.cursor(1).tag} {1 + count} 0\n{rows}".encode()
        for _ in range(2):
            log.hear(frame)
            assert (log.top, log.stale) == (1 + count, False)


async def test_the_end_is_not_told_before_what_is_missing(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = await shared(one, other)
        with there.tail() as tail:
            async with other.missing("+"):
                await here.append(1)
            await here.close()
            assert [data_of(entries) async for entries in tail] == [[1]]
        assert there.outcome == DONE


async def test_frames_behind_a_gap_are_bounded(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "EARLY_BYTES", 10)
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = await shared(one, other)
        async with other.missing("+"):
            await here.append(0)

        async def more() -> None:
            for number in range(2, 20):
                await here.append(number)
            await until(lambda: len(there._early) == 1)

        other.after[LOAD] = more
        await here.append(1)
        assert await read_all(there, 20) == list(range(20))


async def test_a_mirror_that_lacks_too_much_goes_on_from_the_newest(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LOADED_BYTES", 20)
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = await shared(one, other)
        with there.tail() as tail:
            await here.append(0)
            assert await take(tail, 1) == [0]
            async with other.missing(49 * "+"):
                for number in range(1, 50):
                    await here.append(number)
            await here.append(50)
            assert await take(tail, 50) == list(range(1, 51))
        assert there.read_nowait(10, 1) is None
        assert there.size() == here.size()


async def test_an_event_between_subscription_and_history_is_not_missed(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.attach(NAME, Retention())
        await here.append(1)
        other.after[LOAD] = lambda: here.append(2)
        there = await attached(other, NAME)
        assert await read_all(there, 2) == [1, 2]


async def test_the_last_event_of_a_quiet_stream_is_found_by_the_probe(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        here = await one.create(NAME, Retention())
        there = await attached(other, NAME)
        with there.tail() as tail:
            other.deaf = lambda channel: channel in there.channels
            await here.append(1)
            assert await take(tail, 1) == [1]
            await here.stop()
            await until(lambda: there.control.stopping)
            await here.close()
            await until(lambda: there.outcome)


async def test_a_mirror_whose_news_are_on_their_way_is_not_loaded(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = await shared(one, other)
        await settled(one, other)
        await other._mirrors.probe()  # from now on, news show that there are some
        async with other.missing("++"):
            await here.append(1)
            await here.append(2)
        other.calls.clear()
        probing = asyncio.create_task(other._mirrors.probe())
        await asyncio.sleep(0)  # the question is sent
        first, second = other.missed
        there.hear(first)
        await probing
        there.hear(second)
        assert (there.top, other.calls) == (2, [])


async def test_an_append_that_overtakes_others_waits_for_them(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = await shared(one, other)
        await settled(one, other)
        other.deaf = lambda _: True
        await here.append(1)
        assert list(await there.append(2)) == [2]
        assert data_of(await there.read(0, 9)) == [1, 2]


async def test_those_who_ask_for_the_news_at_once_share_the_answer(redis: RedisServer) -> None:
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        log = await store.attach(NAME, Retention())
        store.calls.clear()
        await asyncio.gather(*(log.refresh() for _ in range(20)))
        # The first call's answer may be older than the other calls.
        assert store.calls.count(LOAD) == 2


# What the store has lost


async def test_a_reader_at_the_top_goes_on_when_the_entries_are_lost(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.attach(NAME, Retention())
        await here.append(1, 2)
        redis.ask("DEL", here.keys.log)
        there = await attached(other, NAME)
        assert (there.top, there.base) == (2, 2)
        with there.tail() as tail, here.tail() as near:
            await here.append(3)
            assert await take(tail, 1) == [3]
            assert await take(near, 3) == [1, 2, 3]
        assert await reset_of(there, there.cursor(1)) == "trimmed"


async def test_a_reader_of_lost_history_is_reset(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "HELD_BYTES", 1)
    async with stores(redis.url, 1) as (store,):
        log = await store.attach(NAME, Retention())
        for number in (1, 2, 3):
            await log.append(number)
        redis.ask("DEL", log.keys.log)
        assert await reset_of(log, replace(log.cursor(1), tag="tagg")) == "trimmed"
        with pytest.raises(LogReset, match="trimmed"):
            await log.read(0, 9)
        assert data_of(await log.read(2, 9)) == [3]


async def test_a_cursor_before_what_is_left_of_the_entries_is_reset(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here = await one.attach(NAME, Retention())
        await here.append(1)
        cursors = [here.cursor(1)]
        await here.append(2)
        cursors.append(here.cursor(2))
        redis.ask("DEL", here.keys.log)
        await here.append(3)
        there = await attached(other, NAME)
        assert await reset_of(there, cursors[0]) == "trimmed"
        assert await there.resolve(cursors[1]) == 2
        assert await reset_of(there, replace(cursors[1], tag="tagg")) == "diverged"


async def test_a_reader_of_history_that_was_replaced_is_reset(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "HELD_BYTES", 1)
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = await shared(one, other)
        for number in (1, 2, 3):
            await here.append(number)
        await until(lambda: there.top == 3)
        other.deaf = lambda _: True
        await one.drop(here)
        await (await one.attach(NAME, Retention())).append(4, 5, 6)
        with pytest.raises(LogReset, match="epoch_changed"):
            await there.read(0, 9)


@pytest.mark.parametrize("probed", [True, False])
async def test_readers_and_publishers_learn_that_all_is_lost(redis: RedisServer, probed: bool) -> None:
    async with stores(redis.url) as (one, other):
        here, there = await shared(one, other)
        await here.append(1)
        await until(lambda: there.top == 1)
        with there.tail(1) as tail:
            redis.ask("FLUSHALL")
            if not probed:
                with pytest.raises(LogClosed, match="epoch_changed"):
                    await here.append(2)
            async with asyncio.timeout(LIMIT):
                with pytest.raises(LogReset, match="epoch_changed"):
                    await anext(tail)
        new = await one.attach(NAME, Retention())
        assert new.epoch != here.epoch
        await new.append(3)
        assert await read_all(await attached(other, NAME), 1) == [3]
        assert await reset_of(new, here.cursor(1)) == "epoch_changed"


@pytest.mark.parametrize("written", [0, 1, 2, 3], ids=["lower", "still lower", "as high", "higher"])
async def test_lost_writes_are_found_by_the_next_frame_or_load(redis: RedisServer, written: int) -> None:
    async with stores(redis.url, 3, pace=SLOW) as (one, other, third):
        here, there = await shared(one, other)
        await here.append(1)
        kept = Snapshot(redis)
        for number in (2, 3):
            await here.append(number)
        await until(lambda: there.top == 3)
        lost = there.cursor(3)
        with there.tail(3) as tail:
            kept.restore()
            new = await attached(third, NAME)
            for number in range(written):
                await new.append(number)
            if not written:
                await there.refresh()
            async with asyncio.timeout(LIMIT):
                with pytest.raises(LogReset, match="diverged"):
                    await anext(tail)
        assert await reset_of(new, lost) == "diverged"
        with pytest.raises(LogReset, match="diverged"):
            await there.resolve(lost)


async def test_a_frame_of_another_incarnation_is_noticed(redis: RedisServer) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        here, there = await shared(one, other)
        await settled(one, other)
        await here.append(1)
        await until(lambda: there.top == 1)
        missed: list[bytes] = []

        def miss(channel: bytes) -> bool:
            if channel in there.channels:
                missed.append(channel)
            return True

        other.deaf = miss
        await one.drop(here)
        await until(lambda: missed)
        new = await one.attach(NAME, Retention())
        other.deaf = lambda _: False
        await new.append(2)
        await until(lambda: there.lost == "epoch_changed")


async def test_an_end_before_the_place_of_a_mirror_shows_lost_writes(redis: RedisServer) -> None:
    async with stores(redis.url, 3, pace=SLOW) as (one, other, third):
        here, there = await shared(one, other)
        kept = Snapshot(redis)
        await here.append(1)
        await until(lambda: there.top == 1)
        kept.restore()
        await (await attached(third, NAME)).close()
        await until(lambda: there.lost == here.lost == "diverged")


# Replies that are lost


async def test_an_append_whose_reply_is_lost_writes_once(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        here, there = [await store.attach(NAME, Retention()) for store in (one, other)]
        await here.append(1)
        one.lose, one.calls = [APPEND, APPEND], []
        one.after[APPEND] = lambda: there.append("between")
        assert list(await here.append(2, 3)) == [2, 3]
        assert one.calls.count(APPEND) == 3
        for log in (here, there):
            assert await read_all(log, 4) == [1, 2, 3, "between"]
            assert log.top == 4


async def test_an_end_whose_reply_is_lost_is_the_end(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        log = await store.attach(NAME, Retention())
        store.lose = [END]
        outcome = Outcome("error", "broken", data=[1])
        assert await log.close(outcome) == outcome == log.outcome
        assert await log.close() == outcome


async def test_what_is_made_or_leased_without_a_reply_is_taken(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        store.lose = [CREATE, LEASE]
        log = await store.create(NAME, Retention())
        writer = await store.lease(log)
        assert writer.fence == log.control.fence > 1
        write(writer, 1)
        await writer.flush()
        assert await read_all(log, 1) == [1]


async def test_who_gets_no_answer_is_told(redis: RedisServer) -> None:
    async with stores(redis.url, 1, pace=replace(SLOW, patience=0.1)) as (store,):
        log = await store.attach(NAME, Retention())
        store.refuse = True
        for call in (log.append(1), log.close(), log.stop(), log.refresh(), store.find("/other"), store.drop(log)):
            with pytest.raises(StoreUnavailable):
                await call
        store.refuse = False
        assert list(await log.append(2)) == [1]


async def test_nothing_is_written_into_a_full_server(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, 1, pace=replace(SLOW, patience=0.1)) as (store,):
        log = await store.attach(NAME, Retention())
        own_redis.ask("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="OOM"):
            await log.append(1)
        own_redis.ask("CONFIG", "SET", "maxmemory", 0)
        assert own_redis.ask("XLEN", Keys.of("tailrace", NAME).log) == 0
        assert list(await log.append(2)) == [1]
