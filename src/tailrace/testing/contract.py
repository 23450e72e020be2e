"""The contract of a log, as tests."""

from __future__ import annotations

import asyncio
import random

from ..cursor import Cursor
from ..errors import EventError, LogClosed, LogReset
from ..events import DONE, Event, Outcome
from ..flow import Retention
from ..log.base import BATCH_BYTES, Log
from .base import data_of, raised
from .flows import FlowContract


class LogContract(FlowContract):
    """Tests for any log. Inherit from it in a test class, define how to make a log, and run it under asyncio.

        class TestMyLog(LogContract):
            @asynccontextmanager
            async def make_log(self, retention: Retention) -> AsyncIterator[Log]:
                yield MyLog("contract", retention)

    Works with pytest-asyncio in auto mode, and with anyio's plugin under `pytest.mark.anyio` and the asyncio backend.
    """

    # Writing

    async def test_append_gives_consecutive_offsets_from_1(self) -> None:
        async with self.make_log(Retention()) as log:
            assert [list(await log.append(number)) for number in range(3)] == [[1], [2], [3]]
            assert (log.base, log.top) == (0, 3)

    async def test_append_gives_the_offsets_of_its_own_items(self) -> None:
        async with self.make_log(Retention()) as log:
            assert await log.append(*"abc") == range(1, 4)
            assert await log.append() == range(4, 4)
            assert await log.append("d") == range(4, 5)
            assert data_of(await log.read(0, 10)) == ["a", "b", "c", "d"]

    async def test_append_appends_nothing_if_one_item_cannot_be_encoded(self) -> None:
        async with self.make_log(Retention()) as log:
            await raised(EventError, log.append(1, 2, object()))
            assert log.top == 0
            assert await log.append(3) == range(1, 2)

    async def test_an_entry_is_what_was_appended(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(Event({"left": [1, None, "ü\n"]}, event="tick"))
            await log.append("bare")
            entries = [(entry.offset, entry.event, entry.data) for entry in await log.read(0, 10)]
            assert entries == [(1, "tick", {"left": [1, None, "ü\n"]}), (2, None, "bare")]

    # The end

    async def test_the_first_outcome_wins(self) -> None:
        async with self.make_log(Retention()) as log:
            first = Outcome("error", "broken", "it broke")
            assert await log.close(first) == first
            assert await log.close(DONE) == first
            assert log.outcome == first

    async def test_append_after_the_end_raises_and_appends_nothing(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1)
            await log.close(Outcome("cancelled"))
            assert (await raised(LogClosed, log.append(2))).state == "cancelled"
            assert (await raised(LogClosed, log.append(2, 3))).name == log.name
            assert log.top == 1

    async def test_the_end_is_durable(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1, 2)
            await log.close(Outcome("error", "broken"))
            found = await self.reopen(log)
            assert found.outcome == Outcome("error", "broken")
            with found.tail() as tail:
                assert await self._rest(tail) == [1, 2]
            await raised(LogClosed, found.append(3))

    # Reading

    async def test_read_is_bounded_by_after_and_limit(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(*range(1, 6))
            assert data_of(await log.read(0, 2)) == [1, 2]
            assert data_of(await log.read(2, 2)) == [3, 4]
            assert data_of(await log.read(4, 2)) == [5]

    async def test_read_is_bounded_by_size_but_gives_one_entry(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(*["x" * 8] * 5)
            assert [len(await log.read(0, 10, size)) for size in (1, 10, 29, 30, 50, 51)] == [1, 1, 2, 3, 5, 5]

    async def test_read_does_not_wait_for_entries_that_are_not_written(self) -> None:
        async with self.make_log(Retention()) as log:
            assert len(await self._soon(log.read(0, 10))) == 0
            await log.append(1)
            assert len(await self._soon(log.read(1, 10))) == 0
            with log.tail(1) as tail:
                assert len(await self._soon(tail.read())) == 0

    async def test_a_tail_reads_all_that_is_there_at_once(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(*range(20))
            with log.tail() as tail:
                assert data_of(await self._soon(tail.read())) == list(range(20))

    async def test_a_long_history_comes_in_batches(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(*("x" * 4096 for _ in range(200)))
            await log.close()
            with log.tail() as tail:
                batches = [len(entries) async for entries in tail]
            assert sum(batches) == 200
            assert len(batches) > 1

    async def test_a_batch_of_few_large_entries_is_bounded_in_bytes(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(*["x" * BATCH_BYTES, *["x" * (BATCH_BYTES // 3)] * 5])
            await log.close()
            with log.tail() as alone:
                assert [len(entries) async for entries in alone] == [1, 2, 2, 1]
            with log.tail() as first, log.tail() as second:
                assert [len(await tail.read()) for tail in (first, second) * 4] == [1, 1, 2, 2, 2, 2, 1, 1]

    async def test_a_tail_goes_on_from_a_cursor(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1, 2, 3)
            await log.close()
            cursor = Cursor.parse(str(log.cursor(2)))
            with log.tail(await log.resolve(cursor)) as tail:
                assert await self._rest(tail) == [3]
            with log.tail(await log.resolve(log.end_cursor())) as tail:
                assert tail.ended
                assert await self._rest(tail) == []

    # Waiting

    async def test_a_waiting_tail_wakes_once_for_a_batch(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as tail:
                first = await self._waiting(anext(tail))
                await log.append(1, 2, 3)
                assert data_of(await self._soon(first)) == [1, 2, 3]
                second = await self._waiting(anext(tail))
                await log.append(4)
                assert data_of(await self._soon(second)) == [4]

    async def test_every_waiting_tail_wakes(self) -> None:
        async with self.make_log(Retention()) as log:
            tails = [log.tail() for _ in range(10)]
            waiting = [await self._waiting(anext(tail)) for tail in tails]
            await log.append(1)
            assert [data_of(await self._soon(batch)) for batch in waiting] == [[1]] * 10
            for tail in tails:
                tail.close()

    async def test_the_end_wakes_a_waiting_tail(self) -> None:
        async with self.make_log(Retention()) as log:
            tail = log.tail()
            waiting = await self._waiting(self._rest(tail))
            await log.close()
            assert await self._soon(waiting) == []
            assert tail.ended
            assert log.readers == 0

    async def test_a_waiting_tail_can_be_woken_without_news(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as tail:
                tail.wake()
                waiting = await self._waiting(tail.wait())
                tail.wake()
                await self._soon(waiting)
                assert len(await tail.read()) == 0

    async def test_a_cancelled_waiter_leaves_nothing_behind(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as cancelled, log.tail() as other:
                first = await self._waiting(cancelled.wait())
                second = await self._waiting(anext(other))
                first.cancel()
                await asyncio.wait([first])
                await log.append(1)
                assert data_of(await self._soon(second)) == [1]
                assert data_of(await self._soon(anext(cancelled))) == [1]
            assert not log._sleepers
            assert log.readers == 0

    async def test_history_then_live_has_no_gap_and_no_duplicate(self) -> None:
        total, writers, readers = 400, 4, 25
        chance = random.Random(7)
        async with self.make_log(Retention()) as log:
            reading: list[asyncio.Task[list[int]]] = []
            left = iter(range(total))

            async def write() -> None:
                for number in left:
                    if len(reading) < readers and chance.random() < 0.2:
                        tail = log.tail(chance.choice([0, log.top]))
                        reading.append(reading_group.create_task(self._offsets(tail, chance)))
                    await log.append(number)
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)

            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as reading_group:
                async with asyncio.TaskGroup() as writing_group:
                    for _ in range(writers):
                        writing_group.create_task(write())
                await log.close()
            for offsets in [task.result() for task in reading]:
                assert offsets == list(range(total - len(offsets) + 1, total + 1))
            assert len(reading) == readers
            assert log.readers == 0

    # Cursors that cannot be continued

    async def test_a_cursor_of_another_epoch_is_reset(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1, 2)
            other = Cursor(log.stream, "another", 1)
            assert await self._after_reset(log, other, "epoch_changed") == [1, 2]

    async def test_a_cursor_of_another_stream_is_reset(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1)
            assert await self._after_reset(log, Cursor("another", log.epoch, 1), "epoch_changed") == [1]

    async def test_a_cursor_beyond_the_top_is_reset(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(1)
            assert await self._after_reset(log, log.cursor(2), "ahead") == [1]

    async def test_a_trimmed_cursor_is_reset(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            await self._fill(log)
            kept = list(range(log.base + 1, log.top + 1))
            assert await self._after_reset(log, log.cursor(log.base - 1), "trimmed") == kept
            with log.tail(await log.resolve(log.cursor(log.base))) as tail:
                assert data_of(await tail.read()) == kept

    async def test_a_reader_that_falls_behind_what_is_kept_is_reset(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            with log.tail() as tail:
                await self._fill(log)
                reset = await raised(LogReset, tail.read())
                assert (reset.reason, reset.resume) == ("trimmed", str(log.cursor(log.base)))
                assert (await raised(LogReset, log.read(0, 1))).name == log.name
            assert log.statistics().resets == 2

    # Retention

    async def test_retention_by_count_keeps_the_newest(self) -> None:
        async with self.make_log(Retention(count=10)) as log:
            await self._fill(log)
            entries, _ = log.size()
            assert 10 <= entries <= 10 + self.slack
            assert data_of(await log.read(log.top - 10, 20)) == list(range(log.top - 9, log.top + 1))

    async def test_retention_by_size_keeps_the_newest(self) -> None:
        item = "x" * 98
        async with self.make_log(Retention(size=1_000)) as log:
            while log.base == 0:
                assert (await log.append(item))[-1] <= 10 + self.slack + 1
            entries, size = log.size()
            assert size == 100 * entries
            assert 10 <= entries <= 10 + self.slack

    async def test_retention_by_age_drops_the_old(self) -> None:
        async with self.make_log(Retention(age=self.age)) as log:
            await log.append(*["old"] * (self.slack + 1))
            await asyncio.sleep(2 * self.age)
            await log.append("new")
            with log.tail() as tail:
                kept = data_of(await tail.read())
            assert kept[-1] == "new"
            assert len(kept) <= self.slack
            assert log.base > 0

    async def test_the_newest_entry_is_always_kept(self) -> None:
        async with self.make_log(Retention(size=10, age=self.age)) as log:
            await log.append("x" * 100)
            await asyncio.sleep(2 * self.age)
            with log.tail() as tail:
                assert data_of(await tail.read()) == ["x" * 100]

    # Statistics

    async def test_statistics_count_what_is_there(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append("ab", "cd")
            with log.tail():
                now = log.statistics()
            assert (now.name, now.state, now.base, now.top) == (log.name, "open", 0, 2)
            assert (now.entries, now.size, now.readers) == (2, 8, 1)
            assert (now.dropped, now.conflated, now.resets) == (0, 0, 0)
            await log.close()
            assert (log.statistics().state, log.statistics().readers) == ("done", 0)

    async def test_a_listener_hears_of_readers_and_of_the_end(self) -> None:
        async with self.make_log(Retention()) as log:
            heard: list[tuple[int, bool]] = []

            def listener(of: Log) -> None:
                heard.append((of.readers, of.outcome is not None))

            log.listen(listener)
            log.listen(listener)
            first = log.tail()
            with log.tail():
                first.close()
                first.close()
            await log.close()
            await log.close()
            assert heard == [(1, False), (2, False), (1, False), (0, False), (0, True)]
            log.unlisten(listener)
            log.tail().close()
            assert len(heard) == 5
