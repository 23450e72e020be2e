from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import Body, FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from tailrace.chat.errors import BodyTooLarge
from tailrace.chat.journal import request_id
from tailrace.chat.metrics import Metrics
from tailrace.chat.requests import UNMATCHED, BodyLimit, RequestAccounting, route_of
from tests.chat.counting import refusals, requests
from tests.raw import BOUND
from tests.serving import http_client, serving

LIMIT = 1000


class Server:
    """A chat server in small, behind the middleware."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.ended = asyncio.Event()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.ids: list[str | None] = []
        app = FastAPI()
        app.get("/items/{name}")(self.item)
        app.get("/health")(self.health)
        app.get("/broken")(self.broken)
        app.get("/broken-off")(self.broken_off)
        app.get("/endless")(self.endless)
        app.get("/waiting")(self.waiting)
        app.post("/echo")(self.echo)
        self.app = RequestAccounting(BodyLimit(app, LIMIT, self.metrics), self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                self.ended.set()

    async def finished(self) -> None:
        """Wait until a request has been accounted for; its client may know the answer a moment earlier."""
        async with asyncio.timeout(BOUND):
            await self.ended.wait()
        self.ended.clear()

    async def item(self, name: str) -> str:
        self.ids.append(request_id.get())
        await asyncio.create_task(self._remember())
        return name

    async def _remember(self) -> None:
        self.ids.append(request_id.get())

    async def health(self) -> str:
        return "fine"

    async def broken(self) -> None:
        raise ValueError("a secret")

    async def broken_off(self) -> StreamingResponse:
        return StreamingResponse(self._breaking())

    async def _breaking(self) -> AsyncIterator[str]:
        yield "half"
        raise ValueError("a secret")

    async def endless(self) -> StreamingResponse:
        return StreamingResponse(self._forever())

    async def _forever(self) -> AsyncIterator[str]:
        yield "begun"
        await self.gate.wait()

    async def waiting(self) -> None:
        self.entered.set()
        await self.gate.wait()

    async def echo(self, body: Any = Body()) -> int:
        return len(body)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(server) as url, http_client(url) as client:
        yield client


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="tailrace.chat.requests")


def records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The records of finished requests."""
    return [vars(one) for one in caplog.records if getattr(one, "event", None) == "request_ended"]


def kinds(server: Server) -> dict[tuple[str, ...], float]:
    return requests(server.metrics)


async def test_a_request_is_counted_by_its_path_s_template(server: Server, client: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        assert (await client.get(f"/items/{name}")).status_code == 200
        await server.finished()
    assert kinds(server) == {("GET", "/items/{name}", "2xx", "ok"): 2}
    assert server.metrics.totals(None).requests_total == 2


async def test_a_path_that_no_template_stands_for_is_unmatched(server: Server, client: httpx.AsyncClient) -> None:
    for path in ("/wp-login.php", "/.env"):
        assert (await client.get(path)).status_code == 404
        await server.finished()
    assert kinds(server) == {("GET", UNMATCHED, "4xx", "failed"): 2}


async def test_each_request_has_an_id_of_its_own_that_its_tasks_inherit(
    server: Server, client: httpx.AsyncClient
) -> None:
    first, second = [(await client.get("/items/a")).headers["x-request-id"] for _ in range(2)]
    assert first != second
    assert server.ids == [first, first, second, second]
    assert request_id.get() is None


async def test_a_client_may_name_its_request(client: httpx.AsyncClient) -> None:
    for given in ("a", "A-b_c.9", "x" * 128):
        assert (await client.get("/items/a", headers={"X-Request-ID": given})).headers["x-request-id"] == given


async def test_a_name_that_could_be_harmful_is_not_taken(client: httpx.AsyncClient) -> None:
    for given in (b"", b"a b", b"x" * 129, b"a;b", "ü".encode()):
        answer = await client.get("/items/a", headers=[(b"x-request-id", given)])
        assert answer.status_code == 200
        assert len(answer.headers["x-request-id"]) == 32


async def test_a_finished_request_is_one_record(
    server: Server, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.get("/items/a", headers={"X-Request-ID": "mine"})
    await server.finished()
    (record,) = records(caplog)
    assert record["levelname"] == "INFO"
    assert {name: record[name] for name in ("method", "route", "path", "status", "end", "client")} == {
        "method": "GET",
        "route": "/items/{name}",
        "path": "/items/a",
        "status": 200,
        "end": "complete",
        "client": "127.0.0.1",
    }
    assert record["seconds"] >= 0
    assert record["message"].startswith("GET /items/a: 200, complete, ")


async def test_a_path_cannot_write_to_a_terminal(
    server: Server, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.get("/%1b[2J%0a")
    await server.finished()
    (record,) = records(caplog)
    assert record["message"].startswith(r"GET /\x1b[2J\n: 404, complete, ")


@pytest.mark.parametrize(("length", "logged"), [(200, "/" + "x" * 199), (201, "/" + "x" * 198 + "…"), (9000, None)])
async def test_a_path_is_logged_up_to_a_bound(
    length: int, logged: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    await RequestAccounting(app, Metrics())(http_scope(path="/" + "x" * (length - 1)), Messages(), Sent())
    (record,) = records(caplog)
    assert len(record["path"]) == 200
    assert logged is None or record["path"] == logged
    assert all(record["path"] in each.getMessage() for each in caplog.records)
    assert len(caplog.records) == 2


async def test_what_machines_ask_all_the_time_is_only_debugging(
    server: Server, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.get("/health")
    await server.finished()
    assert [record["levelname"] for record in records(caplog)] == ["DEBUG"]
    caplog.clear()
    caplog.set_level(logging.INFO, logger="tailrace.chat.requests")
    await client.get("/health")
    await server.finished()
    assert records(caplog) == []


async def test_an_unforeseen_exception_is_logged_once_and_answered(
    server: Server, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get("/broken")
    await server.finished()
    # FastAPI's own middleware answers its unforeseen exceptions before it raises them on.
    assert answer.status_code == 500
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == ["GET /broken raised ValueError"]
    assert kinds(server) == {("GET", "/broken", "5xx", "failed"): 1}


async def test_inside_an_application_the_answer_is_json(caplog: pytest.LogCaptureFixture) -> None:
    metrics, inner = Metrics(), FastAPI()
    inner.add_middleware(RequestAccounting, metrics=metrics)

    @inner.get("/broken")
    async def broken() -> None:
        raise ValueError("a secret")

    async with serving(inner) as url, http_client(url) as client:
        answer = await client.get("/broken")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal Server Error", "code": "internal_error"}
    assert answer.headers["x-request-id"]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in errors] == ["tailrace.chat.requests"]
    assert errors[0].exc_info is not None
    assert metrics.totals(None).requests_failed == 1


async def test_a_body_that_the_server_breaks_off_has_failed(
    server: Server, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/broken-off")
    await server.finished()
    assert kinds(server) == {("GET", "/broken-off", "2xx", "failed"): 1}
    assert [record["end"] for record in records(caplog)] == ["broken off"]


async def test_a_client_that_leaves_in_mid_body_has_not_made_it_fail(
    server: Server, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.stream("GET", "/endless") as answer:
        async for text in answer.aiter_text():
            assert text == "begun"
            break
    await server.finished()
    assert kinds(server) == {("GET", "/endless", "2xx", "ok"): 1}
    assert [record["end"] for record in records(caplog)] == ["client left"]


async def test_a_client_that_leaves_before_the_answer_has_no_status() -> None:
    metrics = Metrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    server = RequestAccounting(app, metrics)
    await server(http_scope(), Messages({"type": "http.request"}, {"type": "http.disconnect"}), nobody)
    assert requests(metrics).keys() == {("GET", UNMATCHED, "none", "ok")}


async def test_a_request_that_is_cancelled_has_failed_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    request = asyncio.create_task(server.app(http_scope(path="/waiting"), Messages({"type": "http.request"}), nobody))
    async with asyncio.timeout(BOUND):
        await server.entered.wait()
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
    assert request.cancelled()
    assert kinds(server) == {("GET", "/waiting", "none", "failed"): 1}
    assert [record["end"] for record in records(caplog)] == ["broken off"]


async def test_a_file_that_the_server_sends_by_its_path_is_a_whole_body() -> None:
    metrics = Metrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/a/file"})

    await RequestAccounting(app, metrics)(http_scope(), Messages(), nobody)
    assert metrics.totals(None).requests_successful == 1


async def test_other_messages_and_scopes_pass() -> None:
    metrics, seen = Metrics(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        await send({"type": "http.response.debug"})

    accounting = RequestAccounting(BodyLimit(app, LIMIT, metrics), metrics)
    for kind in ("lifespan", "websocket", "http"):
        sent = Sent()
        await accounting({**http_scope(), "type": kind}, Messages(), sent)
        assert sent.messages == [{"type": "http.response.debug"}]
    assert seen == ["lifespan", "websocket", "http"]
    assert metrics.totals(None).requests_total == 1


def test_a_route_without_a_path_is_unmatched() -> None:
    assert route_of({"route": object()}) == UNMATCHED


async def test_a_body_within_the_limit_is_taken(server: Server, client: httpx.AsyncClient) -> None:
    text = json.dumps("x" * (LIMIT - 2))
    assert (await client.post("/echo", content=text, headers=JSON)).json() == LIMIT - 2
    assert (await client.post("/echo", content=pieces(text, 300), headers=JSON)).json() == LIMIT - 2
    assert refusals(server.metrics) == {}


async def test_a_length_beyond_the_limit_is_refused(server: Server, client: httpx.AsyncClient) -> None:
    answer = await client.post("/echo", content=json.dumps("x" * LIMIT), headers=JSON)
    await server.finished()
    assert answer.status_code == 413
    assert answer.json() == {
        "detail": f"expected a body of at most {LIMIT} bytes, but got {LIMIT + 2}",
        "code": "body_too_large",
    }
    assert answer.headers["x-request-id"]
    assert refusals(server.metrics) == {"body_too_large": 1}
    assert kinds(server) == {("POST", UNMATCHED, "4xx", "failed"): 1}


BODY = {"type": "http.request", "body": b"x" * (LIMIT + 1)}


@pytest.mark.parametrize(
    ("message", "got"), [(BODY, str(LIMIT + 1)), ({**BODY, "more_body": True}, f"at least {LIMIT + 1}")]
)
async def test_a_body_beyond_the_limit_raises_where_it_is_read(message: Message, got: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    with pytest.raises(BodyTooLarge) as raised:
        await BodyLimit(app, LIMIT, Metrics())(http_scope(), Messages(message), nobody)
    assert raised.value.detail == f"expected a body of at most {LIMIT} bytes, but got {got}"


async def test_an_answer_that_had_begun_is_broken_off() -> None:
    metrics = Metrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await receive()

    sent = Sent()
    await RequestAccounting(BodyLimit(app, LIMIT, metrics), metrics)(http_scope(), Messages(BODY), sent)
    assert (sent.status, sent.body) == (200, b"half")
    assert metrics.totals(None).requests_failed == 1


async def test_other_exceptions_of_an_application_are_its_own() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await BodyLimit(app, LIMIT, Metrics())(http_scope(), Messages(), nobody)


@pytest.mark.parametrize("length", [b"-1", b"many", b"9" * 5000])
async def test_a_length_that_is_none_is_counted(length: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    scope = http_scope(headers=[(b"content-length", length)])
    with pytest.raises(BodyTooLarge):
        await BodyLimit(app, LIMIT, Metrics())(scope, Messages(BODY), nobody)


@pytest.mark.parametrize(("own", "expected"), [([], b"no-store"), ([(b"Cache-Control", b"no-cache")], b"no-cache")])
async def test_no_response_is_sniffed_or_stored_unless_it_says_so(
    own: list[tuple[bytes, bytes]], expected: bytes
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body"})

    sent = Sent()
    await RequestAccounting(app, Metrics())(http_scope(), Messages(), sent)
    headers = [(name.lower(), value) for name, value in sent.messages[0]["headers"]]
    assert [value for name, value in headers if name == b"cache-control"] == [expected]
    assert [value for name, value in headers if name == b"x-content-type-options"] == [b"nosniff"]


async def test_a_client_that_leaves_while_its_body_is_counted_is_heard() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])

    await BodyLimit(app, LIMIT, Metrics())(http_scope(), Messages({"type": "http.disconnect"}), nobody)
    assert heard == ["http.disconnect"]


JSON = {"Content-Type": "application/json"}


async def pieces(text: str, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size].encode()


def http_scope(**changes: Any) -> Scope:
    scope: Scope = {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": [], "client": None}
    return {**scope, **changes}


class Messages:
    """What a server hands over; after the last nothing more comes."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)

    async def __call__(self) -> Message:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


class Sent:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        (status,) = [message["status"] for message in self.messages if "status" in message]
        assert isinstance(status, int)
        return status

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


async def nobody(message: Message) -> None:
    """A client that has gone."""
