"""A bare StreamingResponse whose generator spells the wire by hand: no ids, no resume, no heartbeat."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic_core import to_json

from benchmarks.servers.broadcast import Broadcast
from benchmarks.servers.reading import Reading

app = FastAPI()
feed: Broadcast[bytes] = Broadcast()
history: list[bytes] = []


async def events(n: int) -> AsyncIterator[bytes]:
    for id in range(n):
        yield b"data: " + to_json(Reading(id=id, name="sensor", value=3.25)) + b"\n\n"


async def lines(n: int) -> AsyncIterator[bytes]:
    for id in range(n):
        yield to_json(Reading(id=id, name="sensor", value=3.25)) + b"\n"


async def paced_events(n: int, pace: float) -> AsyncIterator[bytes]:
    for id in range(n):
        yield b"data: " + to_json(Reading(id=id, name="sensor", value=3.25)) + b"\n\n"
        await asyncio.sleep(pace)


async def follow() -> AsyncIterator[bytes]:
    with feed.subscribe() as queue:
        while True:
            yield await queue.get()


@app.get("/sse")
async def sse(n: int) -> StreamingResponse:
    return StreamingResponse(events(n), media_type="text/event-stream")


@app.get("/ndjson")
async def ndjson(n: int) -> StreamingResponse:
    return StreamingResponse(lines(n), media_type="application/x-ndjson")


@app.get("/paced")
async def paced(n: int, pace: float) -> StreamingResponse:
    return StreamingResponse(paced_events(n, pace), media_type="text/event-stream")


@app.get("/feed")
async def read_feed() -> StreamingResponse:
    return StreamingResponse(follow(), media_type="text/event-stream")


@app.post("/publish", status_code=202)
async def publish(reading: Reading) -> None:
    feed.publish(b"data: " + to_json(reading) + b"\n\n")


@app.post("/fill", status_code=202)
async def fill(n: int) -> None:
    history.extend([event async for event in events(n)])


async def replayed() -> AsyncIterator[bytes]:
    for chunk in history:
        yield chunk


@app.get("/replay")
async def replay() -> StreamingResponse:
    return StreamingResponse(replayed(), media_type="text/event-stream")
