"""The shared application, with routes that tell what a proxy did with a request."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tailrace import Log, StreamError, StreamRouter
from tests.system.shared_app import app as shared
from tests.system.shared_app import engine

__all__ = ["app"]

app: FastAPI = shared
router = StreamRouter()


class Named:
    """Names the process that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-worker"] = str(os.getpid())
            await send(message)

        await self.app(scope, receive, named if scope["type"] == "http" else send)


async def news() -> Log:
    return await engine.log("/news")


@router.stream("/news", websocket=True)
async def read_news() -> Log:
    return await news()


@router.post("/news")
async def publish(text: str) -> int:
    log = await news()
    [offset] = await log.append(text)
    return offset


@router.stream("/failing")
async def failing() -> AsyncIterator[int]:
    yield 1
    raise StreamError("no more", code="empty")


@router.get("/plain")
async def plain() -> StreamingResponse:
    """The news in a response that asks no proxy for anything."""

    log = await news()
    newest = log.top

    async def texts() -> AsyncIterator[str]:
        yield "the news: "  # uvicorn sends the head with it
        async for entries in log.tail(newest):
            for entry in entries:
                yield entry.data

    return StreamingResponse(texts(), media_type="text/plain")


@router.get("/seen")
async def seen(request: Request) -> dict[str, str | None]:
    """What the application believes of the client."""
    client = request.client.host if request.client else None
    return {"client": client, "scheme": request.url.scheme, "host": request.headers["host"]}


@router.api_route("/fatal/{name}", methods=["GET", "POST"])
async def fatal(name: str) -> int:
    """Count the requests of a name, in all processes. The first one kills the process that counts it."""
    log = await engine.log(f"/fatal/{name}")
    [offset] = await log.append("counted")
    if offset == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return offset


app.include_router(router)
app.add_middleware(Named)
