"""tailrace through FastAPI routes: ids, resume and heartbeats included."""

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI

from benchmarks.servers.reading import Reading
from tailrace import Engine, Log, Retention, StreamResponse, StreamRouter

app = FastAPI()
engine = Engine(os.environ.get("TAILRACE_STREAMS", "memory://"))
router = StreamRouter(engine=engine)


async def feed() -> Log:
    return await engine.log("feed")


async def history() -> Log:
    return await engine.log("history", retention=Retention(count=None, size=None))


@router.stream("/sse")
async def sse(n: int) -> AsyncIterator[Reading]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25)


@router.stream("/ndjson")
async def ndjson(n: int) -> AsyncIterator[Reading]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25)


@router.stream("/socket", websocket=True)
async def socket() -> Log:
    return await feed()


@router.stream("/paced")
async def paced(n: int, pace: float) -> AsyncIterator[Reading]:
    for id in range(n):
        yield Reading(id=id, name="sensor", value=3.25)
        await asyncio.sleep(pace)


@app.get("/feed")
async def read_feed() -> StreamResponse:
    return StreamResponse(await feed(), engine=engine)


@app.post("/publish", status_code=202)
async def publish(reading: Reading) -> None:
    log = await feed()
    await log.append(reading)


@app.post("/fill", status_code=202)
async def fill(n: int) -> None:
    log = await history()
    await log.append(*(Reading(id=id, name="sensor", value=3.25) for id in range(n)))
    await log.close()


@app.get("/replay")
async def replay() -> StreamResponse:
    return StreamResponse(await history(), engine=engine)


app.include_router(router)
