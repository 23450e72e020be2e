"""What the clients' tests are run against."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sse_starlette import EventSourceResponse as OtherEventSourceResponse

from tailrace import Engine, Event, Flow, Log, MemoryLog, OpenAIChunks, Retention, StreamError, StreamRouter

LETTERS = ["a", "b", "c"]
NAMES = ["één", "twee", "drieë"]


def tailrace_app() -> FastAPI:
    """Streams of this project. `app.state.runs` counts how often the stream of each `post` was started."""
    engine = Engine()
    router = StreamRouter(engine=engine)
    runs: Counter[int] = Counter()
    feed = MemoryLog("/feed", Retention(count=3))

    @router.stream("/letters", websocket=True)
    async def letters() -> AsyncIterator[str]:
        for letter in LETTERS:
            yield letter

    @router.stream("/words", methods=["POST"], websocket=True)
    async def words(words: list[str], post: int = 0) -> AsyncIterator[str]:
        runs[post] += 1
        for word in words:
            yield word

    @router.stream("/named", websocket=True)
    async def named() -> AsyncIterator[str | Event[int]]:
        yield "first"
        yield Event(2, event="second")

    @router.stream("/early", websocket=True)
    async def early() -> AsyncIterator[str]:
        raise HTTPException(401, "who are you")
        yield ""

    @router.stream("/late", websocket=True)
    async def late() -> AsyncIterator[str]:
        yield "a"
        raise StreamError("the model is down", code="model_down")

    @router.stream("/long", grace=0.1, websocket=True)
    async def long() -> AsyncIterator[int]:
        for number in range(1_000_000):
            yield number
            await asyncio.sleep(0.001)

    @router.stream("/fast", grace=0.1, websocket=True)
    async def fast() -> AsyncIterator[int]:
        for number in range(1_000_000):
            app.state.made = number
            yield number

    @router.stream("/short", retention=Retention(count=3), on_disconnect="detach")
    async def short() -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await asyncio.sleep(0)

    @router.stream("/quiet", grace=0.1, websocket=True)
    async def quiet() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(60)

    @router.stream("/chunks", wires=[OpenAIChunks("m")])
    async def chunks() -> AsyncIterator[str]:
        yield "Hi"

    @router.stream("/chunks/broken", wires=[OpenAIChunks("m")])
    async def broken_chunks() -> AsyncIterator[str]:
        yield "Hi"
        raise StreamError("the model is down", code="model_down")

    @router.stream("/feed", flow=Flow.log(), websocket=True)
    def read_feed() -> Log:
        return feed

    app = FastAPI()
    app.include_router(router)
    app.state.runs = runs
    app.state.feed = feed
    return app


def other_app() -> FastAPI:
    """Streams that this project has no part in."""
    app = FastAPI()

    def after(request: Request) -> int:
        return int(request.headers.get("last-event-id", 0))

    @app.get("/fastapi", response_class=EventSourceResponse)
    async def fastapi_sse(request: Request) -> AsyncIterable[ServerSentEvent]:
        for number in range(after(request) + 1, 4):
            yield ServerSentEvent(data={"n": number}, id=str(number), event="tick")

    @app.get("/fastapi/items", response_class=EventSourceResponse)
    async def fastapi_items() -> AsyncIterable[dict[str, int]]:
        for number in range(3):
            yield {"n": number}

    @app.get("/starlette")
    async def starlette_sse(request: Request) -> OtherEventSourceResponse:
        async def events() -> AsyncIterator[dict[str, Any]]:
            for number in range(after(request) + 1, 4):
                yield {"data": f"line {number}\nmore", "id": str(number)}

        return OtherEventSourceResponse(events())

    @app.get("/lines")
    async def lines() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b'{"id": 1, "data"'
            yield b': "x", "more": true}\n\n[2]\n"three"\nnull'

        return StreamingResponse(body(), media_type="application/x-ndjson")

    @app.get("/text")
    async def text() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "hello "
            yield "world"

        return StreamingResponse(body(), media_type="text/plain")

    @app.get("/named", response_class=EventSourceResponse)
    async def named(request: Request) -> AsyncIterable[ServerSentEvent]:
        # Starlette reads headers as Latin-1.
        seen = request.headers.get("last-event-id", "").encode("latin-1").decode()
        for name in NAMES[NAMES.index(seen) + 1 if seen else 0 :]:
            yield ServerSentEvent(data=name, id=name)

    @app.get("/odd")
    async def odd() -> StreamingResponse:
        return StreamingResponse(iter([b"id: a\x01b\ndata: 1\n\n"]), media_type="text/event-stream")

    @app.get("/round")
    async def redirected() -> RedirectResponse:
        return RedirectResponse("/round")

    @app.get("/away")
    async def away() -> RedirectResponse:
        return RedirectResponse("ftp://example.com/")

    @app.get("/garbled")
    async def garbled() -> Response:
        return Response(b"data: 1\n\n", headers={"content-encoding": "gzip"}, media_type="text/event-stream")

    return app
