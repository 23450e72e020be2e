"""The application of a worker: streams that it writes itself, and rooms that it publishes to and serves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from tailrace import Engine, StreamResponse, StreamRouter

PAUSE = 0.01
"""Seconds between two items of a stream."""

app = FastAPI()
app.state.tailrace_engine = engine = Engine(os.environ["REDIS_URL"], shutdown_grace=0.5)
router = StreamRouter()


@router.stream("/items", on_disconnect="detach")
async def items() -> AsyncIterator[list[Any]]:
    """Numbered items, and when they were made."""
    number = 0
    while True:
        yield ["worker", number := number + 1, time.monotonic()]
        await asyncio.sleep(PAUSE)


@app.get("/rooms/{name}")
async def read(name: str) -> StreamResponse:
    return StreamResponse(await engine.log(f"/rooms/{name}"))


@app.post("/rooms/{name}")
async def publish(name: str, publisher: str, count: int) -> tuple[str, list[int]]:
    """Publish items one after another. Return the epoch and their offsets."""
    log = await engine.log(f"/rooms/{name}")
    return log.epoch, [(await log.append([publisher, number]))[0] for number in range(1, count + 1)]


@app.get("/producers")
async def producers() -> int:
    """How many producers run in this worker."""
    return engine.statistics().producers


app.include_router(router)
