"""The contract of appending, ending and reading, with the same promises at every handle."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from itertools import groupby

from ..cursor import Cursor
from ..errors import EventError, LogClosed, LogReset
from ..events import DONE, Event, Outcome
from ..flow import Retention
from ..log.base import BATCH_BYTES, Log
from .base import NAME, Contract, cursors_of, data_of, offsets_of, raised, trimmed_to, turns


class EntryContract(Contract):
    """Tests of what is appended and what is read."""

    # Appending

    async def test_append_gives_the_offsets_of_its_items(self) -> None:
        """You learn which offsets your items got. A log counts from 1 and leaves none out."""
        async with self._logs() as (here, there):
            assert list(await here.append("a")) == [1]
            assert list(await here.append("b", "c")) == [2, 3]
            assert list(await there.append("d")) == [4]
            assert list(await here.append("e")) == [5]
            for log in (here, there):
                assert await self._read(log, 5) == ["a", "b", "c", "d", "e"]

    async def test_append_takes_all_items_or_none(self) -> None:
        """If one of your items cannot be encoded, none of them is appended."""
        async with self._logs() as (here, there):
            await raised(EventError, here.append(1, 2, object()))
            await raised(EventError, there.append(object()))
            assert list(await here.append(3)) == [1]
            assert await self._read(there, 1) == [3]

    async def test_nothing_is_appended_by_appending_nothing(self) -> None:
        """An append without items changes nothing."""
        async with self._logs() as (here, there):
            assert len(await here.append()) == 0
            assert list(await here.append(1)) == [1]
            assert len(await here.append()) == 0
            assert list(await there.append(2)) == [2]

    async def test_an_entry_is_what_was_appended(self) -> None:
        """Readers everywhere get your data and event names unchanged, whatever characters and sizes they have."""
        items = [
            Event({"left": [1, None, "ü\n\t\u2028"]}, event="tick"),
            "bare",
            Event(None, event="a name: ü"),
            "",
            Event("x" * (1 << 20), event="large"),
            [],
        ]
        expected = [(item.event, item.data) if isinstance(item, Event) else (None, item) for item in items]
        async with self._logs() as (here, there):
            await self._append(here, *items[:3], at=[there])
            await self._append(there, *items[3:], at=[here])
            for log in (here, there):
                read = [entry for after in range(6) for entry in await self._soon(log.read(after, 1))]
                assert [entry.offset for entry in read] == [1, 2, 3, 4, 5, 6]
                assert [(entry.event, entry.data) for entry in read] == expected

    async def test_publishers_everywhere_share_one_order(self) -> None:
        """Each publisher learns its own items' offsets, and readers everywhere see one sequence of all items."""
        async with self._logs() as (here, there):
            offsets: dict[int, tuple[str, int]] = {}

            async def publish(log: Log, name: str) -> None:
                for number in range(0, 60, 3):
                    got = await log.append(*((name, number + more) for more in range(3)))
                    offsets.update({offset: (name, number + more) for more, offset in enumerate(got)})

            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as group:
                for index, log in enumerate((here, there) * 3):
                    group.create_task(publish(log, f"publisher {index}"))
            assert sorted(offsets) == list(range(1, 361))
            for log in (here, there):
                assert await self._read(log, 360) == [list(offsets[offset]) for offset in range(1, 361)]

    # The end

    async def test_the_first_outcome_stays(self) -> None:
        """A log ends once. Who ends it again, in whatever process, gets the outcome that it has."""
        async with self._logs() as (here, there):
            first = Outcome("error", "broken", "it broke")
            assert await here.close(first) == first
            assert await here.close(DONE) == first
            assert await there.close(DONE) == first
            await self._ended(here, there)
            assert here.outcome == there.outcome == first

    async def test_of_two_ends_at_once_one_wins_everywhere(self) -> None:
        """If two processes end a log at the same time, both get the same outcome, and so do all readers."""
        async with self.open_stores() as (one, other):
            for number in range(10):
                name = f"/ended-{number}"
                here = await self._soon(one.attach(name, Retention()))
                there = await self._soon(other.attach(name, Retention()))
                ends = here.close(Outcome("cancelled")), there.close(Outcome("error", "broken"))
                outcomes = await self._soon(asyncio.gather(*(ends if number % 2 else reversed(ends))))
                assert outcomes[0] == outcomes[1]
                await self._ended(here, there)
                assert here.outcome == there.outcome == outcomes[0]

    async def test_append_after_the_end_appends_nothing(self) -> None:
        """After the end, an append raises LogClosed in every process, even before the news of the end is there."""
        async with self._logs() as (here, there):
            await here.append(1)
            await here.close(Outcome("cancelled"))
            assert (await raised(LogClosed, there.append(2))).state == "cancelled"
            assert (await raised(LogClosed, here.append(2, 3))).name == here.name
            await self._ended(there)
            for log in (here, there):
                with log.tail() as tail:
                    assert await self._rest(tail) == [1]

    async def test_an_end_is_found_by_whoever_comes_later(self) -> None:
        """A process that finds an ended log has its whole outcome and all of its entries."""
        outcome = Outcome("done", data={"total": 2, "rate": [0.5, None]})
        async with self.open_stores() as (one, other):
            ended = await self._soon(one.attach("/ended", Retention()))
            await ended.append(1, 2)
            await ended.close(outcome)
            found = await self._find(other, "/ended")
            assert found.outcome == outcome
            with found.tail() as tail:
                assert await self._rest(tail) == [1, 2]
                assert tail.ended
            await raised(LogClosed, found.append(3))

    async def test_the_end_comes_after_the_last_entry(self) -> None:
        """A waiting reader gets every entry, and then the end."""
        async with self._logs() as (here, there):
            tails = here.tail(), there.tail()
            waiting = [await self._waiting(self._rest(tail)) for tail in tails]
            await here.append(1, 2)
            await here.append(3)
            await here.close()
            assert [await self._soon(rest) for rest in waiting] == [[1, 2, 3]] * 2
            assert all(tail.ended for tail in tails)
            assert here.readers == there.readers == 0

    # Reading

    async def test_read_is_bounded_by_after_and_limit(self) -> None:
        """`read` returns the entries after an offset, as many as you allow."""
        async with self._logs() as (here, there):
            await self._append(here, *range(1, 6), at=[there])
            for log in (here, there):
                assert [data_of(await log.read(after, 2)) for after in (0, 2, 4)] == [[1, 2], [3, 4], [5]]

    async def test_read_is_bounded_by_size_but_gives_one_entry(self) -> None:
        """`read` returns as many bytes as you allow, or a single entry that has more."""
        async with self._logs() as (here, there):
            await self._append(here, *["x" * 8] * 5, at=[there])
            for log in (here, there):
                for size in (1, 10, 29, 30, 50, 51):
                    assert 1 <= len(await log.read(0, 10, size)) <= max(size // 10, 1)
                assert len(await log.read(0, 10, 100)) == 5

    async def test_read_does_not_wait_for_entries_that_are_not_written(self) -> None:
        """`read` at the newest entry returns nothing, without waiting."""
        async with self._logs() as (here, there):
            assert len(await self._soon(there.read(0, 10))) == 0
            await self._append(here, 1, at=[there])
            for log in (here, there):
                assert len(await self._soon(log.read(1, 10))) == 0
                with log.tail(1) as tail:
                    assert len(await self._soon(tail.read())) == 0

    async def test_a_tail_reads_all_that_is_there_at_once(self) -> None:
        """A reader gets a small history as one batch."""
        async with self._logs() as (here, there):
            await self._append(here, *range(20), at=[there])
            for log in (here, there):
                with log.tail() as tail:
                    assert data_of(await self._soon(tail.read())) == list(range(20))

    async def test_a_long_history_comes_in_batches(self) -> None:
        """A reader gets a long history in batches that are bounded in bytes."""
        async with self._logs() as (here, there):
            await here.append(*["x" * 4096] * 200)
            await here.close()
            await self._ended(there)
            for log in (here, there):
                with log.tail() as tail:
                    batches = [sum(map(len, entries.json)) async for entries in tail]
                assert sum(batches) == 200 * 4098
                assert max(batches) <= BATCH_BYTES
                assert len(batches) < 200

    async def test_a_batch_of_few_large_entries_is_bounded_in_bytes(self) -> None:
        """A batch with more bytes than the bound is a single entry, also for readers who share it."""
        async with self._logs() as (here, there):
            await here.append("x" * BATCH_BYTES, *["x" * (BATCH_BYTES // 3)] * 5)
            await here.close()
            await self._ended(there)
            for log in (here, there):
                with log.tail() as alone:
                    assert [len(entries) async for entries in alone] == [1, 2, 2, 1]
                with log.tail() as first, log.tail() as second:
                    assert [len(await tail.read()) for tail in (first, second) * 4] == [1, 1, 2, 2, 2, 2, 1, 1]

    # Waiting

    async def test_items_that_were_appended_together_arrive_together(self) -> None:
        """One append wakes a waiting reader once, with all of its items."""
        async with self._logs() as (here, there):
            for log in (here, there):
                with log.tail(log.top) as tail:
                    first = await self._waiting(anext(tail))
                    await self._append(here, 1, 2, 3, at=[there])
                    assert data_of(await self._soon(first)) == [1, 2, 3]
                    second = await self._waiting(anext(tail))
                    await self._append(here, 4, at=[there])
                    assert data_of(await self._soon(second)) == [4]

    async def test_every_waiting_tail_wakes(self) -> None:
        """An entry reaches all readers in all processes."""
        async with self._logs() as (here, there):
            tails = [log.tail() for log in (here, there) * 5]
            waiting = [await self._waiting(anext(tail)) for tail in tails]
            await here.append(1)
            assert [data_of(await self._soon(batch)) for batch in waiting] == [[1]] * 10
            for tail in tails:
                tail.close()

    async def test_a_waiting_tail_can_be_woken_without_news(self) -> None:
        """`wake` ends a wait, and the reader has missed nothing."""
        async with self._logs() as (_, log):
            with log.tail() as tail:
                tail.wake()
                waiting = await self._waiting(tail.wait())
                tail.wake()
                await self._soon(waiting)
                assert len(await tail.read()) == 0

    async def test_a_cancelled_wait_disturbs_nobody(self) -> None:
        """A reader whose wait is cancelled can go on, and others do not notice."""
        async with self._logs() as (here, log):
            with log.tail() as cancelled, log.tail() as other:
                first = await self._waiting(cancelled.wait())
                second = await self._waiting(anext(other))
                first.cancel()
                await asyncio.wait([first])
                await here.append(1)
                assert data_of(await self._soon(second)) == [1]
                assert data_of(await self._soon(anext(cancelled))) == [1]
            assert log.readers == 0

    async def test_history_then_live_has_no_gap_and_no_duplicate(self) -> None:
        """A reader that joins at any moment, in any process, gets every entry from its place on exactly once."""
        total, readers = 400, 24
        chance = random.Random(7)
        async with self._logs() as logs:
            reading: list[asyncio.Task[list[int]]] = []
            left = iter(range(total))

            async def publish(log: Log) -> None:
                for number in left:
                    if len(reading) < readers and chance.random() < 0.2:
                        chosen = chance.choice(logs)
                        tail = chosen.tail(chance.choice([0, chosen.top]))
                        reading.append(reading_group.create_task(offsets_of(tail, chance)))
                    await log.append(number)
                    await turns(chance.randrange(3))

            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as reading_group:
                async with asyncio.TaskGroup() as writing_group:
                    for log in logs * 2:
                        writing_group.create_task(publish(log))
                await logs[0].close()
            for offsets in [task.result() for task in reading]:
                assert offsets == list(range(total - len(offsets) + 1, total + 1))
            assert len(reading) == readers
            assert [log.readers for log in logs] == [0, 0]

    # Cursors

    async def test_a_reader_goes_on_from_any_cursor_in_any_process(self) -> None:
        """A reader that comes back, to whatever process, gets exactly what it has not had."""
        async with self._logs() as (here, there):
            await self._append(here, 1, 2, 3, at=[there])
            await self._append(there, 4, 5, at=[here])
            await self._append(here, 6, at=[there])
            await here.close()
            await self._ended(there)
            for left, joined in ((here, there), (there, here), (here, here), (there, there)):
                cursors = [left.cursor(0), *cursors_of(left, await self._soon(left.read(0, 10)))]
                assert [cursor.offset for cursor in cursors] == [0, 1, 2, 3, 4, 5, 6]
                for cursor in cursors:
                    with joined.tail(await self._soon(joined.resolve(cursor))) as tail:
                        assert await self._rest(tail) == list(range(cursor.offset + 1, 7))

    async def test_a_tail_says_where_it_is(self) -> None:
        """The cursor of a tail leads back to its place, before the first entry as well as later."""
        async with self._logs() as (here, there):
            with there.tail() as tail:
                cursors = [tail.cursor()]
                for number in range(1, 4):
                    await here.append(number)
                    assert await self._take(tail, 1) == [number]
                    cursors.append(tail.cursor())
            for expected, cursor in enumerate(cursors):
                assert await self._soon(here.resolve(Cursor.parse(str(cursor)))) == expected

    async def test_the_cursor_of_the_end_is_good_everywhere(self) -> None:
        """A reader that has the end finds nothing more."""
        async with self._logs() as (here, there):
            await here.append(1, 2)
            await here.close()
            await self._ended(there)
            for left, joined in ((here, there), (there, here)):
                cursor = Cursor.parse(str(left.end_cursor()))
                assert cursor.ended
                with joined.tail(await self._soon(joined.resolve(cursor))) as tail:
                    assert tail.ended
                    assert await self._rest(tail) == []

    async def test_a_reader_may_be_ahead_of_the_news(self) -> None:
        """A reader that changes to a process where its last entry is not known yet is not reset."""
        async with self._logs() as (here, there):
            for number in range(1, 51):
                await self._append(here, number)
                cursor = cursors_of(here, await self._soon(here.read(number - 1, 1)))[0]
                assert await self._soon(there.resolve(cursor)) == number
                assert await self._read(there, number, 0) == list(range(1, number + 1))

    async def test_a_cursor_of_another_epoch_is_reset(self) -> None:
        """A cursor of an earlier log of the same name is refused."""
        async with self._logs() as (here, there):
            await self._append(here, 1, 2, at=[there])
            for log in (here, there):
                other = replace(log.cursor(1), epoch="another")
                assert await self._after_reset(log, other, "epoch_changed", 2) == [1, 2]

    async def test_a_cursor_of_another_stream_is_reset(self) -> None:
        """A cursor of another log is refused."""
        async with self._logs() as (here, there):
            await self._append(here, 1, at=[there])
            for log in (here, there):
                assert await self._after_reset(log, Cursor("another", log.epoch, 1), "epoch_changed", 1) == [1]

    async def test_a_cursor_beyond_the_top_is_reset(self) -> None:
        """A cursor of an entry that does not exist is refused."""
        async with self._logs() as (here, there):
            await self._append(here, 1, at=[there])
            for log in (here, there):
                assert await self._after_reset(log, log.cursor(2), "ahead", 1) == [1]

    async def test_a_cursor_with_a_wrong_tag_is_reset(self) -> None:
        """A cursor of an entry that was lost, and has another one in its place, is refused."""
        async with self._logs() as (here, there):
            await self._append(here, 1, 2, at=[there])
            for log in (here, there):
                for cursor in cursors_of(log, await self._soon(log.read(0, 2))):
                    wrong = replace(cursor, tag="abcd" if cursor.tag != "abcd" else "bcde")
                    assert await self._after_reset(log, wrong, "diverged", 2) == [1, 2]

    async def test_a_trimmed_cursor_is_reset(self) -> None:
        """A cursor whose next entry was trimmed is refused. The reset leads to the oldest entry that is kept."""
        async with self._logs(Retention(count=4)) as (here, there):
            base, top = await self._fill(here, at=[there])
            kept = list(range(base + 1, top + 1))
            for log in (here, there):
                assert await self._after_reset(log, log.cursor(base - 1), "trimmed", len(kept)) == kept
                assert await self._read(log, len(kept), await self._soon(log.resolve(log.cursor(base)))) == kept

    # Retention

    async def test_retention_by_count_keeps_the_newest(self) -> None:
        """A log keeps at least as many entries as you ask for, and not many more."""
        async with self._logs(Retention(count=10)) as (here, there):
            base, top = await self._fill(here, at=[there])
            assert 10 <= top - base <= 10 + self.slack
            for log in (here, there):
                assert data_of(await self._soon(log.read(top - 10, 20))) == list(range(top - 9, top + 1))

    async def test_retention_by_size_keeps_the_newest(self) -> None:
        """A log keeps at least as many bytes as you ask for, and not many entries more."""
        async with self._logs(Retention(size=1_000)) as (here, there):
            top, base = 0, 0
            while base == 0:
                top = (await self._append(here, "x" * 98, at=[there]))[-1]
                assert top <= 10 + self.slack + 1
                base = await self._base(here)
            assert 10 <= top - base <= 10 + self.slack
            assert await self._read(there, top - base, base) == ["x" * 98] * (top - base)

    async def test_retention_by_age_drops_the_old(self) -> None:
        """After a new entry, those that are too old are gone."""
        async with self._logs(Retention(age=self.age)) as (here, there):
            for _ in range(self.slack + 1):
                await here.append("old")
            await asyncio.sleep(2 * self.age)
            top = (await self._append(here, "new", at=[there]))[-1]
            for log in (here, there):
                base = await self._base(log)
                assert 0 < top - base <= self.slack
                assert (await self._read(log, top - base, base))[-1] == "new"

    async def test_the_newest_entry_is_always_kept(self) -> None:
        """The newest entry stays, however large or old it is."""
        async with self._logs(Retention(size=10, age=self.age)) as (here, there):
            await self._append(here, "x" * 100, at=[there])
            await asyncio.sleep(2 * self.age)
            for log in (here, there):
                with log.tail() as tail:
                    assert await self._take(tail, 1) == ["x" * 100]

    async def test_a_reader_that_falls_behind_what_is_kept_is_reset(self) -> None:
        """A reader learns that its next entry was trimmed. It gets no later one instead."""
        async with self._logs(Retention(count=4)) as (here, there):
            with here.tail(0) as near, there.tail(0) as far:
                base, _ = await self._fill(here, at=[there])
                for tail in (near, far):
                    assert trimmed_to(await raised(LogReset, self._soon(tail.read()))) == base
            assert there.statistics().resets >= 1

    async def test_a_reader_that_trimming_overtakes_misses_nothing_unnoticed(self) -> None:
        """While entries are trimmed, a reader gets each next entry or a reset, never a gap."""
        chance = random.Random(11)
        async with self._logs(Retention(count=4)) as logs:
            total = 12 * (self.slack + 4)

            async def publish() -> None:
                top = 0
                while top < total:
                    count = min(chance.randrange(1, self.slack + 8), total - top)
                    top = (await logs[0].append(*range(top + 1, top + count + 1)))[-1]
                    await turns(chance.randrange(20))
                await logs[0].close()

            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as group:
                following = [group.create_task(follow(log, chance)) for log in logs * 3]
                group.create_task(publish())
            assert [task.result() for task in following] == [total] * 6

    async def test_a_reader_of_a_large_history_that_is_trimmed_misses_nothing_unnoticed(self) -> None:
        """While a reader fetches a history that is trimmed meanwhile, it gets each next entry or a reset."""
        chance = random.Random(13)
        kept, parts = 40, 60
        text = " " * (32 << 10)  # a process that comes late may have to fetch what is as large
        async with self.open_stores() as (one, other):
            here = await self._soon(one.attach(NAME, Retention(count=kept, size=None)))

            async def publish(first: int) -> None:
                await here.append(*(f"{first + number}{text}" for number in range(5)))
                await turns(chance.randrange(30))

            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as group:
                for part in range(kept // 5):
                    await publish(1 + 5 * part)
                there = await self._find(other, NAME)
                following = [group.create_task(follow(log, chance)) for log in (there, there, here)]
                for part in range(kept // 5, parts):
                    await publish(1 + 5 * part)
                await here.close()
            assert [task.result() for task in following] == [5 * parts] * 3

    # Statistics

    async def test_statistics_count_what_is_there(self) -> None:
        """A log tells its numbers, as this process knows them."""
        async with self._logs() as (here, there):
            with there.tail() as tail:
                await self._append(here, "ab", "cd", at=[there])
                assert await self._take(tail, 2) == ["ab", "cd"]
                now = there.statistics()
            assert (now.name, now.state, now.base, now.top) == (there.name, "open", 0, 2)
            assert (now.entries, now.size, now.readers) == (2, 8, 1)
            assert (now.dropped, now.conflated, now.resets) == (0, 0, 0)
            await here.close()
            await self._ended(there)
            assert (there.statistics().state, there.statistics().readers) == ("done", 0)

    async def test_a_listener_hears_of_readers_and_of_the_end(self) -> None:
        """A listener is called for each reader that joins or leaves here, and once for the end."""
        async with self._logs() as (here, there):
            heard: list[tuple[int, bool]] = []

            def listener(of: Log) -> None:
                heard.append((of.readers, of.outcome is not None))

            there.listen(listener)
            there.listen(listener)
            first = there.tail()
            with there.tail():
                first.close()
                first.close()
            await here.close()
            await here.close()
            await self._ended(there)
            # Something else may be told as well, such as readers elsewhere.
            told = [facts for facts, _ in groupby(heard)]
            assert told == [(1, False), (2, False), (1, False), (0, False), (0, True)]
            there.unlisten(listener)
            heard.clear()
            there.tail().close()
            assert not heard


async def follow(log: Log, chance: random.Random) -> int:
    """Read a log whose data are its offsets, from reset to reset, and check them. Return the last one."""
    after, last = 0, 0
    while True:
        try:
            with log.tail(after) as tail:
                async for entries in tail:
                    assert [int(data) for data in data_of(entries)] == list(entries.offsets)
                    assert list(entries.offsets) == list(range(after + 1, after + 1 + len(entries)))
                    after = last = entries.offsets[-1]
                    await turns(chance.randrange(10))
            return last
        except LogReset as reset:
            after = trimmed_to(reset)
            assert after > last
