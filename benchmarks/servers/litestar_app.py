"""Litestar's ServerSentEvent."""

import asyncio
from collections.abc import AsyncIterator

from litestar import Litestar, get, post
from litestar.response import ServerSentEvent

from benchmarks.servers.broadcast import Broadcast
from benchmarks.servers.reading import Reading

feed: Broadcast[str] = Broadcast()


async def events(n: int) -> AsyncIterator[str]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25).model_dump_json()


async def paced_events(n: int, pace: float) -> AsyncIterator[str]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25).model_dump_json()
        await asyncio.sleep(pace)


async def follow() -> AsyncIterator[str]:
    with feed.subscribe() as queue:
        while True:
            yield await queue.get()


@get("/sse")
async def sse(n: int) -> ServerSentEvent:
    return ServerSentEvent(events(n))


@get("/paced")
async def paced(n: int, pace: float) -> ServerSentEvent:
    return ServerSentEvent(paced_events(n, pace))


@get("/feed")
async def read_feed() -> ServerSentEvent:
    return ServerSentEvent(follow())


@post("/publish", status_code=202)
async def publish(data: Reading) -> None:
    feed.publish(data.model_dump_json())


app = Litestar([sse, paced, read_feed, publish])
