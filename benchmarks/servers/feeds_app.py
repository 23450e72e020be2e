"""Many named streams of tailrace in Redis, which any process of the application reads and publishes to."""

import asyncio
import os

from fastapi import FastAPI

from benchmarks.servers.reading import Reading
from tailrace import Engine, Log, StreamResponse, lifespan

AT_ONCE = 200

app = FastAPI(lifespan=lifespan)
app.state.tailrace_engine = engine = Engine(os.environ.get("TAILRACE_STREAMS", "memory://"))


async def feed(number: int) -> Log:
    return await engine.log(f"feeds/{number}")


@app.get("/feeds/{number}")
async def read(number: int) -> StreamResponse:
    return StreamResponse(await feed(number))


@app.post("/publish", status_code=202)
async def publish(feeds: int, first: int, count: int) -> None:
    """Append so many events to each stream, numbered from the first. Some streams at once, as many requests would."""
    readings = [Reading(id=first + number, name="sensor", value=3.25) for number in range(count)]

    async def append(number: int) -> None:
        log = await feed(number)
        await log.append(*readings)

    for start in range(0, feeds, AT_ONCE):
        await asyncio.gather(*map(append, range(start, min(start + AT_ONCE, feeds))))
