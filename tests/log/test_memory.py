from __future__ import annotations

import asyncio
import tracemalloc
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tailrace import (
    Entry,
    Event,
    Flow,
    LogClosed,
    LogReset,
    MemoryLog,
    Outcome,
    Retention,
)
from tailrace.wire.sharing import SHARED_BATCHES
from tests.storing import MemoryContract

UNBOUNDED = Retention(count=None, size=None)


class TestMemoryStore(MemoryContract):
    pass


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("tailrace.log.memory.time", SimpleNamespace(monotonic=lambda: self.now))


class LogAgainstList(RuleBasedStateMachine):
    """A log reads like the end of a list of everything that was written, whatever its retention."""

    @initialize(
        count=st.none() | st.integers(1, 20),
        size=st.none() | st.integers(1, 200),
    )
    def make(self, count: int | None, size: int | None) -> None:
        self.retention = Retention(count, size)
        self.log = MemoryLog("model", self.retention)
        self.written: list[Entry] = []
        self.outcome: Outcome | None = None

    @rule(event=st.none() | st.sampled_from("ab"), json=st.binary(max_size=40))
    def write(self, event: str | None, json: bytes) -> None:
        if self.outcome is not None:
            with pytest.raises(LogClosed):
                self.log.write(event, json)
            return
        self.log.write(event, json)
        self.written.append(Entry(len(self.written) + 1, event, json))

    @rule(state=st.sampled_from(("done", "error", "cancelled")))
    def close(self, state: str) -> None:
        outcome = Outcome(state)  # type: ignore[arg-type]  # one of the three
        self.outcome = self.outcome or outcome
        assert asyncio.run(self.log.close(outcome)) == self.outcome

    @rule(data=st.data(), limit=st.integers(0, 30))
    def read(self, data: st.DataObject, limit: int) -> None:
        after = data.draw(st.integers(0, len(self.written)))
        if after < self.log.base:
            with pytest.raises(LogReset):
                self.log.read_nowait(after, limit)
        else:
            entries = self.log.read_nowait(after, limit)
            assert list(entries) == self.written[after : after + limit]
            assert list(entries.offsets) == [entry.offset for entry in entries]

    @invariant()
    def keeps_the_newest_within_its_bounds(self) -> None:
        log, count, size = self.log, self.retention.count, self.retention.size
        kept = self.written[log.base :]
        assert log.top == len(self.written)
        assert log.size() == (len(kept), sum(len(entry.json) for entry in kept))
        assert log.outcome == self.outcome
        assert kept or not self.written
        if len(kept) > 1:
            assert count is None or len(kept) <= count + count // 8
            assert size is None or log.size()[1] <= size + size // 8
        if log.base:
            gone = self.written[log.base - 1]
            more = len(kept) + 1, log.size()[1] + len(gone.json)
            assert (count is not None and more[0] > count) or (size is not None and more[1] > size)


TestLogAgainstList = LogAgainstList.TestCase


def write_all(log: MemoryLog, total: int, json: bytes = b"1", event: str | None = None) -> None:
    for _ in range(total):
        log.write(event, json)


def test_a_log_has_no_dict() -> None:
    assert not hasattr(MemoryLog("slots"), "__dict__")


class CountsMoves(MemoryLog):
    """Counts the entries that trimming moves or inspects."""

    moved = 0

    def _trim_excess(self) -> None:
        self.moved += len(self._json)
        super()._trim_excess()

    def _trim(self, count: int, size: int) -> None:
        self.moved += len(self._json)
        super()._trim(count, size)


@pytest.mark.parametrize(
    "retention",
    [Retention(count=1_000, size=None), Retention(count=None, size=1_000), Retention(count=1_000, size=1_000, age=1e6)],
)
def test_a_hundred_thousand_appends_stay_linear(retention: Retention) -> None:
    log = CountsMoves("linear", retention)
    write_all(log, 100_000)
    assert log.moved <= 20 * log.top
    assert log.size()[0] <= 1_125


def test_appends_stay_linear_when_age_trims(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    log = CountsMoves("linear", Retention(count=None, size=None, age=1_000))
    for _ in range(20_000):
        clock.now += 1
        log.write(None, b"1")
        assert log.size()[0] <= 1_200
    assert log.moved <= 20 * log.top


def test_memory_shrinks_with_what_is_trimmed() -> None:
    tracemalloc.start()
    try:
        log = MemoryLog("shrinks", Retention(count=10))
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            log.write("named", b"%01000d" % number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000


async def test_keys_are_known_while_an_entry_of_theirs_is_kept() -> None:
    log = MemoryLog("keys", Retention(count=8))
    for number in range(100):
        offsets = await log.append(number, number, key=str(number))
        for earlier in range(max(number - 3, 0), number):
            assert (await log.append("other", key=str(earlier)))[0] == 2 * earlier + 1
        assert offsets[-1] == log.top == 2 * number + 2
        assert len(log._keys) <= 6
    assert list(await log.append("again", key="0")) == [201]


def test_a_quiet_log_drops_old_entries_when_it_is_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    log = MemoryLog("quiet", Retention(age=10))
    write_all(log, 2)
    clock.now = 5
    write_all(log, 2)
    clock.now = 14
    log.trim()
    assert (log.base, log.top) == (2, 4)
    clock.now = 100
    log.trim()
    assert (log.base, log.size()) == (3, (1, 1))


def test_reading_does_not_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    log = MemoryLog("read", Retention(age=10))
    write_all(log, 2)
    clock.now = 100
    assert len(log.read_nowait(0, 10)) == 2


def test_a_log_without_bounds_keeps_everything() -> None:
    log = MemoryLog("all", UNBOUNDED)
    write_all(log, 20_000)
    log.trim()
    assert (log.base, log.size()) == (0, (20_000, 20_000))


async def test_readers_at_one_place_are_handed_one_batch() -> None:
    log = MemoryLog("shared")
    write_all(log, 3)
    with log.tail() as first, log.tail() as second, log.tail(1) as third:
        batch = first.read_nowait()
        assert second.read_nowait() is batch
        assert list(third.read_nowait() or ()) == list(log.read_nowait(1, 2))
        write_all(log, 1)
        assert first.read_nowait() is second.read_nowait() is third.read_nowait()
        with log.tail() as late:
            assert list(late.read_nowait() or ()) == list(log.read_nowait(0, 4))
    assert not log._shared.batches


async def test_few_batches_are_kept_for_other_readers() -> None:
    log = MemoryLog("shared")
    with log.tail() as first, log.tail():
        for _ in range(20):
            write_all(log, 1)
            first.read_nowait()
        assert len(log._shared.batches) == SHARED_BATCHES


async def test_what_is_conflated_for_one_reader_is_not_for_another() -> None:
    log = MemoryLog("shared")
    write_all(log, 3)
    with log.tail(flow=Flow.latest()) as latest, log.tail() as whole:
        assert [entry.offset for entry in latest.read_nowait() or ()] == [3]
        assert [entry.offset for entry in whole.read_nowait() or ()] == [1, 2, 3]


async def test_only_named_entries_have_names() -> None:
    log = MemoryLog("names", Retention(count=2))
    await log.append(Event(1, "a"), 2, Event(3, "b"), 4)
    assert [entry.event for entry in log.read_nowait(2, 10)] == ["b", None]


def test_an_epoch_may_be_given() -> None:
    assert MemoryLog("x", epoch="first").epoch == "first"
    assert MemoryLog("x").epoch != MemoryLog("x").epoch


def test_a_held_log_keeps_what_the_fastest_reader_has_not_had() -> None:
    log = MemoryLog("held", Retention(count=4, size=None))
    log.held = True
    write_all(log, 4)
    assert not log.full
    write_all(log, 2)
    assert (log.base, log.full) == (0, True)
    log.furthest = 5
    log.trim()
    assert (log.base, log.full) == (2, False)
    log.trim()
    assert log.base == 2


def test_a_held_log_may_always_keep_one_entry_that_is_too_large() -> None:
    log = MemoryLog("held", Retention(size=10))
    log.held = True
    log.write(None, b"x" * 100)
    assert log.full
    log.furthest = 1
    log.trim()
    assert (log.base, log.full) == (0, False)
    log.write(None, b"y")
    assert (log.base, log.full) == (1, False)


def test_a_log_that_is_held_no_more_is_trimmed_again() -> None:
    log = MemoryLog("held", Retention(count=4, size=None))
    log.held = True
    write_all(log, 6)
    log.held = False
    write_all(log, 1)
    assert (log.base, log.full) == (3, False)
