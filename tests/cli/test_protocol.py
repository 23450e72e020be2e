"""What one connection may send to `tailrace serve`, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import uvicorn
import websockets

from tailrace.cli.protocol import BoundedProtocol
from tests.cli.served import PATIENCE
from tests.cli.terminal.conftest import serve
from tests.programs import Server

MEGABYTE = 1 << 20
HEAD = b"GET /sessions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("chat")) as found:
        yield found


def flooded(server: Server, head: bytes, block: bytes, megabytes: int = 8) -> tuple[bytes, float]:
    """What the server answers first to so many megabytes, and by how many it grows meanwhile."""
    address = urlsplit(server.url)
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with socket.create_connection((address.hostname, address.port), PATIENCE) as connection:
        with suppress(OSError):  # the server closes the connection, or takes nothing more
            connection.sendall(head)
            connection.settimeout(2)
            for _ in range(megabytes * MEGABYTE // len(block)):
                connection.sendall(block)
        grown = process.memory_info().rss - before
        answer = b""
        connection.settimeout(PATIENCE)
        with suppress(OSError):  # a reset, because there is more in the socket than the server has read
            answer = connection.recv(65536)
    return answer, grown / MEGABYTE


@pytest.mark.parametrize(
    ("head", "block"),
    [
        pytest.param(HEAD, b"a:\r\n" * 20_000, id="tiny headers"),
        pytest.param(HEAD, b"x: " + b"a" * 1000 + b"\r\n", id="headers"),
        pytest.param(HEAD + b"X-A: ", b"a" * 100_000, id="one header"),
        pytest.param(b"GET /", b"a" * 100_000, id="address"),
        pytest.param(
            b"POST /sessions/new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"a:\r\n" * 20_000,
            id="trailers",
        ),
    ],
)
def test_a_flood_of_one_head_takes_no_memory(server: Server, head: bytes, block: bytes) -> None:
    answer, grown = flooded(server, head, block)
    assert grown < 12
    # The response to a request with endless trailers may come before them.
    assert answer.startswith(b"HTTP/1.1 431 " if b"chunked" not in head else b"HTTP/1.1 ")


def test_a_flood_of_pipelined_requests_takes_no_memory(server: Server) -> None:
    answer, grown = flooded(server, b"", (HEAD + b"\r\n") * 1000, 24)
    assert grown < 12
    assert answer.startswith(b"HTTP/1.1 200 ")


# The bounds one by one, in a server whose application a test holds


class Bounded(BoundedProtocol):
    max_waiting = 3
    head_seconds = 0.3
    request_seconds = 0.6


class Application:
    """Answers a request's path and body, after `gate` is open; `/early` answers before it reads, `/never` reads not."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": (await receive())["text"]})
            await receive()
            return
        path = scope["path"].encode()
        self.begun.set()
        start = {"type": "http.response.start", "status": 200, "headers": []}
        try:
            if path == b"/early":
                await send(start)
            await self.gate.wait()
            body, more = b"", path != b"/never"
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                more = message.get("more_body", False)
            if path != b"/early":
                await send(start)
            await send({"type": "http.response.body", "body": path + b" %d" % len(body)})
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[tuple[str, int]]:
    config = uvicorn.Config(app, http=Bounded, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()
    finally:
        app.gate.set()
        server.should_exit = True
        await task


@asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answers(app: Application, request: bytes) -> bytes:
    """All that is answered until the server closes the connection."""
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(request)
        return await reader.read()


def request(path: str, fields: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()


@pytest.mark.parametrize("size", [65_536 - 100, 65_537])
async def test_a_head_has_up_to_64_kilobytes(size: int) -> None:
    field = f"X: {'a' * size}\r\nConnection: close\r\n"
    answer = await answers(Application(), request("/x", field))
    assert answer.startswith(b"HTTP/1.1 200" if size < 65_536 else b"HTTP/1.1 431 Request Header Fields Too Large")


async def test_a_head_is_bounded_wherever_it_is_cut() -> None:
    async with serving(Application()) as address, connected(address) as (reader, writer):
        writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n")
        for _ in range(100):
            writer.write(b"X: " + b"a" * 1000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")


async def test_what_cannot_be_read_is_400() -> None:
    assert (await answers(Application(), b"what\r\n\r\n")).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    requests = [request(f"/{number}") for number in range(3)]
    answer = await answers(Application(), b"".join([*requests, request("/last", "Connection: close\r\n")]))
    positions = [answer.index(path) for path in (b"/0 0", b"/1 0", b"/2 0", b"/last 0")]
    assert positions == sorted(positions)


async def test_a_client_that_leaves_is_noticed_although_a_request_waits() -> None:
    class Endless(Application):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await receive()
            leaving = asyncio.create_task(receive())
            while not leaving.done():
                await send({"type": "http.response.body", "body": b".", "more_body": True})
                await asyncio.sleep(0.01)
            assert leaving.result()["type"] == "http.disconnect"
            self.ended.set()

    app = Endless()
    async with serving(app) as address:
        async with connected(address) as (reader, writer):
            writer.write(request("/first") + request("/second"))
            await reader.readuntil(b".")
        async with asyncio.timeout(PATIENCE):
            await app.ended.wait()


async def test_too_many_pipelined_requests_are_answered_in_part() -> None:
    app = Application()
    app.gate.clear()
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(b"".join(request(f"/{number}") for number in range(50)))
        await app.begun.wait()
        app.gate.set()
        answer = await reader.read()
    # One is running, and three wait.
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.count(b"connection: close") == 1
    assert b"/3 0" in answer


async def test_a_connection_that_sends_nothing_is_closed() -> None:
    assert await answers(Application(), b"") == b""


@pytest.mark.parametrize(
    "part",
    [b"GET /x HT", b"GET /x HTTP/1.1\r\nHost: a\r\nX: ", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"],
    ids=["line", "head", "body"],
)
async def test_part_of_a_request_is_408_after_its_time(part: bytes) -> None:
    app = Application()
    if b"\r\n\r\n" not in part:
        app.ended.set()
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(part)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        await app.ended.wait()


async def test_a_second_request_has_a_time_of_its_own() -> None:
    async with serving(Application()) as address, connected(address) as (reader, writer):
        writer.write(request("/x"))
        await reader.readuntil(b"/x 0")
        writer.write(b"GET /y HT")
        assert b"HTTP/1.1 408 Request Timeout\r\n" in await reader.read()


async def test_a_body_may_take_as_long_as_its_answer() -> None:
    """An application that answers while it reads, or that lets the body wait, has its own idea of time."""
    app = Application()
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nab")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(2 * Bounded.request_seconds)
        writer.write(b"c")
        assert b"/early 3" in await reader.read()


async def test_an_application_does_not_answer_what_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()
    async with serving(app) as address, connected(address) as (reader, writer):
        app.gate.clear()
        writer.write(b"POST /never HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nwhat\r\n")
        answer = await reader.read()
        app.gate.set()
        await app.ended.wait()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_part_of_a_request_does_not_end_the_answer_before_it() -> None:
    app = Application()
    app.gate.clear()
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(request("/early") + b"GET /late HT")
        await asyncio.sleep(2 * Bounded.head_seconds)
        app.gate.set()
        await reader.readuntil(b"/early 0")
        assert b"HTTP/1.1 408 Request Timeout\r\n" in await reader.read()


async def test_a_body_that_nobody_reads_waits() -> None:
    app = Application()
    app.gate.clear()
    size = 1 << 20
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        writer.write(b"a" * size)
        await asyncio.sleep(2 * Bounded.request_seconds)
        app.gate.set()
        assert b"/x %d" % size in await reader.read()


async def test_a_refusal_does_not_get_into_another_answer() -> None:
    app = Application()
    app.gate.clear()
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(request("/early"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.write(b"what\r\n\r\n")
        assert await reader.read() == b""


async def test_a_websocket_has_no_deadline() -> None:
    async with serving(Application()) as (host, port), websockets.connect(f"ws://{host}:{port}/") as client:
        await asyncio.sleep(2 * Bounded.request_seconds)
        await client.send("still here")
        assert await client.recv() == "still here"
