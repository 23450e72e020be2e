from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from tailrace import Job, Outcome, Producer, StreamError
from tailrace.iterators import Threads, as_async, close_items
from tailrace.producer import STOPPED
from tests.producing import LIMIT, ended, kept, produce
from tests.silence import silent_loop as silent_loop

pytestmark = pytest.mark.usefixtures("silent_loop")


async def test_a_plain_async_iterator_needs_no_aclose() -> None:
    class Countdown:
        left = 3

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if self.left == 0:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    producer = produce(Countdown())
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == [2, 1, 0]


async def test_sync_items_are_read_and_closed_in_threads() -> None:
    threads: list[threading.Thread] = []

    def items() -> Iterator[int]:
        try:
            for number in range(3):
                threads.append(threading.current_thread())
                yield number
        finally:
            threads.append(threading.current_thread())

    producer = produce(items())
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == [0, 1, 2]
    assert len(threads) == 4
    assert threading.main_thread() not in threads


async def test_a_sync_iterable_need_not_be_a_generator() -> None:
    producer = produce([1, 2])
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == [1, 2]


@pytest.mark.parametrize("items", ["ab", b"ab", bytearray(b"ab"), memoryview(b"ab")])
async def test_a_str_or_bytes_is_one_item(items: Any) -> None:
    producer = produce(items)
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == ["ab"]


async def test_an_exception_in_a_thread_ends_the_log_as_an_error() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise StreamError("no more")

    producer = produce(items())
    assert await ended(producer) == Outcome("error", "error", "no more")


async def test_a_sync_generator_that_is_stopped_in_the_middle_is_closed_when_its_thread_has_left_it() -> None:
    computing, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            computing.set()
            assert go_on.wait(LIMIT)
            yield 2
        finally:
            closed.set()

    producer = produce(items())
    assert await asyncio.to_thread(computing.wait, LIMIT)
    producer.stop()
    await asyncio.sleep(0)
    assert not closed.is_set()
    go_on.set()
    assert await ended(producer) == STOPPED
    assert closed.is_set()
    assert producer.error is None
    assert kept(producer.log) == [1]


async def test_an_error_in_a_thread_after_a_stop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    computing, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        computing.set()
        assert go_on.wait(LIMIT)
        raise ValueError("sensor lost")
        yield 1  # pragma: no cover

    producer = produce(items())
    assert await asyncio.to_thread(computing.wait, LIMIT)
    producer.stop()
    go_on.set()
    assert await ended(producer) == STOPPED
    assert "log test: the generator raised while it was stopped" in caplog.messages


class Waiting:
    """Sync generators that wait in their threads until `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = self.closed = 0

    def items(self) -> Iterator[int]:
        self.begun += 1
        try:
            assert self.go_on.wait(LIMIT)
            yield 1
        finally:
            self.closed += 1


async def test_sync_generators_that_wait_leave_other_threads_alone() -> None:
    waiting = Waiting()
    tokens = anyio.to_thread.current_default_thread_limiter().total_tokens
    producers = [produce(waiting.items()) for _ in range(int(tokens) + 10)]
    async with asyncio.timeout(LIMIT):
        assert await anyio.to_thread.run_sync(threading.current_thread) not in (threading.main_thread(),)
        other = produce(iter([1]))
        assert await ended(other) == Outcome("done")
    waiting.go_on.set()
    assert [await ended(producer) for producer in producers] == [Outcome("done")] * len(producers)
    assert waiting.closed == len(producers)


async def test_a_sync_generator_beyond_the_bound_is_told_and_closed() -> None:
    class Feed:
        closed = False

        def __iter__(self) -> Feed:
            return self

        def __next__(self) -> int:
            raise AssertionError("nobody should ask")

        def close(self) -> None:
            self.closed = True

    threads, waiting, feed = Threads(2), Waiting(), Feed()
    running = [produce(waiting.items(), threads=threads) for _ in range(2)]
    beyond = produce(feed, threads=threads)
    message = "expected at most 2 streams from sync generators at once, but all places are taken"
    assert await ended(beyond) == Outcome("error", "overloaded", message)
    assert isinstance(beyond.error, StreamError)
    assert (beyond.error.status, feed.closed, threads.taken) == (503, True, 2)
    waiting.go_on.set()
    for producer in running:
        await ended(producer)
    assert threads.taken == 0
    assert await ended(produce([1, 2], threads=threads)) == Outcome("done")


async def test_a_sync_generator_within_an_async_one_takes_a_place_too() -> None:
    threads, waiting = Threads(1), Waiting()

    async def items(source: Iterator[int]) -> AsyncIterator[int]:
        inner = as_async(source)
        try:
            async for item in inner:
                yield item
        finally:
            await close_items(inner)

    first = produce(items(waiting.items()), threads=threads)
    async with asyncio.timeout(LIMIT):
        while not threads.taken:  # noqa: ASYNC110 - a place tells nobody that it is taken
            await asyncio.sleep(0)
    outcome = await ended(produce(items(waiting.items()), threads=threads))
    assert outcome is not None
    assert outcome.code == "overloaded"
    waiting.go_on.set()
    assert await ended(first) == Outcome("done")
    assert threads.taken == 0


async def test_a_sync_generator_that_was_given_up_keeps_its_place_until_its_thread_returns() -> None:
    threads, waiting = Threads(2), Waiting()
    before = set(threading.enumerate())
    given_up = [produce(waiting.items(), threads=threads, patience=0.01) for _ in range(2)]
    async with asyncio.timeout(LIMIT):
        while waiting.begun < 2:  # noqa: ASYNC110 - a thread tells nobody that it has begun
            await asyncio.sleep(0.001)
    for producer in given_up:
        producer.stop()
        assert await ended(producer) == STOPPED
        assert producer.stuck
    assert (threads.taken, waiting.closed) == (2, 0)
    for refused in [produce(waiting.items(), threads=threads) for _ in range(3)]:
        outcome = await ended(refused)
        assert outcome is not None
        assert outcome.code == "overloaded"
    assert len(set(threading.enumerate()) - before) == 2
    waiting.go_on.set()
    async with asyncio.timeout(LIMIT):
        while threads.taken:  # noqa: ASYNC110 - a place tells nobody that it is free
            await asyncio.sleep(0.001)
    assert waiting.closed == 2
    assert await ended(produce([1], threads=threads)) == Outcome("done")


@pytest.mark.parametrize("turns", range(5))
async def test_a_close_that_is_cancelled_at_any_moment_still_happens(turns: int) -> None:
    threads, waiting = Threads(1), Waiting()
    waiting.go_on.set()

    async def items() -> AsyncIterator[int]:
        inner = as_async(waiting.items())
        try:
            yield await anext(inner)
        finally:
            closing.set()
            await close_items(inner)

    closing = asyncio.Event()
    producer = produce(items(), threads=threads, patience=LIMIT)
    async with asyncio.timeout(LIMIT):
        await closing.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        producer.task.cancel()
        await asyncio.wait([producer.task])
        while threads.taken:  # noqa: ASYNC110 - a place tells nobody that it is free
            await asyncio.sleep(0)
    assert waiting.closed == 1


async def test_an_item_whose_wait_was_cancelled_comes_with_the_next_call() -> None:
    waiting = Waiting()
    items = as_async(waiting.items())
    before = set(threading.enumerate())
    first = asyncio.ensure_future(anext(items))
    async with asyncio.timeout(LIMIT):
        while not waiting.begun:  # noqa: ASYNC110 - if it were cancelled before, its thread would do nothing
            await asyncio.sleep(0)
    first.cancel()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 0.01)
    assert len(set(threading.enumerate()) - before) == 1
    waiting.go_on.set()
    assert [item async for item in items] == [1]
    await close_items(items)
    assert waiting.closed == 1


async def test_a_closed_sync_iterator_has_no_more_items() -> None:
    items = as_async(iter([1, 2]))
    assert await anext(items) == 1
    await close_items(items)
    await close_items(items)
    assert [item async for item in items] == []


async def test_a_sync_iterator_that_was_not_used_is_closed() -> None:
    closed = asyncio.Event()

    class Feed:
        def __iter__(self) -> Feed:
            return self

        def __next__(self) -> int:
            raise AssertionError("nobody should ask")

        def close(self) -> None:
            closed.set()

    await close_items(as_async(Feed()))
    assert closed.is_set()


async def test_a_wait_that_is_cancelled_before_its_thread_begins_takes_no_item() -> None:
    items = as_async(iter([1, 2]))
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert [item async for item in items] == [1, 2]
    await close_items(items)


# Jobs


async def test_a_job_sends_its_items_and_its_return_is_the_end() -> None:
    ran_in: list[object] = []

    async def run(producer: Producer) -> None:
        ran_in.append(asyncio.current_task())
        await producer.send(1)
        await producer.send(2)

    producer = produce(Job(run))
    assert await ended(producer) == Outcome("done")
    assert kept(producer.log) == [1, 2]
    assert ran_in == [producer.task]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (StreamError("no paper", code="paper"), Outcome("error", "paper", "no paper")),
        (ValueError("secret"), Outcome("error", "internal_error", "Internal Server Error")),
    ],
)
async def test_a_job_fails_as_a_generator_does(error: Exception, outcome: Outcome) -> None:
    async def run(producer: Producer) -> None:
        await producer.send(1)
        raise error

    producer = produce(Job(run))
    assert await ended(producer) == outcome
    assert kept(producer.log) == [1]
    assert producer.error is error


async def test_a_job_that_reads_beyond_an_iterator_s_end_has_failed() -> None:
    async def run(producer: Producer) -> None:
        await anext(as_async(()))

    producer = produce(Job(run))
    assert await ended(producer) == Outcome("error", "internal_error", "Internal Server Error")
    assert isinstance(producer.error, RuntimeError)
    assert isinstance(producer.error.__cause__, StopAsyncIteration)


async def test_a_job_that_is_stopped_has_its_patience_and_its_own_task() -> None:
    reached = asyncio.Event()
    left_in: list[object] = []

    async def run(producer: Producer) -> None:
        try:
            async with asyncio.timeout(LIMIT):
                reached.set()
                await asyncio.Event().wait()
        finally:
            left_in.append(asyncio.current_task())
            await asyncio.sleep(0)
            await producer.send("last words")

    producer = produce(Job(run))
    await asyncio.wait_for(reached.wait(), LIMIT)
    producer.stop()
    assert await ended(producer) == STOPPED
    assert kept(producer.log) == ["last words"]
    assert left_in == [producer.task]


async def test_a_job_that_is_stopped_before_its_first_step_does_not_run() -> None:
    ran = asyncio.Event()

    async def run(producer: Producer) -> None:
        ran.set()

    producer = produce(Job(run))
    producer.stop()
    assert await ended(producer) == STOPPED
    assert not ran.is_set()
