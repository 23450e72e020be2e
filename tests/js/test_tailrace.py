"""`tailrace.js` in Node: its types, its streams and its rooms."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Header, HTTPException, Request, Response

from tailrace import Engine
from tailrace.rooms import RoomLimits, RoomsRouter, rooms_router
from tailrace.testing import Fault, relayed
from tests.js.driving import HERE, MODULES, NODE, run_tests
from tests.serving import serving


def test_the_types_are_strict() -> None:
    tsc = MODULES / "typescript" / "bin" / "tsc"
    ran = subprocess.run([str(NODE), str(tsc), "-p", str(HERE)], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_streams() -> None:
    run_tests("streams")


def member(name: str | None = None, x_key: str | None = Header(None)) -> str | None:
    if x_key == "wrong":
        raise HTTPException(401, "expected another key")
    return name


@asynccontextmanager
async def rooms() -> AsyncIterator[tuple[str, str]]:
    """The addresses of rooms and of a relay in front of them. POST /cut, /refuse and /admit say what the relay does."""
    limits = RoomLimits(rate=10_000, burst=10_000, room_rate=10_000, room_burst=10_000)
    router: RoomsRouter = rooms_router(
        "/rooms/{room}", member=member, engine=Engine(), leave_delay=0, limits=limits, history=1_000
    )
    app = FastAPI()
    app.include_router(router)

    @app.post("/relay/{what}")
    async def control(what: str, request: Request) -> Response:
        match what:
            case "cut":
                relay.cut()
            case "refuse" | "admit":
                relay.refuse(what == "refuse")
            case "cut-after":
                relay.next(*[Fault(after=int(count)) for count in (await request.body()).split()])
        return Response()

    async with serving(app) as url, relayed(url) as relay:
        yield url, relay.url


async def test_rooms() -> None:
    async with rooms() as (url, relay):
        await asyncio.to_thread(run_tests, "rooms", SERVER=url, RELAY=relay)
