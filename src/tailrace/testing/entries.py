"""The contract of appending, ending and reading, with the same promises at every handle."""

from __future__ import annotations

import asyncio
import random
from itertools import groupby

from ..errors import EventError, LogClosed
from ..events import DONE, Event, Outcome
from ..flow import Retention
from ..log.base import BATCH_BYTES, Log
from .base import Contract, data_of, offsets_of, raised, turns


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

    async def test_an_append_with_a_key_is_made_once(self) -> None:
        """A repeat with the same key, in any process, appends nothing and returns the offsets of the first."""
        async with self._logs() as (here, there):
            assert list(await here.append("a", "b", key="one")) == [1, 2]
            assert list(await there.append("c", key="two")) == [3]
            assert list(await there.append(key="nothing")) == []
            for log in (there, here):
                assert list(await log.append("A", "B", key="one")) == [1, 2]
                assert list(await log.append("whatever", "it", "is", key="two")) == [3]
            assert list(await here.append("a", "b")) == [4, 5]
            assert list(await there.append("d", key="nothing")) == [6]
            for log in (here, there):
                assert await self._read(log, 6) == ["a", "b", "c", "a", "b", "d"]

    async def test_of_appends_with_one_key_at_once_one_is_made(self) -> None:
        """If processes append with the same key at the same time, all get the offsets of the one that is made."""
        async with self._logs() as (here, there):
            for number in range(10):
                log = (here, there)[number % 2]
                await log.append("between")
                appends = [each.append(number, key=f"key {number}") for each in (here, there) * 2]
                assert await self._soon(asyncio.gather(*appends)) == [range(2 * number + 2, 2 * number + 3)] * 4
            for log in (here, there):
                assert (await self._read(log, 20))[1::2] == list(range(10))

    async def test_a_key_is_known_after_the_end(self) -> None:
        """A repeated append whose first answer was lost still succeeds after the log has ended."""
        async with self._logs() as (here, there):
            await here.append(1, key="one")
            await here.close()
            for log in (here, there):
                assert list(await log.append(1, key="one")) == [1]
                await raised(LogClosed, log.append(2, key="two"))

    async def test_a_writer_needs_no_key(self) -> None:
        """An append has a fence or a key, not both."""
        async with self._logs() as (here, _):
            await raised(ValueError, here.append(1, fence=1, key="one"))

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
        """A log ends once. Ending it again, in any process, returns the outcome that it has."""
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
        """A batch with more bytes than the bound is a single entry, even for readers who share it."""
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
                        reader = offsets_of(chosen.tail(chance.choice([0, chosen.top])), chance)
                        try:
                            reading.append(reading_group.create_task(reader))
                        except RuntimeError:  # the group takes no more, because one of its readers has failed
                            reader.close()
                            raise
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

    # Reading alone

    async def test_of_two_claims_at_once_one_succeeds_everywhere(self) -> None:
        """If readers in several processes claim the seat at once, one gets it, and all learn which."""
        async with self._logs() as (here, there):
            with here.tail(), there.tail():
                before = ""
                for number in range(10):
                    claims = {f"{number}{place}": log for place, log in (("a", here), ("b", there))}
                    for claim, log in claims.items():
                        log.claim_seat(claim, before)
                    for log in (here, there):
                        await self._told(log, lambda log, claims=claims: log.control.seat in claims)  # type: ignore[misc]
                    assert here.control.seat == there.control.seat
                    before = here.control.seat

    async def test_a_claim_replaces_only_the_one_that_it_names(self) -> None:
        """A reader that has missed a claim does not get the seat. One that knows of it does."""
        async with self._logs() as (here, there):
            with here.tail(), there.tail():
                here.claim_seat("a", "")
                for log in (here, there):
                    await self._told(log, lambda log: log.control.seat == "a")
                there.claim_seat("b", "")
                await asyncio.sleep(self.pause)
                assert here.control.seat == there.control.seat == "a"
                there.claim_seat("c", "a")
                for log in (here, there):
                    await self._told(log, lambda log: log.control.seat == "c")

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
