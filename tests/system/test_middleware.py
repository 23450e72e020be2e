"""Streams inside the middleware that applications usually have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.asyncio.client import connect

from tailrace import Engine, Outcome, read_notice
from tailrace.wire.websocket import read_message
from tests.serving import http_client, serving
from tests.system.app import control, lives, router, until
from tests.system.servers import PATIENCE, Reader

SSE = {"accept": "text/event-stream"}
NDJSON = {"accept": "application/x-ndjson"}
WIRES = pytest.mark.parametrize("headers", [SSE, NDJSON], ids=["sse", "ndjson"])

ORIGIN = "https://pages.example"
TOLD = "tailrace-cursor, content-location, link"


async def stamp(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-base"] = "was here"
    return response


class Stamp:
    """A middleware that knows nothing but ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-pure", b"was here")]
            await send(message)

        await self.app(scope, receive, send_stamped if scope["type"] == "http" else send)


BASE = Middleware(BaseHTTPMiddleware, dispatch=stamp)
GZIP = Middleware(GZipMiddleware, minimum_size=1)
CORS = Middleware(
    CORSMiddleware,
    allow_origins=[ORIGIN],
    allow_headers=["last-event-id"],
    expose_headers=TOLD.split(", "),
)
HOSTS = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"])
PURE = Middleware(Stamp)

STACKS = {
    "base": [BASE],
    "gzip": [GZIP],
    "pure": [HOSTS, CORS, PURE],
    "all": [HOSTS, CORS, GZIP, BASE, PURE],
    "all-turned-round": [PURE, BASE, GZIP, CORS, HOSTS],
}


@asynccontextmanager
async def client_of(*middleware: Middleware) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application inside this middleware, the outermost first, on a server of its own."""
    app = FastAPI(middleware=list(middleware))
    app.state.tailrace_engine = Engine()
    app.include_router(router)
    app.include_router(control)
    async with serving(app) as url, http_client(url) as client:
        yield client


@pytest_asyncio.fixture(params=STACKS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(*STACKS[request.param]) as client:
        yield client


async def nobody_is_left(client: httpx.AsyncClient) -> None:
    """Wait until the engine has neither readers nor producers, for which there is no event to wait."""
    async with asyncio.timeout(PATIENCE):
        while True:
            statistics = (await client.get("/statistics")).json()
            if statistics["readers"] == statistics["producers"] == 0:
                assert statistics["stuck"] == 0
                return
            await asyncio.sleep(0.02)


@WIRES
async def test_events_come_one_by_one(client: httpx.AsyncClient, name: str, headers: dict[str, str]) -> None:
    lives[name].gate.release()
    async with client.stream("GET", f"/numbers?name={name}&held=true", headers=headers) as response:
        reader = Reader.of(response)
        for n in (1, 2, 3):
            assert (await reader.next()).data == {"n": n}
            await client.post(f"/lives/{name}/release")
        assert read_notice(*await reader.rest()) == Outcome("done")


@WIRES
async def test_a_client_that_leaves_ends_the_generator(
    client: httpx.AsyncClient, name: str, headers: dict[str, str]
) -> None:
    lives[name].gate.release()
    async with client.stream("GET", f"/numbers?name={name}&held=true", headers=headers) as response:
        await Reader.of(response).next()
    await until(lambda: lives[name].closed == 1)
    assert lives[name].cancelled == 1
    await nobody_is_left(client)


async def test_a_generator_that_never_waits_is_closed_when_its_client_leaves(
    client: httpx.AsyncClient, name: str
) -> None:
    async with client.stream("GET", f"/suspended?name={name}", headers=NDJSON) as response:
        await Reader.of(response).next()
    await until(lambda: lives[name].closed == 1)
    await nobody_is_left(client)


async def test_a_failure_before_the_first_event_is_a_status(client: httpx.AsyncClient) -> None:
    response = await client.get("/numbers?fail_at=1", headers=SSE)
    assert (response.status_code, response.json()["code"]) == (409, "pump")


@WIRES
async def test_a_later_failure_is_said(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    async with client.stream("GET", "/numbers?fail_at=3", headers=headers) as response:
        reader = Reader.of(response)
        assert [(await reader.next()).data for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert read_notice(await reader.next()) == Outcome("error", "pump", "the pump broke")


@pytest.mark.parametrize("stack", [name for name in STACKS if BASE not in STACKS[name]])
async def test_a_later_failure_breaks_the_body_off(stack: str) -> None:
    async with client_of(*STACKS[stack]) as client:
        for headers in (SSE, NDJSON, {"accept": "text/plain"}):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/numbers?fail_at=3", headers=headers)


async def test_base_http_middleware_ends_cleanly_what_was_broken_off() -> None:
    """Starlette ends the body whatever became of the application, so text inside of it cannot say that it failed."""
    async with client_of(BASE) as client:
        response = await client.get("/numbers?fail_at=3", headers={"accept": "text/plain"})
    assert response.text == '{"n":1}\n{"n":2}\n'


@WIRES
async def test_a_reader_that_comes_back_goes_on(client: httpx.AsyncClient, name: str, headers: dict[str, str]) -> None:
    lives[name].gate.release()
    async with client.stream("GET", f"/detached?name={name}", headers=headers) as response:
        first = await Reader.of(response).next()
    assert first.id is not None
    await client.post(f"/lives/{name}/release?count=2")
    address = response.headers["content-location"]
    async with client.stream("GET", address, headers={**headers, "last-event-id": first.id}) as response:
        frames = await Reader.of(response).rest()
    assert [frame.data for frame in frames] == [{"n": 2}, {"n": 3}, {}]


async def test_a_websocket_works_inside(client: httpx.AsyncClient) -> None:
    address = str(client.base_url).replace("http", "ws", 1)
    async with connect(f"{address}/numbers") as socket, asyncio.timeout(PATIENCE):
        assert [read_message(str(message)).data async for message in socket] == [{"n": 1}, {"n": 2}, {"n": 3}, {}]


# What only one of them does


async def test_gzip_leaves_server_sent_events_alone_and_flushes_each_line_of_ndjson() -> None:
    async with client_of(GZIP) as client:
        for headers, encoding in ((SSE, None), (NDJSON, "gzip")):
            async with client.stream("GET", "/numbers", headers=headers) as response:
                assert response.headers.get("content-encoding") == encoding
                assert response.headers["cache-control"] == "no-cache, no-transform"
                assert len(await Reader.of(response).rest()) == 4


async def test_gzip_passes_the_headers_on_before_an_event_that_takes_long(name: str) -> None:
    # Text has no pings either.
    url, text = f"/numbers?name={name}&held=true&count=1", {"accept": "text/plain"}
    async with asyncio.timeout(PATIENCE), client_of(GZIP) as client, client.stream("GET", url, headers=text) as answer:
        assert answer.status_code == 200
        await client.post(f"/lives/{name}/release")
        assert await answer.aread() == b'{"n":1}\n'


async def test_a_preflight_allows_the_header_that_resumes() -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": "last-event-id",
    }
    async with client_of(CORS) as client:
        response = await client.options("/numbers", headers=asked)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "last-event-id" in response.headers["access-control-allow-headers"].lower()


async def test_a_page_of_elsewhere_may_read_what_the_response_says_of_the_stream() -> None:
    async with client_of(CORS) as client:
        response = await client.get("/numbers", headers={**SSE, "origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-expose-headers"] == TOLD
        # Which wire it is depends on Accept, and who may read it on Origin.
        assert {part.strip().lower() for part in response.headers["vary"].split(",")} == {"accept", "origin"}


async def test_a_host_that_is_not_trusted_is_refused_before_anything_starts(name: str) -> None:
    async with client_of(HOSTS) as client:
        response = await client.get(f"/numbers?name={name}", headers={**SSE, "host": "elsewhere.example"})
    assert response.status_code == 400
    assert lives[name].started == 0


async def test_headers_of_middleware_are_on_the_stream() -> None:
    async with client_of(*STACKS["all"]) as client:
        response = await client.get("/numbers", headers=SSE)
    assert (response.headers["x-base"], response.headers["x-pure"]) == ("was here", "was here")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
