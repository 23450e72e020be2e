"""FastAPI's own streams: EventSourceResponse and JSON lines."""

import asyncio
from collections.abc import AsyncIterable

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse

from benchmarks.servers.broadcast import Broadcast
from benchmarks.servers.reading import Reading

app = FastAPI()
feed: Broadcast[Reading] = Broadcast()


@app.get("/sse", response_class=EventSourceResponse)
async def sse(n: int) -> AsyncIterable[Reading]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25)


@app.get("/ndjson")
async def ndjson(n: int) -> AsyncIterable[Reading]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25)


@app.get("/paced", response_class=EventSourceResponse)
async def paced(n: int, pace: float) -> AsyncIterable[Reading]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25)
        await asyncio.sleep(pace)


@app.get("/feed", response_class=EventSourceResponse)
async def read_feed() -> AsyncIterable[Reading]:
    with feed.subscribe() as queue:
        while True:
            yield await queue.get()


@app.post("/publish", status_code=202)
async def publish(reading: Reading) -> None:
    feed.publish(reading)
