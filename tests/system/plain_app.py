"""An application without a StreamRouter: only the lifespan that the documentation names, and one response."""

from __future__ import annotations

from fastapi import FastAPI

import tailrace
from tailrace import Engine, StreamResponse

app = FastAPI(lifespan=tailrace.lifespan)
app.state.tailrace_engine = engine = Engine(reconnect=(0.1, 0.5))


@app.get("/room")
async def room() -> StreamResponse:
    return StreamResponse(await engine.log("/room"))


@app.post("/room")
async def publish(number: dict[str, int]) -> None:
    log = await engine.log("/room")
    await log.append(number)
