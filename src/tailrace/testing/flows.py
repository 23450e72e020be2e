"""The contract of a log with slow readers, and with writers that wait for them."""

from __future__ import annotations

from ..errors import SlowReader
from ..events import Event
from ..flow import Flow, Retention
from ..log.base import BATCH_BYTES
from .base import Contract, data_of, raised


class FlowContract(Contract):
    """Tests for any log under each flow policy."""

    # Flow policies

    async def test_latest_gives_the_newest_of_each_key(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(flow=Flow.latest()) as tail:
                await log.append(Event(1, "a"), Event(2, "b"), Event(3, "a"), 4, 5)
                assert [(entry.offset, entry.event) for entry in await tail.read()] == [(2, "b"), (3, "a"), (5, None)]
                await log.append(6)
                assert data_of(await tail.read()) == [6]
            assert log.statistics().conflated == 2

    async def test_latest_is_bounded_in_bytes(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(flow=Flow.latest()) as tail:
                large = "x" * (BATCH_BYTES // 2)
                await log.append(*[Event(0, "b"), *[Event(large, name) for name in "abcab"]])
                assert [entry.offset for entry in await tail.read()] == [4]
                assert log.statistics().conflated == 3
                assert [entry.offset for entry in await tail.read()] == [5]
                await log.append(Event(1, "b"))
                assert [entry.offset for entry in await tail.read()] == [7]
                assert log.statistics().conflated == 4

    async def test_latest_skips_trimmed_entries(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            with log.tail(flow=Flow.latest(lambda entry: entry.offset)) as tail:
                await self._fill(log)
                assert data_of(await tail.read()) == list(range(log.base + 1, log.top + 1))
            assert log.statistics().conflated == log.base

    async def test_drop_jumps_to_the_newest_and_counts(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(flow=Flow.drop(3)) as tail:
                await log.append(1, 2, 3)
                assert data_of(await tail.read()) == [1, 2, 3]
                await log.append(4, 5, 6, 7, 8)
                assert data_of(await tail.read()) == [6, 7, 8]
                assert (tail.take_dropped(), tail.take_dropped()) == (2, 0)
            assert log.statistics().dropped == 2

    async def test_drop_skips_trimmed_entries(self) -> None:
        async with self.make_log(Retention(count=4)) as log:
            with log.tail(flow=Flow.drop(1 << 20)) as tail:
                await self._fill(log)
                assert data_of(await tail.read()) == list(range(log.base + 1, log.top + 1))
                assert tail.take_dropped() == log.base

    async def test_disconnect_sends_a_slow_reader_away_at_its_place(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail(flow=Flow.disconnect(3)) as tail:
                await log.append(1, 2, 3)
                assert data_of(await tail.read()) == [1, 2, 3]
                await log.append(4, 5, 6, 7)
                slow = await raised(SlowReader, tail.read())
                assert (slow.behind, slow.high, tail.position) == (4, 3, 3)

    async def test_history_from_before_the_reader_is_not_slowness(self) -> None:
        async with self.make_log(Retention()) as log:
            await log.append(*range(10))
            with log.tail(flow=Flow.disconnect(3)) as patient, log.tail(flow=Flow.drop(3)) as dropping:
                await log.append(*range(10, 13))
                assert data_of(await patient.read()) == list(range(13))
                assert data_of(await dropping.read()) == list(range(13))
                assert dropping.take_dropped() == 0

    async def test_a_slow_reader_is_not_in_the_way_of_another(self) -> None:
        async with self.make_log(Retention()) as log:
            with log.tail() as slow, log.tail() as fast:
                for number in range(5):
                    await log.append(number)
                    assert data_of(await self._soon(fast.read())) == [number]
                assert data_of(await slow.read()) == list(range(5))
