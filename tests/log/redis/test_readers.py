"""Readers in several processes of a stream that has one reader at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tailrace import LogStore, StreamResponse
from tests.asgi.apps import Server, small_engine
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import LIMIT, shared, stores, until
from tests.raw import values


@asynccontextmanager
async def reading(store: LogStore, query: bytes = b"") -> AsyncIterator[Server]:
    """A reader of the log `news`, which leaves with the block. The processes have a store each."""
    engine, server = small_engine(url=store), Server(query=query)
    response = StreamResponse(await engine.log("news"), engine=engine, exclusive=True)
    answering = asyncio.create_task(response(server.scope, server.receive, server.send))
    yield server
    server.gone.set()
    await asyncio.wait_for(answering, LIMIT)


async def test_a_reader_elsewhere_is_counted_and_replaced(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other), asyncio.timeout(LIMIT):
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


async def test_a_seat_is_free_once_the_reader_elsewhere_has_left(redis: RedisServer) -> None:
    async with stores(redis.url) as (one, other), asyncio.timeout(LIMIT):
        [log] = await shared(other, name="news")
        async with reading(one):
            await until(lambda: log.control.elsewhere)
        await until(lambda: not log.control.elsewhere)
        async with reading(other) as server:
            await until(lambda: server.messages)
            assert server.messages[0]["status"] == 200
