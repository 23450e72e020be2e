"""HTTP as it goes wrong: what a client does about servers, addresses and callers."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from tailrace import FrameTooLarge
from tailrace.client import ChatClient, Retry, StreamLost, StreamRefused, Timeouts, Unreachable, tail
from tailrace.client.http import Watch
from tests.client.drivers import Driver, Got
from tests.client.speaking import SSE_HEAD, own_certificate, read_request, saying, speaking, until_left
from tests.raw import BOUND
from tests.serving import serving

FOREVER = 10_000
MOVED = b"HTTP/1.1 302 Found\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n"

Ask = Callable[[str, Timeouts], Awaitable[Any]]


async def health_async(url: str, timeouts: Timeouts) -> Any:
    async with ChatClient(url, timeouts=timeouts) as chat:
        return await chat.health()


async def health_sync(url: str, timeouts: Timeouts) -> Any:
    def ask() -> Any:
        with ChatClient(url, timeouts=timeouts) as chat:
            return chat.health()

    return await asyncio.to_thread(ask)


BOTH = pytest.mark.parametrize("health", [health_async, health_sync])


class TestTotal:
    """However slowly a server answers: it is never silent for as long as `idle`."""

    TIMEOUTS = Timeouts(total=0.3, idle=1.0)

    @staticmethod
    def check(got: Got) -> None:
        assert isinstance(got.error, StreamLost)
        assert str(got.error) == "the stream is lost: the total timeout of 0.3 s is over"

    async def test_of_a_streams_head(self, driver: Driver) -> None:
        slow = saying(b"HTTP/1.1 200 OK\r\n", *[b"x"] * FOREVER, every=0.05)
        async with speaking(slow) as address:
            self.check(await driver.read(f"http{address}/", timeouts=self.TIMEOUTS))

    async def test_of_redirections(self, driver: Driver) -> None:
        async with speaking(saying(b"", MOVED % b"/", every=0.05)) as address:
            self.check(await driver.read(f"http{address}/", timeouts=Timeouts(total=0.3)))

    async def test_of_a_redirections_head(self, driver: Driver) -> None:
        slow = saying(MOVED.partition(b"content")[0] % b"/", *[b"x"] * FOREVER, every=0.05)
        async with speaking(slow) as address:
            self.check(await driver.read(f"http{address}/", timeouts=self.TIMEOUTS))

    async def test_of_a_silent_stream(self, driver: Driver) -> None:
        async with speaking(saying(SSE_HEAD + b"\r\n", then=until_left)) as address:
            self.check(await driver.read(f"http{address}/", timeouts=Timeouts(total=0.3)))

    async def test_of_a_stream(self, driver: Driver) -> None:
        async with speaking(saying(SSE_HEAD, b"\r\n", *[b":\n"] * FOREVER, every=0.05)) as address:
            self.check(await driver.read(f"http{address}/", timeouts=self.TIMEOUTS))

    async def test_of_a_streams_refusal_costs_its_words(self, driver: Driver) -> None:
        head = b"HTTP/1.1 500 Oh\r\ncontent-length: 9999\r\n\r\n"
        async with speaking(saying(head, *[b"x"] * FOREVER, every=0.05)) as address:
            got = await driver.read(f"http{address}/", timeouts=Timeouts(total=2.0))  # enough for the head
            assert str(got.error) == "the server refused with 500"

    @BOTH
    @pytest.mark.parametrize("line", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\nlocation: /\r\n"])
    async def test_of_a_head(self, health: Ask, line: bytes) -> None:
        slow = saying(line, *[b"x"] * FOREVER, every=0.05)
        async with speaking(slow) as address, asyncio.timeout(BOUND):
            with pytest.raises(Unreachable, match=r"the total timeout of 0\.3 s is over"):
                await health(f"http{address}", self.TIMEOUTS)

    @BOTH
    async def test_of_redirections_before_an_answer(self, health: Ask) -> None:
        async with speaking(saying(b"", MOVED % b"/", every=0.05)) as address, asyncio.timeout(BOUND):
            with pytest.raises(Unreachable, match=r"the total timeout of 0\.3 s is over"):
                await health(f"http{address}", Timeouts(total=0.3))

    @BOTH
    async def test_of_an_answer(self, health: Ask) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"
        async with speaking(saying(head, *[b"x"] * FOREVER, every=0.05)) as address, asyncio.timeout(BOUND):
            with pytest.raises(Unreachable, match=r"the total timeout of 0\.3 s is over"):
                await health(f"http{address}", self.TIMEOUTS)

    @BOTH
    async def test_of_a_refusal_costs_its_words(self, health: Ask) -> None:
        head = b"HTTP/1.1 500 Oh\r\ncontent-length: 9999\r\n\r\n"
        async with speaking(saying(head, *[b"x"] * FOREVER, every=0.05)) as address, asyncio.timeout(BOUND):
            with pytest.raises(StreamRefused, match=r"^the server refused with 500$"):
                await health(f"http{address}", self.TIMEOUTS)

    @BOTH
    async def test_of_repetitions(self, health: Ask) -> None:
        async with speaking(saying()) as address, asyncio.timeout(BOUND):
            with pytest.raises(Unreachable, match=r"the total timeout of 0\.3 s is over"):
                await health(f"http{address}", self.TIMEOUTS)


class TestHead:
    """The head of a response is bounded, whatever comes before its end."""

    TIMEOUTS = Timeouts(head=0.3, idle=1.0)

    @pytest.mark.parametrize("piece", [b"x", b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["dribbled", "hints"])
    async def test_of_a_stream(self, driver: Driver, piece: bytes) -> None:
        first = b"HTTP/1.1 200 OK\r\nx: " if piece == b"x" else b""
        async with speaking(saying(first, *[piece] * FOREVER, every=0.05)) as address:
            got = await driver.read(f"http{address}/", timeouts=self.TIMEOUTS, retry=Retry(limit=1, base=0))
        assert isinstance(got.error, StreamLost)
        assert (got.error.kind, got.error.reason, got.error.attempts) == ("silent", "no answer in time", 2)

    @BOTH
    async def test_of_an_answer(self, health: Ask) -> None:
        slow = saying(b"HTTP/1.1 200 OK\r\nx: ", *[b"x"] * FOREVER, every=0.05)
        async with speaking(slow) as address, asyncio.timeout(BOUND):
            # Each attempt ends with its head, and all of them with the total.
            with pytest.raises(Unreachable, match=r"to [2-9] requests: the total timeout of 1 s is over"):
                await health(f"http{address}", Timeouts(head=0.1, idle=1.0, total=1.0))

    async def test_as_long_again_for_a_refusals_body(self, driver: Driver) -> None:
        head = b"HTTP/1.1 500 Oh\r\ncontent-length: 9999\r\n\r\n"
        async with speaking(saying(head, *[b"x"] * FOREVER, every=0.05)) as address:
            got = await driver.read(f"http{address}/", timeouts=self.TIMEOUTS)
        assert str(got.error) == "the server refused with 500"

    @BOTH
    async def test_as_long_again_for_an_answers_body(self, health: Ask) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"
        async with speaking(saying(head, *[b"x"] * FOREVER, every=0.05)) as address, asyncio.timeout(BOUND):
            with pytest.raises(Unreachable, match=r"to [2-9] requests: the total timeout"):
                await health(f"http{address}", Timeouts(head=0.1, idle=1.0, total=1.0))

    async def test_of_a_handshake(self, driver: Driver, tmp_path: Path) -> None:
        async with speaking(until_left) as address:
            timeouts = Timeouts(connect=0.3, head=5.0)
            got = await driver.read(f"https{address}/", timeouts=timeouts, retry=Retry(limit=0))
        assert isinstance(got.error, StreamLost)
        assert got.error.kind == "unsent"


@pytest.mark.parametrize("piece", [b": ping\n", b"retry: 1\n\n"], ids=["pings", "delays"])
async def test_a_stream_without_new_events_is_given_up(driver: Driver, piece: bytes) -> None:
    pieces = [SSE_HEAD, b"\r\nid: 1\ndata: 1\n\n", *[piece] * FOREVER]
    async with speaking(saying(*pieces, every=0.05)) as address:
        got = await driver.read(f"http{address}/", timeouts=Timeouts(event=0.3, idle=5.0))
    assert isinstance(got.error, StreamLost)
    assert (got.error.kind, got.error.cursor, got.data) == ("stalled", "1", [1])


class Stream:
    """What httpcore tells of a connection."""

    def __init__(self, connected: socket.socket | None) -> None:
        self._connected = connected

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self._connected


def test_a_connection_that_is_made_too_late_is_shut_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Watch(0.0) as watch:
        while not watch.is_over:
            time.sleep(0.001)
        watch.trace("connection.connect_tcp.started", {})
        watch.trace("connection.connect_tcp.complete", {"return_value": Stream(ours)})
        theirs.settimeout(BOUND)
        assert theirs.recv(1) == b""


def test_what_has_no_socket_or_has_closed_it_is_not_shut() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, Watch(0.0, Stream(None)) as watch:
        watch.trace("connection.connect_tcp.complete", {"return_value": Stream(ours)})
        while not watch.is_over:
            time.sleep(0.001)


@BOTH
async def test_a_server_that_wants_years_of_rest_is_given_up(health: Ask) -> None:
    later = b"HTTP/1.1 429 Oh\r\ncontent-length: 0\r\nretry-after: 999999999999\r\n\r\n"
    async with speaking(saying(later)) as address, asyncio.timeout(BOUND):
        with pytest.raises(Unreachable, match="429; the server asks for a pause of 999999999999 s"):
            await health(f"http{address}", Timeouts())


async def test_a_header_that_cannot_be_read_costs_no_stream(driver: Driver) -> None:
    odd = b'content-location: http://[oops\r\nlink: <http://h:abc/x>; rel="stop"\r\n\r\ndata: 1\n\n'
    async with speaking(saying(SSE_HEAD + odd)) as address:
        got = await driver.read(f"http{address}/")
    assert (got.data, got.error, got.address) == ([1], None, None)


async def test_a_certificate_that_cannot_be_verified_does_not_heal(driver: Driver, tmp_path: Path) -> None:
    async with speaking(until_left, tls=own_certificate(tmp_path)) as address:
        got = await driver.read(f"https{address}/")
        assert isinstance(got.error, StreamLost)
        assert str(got.error) == (
            "the stream is lost: the server's certificate cannot be verified: self-signed certificate"
        )


async def test_a_server_of_something_else_does_not_heal(driver: Driver) -> None:
    asked = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(1)
        writer.write(b"SSH-2.0-x\r\n\r\n")
        await until_left(reader, writer)

    async with speaking(greet) as address:
        for scheme in ("http", "https"):
            got = await driver.read(f"{scheme}{address}/")
            assert isinstance(got.error, StreamLost)
    assert asked == 2
    assert str(got.error) == "the stream is lost: what is at this address does not speak TLS"


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:99999/", "http://a..b/", "http://xn--a/", "http://h:abc/", "http://h\x01/"]
)
async def test_a_redirection_to_what_is_no_address(driver: Driver, location: str) -> None:
    found = f"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: {location}\r\n\r\n".encode()
    async with speaking(saying(found)) as address:
        got = await driver.read(f"http{address}/")
        assert isinstance(got.error, StreamLost)
        assert (got.error.kind, got.error.attempts) == ("misled", 0)


class TestRedirections:
    """They are followed by hand, to one server from another: localhost and 127.0.0.1 are two origins."""

    HEADERS: ClassVar = {"X-API-Key": "secret", "Authorization": "Bearer secret", "Cookie": "a=secret"}

    @staticmethod
    @asynccontextmanager
    async def elsewhere(heads: list[bytes], answer: bytes, *, status: int = 307) -> AsyncIterator[str]:
        """The address of a server that redirects to another origin, whose requests are kept."""

        async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await read_request(reader))
            writer.write(answer)

        async with speaking(keep) as there:
            location = f"http{there}/b".replace("127.0.0.1", "localhost").encode()
            # Once: the location's port may have these digits, too.
            moved = (MOVED % location).replace(b"302", b"%d" % status, 1)
            async with speaking(saying(moved)) as here:
                yield here

    async def test_headers_stay_with_their_origin(self, driver: Driver) -> None:
        heads: list[bytes] = []
        answer = SSE_HEAD + b"connection: close\r\n\r\ndata: 1\n\n"
        async with self.elsewhere(heads, answer) as address:
            got = await driver.read(f"http{address}/", headers=self.HEADERS, after="9", json={"a": 1})
        assert (got.data, got.error) == ([1], None)
        assert b"secret" not in heads[0]
        for kept in (b"POST /b ", b"last-event-id: 9\r\n", b"content-type: application/json\r\n", b"accept: text/"):
            assert kept in heads[0]

    async def test_so_does_all_of_a_callers_client(self, driver: Driver) -> None:
        heads: list[bytes] = []
        answer = SSE_HEAD + b"connection: close\r\n\r\ndata: 1\n\n"
        options: dict[str, Any] = {
            "headers": self.HEADERS,
            "cookies": {"b": "secret"},
            "params": {"key": "secret"},
            "auth": ("secret", "secret"),
            "follow_redirects": True,
        }
        async with self.elsewhere(heads, answer) as address, httpx.AsyncClient(**options) as client:
            with httpx.Client(**options) as other:
                got = await driver.read(f"http{address}/", client=client if driver.name == "async" else other)
        assert (got.data, got.error) == ([1], None)
        assert b"secret" not in heads[0]
        assert b"authorization" not in heads[0].lower()

    @pytest.mark.parametrize("how", ["async", "sync"])
    async def test_so_does_the_key_of_a_chat(self, how: str) -> None:
        heads: list[bytes] = []
        health = b'{"status":"healthy","active_streams":0,"active_connections":0,"uptime":1}'
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(health) + health

        def without_asyncio(url: str) -> None:
            with ChatClient(url, api_key="secret") as chat:
                assert chat.health().status == "healthy"

        async with self.elsewhere(heads, answer) as address, asyncio.timeout(BOUND):
            if how == "sync":
                await asyncio.to_thread(without_asyncio, f"http{address}")
            else:
                async with ChatClient(f"http{address}", api_key="secret") as chat:
                    assert (await chat.health()).status == "healthy"
        assert b"secret" not in heads[0]

    async def test_so_do_those_of_a_socket(self, driver: Driver) -> None:
        heads: list[bytes] = []
        refused = b"HTTP/1.1 418 Tea\r\ncontent-length: 0\r\n\r\n"

        async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(refused)

        async with speaking(keep) as there:
            location = f"ws{there}/b".replace("127.0.0.1", "localhost").encode()
            async with speaking(saying(MOVED % location)) as here:
                got = await driver.read(f"ws{here}/", headers=self.HEADERS)
        assert "418" in str(got.error)
        assert b"secret" not in heads[0]

    @pytest.mark.parametrize("encoding", [b"", b"content-encoding: gzip\r\n"], ids=["plain", "gzip"])
    async def test_bodies_are_never_read(self, driver: Driver, encoding: bytes) -> None:
        """One without an end would fill the memory."""
        sent = 0
        piece = gzip.compress(b"x" * (1 << 20)) if encoding else b"x" * (1 << 16)

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            line = await reader.readline()
            if line.startswith(b"GET /b "):
                await saying(SSE_HEAD + b"connection: close\r\n\r\ndata: 1\n\n")(reader, writer)
                return
            writer.write(
                b"HTTP/1.1 302 Found\r\nlocation: /b\r\n" + encoding + b"content-length: 1099511627776\r\n\r\n"
            )
            while True:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)

        async with speaking(flood) as address:
            got = await driver.read(f"http{address}/", max_bytes=1000)
            assert (got.data, got.error) == ([1], None)
        # What fits into the sockets' buffers.
        assert sent < 32 << 20

    async def test_the_bound_of_an_event_holds_behind_one(self, driver: Driver) -> None:
        heads: list[bytes] = []
        answer = SSE_HEAD + b"\r\ndata: " + b"x" * 2000
        async with self.elsewhere(heads, answer, status=302) as address:
            with pytest.raises(FrameTooLarge):
                await driver.read(f"http{address}/", max_bytes=1000)


async def test_a_redirection_that_is_not_followed_is_named(driver: Driver) -> None:
    found = b"HTTP/1.1 307 Elsewhere\r\ncontent-length: 0\r\nlocation: /there\r\n\r\n"
    async with speaking(saying(found)) as address, httpx.AsyncClient() as client:
        own = httpx.Client() if driver.name == "sync" else client
        got = await driver.read(f"http{address}/", client=own)
        if isinstance(own, httpx.Client):
            own.close()
    assert str(got.error) == ("the server refused with 307: it is at '/there', and this client follows no redirections")


async def test_a_failure_is_told_without_a_librarys_words(driver: Driver) -> None:
    told: list[str] = []
    # The fourth connection is one to be left alone, with what is no stream.
    answers = [
        saying(),
        saying(SSE_HEAD + b"content-length: 9\r\n\r\n"),
        saying(then=until_left),
        saying(b"HTTP/1.1 204 No\r\n\r\n"),
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(reader, writer)

    async with speaking(answer) as address:
        got = await driver.read(
            f"http{address}/", timeouts=Timeouts(idle=1.0), on_reconnect=lambda n, delay, why: told.append(str(why))
        )
    assert got.error is None
    assert told[0] == "the connection failed: Server disconnected without sending a response"
    assert told[1].startswith("the connection failed: peer closed connection without sending complete message body")
    assert told[2] == "the server has been silent for too long"


async def test_a_stream_is_left_while_somebody_waits_for_its_next_event() -> None:
    left = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(SSE_HEAD + b"\r\ndata: 1\n\n", then=until_left)(reader, writer)
        left.set()

    async with speaking(speak) as address, asyncio.timeout(BOUND):
        following = tail(f"http{address}/")
        events = await following.__aenter__()
        await anext(events)
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        await following.__aexit__(None, None, None)
        await left.wait()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_a_second_reader_is_told() -> None:
    async with (
        speaking(saying(SSE_HEAD + b"\r\ndata: 1\n\n", then=until_left)) as address,
        asyncio.timeout(BOUND),
        tail(f"http{address}/") as events,
    ):
        await anext(events)
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="expected one reader of a stream at a time, but another one waits"):
            await anext(events)
        await events.close()
        with pytest.raises(StopAsyncIteration):
            await waiting


@pytest.fixture
def stubborn() -> FastAPI:
    """A stream that refuses to be stopped, at length."""
    app = FastAPI()
    link = {"link": '</stop>; rel="stop"'}

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"data: 1\n\n"] * 3), media_type="text/event-stream", headers=link)

    @app.post("/stop")
    async def stop() -> Response:
        return Response(b"x" * (1 << 20), 403)

    return app


async def test_a_stop_that_is_refused_gives_its_connection_back(stubborn: FastAPI) -> None:
    limits = httpx.Limits(max_connections=2)
    async with (
        serving(stubborn, lifespan="off") as url,
        httpx.AsyncClient(limits=limits) as client,
        tail(url, client=client, timeouts=Timeouts(connect=1.0)) as events,
    ):
        for _ in range(3):
            with pytest.raises(StreamRefused, match="403"):
                await events.stop()

    def without_asyncio(url: str) -> None:
        with httpx.Client(limits=limits) as client, tail(url, client=client, timeouts=Timeouts(connect=1.0)) as events:
            for _ in range(3):
                with pytest.raises(StreamRefused, match="403"):
                    events.stop()

    async with serving(stubborn, lifespan="off") as url:
        await asyncio.to_thread(without_asyncio, url)


async def test_what_http_cannot_say_is_told(driver: Driver) -> None:
    for headers in ({"x": "\ud800"}, {"\ud800": "x"}):
        with pytest.raises(ValueError, match="expected a request that HTTP allows, but got"):
            await driver.read("http://127.0.0.1:1", headers=headers)
