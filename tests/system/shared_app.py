"""An application whose streams live in Redis, so that several of its processes serve the same ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from tailrace import Engine, StreamRouter
from tailrace.packets import ClientSession, SocketPacket, packets_router

PACE = 0.01
"""Seconds between two numbers."""

app = FastAPI()
app.state.tailrace_engine = engine = Engine(os.environ["REDIS_URL"], shutdown_grace=0.5)
router = StreamRouter()


def somebody() -> str:
    return "somebody"


@router.stream("/numbers", on_disconnect="detach", principal=somebody)
async def numbers() -> AsyncIterator[int]:
    """1, 2, 3 … until it is stopped."""
    number = 0
    while True:
        yield (number := number + 1)
        await asyncio.sleep(PACE)


@app.post("/numbers/made")
async def make() -> str:
    """Make a stream that this process never writes, as if it were killed before it could."""
    return (await engine.new_stream("/numbers")).name


@app.get("/statistics")
async def statistics() -> dict[str, Any]:
    return asdict(engine.statistics())


async def echo(session: ClientSession, packet: SocketPacket) -> None:
    await session.send(packet.reply(packet.payload, "RESULT" if packet.payload == "bye" else "DATA"))


app.include_router(router)
app.include_router(packets_router("/packets", on_packet=lambda: echo))
