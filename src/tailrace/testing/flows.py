"""The contract of a log with slow readers."""

from __future__ import annotations

from ..errors import SlowReader
from ..events import Event
from ..flow import Flow, Retention
from ..log.base import BATCH_BYTES
from .base import Contract, data_of, raised


class FlowContract(Contract):
    """Tests of readers under each flow policy. They read at the other handle."""

    async def test_latest_gives_the_newest_of_each_key(self) -> None:
        """Under `latest`, a reader that is behind gets only the newest entry of each key."""
        async with self._logs() as (here, there):
            with there.tail(flow=Flow.latest()) as tail:
                await self._append(here, Event(1, "a"), Event(2, "b"), Event(3, "a"), 4, 5, at=[there])
                newest = await self._soon(tail.read())
                assert [(entry.offset, entry.event) for entry in newest] == [(2, "b"), (3, "a"), (5, None)]
                await self._append(here, 6, at=[there])
                assert data_of(await self._soon(tail.read())) == [6]
            assert there.statistics().conflated == 2

    async def test_latest_is_bounded_in_bytes(self) -> None:
        """Under `latest`, what does not fit into a batch comes with the next one."""
        async with self._logs() as (here, there):
            with there.tail(flow=Flow.latest()) as tail:
                large = "x" * (BATCH_BYTES // 2)
                await self._append(here, Event(0, "b"), *[Event(large, name) for name in "abcab"], at=[there])
                assert [entry.offset for entry in await self._soon(tail.read())] == [4]
                assert there.statistics().conflated == 3
                assert [entry.offset for entry in await self._soon(tail.read())] == [5]
                await self._append(here, Event(1, "b"), at=[there])
                assert [entry.offset for entry in await self._soon(tail.read())] == [7]
                assert there.statistics().conflated == 4

    async def test_latest_skips_trimmed_entries(self) -> None:
        """Under `latest`, a reader whose next entry was trimmed goes on with the oldest that is kept."""
        async with self._logs(Retention(count=4)) as (here, there):
            with there.tail(0, flow=Flow.latest(lambda entry: entry.offset)) as tail:
                base, top = await self._fill(here, at=[there])
                assert await self._take(tail, top - base) == list(range(base + 1, top + 1))
            assert there.statistics().conflated == base

    async def test_drop_jumps_to_the_newest_and_counts(self) -> None:
        """Under `drop`, a reader that is too far behind skips entries, and learns how many."""
        async with self._logs() as (here, there):
            with there.tail(flow=Flow.drop(3)) as tail:
                await self._append(here, 1, 2, 3, at=[there])
                assert data_of(await self._soon(tail.read())) == [1, 2, 3]
                await self._append(here, 4, 5, 6, 7, 8, at=[there])
                assert data_of(await self._soon(tail.read())) == [6, 7, 8]
                assert (tail.take_dropped(), tail.take_dropped()) == (2, 0)
            assert there.statistics().dropped == 2

    async def test_drop_skips_trimmed_entries(self) -> None:
        """Under `drop`, trimmed entries count as skipped."""
        async with self._logs(Retention(count=4)) as (here, there):
            with there.tail(0, flow=Flow.drop(1 << 20)) as tail:
                base, top = await self._fill(here, at=[there])
                assert await self._take(tail, top - base) == list(range(base + 1, top + 1))
                assert tail.take_dropped() == base

    async def test_disconnect_sends_a_slow_reader_away_at_its_place(self) -> None:
        """Under `disconnect`, a reader that is too far behind is sent away, and can come back where it was."""
        async with self._logs() as (here, there):
            with there.tail(flow=Flow.disconnect(3)) as tail:
                await self._append(here, 1, 2, 3, at=[there])
                assert data_of(await self._soon(tail.read())) == [1, 2, 3]
                await self._append(here, 4, 5, 6, 7, at=[there])
                slow = await raised(SlowReader, self._soon(tail.read()))
                assert (slow.behind, slow.high, tail.position) == (4, 3, 3)

    async def test_history_from_before_the_reader_is_not_slowness(self) -> None:
        """A reader may read the history at its own pace, under any policy."""
        async with self._logs() as (here, there):
            await self._append(here, *range(10), at=[there])
            with there.tail(flow=Flow.disconnect(3)) as patient, there.tail(flow=Flow.drop(3)) as dropping:
                await self._append(here, *range(10, 13), at=[there])
                assert await self._take(patient, 13) == list(range(13))
                assert await self._take(dropping, 13) == list(range(13))
                assert dropping.take_dropped() == 0

    async def test_a_slow_reader_is_not_in_the_way_of_another(self) -> None:
        """Each reader has its own pace."""
        async with self._logs() as (here, there):
            with there.tail() as slow, there.tail() as fast:
                for number in range(5):
                    await here.append(number)
                    assert await self._take(fast, 1) == [number]
                assert await self._take(slow, 5) == list(range(5))
