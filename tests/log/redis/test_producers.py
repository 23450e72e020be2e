"""Producers of streams that other processes read, stop and take over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tailrace import Flow, Job, LogClosed, Outcome, Producer, Retention
from tailrace.log.redis import writer as module
from tailrace.log.redis.log import RedisLog
from tailrace.log.redis.store import RedisStore
from tailrace.log.writer import UNAVAILABLE
from tailrace.producer import DISCONNECTED, STOPPED, State
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import LIMIT, SLOW, attached, read_all, stores, take, until

NAME = "/stream"


class Source:
    """A generator of numbers that waits for a cancellation, then says so, and records that it was closed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.waits = asyncio.Event()
        self.closed = asyncio.Event()

    async def items(self) -> AsyncIterator[Any]:
        try:
            for number in range(self.count):
                yield number
            self.waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "bye"
        finally:
            self.closed.set()


async def produced(store: RedisStore, items: Any, retention: Retention | None = None, **options: Any) -> Producer:
    writer = await store.lease(await store.create(NAME, retention or Retention()))
    return Producer(writer, items, **{"on_disconnect": "detach", **options})


async def ended(producer: Producer, log: RedisLog | None = None) -> Outcome | None:
    """Wait for the end of a producer, and of its log as another process sees it."""
    async with asyncio.timeout(LIMIT):
        await producer.wait()
        return producer.log.outcome if log is None else await log.wait_end()


async def test_the_few_items_of_a_generator_that_waits_arrive_elsewhere(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        producer = await produced(one, Source(39).items())
        assert await read_all(await attached(other, NAME), 39) == list(range(39))
        producer.stop()
        await ended(producer)


async def test_a_fast_generator_writes_everything_in_order(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):

        async def items() -> AsyncIterator[int]:
            for number in range(20_000):
                yield number

        producer = await produced(one, items(), Retention(count=None))
        log = await attached(other, NAME)
        assert await read_all(log, 20_000) == list(range(20_000))
        assert await ended(producer, log) == Outcome("done")


async def test_a_stop_from_another_process_leaves_the_last_words(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        source = Source(3)
        producer = await produced(one, source.items())
        log = await attached(other, NAME)
        assert await read_all(log, 3) == [0, 1, 2]
        await log.stop()
        assert await ended(producer, log) == STOPPED
        assert await read_all(log, 4) == [0, 1, 2, "bye"]
        assert source.closed.is_set()


async def test_what_a_job_sends_and_its_early_end_arrive_elsewhere(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        release, said = asyncio.Event(), Outcome("done", data=3)

        async def run(producer: Producer) -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(300):
                    group.create_task(producer.send(number))
            await producer.finish(said)
            with pytest.raises(LogClosed):
                await producer.send("late")
            await release.wait()

        producer = await produced(one, Job(run))
        log = await attached(other, NAME)
        async with asyncio.timeout(LIMIT):
            assert await log.wait_end() == said
        assert await read_all(log, 300) == list(range(300))
        assert producer.state is State.LINGERING
        release.set()
        assert await ended(producer) == said
        assert (producer.error, log.top) == (None, 300)


async def test_nothing_slips_in_while_an_early_end_is_being_stored(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):

        async def items() -> AsyncIterator[int]:
            for number in range(2_000):
                yield number
            ending = asyncio.create_task(producer.finish())
            await asyncio.sleep(0)
            yield 2_000
            await ending

        producer = await produced(one, items(), Retention(count=None))
        log = await attached(other, NAME)
        assert await ended(producer, log) == Outcome("done")
        assert await read_all(log, 2_000) == list(range(2_000))
        assert log.top == 2_000


async def test_an_end_from_another_process_ends_the_generator(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        source, told = Source(3), Outcome("error", "enough", "that was enough")
        producer = await produced(one, source.items())
        log = await attached(other, NAME)
        await read_all(log, 3)
        await log.close(told)
        assert await ended(producer) == told
        assert source.closed.is_set()
        assert (producer.error, producer.stuck) == (None, False)
        assert await read_all(log, 3) == [0, 1, 2]


@pytest.mark.parametrize("heard", [True, False])
async def test_a_lease_that_another_process_took_ends_the_generator(redis: RedisServer, heard: bool) -> None:
    async with stores(redis.url, pace=SLOW) as (one, other):
        one.deaf = lambda _: not heard
        more = asyncio.Event()
        closed = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            try:
                yield 1
                await more.wait()
                yield 2
                await asyncio.Event().wait()
            finally:
                closed.set()

        producer = await produced(one, items())
        log = await attached(other, NAME)
        await read_all(log, 1)
        redis.ask("HSET", log.keys.meta, "owner", "")
        writer = await other.lease(log)
        if not heard:
            more.set()  # the store refuses what is written now
        assert await ended(producer) is None
        assert closed.is_set()
        writer.write(None, b'"taken"')
        await writer.end(Outcome("done"), patience=LIMIT)
        assert await read_all(log, 2) == [1, "taken"]


async def test_readers_elsewhere_keep_a_stream_alive(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        source = Source(3)
        producer = await produced(one, source.items(), on_disconnect="cancel", grace=0.3)
        log = await attached(other, NAME)
        with log.tail() as tail:
            await take(tail, 3)
            await until(lambda: producer.log.control.elsewhere == 1)
            await asyncio.sleep(0.5)
            assert producer.state is State.RUNNING
        assert await ended(producer, log) == DISCONNECTED


async def test_a_producer_that_blocks_goes_on_when_its_reader_moves_elsewhere(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other):
        source = Source(50)
        producer = await produced(
            one, source.items(), Retention(count=5), on_disconnect="cancel", flow=Flow.block(4), grace=LIMIT
        )
        with producer.log.tail():
            await until(lambda: producer.log.top == 4)
        assert not source.waits.is_set()
        log = await attached(other, NAME)
        with log.tail():
            await asyncio.wait_for(source.waits.wait(), LIMIT)
        producer.stop()
        await ended(producer)


async def test_a_store_that_answers_no_more_ends_the_generator(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    async with stores(redis.url, 1, pace=SLOW) as (store,):
        more = asyncio.Event()
        closed = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            try:
                yield 1
                await more.wait()
                yield 2
                await asyncio.Event().wait()
            finally:
                closed.set()

        producer = await produced(store, items())
        await read_all(producer.log, 1)
        store.refuse = True
        more.set()
        assert await ended(producer) == UNAVAILABLE
        assert closed.is_set()
        store.refuse = False
