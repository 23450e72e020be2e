from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import pytest

from tailrace import (
    Event,
    EventError,
    Flow,
    Job,
    LogClosed,
    LogFenced,
    MemoryLog,
    MemoryStore,
    Outcome,
    Producer,
    Result,
    Retention,
    StoreUnavailable,
    StreamError,
)
from tailrace.log.memory import MemoryWriter
from tailrace.log.writer import UNAVAILABLE
from tailrace.producer import CHECKPOINT, STOPPED, TRANSITIONS, Cause, State, describe_error
from tests.producing import LIMIT, arrived, ended, kept, leased, produce
from tests.silence import silent_loop as silent_loop

pytestmark = pytest.mark.usefixtures("silent_loop")

DISCONNECTED = Outcome("cancelled", "disconnected", "every reader left")
INTERNAL_ERROR = Outcome("error", "internal_error", "Internal Server Error")


class Probe:
    """A generator that records how it ends."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.closed_in: asyncio.Task[Any] | None = None

    async def items(self, count: int = 1) -> AsyncIterator[int]:
        """Yield some items, then wait for a cancellation."""
        try:
            for number in range(count):
                yield number
            self.reached.set()
            await asyncio.Event().wait()
        finally:
            self.closed_in = asyncio.current_task()

    async def forever(self) -> AsyncIterator[int]:
        """Yield items for ever, without waiting."""
        try:
            while True:
                yield 1
                self.reached.set()
        finally:
            self.closed_in = asyncio.current_task()


class Unbegun:
    """Items that should never be begun."""

    def __init__(self) -> None:
        self.release, self.closed = asyncio.Event(), asyncio.Event()
        self.release.set()

    def __aiter__(self) -> Unbegun:
        return self

    async def __anext__(self) -> int:
        raise AssertionError("nobody should ask")

    async def aclose(self) -> None:
        await self.release.wait()
        self.closed.set()


class Lagging(MemoryLog):
    """A log whose store lags: it is full once it has `full_at` entries, until the test says otherwise."""

    def __init__(self, full_at: int) -> None:
        super().__init__("test")
        self.full_at = full_at

    def write(self, event: str | None, json: bytes) -> None:
        super().write(event, json)
        self.full = self.full or self.top == self.full_at

    def trim(self) -> None:
        pass


class Strict(MemoryWriter):
    """A writer that writes nothing once its lease is lost, however it was lost."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log, leased(log).fence)
        self.write = self._write

    def _write(self, event: str | None, json: bytes) -> None:
        if self.lost:
            self._refuse(event, json)
        self.log.write(event, json)


# The table


class Actor:
    """A generator that does what the test orders."""

    def __init__(self) -> None:
        self._orders: asyncio.Queue[Any] = asyncio.Queue()
        self.waiting = asyncio.Event()
        self.obedient = True

    def order(self, order: Any) -> None:
        """Return for None, raise an exception, or yield anything else."""
        self._orders.put_nowait(order)

    async def items(self) -> AsyncIterator[Any]:
        while True:
            self.waiting.set()
            try:
                order = await self._orders.get()
            except asyncio.CancelledError:
                if self.obedient:
                    raise
                continue
            if order is None:
                return
            if isinstance(order, Exception):
                raise order
            yield order


class Gated(MemoryWriter):
    """A writer whose store waits for the test before it stores the end."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log, leased(log).fence)
        self.gate = asyncio.Event()

    async def close(self, outcome: Outcome) -> Outcome:
        await self.gate.wait()
        return await super().close(outcome)


class Play:
    """A producer with an actor, a gated writer and one reader, led to a state and then to another one."""

    def __init__(self, state: State, cause: Cause) -> None:
        self.state, self.cause = state, cause
        self.log, self.actor = MemoryLog("test"), Actor()
        self.tail = self.log.tail()
        self.declaring: asyncio.Task[None] | None = None
        self.writer = Gated(self.log)
        hasty = State.STUCK is state or Cause.OVERDUE is cause
        self.producer = Producer(
            self.writer, self.actor.items(), flow=Flow.block(1), grace=0.001, patience=0.01 if hasty else LIMIT
        )

    async def becomes(self, state: State) -> None:
        async with asyncio.timeout(LIMIT):
            while self.producer.state is not state:  # noqa: ASYNC110 - a producer tells nobody of its states
                await asyncio.sleep(0)

    async def reach(self) -> None:
        """Lead the producer to the state."""
        await asyncio.wait_for(self.actor.waiting.wait(), LIMIT)
        if self.state in (State.STOPPING, State.INSISTING, State.STUCK):
            await self._stop()
        elif self.state is State.LINGERING:
            self._declare()
        elif self.state in (State.CLOSING, State.ENDED):
            self.actor.order(None)
            await self.becomes(State.CLOSING)
        if self.state is State.ENDED:
            self.writer.gate.set()
        await self.becomes(self.state)

    async def _stop(self) -> None:
        if State.INSISTING is self.state or Cause.INTERRUPTED is self.cause:
            self.actor.order("an item that the reader does not read")
            await arrived(self.log, 1)
            await asyncio.sleep(0)
        self.actor.obedient = False
        self.producer.stop()

    def happen(self) -> None:
        """Make what happens next happen."""
        acts: dict[Cause, Callable[[], object]] = {
            Cause.READERS: self.log.tail,
            Cause.STOP: self.producer.stop,
            Cause.ABANDONED: self.tail.close,
            Cause.LOST: partial(leased, self.log),
            Cause.DECLARED: self._declare,
            Cause.FINISHED: partial(self.actor.order, None),
            Cause.FAILED: partial(self.actor.order, ValueError("no")),
            Cause.CANCELLED: self._cancel,
            Cause.STORED: self.writer.gate.set,
        }
        if (act := acts.get(self.cause)) is not None:  # the others come by themselves
            act()

    def _declare(self) -> None:
        self.declaring = asyncio.create_task(self.producer.finish())

    def _cancel(self) -> None:
        self.actor.obedient = True
        self.producer.task.cancel()

    async def __aenter__(self) -> Play:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.actor.obedient = True  # a loop cannot end with an actor that is not
        self.writer.gate.set()
        self.actor.order(None)
        self.tail.close()
        await ended(self.producer)
        if self.declaring is not None:
            await asyncio.wait_for(self.declaring, LIMIT)


WALK: dict[State, dict[Cause, State]] = {
    State.RUNNING: {
        Cause.STOP: State.STOPPING,
        Cause.ABANDONED: State.STOPPING,
        Cause.LOST: State.STOPPING,
        Cause.DECLARED: State.LINGERING,
        Cause.FINISHED: State.CLOSING,
        Cause.FAILED: State.CLOSING,
        Cause.CANCELLED: State.CLOSING,
    },
    State.STOPPING: {
        Cause.INTERRUPTED: State.INSISTING,
        Cause.OVERDUE: State.STUCK,
        Cause.FINISHED: State.CLOSING,
        Cause.FAILED: State.CLOSING,
        Cause.CANCELLED: State.CLOSING,
    },
    State.INSISTING: {
        Cause.OVERDUE: State.STUCK,
        Cause.FINISHED: State.CLOSING,
        Cause.FAILED: State.CLOSING,
        Cause.CANCELLED: State.CLOSING,
    },
    State.LINGERING: {
        Cause.STOP: State.STOPPING,
        Cause.OVERDUE: State.STOPPING,
        Cause.FINISHED: State.CLOSING,
        Cause.FAILED: State.CLOSING,
        Cause.CANCELLED: State.CLOSING,
    },
    State.CLOSING: {Cause.STORED: State.ENDED},
    State.STUCK: {Cause.STORED: State.STUCK},
    State.ENDED: {},
}
"""The transitions, as users see them. Other tests have those that lead to no other state."""


@pytest.mark.parametrize(("state", "cause"), [(state, cause) for state in WALK for cause in WALK[state]])
async def test_a_cause_leads_from_one_state_to_another(state: State, cause: Cause) -> None:
    async with Play(state, cause) as play:
        await play.reach()
        play.happen()
        await play.becomes(WALK[state][cause])
        if cause is Cause.STORED:
            await asyncio.wait_for(play.producer.wait(), LIMIT)
        assert play.producer.finished is (cause is Cause.STORED)


LATE = [
    (state, cause)
    for state in State
    for cause in (Cause.READERS, Cause.STOP, Cause.ABANDONED, Cause.LOST, Cause.DECLARED)
    if cause not in TRANSITIONS[state]
]


@pytest.mark.parametrize(("state", "cause"), LATE)
async def test_what_happens_too_late_changes_nothing(state: State, cause: Cause) -> None:
    async with Play(state, cause) as play:
        await play.reach()
        play.happen()
        for _ in range(5):
            await asyncio.sleep(0)
        assert play.producer.state is state


def test_the_walk_goes_over_the_whole_table() -> None:
    alone = {
        State.RUNNING: {Cause.READERS},
        State.STOPPING: {Cause.UNBEGUN},
        State.STUCK: {Cause.UNBEGUN},
    }
    assert {state: set(WALK[state]) | alone.get(state, set()) for state in State} == {
        state: set(rows) for state, rows in TRANSITIONS.items()
    }


# Ends


async def test_a_result_is_the_value_of_the_outcome_and_no_entry() -> None:
    async def items() -> AsyncIterator[Any]:
        yield "a"
        yield Result({"at": datetime(2026, 11, 28, tzinfo=UTC)})

    producer = produce(items())
    assert await ended(producer) == Outcome("done", data={"at": "2026-11-28T00:00:00Z"})
    assert kept(producer.log) == ["a"]


async def test_nothing_follows_a_result() -> None:
    async def items() -> AsyncIterator[Any]:
        yield Result(1)
        yield "late"

    producer = produce(items())
    assert await ended(producer) == Outcome("error", "not_serializable", "an event could not be encoded", 1)
    assert "expected nothing after a Result, but got 'late'" in str(producer.error)


async def test_a_stopped_generator_can_give_a_result() -> None:
    started = asyncio.Event()

    async def items() -> AsyncIterator[Any]:
        try:
            yield "a"
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield Result({"tokens": 1})

    producer = produce(items())
    async with asyncio.timeout(LIMIT):
        await started.wait()
    producer.stop()
    assert await ended(producer) == replace(STOPPED, data={"tokens": 1})


async def test_a_result_that_is_not_json_is_an_error() -> None:
    async def items() -> AsyncIterator[Any]:
        yield Result(object())

    producer = produce(items())
    assert await ended(producer) == Outcome("error", "not_serializable", "an event could not be encoded")


async def test_a_generator_that_finishes_ends_its_log_as_done() -> None:
    async def items() -> AsyncIterator[Any]:
        yield 1
        yield Event(2, "named")

    producer = produce(items())
    assert not producer.finished
    assert await ended(producer) == Outcome("done")
    assert producer.finished
    assert kept(producer.log) == [1, 2]
    assert (producer.error, producer.stuck) == (None, False)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_an_exception_before_between_or_after_items_ends_the_log_as_an_error(count: int) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(count):
            yield number
        raise LookupError("a secret")

    producer = produce(items())
    assert await ended(producer) == INTERNAL_ERROR
    assert kept(producer.log) == list(range(count))
    assert isinstance(producer.error, LookupError)


async def test_a_stream_error_says_its_message_and_code() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise StreamError("out of paper", code="no_paper")

    producer = produce(items())
    assert await ended(producer) == Outcome("error", "no_paper", "out of paper")
    assert isinstance(producer.error, StreamError)


async def test_an_item_that_cannot_be_encoded_ends_the_log_and_closes_the_generator() -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[Any]:
        try:
            yield 1
            yield object()
            yield 3
        finally:
            closed.set()

    producer = produce(items())
    assert await ended(producer) == Outcome("error", "not_serializable", "an event could not be encoded")
    assert kept(producer.log) == [1]
    assert isinstance(producer.error, EventError)
    assert closed.is_set()


async def test_an_application_can_describe_errors_itself() -> None:
    async def items() -> AsyncIterator[int]:
        raise LookupError("lost")
        yield 1

    producer = produce(items(), describe=lambda error: Outcome("error", type(error).__name__))
    assert await ended(producer) == Outcome("error", "LookupError")


async def test_a_failing_description_is_an_error() -> None:
    def describe(error: Exception) -> Outcome:
        raise LookupError("no words")

    async def items() -> AsyncIterator[int]:
        yield 1
        raise ValueError("bad")

    producer = produce(items(), describe=describe)
    assert await ended(producer) == INTERNAL_ERROR
    assert isinstance(producer.error, ValueError)
    with pytest.raises(LookupError, match="no words"):
        await producer.task


async def test_a_base_exception_is_an_error() -> None:
    class Abort(BaseException):
        pass

    async def items() -> AsyncIterator[int]:
        yield 1
        raise Abort

    producer = produce(items())
    assert await ended(producer) == INTERNAL_ERROR
    with pytest.raises(Abort):
        await producer.task


async def test_a_cancelled_error_of_the_applications_own_is_an_error() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError("mine")

    producer = produce(items())
    assert await ended(producer) == INTERNAL_ERROR
    assert isinstance(producer.error, RuntimeError)
    assert isinstance(producer.error.__cause__, asyncio.CancelledError)
    assert not producer.task.cancelled()


async def test_an_application_can_encode_items_itself() -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"

    producer = produce(items(), encode=lambda item: (item, b"0"))
    await ended(producer)
    assert [(entry.event, entry.data) for entry in await producer.log.read(0, 9)] == [("a", 0)]


async def test_a_generator_that_never_suspends_lets_others_run() -> None:
    probe = Probe()
    producer = produce(probe.forever(), log=MemoryLog("test", Retention(count=10)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert producer.log.top <= 5 * CHECKPOINT
    producer.stop()
    assert await ended(producer) == STOPPED
    assert probe.closed_in is producer.task


async def test_the_generator_of_an_iterable_is_closed() -> None:
    probe = Probe()

    class Feed:
        def __aiter__(self) -> AsyncIterator[int]:
            return probe.items()

    producer = produce(Feed())
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    producer.stop()
    await ended(producer)
    assert probe.closed_in is producer.task


# What others decide


async def test_a_stop_from_another_process_reaches_a_waiting_generator() -> None:
    probe = Probe()
    producer = produce(probe.items())
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    await producer.log.stop()
    assert await ended(producer) == STOPPED
    assert probe.closed_in is producer.task


async def test_a_stop_from_another_process_between_two_items_reaches_the_generator() -> None:
    reporter = Reporter()
    producer = produce(reporter.items(CHECKPOINT + 2))
    await arrived(producer.log, CHECKPOINT)
    await producer.log.stop()
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == [*range(CHECKPOINT + 2), "last", "word"]


async def test_a_stop_that_was_asked_for_before_the_producer_came_counts() -> None:
    log, probe = await MemoryStore().create("test", Retention()), Probe()
    await log.stop()
    assert await ended(produce(probe.forever(), log=log)) == STOPPED
    assert kept(log) == []


async def test_a_log_that_the_application_ends_ends_a_waiting_generator() -> None:
    probe = Probe()
    producer = produce(probe.items())
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    told = Outcome("error", "enough", "that was enough")
    await producer.log.close(told)
    assert await ended(producer) == told
    assert probe.closed_in is producer.task
    assert (producer.error, producer.stuck) == (None, False)


async def test_a_log_that_the_generator_itself_ends_takes_no_more_items(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await producer.log.close()
        yield 2

    producer = produce(items())
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == [1]
    assert producer.error is None
    assert not caplog.records


async def test_a_log_that_is_ended_between_two_items_ends_a_generator_that_never_suspends() -> None:
    probe = Probe()
    producer = produce(probe.forever())
    await arrived(producer.log, CHECKPOINT)
    await producer.log.close()
    assert await ended(producer) == Outcome("done")
    assert probe.closed_in is producer.task
    assert producer.log.top == CHECKPOINT


async def test_a_lost_lease_ends_a_waiting_generator_and_leaves_the_log_open(caplog: pytest.LogCaptureFixture) -> None:
    probe, log = Probe(), MemoryLog("test")
    producer = produce(probe.items(), log=log)
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    other = leased(log)
    assert await ended(producer) is None
    assert probe.closed_in is producer.task
    assert (producer.error, producer.stuck) == (None, False)
    assert caplog.messages == ["log test: the lease is lost, so the generator is stopped"]
    other.write(None, b"1")
    assert not other.lost
    assert kept(log) == [0, 1]


async def test_a_lost_lease_between_two_items_ends_the_generator_and_nothing_more_is_written() -> None:
    reporter, log = Reporter(), MemoryLog("test")
    producer = produce(reporter.items(CHECKPOINT + 2), writer=Strict(log))
    await arrived(log, CHECKPOINT)
    leased(log)
    assert await ended(producer) is None
    assert kept(log) == [*range(CHECKPOINT)]
    assert producer.error is None


async def test_a_generator_that_goes_on_after_its_lease_was_lost_is_closed_at_its_next_item() -> None:
    reached, log = asyncio.Event(), MemoryLog("test")
    closed = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                reached.set()
                await asyncio.Event().wait()
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    producer = produce(items(), writer=Strict(log), patience=LIMIT)
    await asyncio.wait_for(reached.wait(), LIMIT)
    leased(log)
    assert await ended(producer) is None
    assert closed.is_set()
    assert kept(log) == []
    assert not producer.stuck


async def test_a_lease_that_is_lost_before_the_first_step_closes_the_items() -> None:
    log, feed = MemoryLog("test"), Unbegun()
    producer = produce(feed, log=log)
    leased(log)
    assert await ended(producer) is None
    assert feed.closed.is_set()


async def test_a_writer_that_knows_first_that_its_lease_is_lost_ends_the_producer() -> None:
    """A store may refuse an append before it has told that somebody else has the lease."""
    log = MemoryLog("test")

    class Refused(MemoryWriter):
        def __init__(self) -> None:
            super().__init__(log, leased(log).fence)
            self.write = self._write

        def _write(self, event: str | None, json: bytes) -> None:
            raise LogFenced(log.name, self.fence + 1)

        async def close(self, outcome: Outcome) -> Outcome:
            leased(log)
            return await super().close(outcome)

    probe = Probe()
    producer = produce(probe.forever(), writer=Refused())
    assert await ended(producer) is None
    assert probe.closed_in is producer.task
    assert producer.error is None


async def test_a_lease_that_is_lost_during_a_stop_changes_nothing() -> None:
    reached, release, log = asyncio.Event(), asyncio.Event(), MemoryLog("test")

    async def items() -> AsyncIterator[int]:
        try:
            reached.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            await release.wait()

    producer = produce(items(), log=log)
    await asyncio.wait_for(reached.wait(), LIMIT)
    producer.stop()
    await asyncio.sleep(0)
    leased(log)
    await asyncio.sleep(0)
    assert producer.state is State.STOPPING
    release.set()
    assert await ended(producer) is None
    assert not producer.stuck


@pytest.mark.parametrize("failure", [LogClosed("other", "done"), LogFenced("other", 7), StoreUnavailable("other", "")])
async def test_what_another_log_raises_is_the_generators_own_failure(failure: Exception) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise failure

    producer = produce(items())
    assert await ended(producer) == INTERNAL_ERROR
    assert producer.error is failure


async def test_a_writer_that_ends_the_log_because_the_store_refuses_it_ends_the_generator() -> None:
    probe = Probe()
    producer = produce(probe.items())
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    producer.log.end(UNAVAILABLE)
    assert await ended(producer) == UNAVAILABLE
    assert probe.closed_in is producer.task
    assert producer.error is None


async def test_readers_elsewhere_count_as_readers() -> None:
    probe, log = Probe(), MemoryLog("test")
    log.set_control(elsewhere=1)
    producer = produce(probe.items(), log=log, on_disconnect="cancel", grace=0.01)
    with log.tail():
        await asyncio.wait_for(probe.reached.wait(), LIMIT)
    await asyncio.sleep(0.05)
    assert producer.state is State.RUNNING
    log.set_control(elsewhere=0)
    assert await ended(producer) == DISCONNECTED


async def test_a_producer_that_blocks_does_not_wait_for_readers_elsewhere() -> None:
    """It cannot know how far they are."""
    probe, log = Probe(), MemoryLog("test", Retention(count=8))
    producer = produce(probe.items(100), log=log, on_disconnect="cancel", flow=Flow.block(4), grace=LIMIT)
    await arrived(log, 4)
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.top == 4
    log.set_control(elsewhere=1)
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    assert kept(log) == [*range(92, 100)]
    producer.stop()
    await ended(producer)


# Being stopped


async def test_a_stop_cancels_a_waiting_generator_in_its_own_task(caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe()
    producer = produce(probe.items())
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert probe.closed_in is producer.task
    assert producer.error is None
    assert not caplog.records


async def test_a_stop_is_idempotent_and_the_first_outcome_wins() -> None:
    probe = Probe()
    producer = produce(probe.items())
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    first = Outcome("cancelled", "first")
    producer.stop(first)
    producer.stop()
    assert await ended(producer) == first
    producer.stop()
    assert producer.log.outcome == first


async def test_a_stop_after_the_end_changes_nothing() -> None:
    producer = produce([1])
    await ended(producer)
    producer.stop()
    assert await ended(producer) == Outcome("done")


async def test_a_stop_before_the_first_step_ends_at_once() -> None:
    feed = Unbegun()
    producer = produce(feed, patience=LIMIT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert feed.closed.is_set()
    assert not producer.stuck


async def test_items_that_never_ran_and_cannot_be_closed_are_given_up() -> None:
    feed = Unbegun()
    feed.release.clear()
    finished: list[Producer] = []
    producer = produce(feed, patience=0.01, on_finish=finished.append)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert producer.stuck
    feed.release.set()
    await asyncio.wait_for(feed.closed.wait(), LIMIT)
    await asyncio.sleep(0)
    assert finished == [producer]


async def test_items_that_never_ran_are_closed_even_if_the_patience_is_over_before() -> None:
    feed = Unbegun()
    producer = produce(feed, patience=0)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert producer.stuck
    await asyncio.wait_for(feed.closed.wait(), LIMIT)


async def test_items_that_never_ran_and_fail_to_close_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Unbegun):
        async def aclose(self) -> None:
            raise ValueError("jammed")

    producer = produce(Broken())
    producer.stop()
    assert await ended(producer) == STOPPED
    assert caplog.messages == ["log test: the generator raised while it was stopped"]


async def test_a_cancelled_task_that_never_ran_ends_its_log() -> None:
    producer = produce(Probe().items())
    producer.task.cancel()
    await producer.wait()
    assert producer.log.outcome == Outcome("cancelled", "cancelled", "the producer was cancelled")


async def test_items_within_the_patience_after_a_stop_are_kept() -> None:
    reached = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        try:
            yield "part"
            reached.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "rest"
            await asyncio.sleep(0)
            yield "summary"

    producer = produce(items())
    await asyncio.wait_for(reached.wait(), LIMIT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == ["part", "rest", "summary"]


class Reporter:
    """A generator that yields last words when it is cancelled at its own await."""

    def __init__(self) -> None:
        self.cancellations: list[int] = []
        self.task: asyncio.Task[Any] | None = None

    async def items(self, count: int) -> AsyncIterator[Any]:
        self.task = asyncio.current_task()
        try:
            for number in range(count):
                yield number
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert self.task is not None
            self.cancellations.append(self.task.cancelling())
            yield "last"
            await asyncio.sleep(0)
            yield "word"


async def test_a_stop_of_a_producer_that_readers_keep_waiting_reaches_the_generator() -> None:
    reporter, log = Reporter(), MemoryLog("test")
    producer = produce(reporter.items(6), log=log, on_disconnect="cancel", flow=Flow.block(4), patience=LIMIT)
    with log.tail():
        await arrived(log, 4)
        await asyncio.sleep(0)
        producer.stop()
        assert await ended(producer) == STOPPED
    assert kept(log) == [0, 1, 2, 3, 4, 5, "last", "word"]
    assert reporter.cancellations == [1]
    assert producer.error is None


async def test_a_stop_between_two_items_reaches_the_generator() -> None:
    reporter = Reporter()
    producer = produce(reporter.items(CHECKPOINT + 2))
    await arrived(producer.log, CHECKPOINT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == [*range(CHECKPOINT + 2), "last", "word"]
    assert reporter.cancellations == [1]


async def test_a_stop_by_the_generator_itself_reaches_it_at_its_next_await() -> None:
    reporter = Reporter()

    async def items() -> AsyncIterator[Any]:
        producer.stop()
        async for item in reporter.items(CHECKPOINT + 2):
            yield item

    producer = produce(items())
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == [*range(CHECKPOINT + 2), "last", "word"]


async def test_a_stop_while_the_store_lags_reaches_the_generator() -> None:
    reporter, log = Reporter(), Lagging(3)
    producer = produce(reporter.items(6), log=log)
    await arrived(log, 3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.top == 3
    producer.stop()
    assert await ended(producer) == STOPPED
    assert kept(log) == [*range(6), "last", "word"]


async def test_a_stopped_producer_waits_for_a_store_that_lags_but_not_for_ever() -> None:
    reporter, log = Reporter(), Lagging(3)
    producer = produce(reporter.items(2), log=log, patience=0.05)
    await arrived(log, 2)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert producer.stuck
    assert kept(log) == [0, 1, "last"]


async def test_a_stop_in_a_pause_closes_a_generator_that_never_suspends_at_the_next() -> None:
    probe = Probe()
    producer = produce(probe.forever())
    await arrived(producer.log, CHECKPOINT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert producer.log.top == 2 * CHECKPOINT
    assert probe.closed_in is producer.task
    assert not producer.stuck


async def test_a_cancellation_from_outside_in_a_pause_does_not_reach_the_generator() -> None:
    reporter, log = Reporter(), MemoryLog("test")
    producer = produce(reporter.items(6), log=log, on_disconnect="cancel", flow=Flow.block(4))
    with log.tail():
        await arrived(log, 4)
        await asyncio.sleep(0)
        producer.task.cancel()
        assert await ended(producer) == Outcome("cancelled", "cancelled", "the producer was cancelled")
    assert producer.task.cancelled()
    assert kept(log) == [0, 1, 2, 3]


async def test_a_stopped_producer_does_not_wait_for_readers() -> None:
    reached = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        try:
            reached.set()
            await asyncio.Event().wait()
        finally:
            for number in range(2, 5):
                yield number

    log = MemoryLog("test")
    producer = produce(items(), log=log, on_disconnect="cancel", flow=Flow.block(2), patience=LIMIT)
    with log.tail():
        await asyncio.wait_for(reached.wait(), LIMIT)
        producer.stop()
        assert await ended(producer) == STOPPED
    assert kept(log) == [1, 2, 3, 4]
    assert not producer.stuck


async def test_a_generator_suspended_at_yield_is_closed_in_its_own_task_and_context() -> None:
    probe = Probe()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []

    async def items() -> AsyncIterator[int]:
        token = variable.set("mine")
        try:
            async with asyncio.timeout(LIMIT):
                with anyio.CancelScope():
                    async for item in probe.forever():
                        yield item
        finally:
            seen.append(variable.get())
            variable.reset(token)
            await asyncio.sleep(0)
            seen.append("closed")

    log = MemoryLog("test")
    producer = produce(items(), log=log, on_disconnect="cancel", flow=Flow.block(3))
    with log.tail():
        await arrived(log, 3)
        await asyncio.sleep(0)
        producer.stop()
        assert await ended(producer) == STOPPED
    assert seen == ["mine", "closed"]
    assert producer.error is None
    assert kept(log) == [1] * (3 + CHECKPOINT)


@pytest.mark.parametrize("group", [asyncio.TaskGroup, anyio.create_task_group])
async def test_a_task_group_around_a_yield_exits(group: Any, caplog: pytest.LogCaptureFixture) -> None:
    left = asyncio.Event()

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def items() -> AsyncIterator[int]:
        async with group() as tasks:
            tasks.create_task(child()) if group is asyncio.TaskGroup else tasks.start_soon(child)
            await asyncio.sleep(0)
            while True:
                yield 1

    log = MemoryLog("test")
    producer = produce(items(), log=log, on_disconnect="cancel", flow=Flow.block(1))
    with log.tail():
        await arrived(log, 1)
        await asyncio.sleep(0)
        producer.stop()
        assert await ended(producer) == STOPPED
    assert left.is_set()
    # Since Python 3.13, the group passes the cancellation on (gh-116720).
    assert producer.task.cancelled() or producer.task.exception() is None
    assert not caplog.records


async def test_another_failure_in_a_task_group_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("child")

    async def items() -> AsyncIterator[Any]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            await asyncio.sleep(0)
            yield object()

    producer = produce(items())
    assert await ended(producer) == INTERNAL_ERROR
    assert isinstance(producer.error, ExceptionGroup)
    [failure] = producer.error.exceptions
    assert isinstance(failure, LookupError)


async def test_a_timeout_inside_the_generator_stays_there() -> None:
    async def items() -> AsyncIterator[str]:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            yield "late"
        with anyio.move_on_after(0.001):
            await asyncio.Event().wait()
        yield "later"

    producer = produce(items())
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == ["late", "later"]


async def test_a_timeout_that_strikes_at_a_yield_is_an_error() -> None:
    async def items() -> AsyncIterator[int]:
        async with asyncio.timeout(0.001):
            while True:
                yield 1

    log = MemoryLog("test")
    producer = produce(items(), log=log, on_disconnect="cancel", flow=Flow.block(1))
    with log.tail():
        assert await ended(producer) == INTERNAL_ERROR
    assert isinstance(producer.error, RuntimeError)


async def test_a_generator_that_yields_while_it_is_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            yield 2

    log = MemoryLog("test")
    producer = produce(items(), log=log, on_disconnect="cancel", flow=Flow.block(1))
    with log.tail():
        await arrived(log, 1)
        await asyncio.sleep(0)
        producer.stop()
        assert await ended(producer) == STOPPED
    assert producer.error is None
    [record] = caplog.records
    assert record.getMessage() == "log test: the generator raised while it was stopped"
    assert record.exc_info is not None
    assert "ignored GeneratorExit" in str(record.exc_info[1])


async def test_an_exception_during_a_stop_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    reached = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            reached.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            raise LookupError("lost")

    producer = produce(items())
    await asyncio.wait_for(reached.wait(), LIMIT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert producer.error is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_cancellation_from_outside_is_passed_on() -> None:
    probe = Probe()
    producer = produce(probe.items())
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    producer.task.cancel()
    assert await ended(producer) == Outcome("cancelled", "cancelled", "the producer was cancelled")
    assert producer.task.cancelled()
    assert probe.closed_in is producer.task


# Ignoring a cancellation


async def test_a_generator_that_catches_its_cancellation_and_goes_on_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached = asyncio.Event()
    caught = 0

    async def items() -> AsyncIterator[int]:
        nonlocal caught
        number = 0
        while True:
            try:
                reached.set()
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                caught += 1
            yield (number := number + 1)

    finished: list[Producer] = []
    producer = produce(items(), patience=0.05, on_finish=finished.append)
    await asyncio.wait_for(reached.wait(), LIMIT)
    waiting = asyncio.create_task(producer.wait())
    producer.stop()
    await asyncio.wait_for(waiting, LIMIT)
    assert producer.stuck
    assert finished == [producer]
    assert producer.log.outcome == STOPPED
    top = producer.log.top
    assert await ended(producer) == STOPPED
    assert producer.log.top == top >= 1
    assert caught == 2
    [record] = caplog.records
    assert record.getMessage() == "log test: the generator still runs 0.05 s after it was cancelled"
    assert finished == [producer]


async def test_a_generator_that_catches_its_cancellation_and_waits_is_given_up() -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def items() -> AsyncIterator[int]:
        reached.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        yield 1

    producer = produce(items(), patience=0.01)
    await asyncio.wait_for(reached.wait(), LIMIT)
    with producer.log.tail() as tail:
        producer.stop()
        await asyncio.wait_for(producer.wait(), LIMIT)
        assert producer.stuck
        assert not producer.task.done()
        assert [entries async for entries in tail] == []
        assert producer.log.outcome == STOPPED
    producer.stop()
    release.set()
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == []


async def test_items_that_were_given_up_are_closed_once() -> None:
    class Stubborn:
        closed = 0

        def __aiter__(self) -> Stubborn:
            return self

        async def __anext__(self) -> int:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()
            raise AssertionError("nothing should wake it")

        async def aclose(self) -> None:
            self.closed += 1

    items = Stubborn()
    producer = produce(items, patience=0.01)
    await asyncio.sleep(0)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert producer.stuck
    for _ in range(5):
        await asyncio.sleep(0)
    assert items.closed == 1


async def test_a_second_cancellation_within_the_first_ends_a_slow_finally() -> None:
    reached = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            reached.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            await asyncio.Event().wait()

    producer = produce(items(), patience=0.01)
    await asyncio.wait_for(reached.wait(), LIMIT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert producer.stuck


# What is sent


async def test_items_are_sent_from_any_task_while_the_generator_runs() -> None:
    probe = Probe()
    producer = produce(probe.items(2))
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    await asyncio.create_task(producer.send("sent"))
    await producer.send(Event(3, "named"))
    producer.stop()
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == [0, 1, "sent", 3]


async def test_items_are_sent_while_a_sync_generator_waits() -> None:
    go_on = threading.Event()

    def items() -> Iterator[int]:
        go_on.wait(LIMIT)
        yield 2

    producer = produce(items())
    await producer.send(1)
    go_on.set()
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == [1, 2]


async def test_a_result_that_is_sent_is_the_value_of_the_outcome() -> None:
    async def run(producer: Producer) -> None:
        await producer.send(Result({"tokens": 1}))

    producer = produce(Job(run))
    assert await ended(producer) == Outcome("done", data={"tokens": 1})
    assert kept(producer.log) == []


async def test_what_cannot_be_encoded_is_not_sent_and_harms_nobody_else() -> None:
    async def run(producer: Producer) -> None:
        with pytest.raises(EventError, match="got object"):
            await producer.send(object())
        await producer.send(1)

    producer = produce(Job(run))
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == [1]


async def test_a_sender_that_never_suspends_lets_others_run() -> None:
    async def run(producer: Producer) -> None:
        while True:
            await producer.send(1)

    producer = produce(Job(run), log=MemoryLog("test", Retention(count=10)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert 0 < producer.log.top <= 5 * CHECKPOINT
    producer.stop()
    assert await ended(producer) == STOPPED


async def test_senders_wait_their_turn_as_the_fastest_reader_reads() -> None:
    probe, log = Probe(), MemoryLog("test")
    producer = produce(probe.items(0), log=log, on_disconnect="cancel", flow=Flow.block(4))
    with log.tail() as tail:
        senders = [asyncio.create_task(producer.send(number)) for number in range(12)]
        for top in (4, 8, 12):
            await arrived(log, top)
            for _ in range(5):
                await asyncio.sleep(0)
            assert log.top == top
            await tail.read()
        await asyncio.wait_for(asyncio.gather(*senders), LIMIT)
        assert kept(log) == list(range(12))
        producer.stop()
        await ended(producer)


async def test_a_generator_and_a_sender_wait_for_room_together() -> None:
    probe, log = Probe(), MemoryLog("test")
    producer = produce(probe.items(12), log=log, on_disconnect="cancel", flow=Flow.block(4))
    with log.tail() as tail:
        await arrived(log, 4)
        sender = asyncio.create_task(send_all(producer, range(100, 112)))
        read: list[Any] = []
        async with asyncio.timeout(LIMIT):
            while len(read) < 24:
                read += [entry.data for entry in await anext(tail)]
            await sender
        assert [item for item in read if item < 100] == list(range(12))
        assert [item for item in read if item >= 100] == list(range(100, 112))
        producer.stop()
        await ended(producer)


async def send_all(producer: Producer, items: Iterable[Any]) -> None:
    for item in items:
        await producer.send(item)


async def test_a_send_that_is_cancelled_while_it_waits_has_written_nothing() -> None:
    probe, log = Probe(), MemoryLog("test")
    producer = produce(probe.items(0), log=log, on_disconnect="cancel", flow=Flow.block(1))
    with log.tail() as tail:
        await producer.send(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await producer.send(2)
        waiting = asyncio.create_task(producer.send(3))
        assert [entry.data for entry in await anext(tail)] == [1]
        await asyncio.wait_for(waiting, LIMIT)
        assert kept(log) == [1, 3]
        producer.stop()
        await ended(producer)


async def test_a_sender_waits_while_the_store_lags() -> None:
    probe, log = Probe(), Lagging(2)
    producer = produce(probe.items(0), log=log)
    sender = asyncio.create_task(send_all(producer, range(4)))
    await arrived(log, 2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.top == 2
    log.full = False
    log.make_room()
    await asyncio.wait_for(sender, LIMIT)
    assert kept(log) == [0, 1, 2, 3]
    producer.stop()
    await ended(producer)


async def test_a_stop_lets_senders_go_on_without_readers_and_keeps_what_they_send() -> None:
    actor, log = Actor(), MemoryLog("test")
    actor.obedient = False
    producer = produce(actor.items(), log=log, on_disconnect="cancel", flow=Flow.block(1))
    with log.tail():
        await asyncio.wait_for(actor.waiting.wait(), LIMIT)
        senders = [asyncio.create_task(producer.send(number)) for number in range(3)]
        await arrived(log, 1)
        producer.stop()
        await asyncio.wait_for(asyncio.gather(*senders), LIMIT)
        assert producer.state is State.STOPPING
        actor.order(None)
        assert await ended(producer) == STOPPED
    assert kept(log) == [0, 1, 2]


async def test_nothing_is_sent_from_when_the_end_is_being_stored() -> None:
    async with Play(State.CLOSING, Cause.STORED) as play:
        waiting = asyncio.create_task(send_all(play.producer, [1, 2]))
        await arrived(play.log, 1)
        await play.reach()
        for late in (waiting, play.producer.send(3), play.producer.send(Result(4))):
            with pytest.raises(LogClosed, match="'test' to be open, but it has ended as 'done'"):
                await asyncio.wait_for(late, LIMIT)
    with pytest.raises(LogClosed):
        await play.producer.send(5)
    assert kept(play.log) == [1]
    assert play.log.outcome == Outcome("done")


async def test_nothing_is_sent_without_the_lease() -> None:
    probe, log = Probe(), MemoryLog("test")
    producer = produce(probe.items(0), writer=Strict(log))
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    leased(log)
    with pytest.raises(LogFenced):
        await producer.send(1)
    assert await ended(producer) is None
    with pytest.raises(LogFenced):
        await producer.send(2)
    assert kept(log) == []


async def test_a_producer_has_begun_with_its_first_item_or_when_it_says_so() -> None:
    log = MemoryLog("test")
    await log.append("before")
    probe = Probe()
    producer = produce(probe.items(0), log=log)
    assert not producer.begun
    await producer.send(1)
    assert producer.begun
    producer.stop()
    await ended(producer)
    other = produce(probe.items(0))
    with other.log.tail() as tail:
        waiting = asyncio.create_task(tail.wait())
        await asyncio.sleep(0)
        other.begin()
        await asyncio.wait_for(waiting, LIMIT)
    assert other.begun
    assert kept(other.log) == []
    other.stop()
    await ended(other)


# An end that the application says


class Lingerer:
    """A job that finishes its log, and then goes on until the test, or a cancellation, lets it go."""

    def __init__(self, after: Callable[[Producer], Awaitable[None]] | None = None) -> None:
        self.after = after
        self.lingers, self.release = asyncio.Event(), asyncio.Event()
        self.cancelled = False

    async def run(self, producer: Producer) -> None:
        await producer.send(1)
        await producer.finish(Outcome("done", data="said"))
        self.lingers.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.after is not None:
            await self.after(producer)


SAID = Outcome("done", data="said")


async def test_readers_see_an_end_that_is_said_while_the_generator_goes_on() -> None:
    lingerer, finished = Lingerer(), list[Producer]()
    producer = produce(Job(lingerer.run), on_finish=finished.append)
    with producer.log.tail() as tail:
        async with asyncio.timeout(LIMIT):
            assert [entry.data async for entries in tail for entry in entries] == [1]
            await lingerer.lingers.wait()
    assert producer.log.outcome == SAID
    assert (producer.state, producer.finished, finished) == (State.LINGERING, False, [])
    lingerer.release.set()
    assert await ended(producer) == SAID
    assert (lingerer.cancelled, finished) == (False, [producer])


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_generator_that_goes_on_after_its_end_is_cancelled_when_it_must(
    stopped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lingerer = Lingerer()
    producer = produce(Job(lingerer.run), patience=LIMIT if stopped else 0.2)
    await asyncio.wait_for(lingerer.lingers.wait(), LIMIT)
    if stopped:
        producer.stop()
    assert await ended(producer) == SAID
    assert lingerer.cancelled
    assert not producer.stuck
    assert not caplog.records


async def test_a_generator_that_ignores_its_cancellation_after_its_end_is_given_up_once() -> None:
    actor, finished = Actor(), list[Producer]()
    actor.obedient = False
    producer = produce(actor.items(), patience=0.01, on_finish=finished.append)
    await asyncio.wait_for(actor.waiting.wait(), LIMIT)
    await producer.finish()
    await asyncio.wait_for(producer.wait(), LIMIT)
    assert producer.stuck
    actor.order(None)
    assert await ended(producer) == Outcome("done")
    assert finished == [producer]


async def test_what_a_generator_raises_after_its_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(producer: Producer) -> None:
        raise ValueError("secret")

    lingerer = Lingerer(fail)
    lingerer.release.set()
    producer = produce(Job(lingerer.run))
    assert await ended(producer) == SAID
    (record,) = caplog.records
    assert record.getMessage() == "log test: the generator raised after its end was said"
    assert record.exc_info is not None
    assert producer.error is None


@pytest.mark.parametrize("item", [2, Result(2)])
async def test_what_comes_after_the_end_is_refused_and_ends_the_generator(
    item: Any, caplog: pytest.LogCaptureFixture
) -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[Any]:
        try:
            yield 1
            await producer.finish()
            yield item
            yield 3
        finally:
            closed.set()

    producer = produce(items())
    assert await ended(producer) == Outcome("done")
    assert closed.is_set()
    assert kept(producer.log) == [1]
    assert not caplog.records


async def test_what_is_sent_after_the_end_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def send(producer: Producer) -> None:
        await producer.send(2)

    lingerer = Lingerer(send)
    producer = produce(Job(lingerer.run))
    await asyncio.wait_for(lingerer.lingers.wait(), LIMIT)
    with pytest.raises(LogClosed):
        await producer.send(3)
    lingerer.release.set()
    assert await ended(producer) == SAID
    assert kept(producer.log) == [1]
    assert not caplog.records


async def test_the_first_end_that_is_said_counts() -> None:
    lingerer = Lingerer()
    producer = produce(Job(lingerer.run))
    await asyncio.wait_for(lingerer.lingers.wait(), LIMIT)
    await producer.finish(Outcome("error", "late"))
    lingerer.release.set()
    assert await ended(producer) == SAID
    await producer.finish(Outcome("error", "later"))
    assert producer.log.outcome == SAID


async def test_an_end_that_is_said_after_a_stop_changes_nothing() -> None:
    async def run(producer: Producer) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await producer.finish()
            await producer.send("kept")

    producer = produce(Job(run))
    await asyncio.sleep(0)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == ["kept"]


async def test_an_end_that_is_said_before_the_first_step_closes_the_items() -> None:
    feed = Unbegun()
    producer = produce(feed)
    await producer.finish()
    assert await ended(producer) == Outcome("done")
    assert feed.closed.is_set()


async def test_a_result_is_added_to_an_end_that_is_said() -> None:
    producer = produce(Probe().items(0))
    await producer.send(Result(7))
    await producer.finish()
    assert producer.log.outcome == Outcome("done", data=7)
    producer.stop()
    await ended(producer)


@pytest.mark.parametrize("own", [False, True])
async def test_an_end_is_stored_even_if_whoever_says_it_is_cancelled(own: bool) -> None:
    log = MemoryLog("test")
    writer = Gated(log)

    async def run(producer: Producer) -> None:
        await (producer.finish() if own else asyncio.Event().wait())

    producer = produce(Job(run), writer=writer)
    await asyncio.sleep(0)
    caller = producer.task if own else asyncio.create_task(producer.finish())
    async with asyncio.timeout(LIMIT):
        while producer.state is not State.LINGERING:  # noqa: ASYNC110 - a producer tells nobody of its states
            await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    writer.gate.set()
    await asyncio.wait([caller], timeout=LIMIT)
    assert caller.cancelled()
    producer.stop()
    assert await ended(producer) == Outcome("done")


async def test_a_cancelled_error_of_the_applications_own_after_its_end_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(producer: Producer) -> None:
        raise asyncio.CancelledError

    lingerer = Lingerer(fail)
    lingerer.release.set()
    producer = produce(Job(lingerer.run))
    assert await ended(producer) == SAID
    assert not producer.task.cancelled()
    assert caplog.messages == ["log test: the generator raised after its end was said"]


async def test_a_generator_that_pauses_when_the_end_is_said_is_ended() -> None:
    probe, log = Probe(), MemoryLog("test")
    writer = Gated(log)
    producer = produce(probe.forever(), writer=writer, flow=Flow.block(1))
    with log.tail():
        await arrived(log, 1)
        await asyncio.sleep(0)
        saying = asyncio.create_task(producer.finish())
        for _ in range(5):
            await asyncio.sleep(0)
        assert probe.closed_in is producer.task
        writer.gate.set()
        await asyncio.wait_for(saying, LIMIT)
        assert await ended(producer) == Outcome("done")
    assert kept(log) == [1]


# Readers that come and go


async def test_a_producer_is_cancelled_when_nobody_has_read_it_for_the_grace() -> None:
    probe = Probe()
    log = MemoryLog("test")
    producer = produce(probe.items(), log=log, on_disconnect="cancel", grace=0.01)
    with log.tail():
        await asyncio.wait_for(probe.reached.wait(), LIMIT)
    assert await ended(producer) == DISCONNECTED
    assert probe.closed_in is producer.task


async def test_a_producer_that_nobody_ever_reads_is_cancelled_too() -> None:
    probe = Probe()
    producer = produce(probe.items(), on_disconnect="cancel", grace=0.01)
    assert await ended(producer) == DISCONNECTED


async def test_a_reader_that_comes_back_in_time_saves_the_producer() -> None:
    go_on = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await go_on.wait()
        yield 2

    log = MemoryLog("test")
    producer = produce(items(), log=log, on_disconnect="cancel", grace=0.05)
    with log.tail() as tail:
        await anext(tail)
        position = tail.position
    with log.tail(position) as tail:
        await asyncio.sleep(0.15)
        go_on.set()
        assert [entry.data for entries in [await anext(tail)] for entry in entries] == [2]
        assert await ended(producer) == Outcome("done")


async def test_a_detached_producer_survives_its_readers() -> None:
    go_on = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await go_on.wait()
        yield 2

    log = MemoryLog("test")
    producer = produce(items(), log=log, grace=0.001)
    with log.tail() as tail:
        await anext(tail)
    await asyncio.sleep(0.02)
    go_on.set()
    assert await ended(producer) == Outcome("done")
    assert kept(log) == [1, 2]


async def test_readers_that_leave_after_the_end_change_nothing() -> None:
    log = MemoryLog("test")
    producer = produce([1], log=log, on_disconnect="cancel", grace=0.001)
    with log.tail():
        assert await ended(producer) == Outcome("done")
    # What would keep the producer alive, and all that its generator holds.
    assert not log._listeners
    assert producer._timer is None


async def test_readers_that_leave_during_a_stop_change_nothing() -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            reached.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            await release.wait()

    log = MemoryLog("test")
    producer = produce(items(), log=log, on_disconnect="cancel", grace=0.001)
    with log.tail():
        await asyncio.wait_for(reached.wait(), LIMIT)
        producer.stop()
        await asyncio.sleep(0)
    release.set()
    assert await ended(producer) == STOPPED


# The policy block


async def test_a_blocked_producer_goes_on_as_its_fastest_reader_reads() -> None:
    probe = Probe()
    log = MemoryLog("test")
    producer = produce(probe.items(10), log=log, on_disconnect="cancel", flow=Flow.block(4))
    with log.tail() as fast, log.tail():
        await arrived(log, 4)
        for _ in range(5):
            await asyncio.sleep(0)
        assert log.top == 4
        assert [entry.data for entry in await fast.read()] == [0, 1, 2, 3]
        await arrived(log, 8)
        for _ in range(5):
            await asyncio.sleep(0)
        assert log.top == 8
        await fast.read()
        await asyncio.wait_for(probe.reached.wait(), LIMIT)
        assert log.top == 10
        producer.stop()
        await ended(producer)


async def test_a_blocked_producer_waits_within_the_grace_and_is_given_up_after() -> None:
    probe = Probe()
    log = MemoryLog("test")
    producer = produce(probe.forever(), log=log, on_disconnect="cancel", flow=Flow.block(4), grace=0.05)
    with log.tail():
        await arrived(log, 4)
    assert await ended(producer) == DISCONNECTED
    assert log.top == 4 + CHECKPOINT
    assert probe.closed_in is producer.task


async def test_a_detached_producer_blocks_only_while_somebody_reads() -> None:
    probe = Probe()
    log = MemoryLog("test")
    producer = produce(probe.items(2_000), log=log, flow=Flow.block(4))
    with log.tail() as tail:
        await arrived(log, 4)
        await tail.read()
        await arrived(log, 8)
        for _ in range(5):
            await asyncio.sleep(0)
        assert log.top == 8
    await asyncio.wait_for(probe.reached.wait(), LIMIT)
    assert log.top == 2_000
    producer.stop()
    await ended(producer)


async def test_a_stop_ends_a_blocked_producer() -> None:
    probe = Probe()
    log = MemoryLog("test")
    producer = produce(probe.forever(), log=log, on_disconnect="cancel", flow=Flow.block(4))
    with log.tail():
        await arrived(log, 4)
        await asyncio.sleep(0)
        producer.stop()
        assert await ended(producer) == STOPPED
    assert probe.closed_in is producer.task
    assert kept(log) == [1] * (4 + CHECKPOINT)


@pytest.mark.parametrize("retention", [Retention(count=10), Retention(size=1_000)])
@pytest.mark.parametrize("on_disconnect", ["cancel", "detach"])
async def test_block_loses_nothing_to_the_retention(retention: Retention, on_disconnect: str) -> None:
    async def items() -> AsyncIterator[str]:
        for number in range(500):
            yield f"{number:098}"

    log = MemoryLog("test", retention)
    producer = produce(items(), log=log, on_disconnect=on_disconnect, flow=Flow.block())
    read: list[int] = []
    async with asyncio.timeout(LIMIT):
        with log.tail() as tail:
            async for entries in tail:
                read += [int(entry.data) for entry in entries]
                assert log.size()[0] <= 13
                for _ in range(5):
                    await asyncio.sleep(0)
    assert read == list(range(500))
    assert await ended(producer) == Outcome("done")


async def test_a_detached_log_that_nobody_reads_is_not_held() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    log = MemoryLog("test", Retention(count=4))
    producer = produce(items(), log=log, flow=Flow.block())
    assert await ended(producer) == Outcome("done")
    assert kept(log) == [96, 97, 98, 99]


async def test_a_stopped_producers_log_is_not_held() -> None:
    reached = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            reached.set()
            await asyncio.Event().wait()
        finally:
            for number in range(100):
                yield number

    log = MemoryLog("test", Retention(count=4))
    producer = produce(items(), log=log, on_disconnect="cancel")
    with log.tail():
        await asyncio.wait_for(reached.wait(), LIMIT)
        producer.stop()
        assert await ended(producer) == STOPPED
    assert kept(log) == [96, 97, 98, 99]


# A log that fails


class Refusing(MemoryLog):
    """Refuses to be closed for the first few times, or hangs."""

    def __init__(self, refusals: float, *, hangs: bool = False) -> None:
        super().__init__("test")
        self.refusals = refusals
        self.hangs = hangs

    async def close(self, outcome: Outcome = STOPPED, *, fence: int | None = None) -> Outcome:
        if self.refusals > 0:
            self.refusals -= 1
            if self.hangs:
                await asyncio.Event().wait()
            raise ConnectionError("gone")
        return await super().close(outcome, fence=fence)


async def test_a_log_that_cannot_be_closed_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tailrace.log.writer.END_DELAY", 0.001)
    log = Refusing(3)
    assert await ended(produce([1], log=log)) == Outcome("done")
    assert log.refusals == 0
    assert not caplog.records


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
async def test_readers_are_told_if_the_log_cannot_be_closed(
    hangs: bool, stopped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    finished: list[Producer] = []
    probe, log = Probe(), Refusing(float("inf"), hangs=hangs)
    producer = produce(probe.items() if stopped else [1], log=log, patience=0.02, on_finish=finished.append)
    with log.tail() as tail:
        if stopped:
            await asyncio.wait_for(probe.reached.wait(), LIMIT)
            producer.stop()
        async with asyncio.timeout(LIMIT):
            assert len([entry async for entries in tail for entry in entries]) == 1
    assert await ended(producer) == UNAVAILABLE
    assert finished == [producer]
    assert not producer.stuck
    (record,) = caplog.records
    state = "cancelled" if stopped else "done"
    assert record.getMessage() == f"log test: the end as '{state}' could not be stored within 0.02 s"
    assert isinstance(record.exc_info and record.exc_info[1], type(None) if hangs else ConnectionError)


async def test_readers_are_told_if_the_log_is_not_closed_because_of_a_cancellation() -> None:
    log = Refusing(1, hangs=True)
    producer = produce([1], log=log)
    async with asyncio.timeout(LIMIT):
        while log.refusals:  # noqa: ASYNC110 - the log tells nobody that it hangs
            await asyncio.sleep(0)
    producer.task.cancel()
    assert await ended(producer) == UNAVAILABLE
    assert producer.task.cancelled()


async def test_a_cancellation_that_arrives_late_does_not_break_off_the_end() -> None:
    class Suspending(MemoryLog):
        async def close(self, outcome: Outcome = STOPPED, *, fence: int | None = None) -> Outcome:
            await asyncio.sleep(0)
            return await super().close(outcome, fence=fence)

    async def items() -> AsyncIterator[int]:
        yield 1
        producer.stop()

    producer = produce(items(), log=Suspending("test"))
    await asyncio.wait_for(producer.wait(), LIMIT)
    assert producer.log.outcome == STOPPED
    await asyncio.wait([producer.task])
    assert not producer.stuck


async def test_a_stop_while_the_log_is_being_closed_does_not_break_that_off() -> None:
    closing, release = asyncio.Event(), asyncio.Event()

    class Slow(MemoryLog):
        async def close(self, outcome: Outcome = STOPPED, *, fence: int | None = None) -> Outcome:
            closing.set()
            await release.wait()
            return await super().close(outcome, fence=fence)

    producer = produce([1], log=Slow("test"))
    await asyncio.wait_for(closing.wait(), LIMIT)
    producer.stop()
    release.set()
    assert await ended(producer) == Outcome("done")


def test_only_a_stream_error_shows_its_message() -> None:
    assert describe_error(StreamError("a", code="b")) == Outcome("error", "b", "a")
    assert describe_error(EventError("a")).message == "an event could not be encoded"
    assert describe_error(KeyError("secret")) == INTERNAL_ERROR


async def test_an_error_that_the_outcome_hides_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("secret")  # noqa: B904 - the context is what is tested

    assert await ended(produce(failing())) == Outcome("error", "internal_error", "Internal Server Error")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert "KeyError" in caplog.text
    caplog.clear()
    await ended(produce(failing(), reports=False))
    assert not caplog.records


async def test_an_error_that_the_outcome_shows_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise StreamError("no luck", code="luck")

    caplog.set_level(logging.INFO)
    await ended(produce(failing()))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage().endswith("failed: no luck (luck)")) == (logging.INFO, True)
