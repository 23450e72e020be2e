"""The application that these tests serve. Its generators are held, released and counted from outside."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from operator import ge
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace import Engine, Event, Log, OpenAIChunks, StreamError, StreamRouter

PATIENCE = 30.0
"""Seconds after which nobody waits any more."""


def setting(name: str, default: float) -> float:
    return float(os.environ.get(name, default))


GRACE = setting("GRACE", 0.2)


class Number(BaseModel):
    n: int


@dataclass
class Life:
    """What has become of the generators of one name."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    closed: int = 0
    requests: int = 0
    said: int = 0
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))


lives: defaultdict[str, Life] = defaultdict(Life)
_waiting: set[asyncio.Future[None]] = set()


def tell() -> None:
    """Let those look up who wait for a change of a life."""
    while _waiting:
        waiter = _waiting.pop()
        if not waiter.done():
            waiter.set_result(None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            _waiting.add(waiter)
            await waiter


router = StreamRouter()


said: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)


def name_address(name: str, response: Response) -> None:
    response.headers["link"] = f'</said/{name}>; rel="send"'


@router.stream("/echo/{name}", websocket=True, grace=GRACE, status_wait=0.1, dependencies=[Depends(name_address)])
async def echo(name: str) -> AsyncIterator[Any]:
    """What was said under a name, until a null."""
    while (value := await said[name].get()) is not None:
        yield value


@router.post("/said/{name}", status_code=202)
async def say(name: str, request: Request) -> None:
    try:
        values = [from_json(line) for line in (await request.body()).splitlines()]
    except ValueError:
        raise HTTPException(400, "no JSON") from None
    for value in values:
        said[name].put_nowait(value)
    lives[name].said += len(values)
    tell()


@router.stream("/numbers", grace=GRACE, status_wait=0.1, websocket=True)
async def numbers(
    name: str = "", count: int = 3, held: bool = False, fail_at: int = 0, crash_at: int = 0
) -> AsyncIterator[Number]:
    """1, 2, 3 …, each held until it is released; `fail_at` and `crash_at` say before which number it goes wrong."""
    life = lives[name]
    life.started += 1
    tell()
    try:
        for n in range(1, count + 1):
            if held:
                await life.gate.acquire()
            if n == fail_at:
                raise StreamError("the pump broke", code="pump", status=409)
            if n == crash_at:
                raise RuntimeError("crashed on purpose")
            yield Number(n=n)
        life.finished += 1
    except (asyncio.CancelledError, GeneratorExit):
        life.cancelled += 1
        raise
    finally:
        life.closed += 1
        tell()


@router.stream("/suspended", grace=GRACE, status_wait=0.1, websocket=True)
async def suspended(name: str = "") -> AsyncIterator[Number]:
    """As fast as the readers take them, so that it is suspended at `yield` when they leave."""
    life = lives[name]
    life.started += 1
    tell()
    try:
        n = 0
        while True:
            n += 1
            yield Number(n=n)
    finally:
        life.closed += 1
        tell()


@router.stream("/held", grace=GRACE, websocket=True)
async def held() -> AsyncIterator[Number]:
    """One event, and then nothing for as long as anybody waits."""
    yield Number(n=1)
    await asyncio.Event().wait()


@router.stream("/words", websocket=True)
async def words() -> AsyncIterator[str]:
    for word in ("über ", "Wasser ", "läuft"):
        yield word


@router.stream("/forbidden", websocket=True)
async def forbidden() -> AsyncIterator[Number]:
    raise HTTPException(403, "not for you")
    yield Number(n=0)


@router.stream("/mishap", websocket=True)
async def mishap() -> AsyncIterator[Event[Number]]:
    """An event with a name of the application's own, then an error."""
    yield Event(Number(n=1), "reading")
    raise StreamError("the pump broke", code="pump")


@router.stream("/detached", on_disconnect="detach", status_wait=0.1, websocket=True)
async def detached(name: str = "", count: int = 3) -> AsyncIterator[Number]:
    async for number in numbers(name, count, held=True):
        yield number


# What happens while the server stops


class Leaving(asyncio.Event):
    """Set as soon as the server is told to stop."""

    def leave(self) -> None:
        self.set()

    def abandon(self) -> None:
        self.set()


@router.stream("/finishing", websocket=True)
async def finishing(request: Request) -> AsyncIterator[Number]:
    """Needs only a little longer when the server is told to stop."""
    engine: Engine = request.app.state.tailrace_engine
    leaving = Leaving()
    engine.readers.join(leaving)
    try:
        yield Number(n=1)
        await leaving.wait()
        yield Number(n=2)
    finally:
        engine.readers.part(leaving)


@router.stream("/endless", status_wait=0.1, websocket=True)
async def endless() -> AsyncIterator[Number]:
    yield Number(n=1)
    await asyncio.Event().wait()


@router.stream("/room", websocket=True)
async def room(request: Request) -> Log:
    engine: Engine = request.app.state.tailrace_engine
    return await engine.log("/room")


# A model


@router.stream(
    "/v1/chat/completions",
    methods=["POST"],
    wires=[OpenAIChunks(model="mill-1")],
    grace=GRACE,
    status_wait=0.1,
)
async def chat(body: dict[str, Any]) -> AsyncIterator[str]:
    """Does as the last message says; `hold …` waits until it is released."""
    prompt = body["messages"][-1]["content"]
    if prompt == "refuse":
        raise StreamError("the mill stands still", code="mill_stopped", status=400)
    if prompt.startswith("hold "):
        async for _ in numbers(prompt.removeprefix("hold "), 1, held=True):
            pass
    for word in ("The ", "mill ", "turns."):
        yield word
        if prompt == "break":
            raise StreamError("the wheel broke", code="wheel", status=500)


# The control of it all

control = APIRouter()


@control.post("/room")
async def publish(request: Request, number: Number) -> dict[str, int]:
    engine: Engine = request.app.state.tailrace_engine
    log = await engine.log("/room")
    return {"offset": (await log.append(number))[-1]}


@control.post("/lives/{name}/release")
async def release(name: str, count: int = 1) -> None:
    for _ in range(count):
        lives[name].gate.release()


@control.get("/lives/{name}")
async def life(name: str, started: int = 0, closed: int = 0, requests: int = 0, said: int = 0) -> dict[str, int]:
    """What has become of the generators of a name, as soon as so many of them have started and closed."""
    own = lives[name]
    least = (started, closed, requests, said)
    await until(lambda: all(map(ge, (own.started, own.closed, own.requests, own.said), least)))
    return {key: value for key, value in vars(own).items() if isinstance(value, int)}


@control.get("/statistics")
async def statistics(request: Request) -> dict[str, Any]:
    engine: Engine = request.app.state.tailrace_engine
    return {**asdict(engine.statistics()), "tasks": len(asyncio.all_tasks())}


@control.get("/objects")
async def objects() -> int:
    """About as many as there are objects, of any kind, once those that only hold each other are gone."""
    gc.collect()
    return sys.getallocatedblocks()


@control.get("/page")
async def page() -> HTMLResponse:
    """A page of this origin, for scripts to run in."""
    return HTMLResponse("<!doctype html><title>page</title>")


class CountedRequests:
    """Counts the requests for the streams of a name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and (match := _NAME.match(scope["query_string"])) is not None:
            lives[match[1].decode()].requests += 1
            tell()
        await self.app(scope, receive, send)


_NAME = re.compile(rb"name=([\w-]+)")

app = FastAPI()
app.state.tailrace_engine = Engine(
    heartbeat=setting("HEARTBEAT", 15),
    send_timeout=setting("SEND_TIMEOUT", 300),
    shutdown_grace=setting("SHUTDOWN_GRACE", 10),
    reconnect=(0.1, 0.5),
    keep=setting("KEEP", 300),
    keep_count=int(setting("KEEP_COUNT", 1000)),
)
app.include_router(router)
app.include_router(control)
app.add_middleware(CountedRequests)
