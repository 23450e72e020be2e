from __future__ import annotations

import asyncio

import pytest

from tailrace import NDJSON, SSE, Flow, LogReset, MemoryLog, MemoryStore, Retention
from tailrace.events import DONE, Entries
from tailrace.log.base import BATCH_BYTES, BATCH_ENTRIES
from tailrace.testing.writers import wait_room
from tailrace.wire.sharing import SHARED_BYTES, SHARED_ENCODERS
from tests.storing import FetchingLog, MemoryContract

LIMIT = 30.0


class TestFetchingLog(MemoryContract):
    """A log that fetches keeps the same contract."""

    log_type = FetchingLog


async def test_a_fetch_may_find_nothing() -> None:
    class Late(FetchingLog):
        async def read(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
            return Entries((), ())

    log = Late("late")
    await log.append(1)
    with log.tail() as tail:
        assert len(await tail.read()) == 0
        assert tail.position == 0


async def test_a_tail_without_a_place_starts_at_what_is_kept() -> None:
    log = MemoryLog("trimmed", Retention(count=2))
    await log.append(*range(1, 6))
    with log.tail() as tail:
        assert [entry.data for entry in await tail.read()] == [4, 5]
    with log.tail(0) as tail, pytest.raises(LogReset):
        await tail.read()


async def test_small_batches_are_bounded_by_count() -> None:
    log = MemoryLog("long")
    await log.append(*[1] * 5_000)
    with log.tail() as tail:
        assert len(await tail.read()) == BATCH_ENTRIES


async def test_large_batches_are_bounded_by_size() -> None:
    log = MemoryLog("large")
    await log.append(*["x" * 1022] * 1_000)
    with log.tail() as tail:
        assert len(await tail.read()) == BATCH_BYTES // 1024


async def test_a_batch_of_giants_has_one_entry() -> None:
    log = MemoryLog("giants", Retention(size=None))
    await log.append(*["x" * (2 * BATCH_BYTES)] * 40)
    with log.tail() as tail:
        assert len(await tail.read()) == 1


async def test_empty_data_does_not_stop_a_reader() -> None:
    log = MemoryLog("empty")
    for _ in range(40):
        log.write(None, b"")
    with log.tail() as tail:
        assert len(await tail.read()) == 40


async def test_latest_reads_the_whole_history_at_once() -> None:
    log = MemoryLog("latest")
    await log.append(*range(5_000))
    with log.tail(flow=Flow.latest()) as tail:
        assert [entry.data for entry in await tail.read()] == [4_999]
        assert tail.position == 5_000


async def test_a_wait_ends_at_once_if_there_is_something() -> None:
    log = MemoryLog("news")
    with log.tail() as tail:
        await log.append(1)
        await tail.wait()
        await tail.read()
        waiting = asyncio.create_task(tail.wait())
        await asyncio.sleep(0)
        assert len(log._sleepers) == 1
        tail.wake()
        tail.wake()
        await asyncio.wait_for(waiting, LIMIT)
        await log.close()
        await tail.wait()
    assert not log._sleepers


async def test_a_cancelled_wait_does_not_disturb_the_others() -> None:
    log = MemoryLog("news")
    with log.tail() as first, log.tail() as second:
        cancelled, waiting = asyncio.create_task(first.wait()), asyncio.create_task(second.wait())
        await asyncio.sleep(0)
        cancelled.cancel()
        await log.append(1)
        await asyncio.wait_for(waiting, LIMIT)
        assert cancelled.cancelled()


async def test_two_tasks_cannot_wait_by_one_tail() -> None:
    log = MemoryLog("shared")
    with log.tail() as tail:
        waiting = asyncio.create_task(tail.wait())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="expected one task to read log 'shared' by this tail"):
            await tail.wait()
        await log.append(1)
        await asyncio.wait_for(waiting, LIMIT)


async def test_a_tail_that_is_closed_ends_its_wait() -> None:
    log = MemoryLog("closed")
    tail = log.tail()
    waiting = asyncio.create_task(tail.wait())
    await asyncio.sleep(0)
    tail.close()
    tail.close()
    assert not log._sleepers
    assert log.readers == 0
    await asyncio.wait_for(waiting, LIMIT)


async def test_a_tail_that_is_closed_ends_its_iteration() -> None:
    log = MemoryLog("closed")
    await log.append(1)
    with log.tail() as tail:
        assert [entry.data for entry in await anext(tail)] == [1]
        waiting = asyncio.create_task(anext(tail, None))
        await asyncio.sleep(0)
        tail.close()
        await log.append(2)
        assert await asyncio.wait_for(waiting, LIMIT) is None
        assert await anext(tail, None) is None


POLICIES = [Flow.block(2), Flow.log(), Flow.latest(), Flow.drop(2), Flow.disconnect(2)]


@pytest.mark.parametrize("flow", POLICIES, ids=lambda flow: flow.policy)
@pytest.mark.parametrize("place", [None, 0, 4])
async def test_readers_of_a_lost_log_are_reset_wherever_and_whenever_they_begin(flow: Flow, place: int | None) -> None:
    log = MemoryLog("lost")
    await log.append(1, 2, 3, 4)
    before = log.tail(place, flow=flow)
    log.lose("diverged")
    for tail in (before, log.tail(place, flow=flow), log.tail(log.top, flow=flow)):
        with pytest.raises(LogReset) as caught:
            await asyncio.wait_for(anext(tail), LIMIT)
        assert caught.value.reason == "diverged"
        tail.close()
    for looking in (log.resolve(log.cursor(4)), log.read(4, 1)):
        with pytest.raises(LogReset) as caught:
            await looking
        assert caught.value.reason == "diverged"


async def test_readers_of_an_ended_log_finish_although_it_is_lost() -> None:
    log = MemoryLog("ended")
    await log.append(1, 2)
    with log.tail(1) as early:
        await log.close()
        log.lose("epoch_changed")
        with log.tail(2) as late:
            assert [[entry.data async for entries in tail for entry in entries] for tail in (early, late)] == [[2], []]
    assert await log.resolve(log.cursor(1)) == 1
    assert (log.top, log.outcome) == (2, DONE)


async def test_a_lost_log_does_not_end() -> None:
    log = MemoryLog("lost")
    log.lose("epoch_changed")
    assert await log.close() == DONE
    assert log.outcome is None
    assert await log.wait_end() is None


async def test_one_encoder_serves_all_readers_of_a_wire() -> None:
    log = MemoryLog("encoders")
    sse, ndjson = SSE(), NDJSON()
    assert log.encoder(sse) is log.encoder(sse)
    assert log.encoder(sse) is not log.encoder(ndjson)


async def test_few_encoders_are_kept_however_many_wires_there_are() -> None:
    log = MemoryLog("encoders")
    wires = [SSE() for _ in range(3 * SHARED_ENCODERS)]
    with log.tail():
        encoders = [log.encoder(wire) for wire in wires]
        assert len(log._shared.encoders) == SHARED_ENCODERS
        assert log.encoder(wires[-1]) is encoders[-1]
    assert not log._shared.encoders


async def test_what_readers_share_is_bounded_in_bytes() -> None:
    log = MemoryLog("large", Retention(count=1))
    sizes = [SHARED_BYTES // 2, SHARED_BYTES // 4, SHARED_BYTES // 2, 10, 3 * SHARED_BYTES, 10]
    shared: list[int] = []
    with log.tail() as first, log.tail() as second:
        for size in sizes:
            log.write(None, b"x" * size)
            assert first.read_nowait() is second.read_nowait()
            assert log._shared.size == sum(size for _, _, size in log._shared.batches.values())
            shared.append(len(log._shared.batches))
        second.position = 1
        log._shared.keep_batch(5, log.top, Entries((6,), (b"x" * 20,)))  # another batch at the same place
        assert log._shared.size == 20
    # The largest batch goes as soon as another comes, and until then there is room for no other.
    assert shared == [1, 2, 2, 3, 1, 1]
    assert (log._shared.batches, log._shared.size) == ({}, 0)


async def test_a_conflated_batch_is_shared_only_if_nothing_was_left_out() -> None:
    log = MemoryLog("latest")
    with log.tail(flow=Flow.latest()) as first, log.tail(flow=Flow.latest()) as second:
        await log.append(1)
        assert first.read_nowait() is second.read_nowait()
        await log.append(2, 3)
        batches = first.read_nowait(), second.read_nowait()
        assert batches[0] is not batches[1]
        assert [[entry.data for entry in batch or ()] for batch in batches] == [[3], [3]]


async def test_only_a_furthest_reader_makes_room() -> None:
    log = MemoryLog("room")
    with log.tail() as fast, log.tail() as slow:
        await log.append(1)
        await fast.read()
        assert log.furthest == 1
        await slow.read()
        assert log.furthest == 1


async def test_a_full_log_has_no_room() -> None:
    store = MemoryStore()
    log = await store.attach("full", Retention(count=4))
    writer = await store.lease(log)
    log.held = True
    with log.tail() as tail:
        for number in range(6):
            writer.write(None, b"%d" % number)
        waiting = asyncio.create_task(wait_room(writer, 100, without_readers=False))
        await asyncio.sleep(0)
        assert not waiting.done()
        await tail.read()
        await asyncio.wait_for(waiting, 10)
        assert (log.base, log.full) == (2, False)


async def test_a_writer_waits_without_readers_until_somebody_reads_elsewhere() -> None:
    store = MemoryStore()
    log = await store.attach("behind", Retention())
    writer = await store.lease(log)
    writer.write(None, b"1")
    waiting = asyncio.create_task(wait_room(writer, 1, without_readers=True))
    await asyncio.sleep(0)
    assert not waiting.done()
    log.set_control(elsewhere=1)
    await asyncio.wait_for(waiting, 10)


async def test_room_that_was_made_before_the_wait_counts() -> None:
    store = MemoryStore()
    log = await store.attach("full", Retention(count=4))
    writer = await store.lease(log)
    log.held = True
    with log.tail() as tail:
        for number in range(6):
            writer.write(None, b"%d" % number)
        await tail.read()
        assert log.full
        await asyncio.wait_for(wait_room(writer, 100, without_readers=False), 10)
