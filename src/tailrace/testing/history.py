"""The contract of coming back to a log: its cursors, and the history that it keeps."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from ..cursor import Cursor
from ..errors import LogReset
from ..flow import Retention
from ..log.base import Log
from .base import NAME, Contract, cursors_of, data_of, raised, trimmed_to, turns


class HistoryContract(Contract):
    """Tests of cursors, retention and trimming."""

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
