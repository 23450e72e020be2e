"""Readers in several processes of a stream that has one reader at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from tailrace import Engine, LogStore, StreamResponse
from tailrace.log.redis.address import Part
from tailrace.log.redis.link import Script
from tailrace.log.redis.scripts import CLAIM, READERS, Keys
from tests.asgi.apps import Server, small_engine
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import LIMIT, QUICK, FlakyStore, shared, stores, until
from tests.raw import values

PACE = replace(QUICK, interval=1.0, linger=60.0)
"""A pace at which no busy machine is told of as an outage, and at which a log is heard although nobody uses it."""


@asynccontextmanager
async def reading(store: LogStore, query: bytes = b"", *, engine: Engine | None = None) -> AsyncIterator[Server]:
    """A reader of the log `news`, which leaves with the block. The processes have a store each."""
    engine, server = engine or small_engine(url=store), Server(query=query)
    response = StreamResponse(await engine.log("news"), engine=engine, exclusive=True)
    answering = asyncio.create_task(response(server.scope, server.receive, server.send))
    yield server
    server.gone.set()
    await asyncio.wait_for(answering, LIMIT)


async def test_a_reader_elsewhere_is_counted_and_replaced(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (one, other), asyncio.timeout(LIMIT):
        [log] = await shared(other, name="news")
        async with reading(one) as first:
            await until(lambda: log.control.elsewhere)
            async with reading(other) as refused:
                await until(lambda: refused.messages)
            assert refused.messages[0]["status"] == 409
            async with reading(other, b"takeover=true") as second:
                await until(lambda: first.whole)
                await log.append(1)
                async with reading(one, b"takeover=true") as third:
                    await until(lambda: second.whole)
                    await log.append(2)
                    await log.close()
                    await until(lambda: third.whole)
            assert values(first.body) == ["farewell"]
            assert values(second.body) == [1, "farewell"]
            assert values(third.body) == [1, 2, "done"]


class GatedStore(FlakyStore):
    """A store that waits at a gate before it runs a script for the next time."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pace=PACE)
        self.gates: dict[Script, asyncio.Barrier] = {}

    async def run(self, name: str, keys: Keys, script: Script, *arguments: Part) -> list[Any]:
        if (gate := self.gates.pop(script, None)) is not None:
            await gate.wait()
        return await super().run(name, keys, script, *arguments)


async def test_of_two_that_take_over_at_once_in_two_processes_one_stays(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        first_store, *others = (GatedStore(redis.url) for _ in range(3))
        for store in (first_store, *others):
            stack.push_async_callback(store.aclose)
        log, *there = await shared(first_store, *others, name="news")
        async with reading(first_store) as first:
            await until(lambda: all(each.control.elsewhere for each in there))
            gate = asyncio.Barrier(2)
            for store in others:
                store.gates[READERS] = gate  # so that both have taken the seat before either hears of the other
            async with reading(others[0], b"takeover=true") as one, reading(others[1], b"takeover=true") as two:
                await until(lambda: first.whole and (one.whole or two.whole))
                winner, loser = (two, one) if one.whole else (one, two)
                # What is told afterwards, and each further round, changes nothing.
                counts = [store._beat._count for store in others]
                await until(
                    lambda: all(store._beat._count > count + 3 for store, count in zip(others, counts, strict=True))
                )
                await log.append(1)
                await log.close()
                await until(lambda: winner.whole)
            assert values(first.body) == values(loser.body) == ["farewell"]
            assert values(winner.body) == [1, "done"]


async def test_who_comes_back_to_its_process_before_its_claim_is_known_keeps_the_seat(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        first_store, store = (GatedStore(redis.url) for _ in range(2))
        for each in (first_store, store):
            stack.push_async_callback(each.aclose)
        log, there = await shared(first_store, store, name="news")
        engine = small_engine(url=store)
        async with reading(first_store) as first:
            await until(lambda: there.control.elsewhere)
            gate = store.gates[CLAIM] = asyncio.Barrier(2)
            async with reading(store, b"takeover=true", engine=engine) as left:
                await until(lambda: gate.n_waiting)
                left.gone.set()
                await until(lambda: not there.readers)
            async with reading(store, b"takeover=true", engine=engine) as back:
                await until(lambda: back.messages)
                await gate.wait()
                await until(lambda: first.whole)
                await log.append(1)
                await log.close()
                await until(lambda: back.whole)
            assert values(back.body) == [1, "done"]
            assert values(first.body) == ["farewell"]


async def test_a_reader_takes_over_while_the_store_is_told_that_the_one_before_has_left(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        one, other = (GatedStore(redis.url) for _ in range(2))
        for store in (one, other):
            stack.push_async_callback(store.aclose)
        log, there = await shared(one, other, name="news")
        async with reading(one) as left:
            await until(lambda: log.told and there.control.seat)
            before = log.control.seat
            gate = one.gates[READERS] = asyncio.Barrier(2)
        await until(lambda: gate.n_waiting)
        assert not left.whole
        async with reading(other, b"takeover=true") as second:
            await until(lambda: log.control.seat != before)
            async with reading(one, b"takeover=true") as third:
                await until(lambda: log.claim is not None)
                await gate.wait()
                await until(lambda: second.whole)
                await log.append(1)
                await log.close()
                await until(lambda: third.whole)
            assert values(third.body) == [1, "done"]
            assert values(second.body) == ["farewell"]


async def test_a_seat_is_free_once_the_reader_elsewhere_has_left(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (one, other), asyncio.timeout(LIMIT):
        [log] = await shared(other, name="news")
        async with reading(one):
            await until(lambda: log.control.elsewhere)
        await until(lambda: not log.control.elsewhere)
        async with reading(other) as server:
            await until(lambda: server.messages)
            assert server.messages[0]["status"] == 200
