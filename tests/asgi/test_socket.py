from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from websockets.asyncio.client import ClientConnection

from tailrace import Flow, Outcome, StreamError, StreamResponse, StreamSettings
from tailrace.asgi import posts
from tailrace.asgi.posts import MAX_MESSAGES
from tailrace.asgi.socket import serve_socket
from tests.asgi.apps import Served, of, small_engine
from tests.raw import BOUND, exchange
from tests.serving import serving
from tests.sources import Faucet, soon, turns


@asynccontextmanager
async def connected(url: str, path: str = "/x", **options: Any) -> AsyncIterator[ClientConnection]:
    async with asyncio.timeout(BOUND):
        async with websockets.connect(url.replace("http", "ws", 1) + path, **options) as connection:
            yield connection


async def receive_all(connection: ClientConnection) -> list[Any]:
    return [from_json(message) async for message in connection]


def socketed(source: Any, settings: StreamSettings | None = None, **options: Any) -> StreamResponse:
    """A response for WebSockets too."""
    return StreamResponse(source, settings, websocket=True, **options)


def told(messages: Iterable[Any]) -> list[Any]:
    return [message.get("event") or message["data"] for message in messages]


# Over a real socket, with every implementation that uvicorn has


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_a_stream_is_its_ndjson_lines_as_messages(implementation: str) -> None:
    async with serving(Served(x=of(1, "two")), ws=implementation) as url, connected(url) as connection:
        messages = await receive_all(connection)
        assert connection.response is not None
        log = connection.response.headers["tailrace-cursor"].removesuffix(".0")
    assert messages == [
        {"id": f"{log}.1", "data": 1},
        {"id": f"{log}.2", "data": "two"},
        {"id": f"{log}.2.end", "event": "done", "data": {}},
    ]
    assert connection.close_code == 1000


@pytest.mark.parametrize("offset", [0, 1, 2])
async def test_the_cursors_are_the_same_as_over_http(offset: int) -> None:
    async with serving(Served(x=of("a", "b"))) as url:
        async with connected(url) as connection:
            messages = await receive_all(connection)
        log = messages[0]["id"].removesuffix(".1")
        async with connected(url, f"/x?after={log}.{offset}") as connection:
            assert await receive_all(connection) == messages[offset:]
        headers = {"Last-Event-ID": f"{log}.{offset}"}
        async with connected(url, "/x?after=s.e.0", additional_headers=headers) as connection:
            assert await receive_all(connection) == messages[offset:]


async def test_a_response_answers_a_socket_only_if_it_is_told_to() -> None:
    async with serving(Served(x=StreamResponse([1]))) as url, exchange(url, "/x") as got:
        assert got.status == 200
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(url):
                pass
    assert refused.value.response.status_code == 403


async def test_who_has_the_end_already_is_closed_at_once() -> None:
    async with serving(Served(x=of(1))) as url, connected(url, "/x?after=s.e.1.end") as connection:
        assert await receive_all(connection) == []
    assert connection.close_code == 1000


async def test_a_reset_is_said_in_band() -> None:
    async with serving(Served(x=of(1))) as url, connected(url, "/x?after=s.e.1") as connection:
        assert await receive_all(connection) == [
            {"id": "s.e.1.end", "event": "reset", "data": {"reason": "epoch_changed"}}
        ]
    assert connection.close_code == 1000


async def test_a_document_is_one_message() -> None:
    async with serving(Served(x=of(1, 2))) as url, connected(url, "/x?stream=false") as connection:
        assert await receive_all(connection) == [{"data": [1, 2]}]
    assert connection.close_code == 1000


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(Outcome("done"), 1000), (Outcome("cancelled"), 1000), (Outcome("error", "dry", "no more"), 1011)],
)
async def test_the_close_code_says_how_the_stream_ended(outcome: Outcome, code: int) -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(1)
    await log.close(outcome)
    async with serving(Served(engine, x=socketed(log))) as url, connected(url) as connection:
        for expected in (None, outcome.state):
            assert from_json(await connection.recv()).get("event") == expected
        await connection.wait_closed()
    assert connection.close_code == code


async def test_a_failure_between_events_is_said_and_raised_for_the_server() -> None:
    faucet = Faucet([1])
    app = Served(x=socketed(faucet.run))
    async with serving(app) as url, connected(url) as connection:
        assert told([from_json(await connection.recv())]) == [1]
        faucet.put(ValueError("secret"))
        error = from_json(await connection.recv())
        assert (error["event"], error["data"]["code"]) == ("error", "internal_error")
        await connection.wait_closed()
    assert connection.close_code == 1011
    assert [str(error) for error in app.raised] == ["secret"]


@pytest.mark.parametrize("reason", ["shutdown", "slow"])
async def test_a_farewell_has_a_close_code_of_its_own(reason: Any) -> None:
    engine = small_engine()
    log = await engine.log("news")
    app = Served(engine, x=socketed(log, StreamSettings(flow=Flow.disconnect(1))))
    async with serving(app) as url, connected(url) as connection:
        await log.append(1)
        await connection.recv()
        await turns()
        if reason == "shutdown":
            engine.drain()
        else:
            await log.append(2, 3, 4)
        farewell = from_json(await connection.recv())
        assert (farewell["event"], farewell["data"]["reason"]) == ("farewell", reason)
        assert farewell["id"] == str(log.cursor(1))
        await connection.wait_closed()
    assert connection.close_code == {"shutdown": 1012, "slow": 1013}[reason]


async def test_a_reader_that_is_replaced_is_told_not_to_come_again() -> None:
    faucet = Faucet([1])
    app = Served(x=socketed(faucet.run, exclusive=True))
    async with serving(app) as url, connected(url) as first:
        cursor = from_json(await first.recv())["id"]
        async with connected(url, f"/x?after={cursor}&takeover=true") as second:
            assert from_json(await first.recv())["data"] == {"reason": "replaced", "retry": 0}
            await first.wait_closed()
            assert first.close_code == 4409
            faucet.put(2)
            faucet.end()
            assert told(await receive_all(second)) == [2, "done"]
    assert second.close_code == 1000


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_a_client_that_leaves_cancels_the_producer_after_the_grace(implementation: str) -> None:
    faucet = Faucet([1])
    app = Served(x=socketed(faucet.run, StreamSettings(grace=0.0)))
    async with serving(app, ws=implementation) as url:
        async with connected(url) as connection:
            await connection.recv()
            assert not faucet.closed.is_set()
        await soon(faucet.closed)
    assert not app.raised


async def test_a_client_whose_connection_breaks_counts_as_gone() -> None:
    faucet = Faucet([1])
    app = Served(x=socketed(faucet.run, StreamSettings(grace=0.0)))
    async with serving(app) as url, connected(url) as connection:
        await connection.recv()
        connection.transport.abort()
        await soon(faucet.closed)
    assert not app.raised


async def test_an_idle_socket_gets_no_messages_but_the_server_s_pings() -> None:
    faucet = Faucet([1])
    engine = small_engine(heartbeat=0.01)
    beats = asyncio.Event()

    class Witness:
        def beat(self) -> None:
            beats.set()

    async with serving(Served(engine, x=socketed(faucet.run))) as url, connected(url) as connection:
        await connection.recv()
        for _ in range(3):
            engine.pulse.join(Witness())
            await soon(beats)
            beats.clear()
        faucet.put(2)
        faucet.end()
        assert told(await receive_all(connection)) == [2, "done"]


async def test_a_client_that_comes_back_within_the_grace_saves_its_stream() -> None:
    faucet = Faucet([1])
    app = Served(x=socketed(faucet.run, StreamSettings(grace=60.0)))
    async with serving(app) as url:
        async with connected(url) as connection:
            first = from_json(await connection.recv())
        async with connected(url, f"/x?after={first['id']}") as connection:
            faucet.put(2)
            faucet.end()
            assert told(await receive_all(connection)) == [2, "done"]


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_a_client_that_takes_nothing_is_given_up(implementation: str) -> None:
    closed = asyncio.Event()

    async def large() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 100_000
        finally:
            closed.set()

    engine = small_engine(heartbeat=0.05, send_timeout=0.1)
    app = Served(engine, x=socketed(large, StreamSettings(grace=0.0)))
    # Uncompressed, because these would be a few bytes; and no pings of the server's own, which would find it out too.
    options = {"ws": implementation, "ws_ping_interval": None}
    async with serving(app, **options) as url, connected(url, compression=None, max_queue=1) as connection:
        await soon(closed)
        assert engine.statistics().readers == 0
        await soon(app.left)
        connection.transport.abort()
    assert not app.raised


# What a client may say


@pytest.mark.parametrize(
    "message",
    ["", "stop", "[]", '{"event":"go"}', '{"event":"stop"', '"stop"', "é" * 200, "🜁" * 90],
)
@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_any_other_message_than_a_command_closes_with_1008(message: str, implementation: str) -> None:
    faucet = Faucet([1])
    app = Served(x=socketed(faucet.run, StreamSettings(grace=0.0)))
    async with serving(app, ws=implementation) as url, connected(url) as connection:
        await connection.recv()
        await connection.send(message)
        await connection.wait_closed()
        assert connection.close_code == 1008
        assert (connection.close_reason or "").startswith('expected {"event": "stop"}, but got')
        await soon(faucet.closed)
    assert not app.raised


async def test_a_stream_without_an_address_cannot_be_stopped_by_its_reader() -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(1)
    app = Served(engine, x=socketed(log))
    async with serving(app) as url, connected(url) as connection:
        await connection.recv()
        await connection.send('{"event":"stop"}')
        await connection.wait_closed()
        assert (connection.close_code, connection.close_reason) == (1008, "this stream cannot be stopped by its reader")
    assert log.outcome is None


@pytest.mark.parametrize("sends", [False, True])
@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_a_binary_message_closes_with_1003(implementation: str, sends: bool) -> None:
    faucet, inbox = Faucet([1]), Inbox()
    response = inbox.beside(faucet.run) if sends else socketed(faucet.run, StreamSettings(grace=0.0))
    app = Served(x=response, inbox=inbox)
    async with serving(app, ws=implementation) as url, connected(url) as connection:
        await connection.recv()
        await connection.send(b'{"event":"stop"}')
        await connection.wait_closed()
    assert connection.close_code == 1003
    assert connection.close_reason == "expected a text message, but got a binary one"
    assert not app.raised
    assert not inbox.bodies


# What a client may send to a stream that names an address for it


class Inbox:
    """An application that takes lines, and refuses those that are no JSON. It takes no more than it is let to."""

    def __init__(self, room: int = 1_000) -> None:
        self.bodies: list[bytes] = []
        self.types: list[str] = []
        self.taken: asyncio.Queue[Any] = asyncio.Queue()
        self.room = room
        self.full = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def beside(self, source: Any, **settings: Any) -> StreamResponse:
        """A stream whose client may send to this inbox."""
        headers = {"link": '</other>; rel="next", </inbox>; rel="send"'}
        return StreamResponse(source, StreamSettings(**{"grace": 0.0, **settings}), headers=headers, websocket=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        self.bodies.append(body)
        self.types += [request.headers["content-type"], request.headers["accept"]]
        await self.gate.wait()
        await self.answer(body)(scope, receive, send)

    def answer(self, body: bytes) -> Response:
        lines = body.split(b"\n")[:-1]
        try:
            values = [from_json(line) for line in lines]
        except ValueError:
            return Response(b'{"bad":%d}\n' % len(lines), 400, media_type="application/x-ndjson")
        if len(values) > self.room:
            self.full.set()
            return JSONResponse({"detail": "full"}, 429, {"Retry-After": "0"})
        self.room -= len(values)
        for value in values:
            self.taken.put_nowait(value)
        return JSONResponse({"accepted": len(values)}, 202)

    async def take(self, count: int) -> list[Any]:
        async with asyncio.timeout(BOUND):
            return [await self.taken.get() for _ in range(count)]


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_each_message_of_the_client_is_a_line_that_is_posted(implementation: str) -> None:
    faucet, inbox = Faucet([1]), Inbox()
    app = Served(x=inbox.beside(faucet.run), inbox=inbox)
    async with serving(app, ws=implementation) as url, connected(url) as connection:
        await connection.recv()
        for number in range(200):
            await connection.send(f'{{"n":\n{number}}}')
        await connection.send("")
        assert await inbox.take(200) == [{"n": number} for number in range(200)]
        faucet.end()
        assert told(await receive_all(connection)) == ["done"]
    assert connection.close_code == 1000
    assert set(inbox.types) == {"application/x-ndjson"}
    assert all(body.endswith(b"\n") for body in inbox.bodies)
    assert not app.raised


async def test_a_refused_message_is_answered_between_the_stream_s_own() -> None:
    faucet, inbox = Faucet(), Inbox()
    app = Served(x=inbox.beside(faucet.run, status_wait=0.0), inbox=inbox)
    async with serving(app) as url, connected(url) as connection:
        for message in ("1", "no\njson", "2"):
            await connection.send(message)
        assert from_json(await connection.recv()) == {"bad": 1}
        assert await inbox.take(2) == [1, 2]
        faucet.put("x" * 600_000)
        faucet.end()
        assert told(await receive_all(connection)) == ["x" * 600_000, "done"]
    assert connection.close_code == 1000


async def test_a_sender_that_is_too_fast_is_slowed_and_loses_nothing() -> None:
    faucet, inbox = Faucet([1]), Inbox(room=5)
    app = Served(x=inbox.beside(faucet.run), inbox=inbox)
    count = 4 * MAX_MESSAGES
    async with serving(app) as url, connected(url) as connection:
        await connection.recv()

        async def flood() -> None:
            for number in range(count):
                await connection.send(f"{number}")

        flooding = asyncio.create_task(flood())
        await soon(inbox.full)
        inbox.room = count
        assert await inbox.take(count) == list(range(count))
        await flooding
        faucet.end()
        assert told(await receive_all(connection)) == ["done"]
    assert max(body.count(b"\n") for body in inbox.bodies) <= MAX_MESSAGES


async def test_a_sender_of_whom_nothing_is_accepted_is_asked_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "STALL", 0.05)
    faucet, inbox = Faucet([1]), Inbox(room=0)
    app = Served(x=inbox.beside(faucet.run), inbox=inbox)
    async with serving(app) as url, connected(url) as connection:
        await connection.recv()
        for _ in range(MAX_MESSAGES + 1):
            await connection.send("1")
        inbox.gate.clear()
        await connection.wait_closed()
        assert (connection.close_code, connection.close_reason) == (1013, "no message was accepted for 0.05 s")
        inbox.room = 1_000
        inbox.gate.set()
        await soon(faucet.closed)
    assert not app.raised


async def test_what_a_client_sent_before_it_left_is_posted_before_its_leaving() -> None:
    faucet, inbox = Faucet([1]), Inbox()
    app = Served(x=inbox.beside(faucet.run), inbox=inbox)
    inbox.gate.clear()
    async with serving(app) as url:
        async with connected(url) as connection:
            await connection.recv()
            for number in range(9):
                await connection.send(f"{number}")
        assert not faucet.closed.is_set()
        inbox.gate.set()
        assert await inbox.take(9) == list(range(9))
        await soon(faucet.closed)
    assert not app.raised


async def test_what_is_unposted_at_the_end_of_the_stream_is_dropped() -> None:
    faucet, inbox = Faucet([1]), Inbox()
    app = Served(x=inbox.beside(faucet.run), inbox=inbox)
    inbox.gate.clear()
    async with serving(app) as url, connected(url) as connection:
        await connection.recv()
        await connection.send("no json")
        async with asyncio.timeout(BOUND):
            while not inbox.bodies:
                await connection.ping()
                await asyncio.sleep(0)
        await connection.send("2")
        faucet.end()
        assert told([from_json(await connection.recv())]) == ["done"]
        inbox.gate.set()
        assert await receive_all(connection) == []
    assert connection.close_code == 1000
    assert inbox.bodies == [b"no json\n"]
    assert not app.raised


# Refusals before the socket is open


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/x?after=nonsense", 400, {"code": "bad_cursor"}),
        ("/failing", 409, {"code": "closed"}),
    ],
)
@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_a_refusal_is_the_http_answer_instead_of_the_upgrade(
    path: str, status: int, expected: dict[str, str], implementation: str
) -> None:
    app = Served(x=of(1), failing=of(StreamError("closed", code="closed", status=409)))
    async with serving(app, ws=implementation) as url:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(url, path):
                pass  # pragma: no cover
    answer = refused.value.response
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = from_json(bytes(answer.body or b""))
    assert {key: body[key] for key in expected} == expected


async def test_an_error_before_the_first_event_is_a_500_and_raised_for_the_server() -> None:
    app = Served(x=of(ValueError("secret")))
    async with serving(app) as url:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(url):
                pass  # pragma: no cover
    assert refused.value.response.status_code == 500
    assert [str(error) for error in app.raised] == ["secret"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://{host}", True),
        ("https://{host}", True),
        ("https://friend.example", True),
        ("https://stranger.example", False),
        ("https://friend.example.evil", False),
        ("http://{host}.evil", False),
        ("null", False),
        ("http://[", False),
        ("{host}", False),
    ],
)
async def test_only_pages_of_the_same_host_or_allowed_ones_may_connect(origin: str | None, allowed: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await serve_socket(served, scope, receive, send, origins=["https://friend.example"])

    served = Served(x=of(1))
    async with serving(app, lifespan="off") as url:
        headers = {"Origin": origin.format(host=url.removeprefix("http://"))} if origin else {}
        if allowed:
            async with connected(url, additional_headers=headers) as connection:
                assert told(await receive_all(connection)) == [1, "done"]
        else:
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with connected(url, additional_headers=headers):
                    pass  # pragma: no cover
            assert refused.value.response.status_code == 403


# The bridge between a server and an application, both in a test's hands


class Socket:
    """A WebSocket server without a network."""

    def __init__(self, *texts: str, denial: bool = True, **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/ä/b",
            "query_string": b"q=1",
            "scheme": "ws",
            "headers": [
                (b"host", b"here"),
                (b"cookie", b"a=1"),
                (b"sec-websocket-key", b"x"),
                (b"upgrade", b"websocket"),
            ],
            "extensions": {"websocket.http.response": {}} if denial else {},
            **scope,
        }
        self.sent: list[dict[str, Any]] = []
        self.broken = False
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages.put_nowait({"type": "websocket.connect"})
        self.say(*texts)

    def say(self, *texts: str) -> None:
        for text in texts:
            self._messages.put_nowait({"type": "websocket.receive", "text": text})

    async def receive(self) -> dict[str, Any]:
        return await self._messages.get()

    async def send(self, message: Any) -> None:
        if self.broken:
            raise OSError
        self.sent.append(message)

    def leave(self) -> None:
        self._messages.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def serve(self, app: Any, **options: Any) -> list[str]:
        """Serve it; the types of what was sent."""
        async with asyncio.timeout(BOUND):
            await serve_socket(app, self.scope, self.receive, self.send, **options)
        return [message["type"].removeprefix("websocket.") for message in self.sent]


async def test_the_application_sees_the_http_request_that_it_would_be_otherwise() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await PlainTextResponse("")(scope, receive, send)

    await Socket(scheme="wss", root_path="/r").serve(app)
    (scope,) = seen
    assert (scope["type"], scope["method"], scope["scheme"]) == ("http", "GET", "https")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/ä/b", b"/%C3%A4/b", b"q=1")
    assert scope["root_path"] == "/r"
    assert dict(scope["headers"]) == {
        b"host": b"here",
        b"cookie": b"a=1",
        b"accept": b"application/x-ndjson",
        b"content-type": b"application/json",
    }


async def test_of_a_method_with_a_body_the_first_message_is_the_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await PlainTextResponse(b'{"data":%b}\n' % body)(scope, receive, send)

    socket = Socket('{"n":1}')
    assert await socket.serve(app, method="POST") == ["accept", "send", "close"]
    assert socket.sent[1]["text"] == '{"data":{"n":1}}'
    assert socket.sent[2]["code"] == 1000


async def test_a_client_that_goes_instead_of_sending_the_body_is_a_disconnect() -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        await JSONResponse({"detail": "no body"}, 400)(scope, receive, send)

    socket = Socket()
    socket.leave()
    assert await socket.serve(app, method="POST") == ["accept"]
    assert received == [{"type": "http.disconnect"}]


@pytest.mark.parametrize(("status", "code"), [(401, 1008), (422, 1008), (307, 1008), (500, 1011)])
async def test_a_refusal_of_an_open_socket_is_an_error_message(status: int, code: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        answer = RedirectResponse("/y") if status == 307 else JSONResponse({"detail": "no"}, status)
        await answer(scope, receive, send)

    socket = Socket("{}")
    assert await socket.serve(app, method="POST") == ["accept", "send", "close"]
    message = from_json(socket.sent[1]["text"])
    assert message["event"] == "error"
    assert message["data"] == {"code": f"http_{status}", "status": status, "message": "" if status == 307 else "no"}
    assert (socket.sent[2]["code"], socket.sent[2]["reason"]) == (code, f"HTTP {status}")


@pytest.mark.parametrize("denial", [True, False])
async def test_a_refusal_in_pieces_is_sent_when_it_is_complete(denial: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"detail":', "more_body": True})
        await send({"type": "http.response.body", "body": b'"no"}'})
        # The refusal was the end: what the client still says is of no interest.
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        assert await receive() == {"type": "http.disconnect"}

    socket = Socket("late", denial=denial)
    sent = await socket.serve(app)
    if denial:
        assert sent == ["http.response.start", "http.response.body"]
        assert socket.sent[0]["status"] == 401
        assert dict(socket.sent[0]["headers"])[b"www-authenticate"] == b"Bearer"
        assert socket.sent[1]["body"] == b'{"detail":"no"}'
    else:
        # All that a server without the extension can say is 403.
        assert sent == ["close"]
        assert socket.sent[0]["reason"] == "HTTP 401"


async def test_an_application_that_raises_closes_with_1011() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"id":"s.e.1","data":1}\n{"id"', "more_body": True})
        raise ValueError("secret")

    socket = Socket()
    with pytest.raises(ValueError, match="secret"):
        await socket.serve(app)
    assert [message.get("code") for message in socket.sent] == [None, None, 1011]
    # Half a line is no message.
    assert [message["text"] for message in socket.sent if "text" in message] == ['{"id":"s.e.1","data":1}']


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_application_that_raises_before_it_answers_is_a_500(method: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("secret")

    socket = Socket("{}")
    with pytest.raises(ValueError, match="secret"):
        await socket.serve(app, method=method)
    if method == "GET":
        assert [message.get("status") for message in socket.sent] == [500, None]
        assert socket.sent[1]["body"] == b"Internal Server Error"
    else:
        assert from_json(socket.sent[1]["text"])["data"] == {
            "code": "http_500",
            "status": 500,
            "message": "Internal Server Error",
        }
        assert socket.sent[2]["code"] == 1011


async def test_a_body_that_breaks_off_without_a_word_closes_with_1011() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    socket = Socket()
    assert await socket.serve(app) == ["accept", "close"]
    assert socket.sent[1]["code"] == 1011


async def test_a_client_that_has_gone_is_no_failure_of_the_application() -> None:
    socket = Socket()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        socket.broken = True
        for _ in range(2):
            await send({"type": "http.response.body", "body": b'{"data":1}\n', "more_body": True})
        assert (await receive())["type"] == "http.request"
        socket.leave()
        assert (await receive())["type"] == "http.disconnect"

    assert await socket.serve(app) == ["accept"]


async def test_a_stop_is_a_post_to_the_address_that_the_response_names() -> None:
    stopped = asyncio.Event()
    posts: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            posts.append(scope)
            assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
            stopped.set()
            await JSONResponse({"state": "cancelled"})(scope, receive, send)
            return
        link = b'<https://other.example/>; rel="next", </%C3%A4/b/1/stop>; rel="stop"'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"link", link), (b"x-own", b"1")]})
        assert (await receive())["type"] == "http.request"
        listening = asyncio.create_task(receive())
        await stopped.wait()
        await send({"type": "http.response.body", "body": b'{"event":"cancelled","data":{}}\n'})
        listening.cancel()
        await asyncio.wait([listening])

    socket = Socket('{"event":"stop"}')
    assert await socket.serve(app) == ["accept", "send", "close"]
    # Only what a client needs to go on is told at the handshake.
    assert [name for name, _ in socket.sent[0]["headers"]] == [b"link"]
    (scope,) = posts
    assert scope["path"] == "/ä/b/1/stop"
    assert dict(scope["headers"])[b"cookie"] == b"a=1"
    assert socket.sent[2]["code"] == 1000


LINK = (b"link", b'</x/1>; rel="send"')


@pytest.mark.parametrize("addressed", [True, False])
async def test_a_client_may_send_and_leave_before_the_response(
    addressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posts, "LINGER", 2 * BOUND)
    bodies: list[bytes] = []
    socket = Socket("{}", "1", "2")
    socket.leave()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        if scope["path"] == "/x/1":
            bodies.append(body)
            await JSONResponse({})(scope, receive, send)
            return
        leaving = asyncio.create_task(receive())
        await turns()
        assert not leaving.done()
        await send({"type": "http.response.start", "status": 200, "headers": [LINK] if addressed else []})
        assert (await leaving)["type"] == "http.disconnect"

    assert await socket.serve(app, method="POST") == ["accept"]
    assert bodies == ([b"1\n2\n"] if addressed else [])


@pytest.mark.parametrize("addressed", [True, False])
async def test_messages_before_the_response_are_kept_for_its_address(addressed: bool) -> None:
    bodies: list[bytes] = []
    posted = asyncio.Event()
    socket = Socket("{}", "1", "2")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        if scope["path"] == "/x/1":
            bodies.append(body)
            posted.set()
            await JSONResponse({})(scope, receive, send)
            return
        assert body == b"{}"
        leaving = asyncio.create_task(receive())
        await turns()
        await send({"type": "http.response.start", "status": 200, "headers": [LINK] if addressed else []})
        if addressed:
            await posted.wait()
            await send({"type": "http.response.body", "body": b'{"event":"done","data":{}}\n'})
            leaving.cancel()
        else:
            socket.leave()
        await asyncio.wait([leaving])

    sent = await socket.serve(app, method="POST")
    if addressed:
        assert (sent, socket.sent[-1]["code"]) == (["accept", "send", "close"], 1000)
        assert bodies == [b"1\n2\n"]
    else:
        assert (sent, socket.sent[-1]["code"]) == (["accept", "close"], 1008)
        assert socket.sent[-1]["reason"] == 'expected {"event": "stop"}, but got \'1\''
        assert bodies == []


async def test_what_a_client_sent_is_posted_even_if_a_message_to_it_failed_first() -> None:
    bodies: list[bytes] = []
    socket = Socket()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        if scope["path"] == "/x/1":
            bodies.append(body)
            await JSONResponse({})(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [LINK]})
        socket.broken = True
        await send({"type": "http.response.body", "body": b'{"data":1}\n', "more_body": True})
        socket.say("1", "2")
        socket.leave()
        assert (await receive())["type"] == "http.disconnect"

    assert await socket.serve(app) == ["accept"]
    assert b"".join(bodies) == b"1\n2\n"


async def test_after_the_end_of_the_stream_no_refusal_is_told() -> None:
    ended, refused = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/x/1":
            await ended.wait()
            await JSONResponse({"detail": "no"}, 422)(scope, receive, send)
            refused.set()
            return
        await send({"type": "http.response.start", "status": 200, "headers": [LINK]})
        leaving = asyncio.create_task(receive())
        await send({"type": "http.response.body", "body": b'{"event":"done","data":{}}\n'})
        ended.set()
        await refused.wait()
        await turns()
        leaving.cancel()
        await asyncio.wait([leaving])

    socket = Socket("1")
    assert await socket.serve(app) == ["accept", "send", "close"]
    assert socket.sent[-1]["code"] == 1000


async def test_a_client_that_left_during_the_handshake_has_gone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await PlainTextResponse(b'{"data":1}\n')(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    socket = Socket()
    socket.broken = True
    socket.leave()
    assert await socket.serve(app) == []


async def test_a_refusal_in_the_stream_s_own_form_is_told_as_it_is() -> None:
    line = b'{"packet_type":"ERROR","payload":{"status":422}}'

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(line + b"\n", 422, media_type="application/x-ndjson")(scope, receive, send)

    socket = Socket("{}")
    assert await socket.serve(app, method="POST") == ["accept", "send", "close"]
    assert socket.sent[1]["text"] == line.decode()
    assert (socket.sent[2]["code"], socket.sent[2]["reason"]) == (1008, "HTTP 422")


async def test_the_application_s_engine_is_also_the_socket_s() -> None:
    engine = small_engine()
    app = Served(engine, x=of(1))
    async with serving(app) as url:
        async with connected(url) as connection:
            await receive_all(connection)
        assert engine.statistics().kept == 1


async def test_beside_an_http_reader_a_socket_reads_the_same() -> None:
    faucet = Faucet([1])
    app = Served(x=socketed(faucet.run))
    async with serving(app) as url, exchange(url, "/x", {"Accept": "application/x-ndjson"}) as got:
        body = await got.until(b"\n")
        async with connected(url, f"/x?after={got.headers['tailrace-cursor']}") as connection:
            faucet.put(2)
            faucet.end()
            messages = [message async for message in connection]
            body += await got.rest()
    assert body.decode().splitlines() == messages
