"""sse-starlette, in a FastAPI application."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from sse_starlette import EventSourceResponse, ServerSentEvent

from benchmarks.servers.broadcast import Broadcast
from benchmarks.servers.reading import Reading

app = FastAPI()
feed: Broadcast[str] = Broadcast()


async def events(n: int) -> AsyncIterator[ServerSentEvent]:
    for id in range(n):
        yield ServerSentEvent(Reading(id=id, name="sensor", value=3.25).model_dump_json())


async def paced_events(n: int, pace: float) -> AsyncIterator[ServerSentEvent]:
    for id in range(n):
        yield ServerSentEvent(Reading(id=id, name="sensor", value=3.25).model_dump_json())
        await asyncio.sleep(pace)


async def follow() -> AsyncIterator[ServerSentEvent]:
    with feed.subscribe() as queue:
        while True:
            yield ServerSentEvent(await queue.get())


@app.get("/sse")
async def sse(n: int) -> EventSourceResponse:
    return EventSourceResponse(events(n))


@app.get("/paced")
async def paced(n: int, pace: float) -> EventSourceResponse:
    return EventSourceResponse(paced_events(n, pace))


@app.get("/feed")
async def read_feed() -> EventSourceResponse:
    return EventSourceResponse(follow())


@app.post("/publish", status_code=202)
async def publish(reading: Reading) -> None:
    feed.publish(reading.model_dump_json())
