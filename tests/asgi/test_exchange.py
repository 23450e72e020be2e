from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tailrace.asgi.exchange import LINES, MAX_TOLD, WAIT_AT_LEAST, WAIT_AT_MOST, Answer, post

SOCKET = {
    "type": "websocket",
    "path": "/x",
    "scheme": "wss",
    "root_path": "",
    "headers": [(b"host", b"here"), (b"cookie", b"a=1"), (b"sec-websocket-key", b"x")],
}


@pytest.mark.parametrize(
    ("values", "stop", "send"),
    [
        ([], None, None),
        (['</x/1/stop>; rel="stop"'], "/x/1/stop", None),
        (['</x/1/stop>; rel="stop", </x/1>; rel="send"'], "/x/1/stop", "/x/1"),
        (['</x/1/stop>; rel="stop"', "</x/1>;rel=send"], "/x/1/stop", "/x/1"),
        (['</a>; rel="next", </x/1?q=a,b>; title="one, two; rel=stop"; REL="Send other"'], None, "/x/1?q=a,b"),
        (['</x/1>; rel="send", </x/2>; rel="send"'], None, "/x/1"),
        # These are no addresses at this application.
        (['<https://other.example/x>; rel="stop", <//other.example/x>; rel="send"'], None, None),
        (["</x>", "<>; rel=stop", "</x>; rev=send"], None, None),
    ],
)
def test_addresses_come_from_the_link_headers(values: list[str], stop: str | None, send: str | None) -> None:
    answer = Answer(200, [(b"vary", b"accept"), *((b"link", value.encode()) for value in values)])
    assert (answer.link("stop"), answer.link("send")) == (stop, send)


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (429, b"2", 2.0),
        (503, b" 3 ", 3.0),
        (429, b"0", WAIT_AT_LEAST),
        (429, b"9999", WAIT_AT_MOST),
        (503, b"Fri, 20 Nov 2026 19:16:40 GMT", WAIT_AT_MOST),
        (429, None, None),
        (503, b"", None),
        (409, b"1", None),
        (202, b"1", None),
    ],
)
def test_only_429_and_503_ask_for_a_later_attempt(status: int, value: bytes | None, seconds: float | None) -> None:
    headers = [] if value is None else [(b"retry-after", value)]
    assert Answer(status, headers).retry_after == seconds


LINE = b'{"packet_type":"ERROR","payload":{"code":"bad"}}'


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (b"application/x-ndjson", LINE),
        (b"application/x-ndjson; charset=utf-8", LINE + b"\n"),
    ],
)
def test_a_refusal_that_is_a_line_is_told_as_it_is(media_type: bytes, body: bytes) -> None:
    assert Answer(422, [(b"content-type", media_type)], body).as_message("refused") == LINE.decode()


@pytest.mark.parametrize(
    ("media_type", "body", "data"),
    [
        (b"application/json", b'{"detail":"no","code":"bad"}', {"code": "bad", "message": "no"}),
        (b"application/json", b'{"detail":[1]}', {"code": "http_422", "message": "HTTP 422", "detail": [1]}),
        (b"application/json", b"[]", {"code": "http_422", "message": "[]"}),
        (b"text/plain", b"no \xff", {"code": "http_422", "message": "no \ufffd"}),
        (b"application/x-ndjson", b"", {"code": "http_422", "message": ""}),
        (b"application/x-ndjson", b"{}\n{}", {"code": "http_422", "message": "{}\n{}"}),
        (b"application/x-ndjson", b"x" * 20_000, {"code": "http_422", "message": "x" * MAX_TOLD}),
    ],
)
def test_any_other_refusal_is_an_event(media_type: bytes, body: bytes, data: dict[str, Any]) -> None:
    message = from_json(Answer(422, [(b"content-type", media_type)], body).as_message("refused"))
    assert message == {"event": "refused", "data": {"status": 422, **data}}


async def test_a_post_is_a_request_of_the_same_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        seen = [
            request.method,
            request.url.path,
            request.url.query,
            request.url.scheme,
            dict(request.headers),
            (await request.body()).decode(),
        ]
        await JSONResponse(seen, 202)(scope, receive, send)

    answer = await post(app, SOCKET, "/%C3%A4?q=1", b"{}\n", media_type=LINES)
    assert answer.status == 202
    assert from_json(answer.body) == [
        "POST",
        "/ä",
        "q=1",
        "https",
        {
            "host": "here",
            "cookie": "a=1",
            "accept": "application/x-ndjson",
            "content-type": "application/x-ndjson",
        },
        "{}\n",
    ]


@pytest.mark.parametrize(("key", "keys"), [(b"", []), (b"one", ["one"])])
async def test_the_key_of_a_post_is_its_own_and_not_that_of_the_handshake(key: bytes, keys: list[str]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse(Request(scope).headers.getlist("idempotency-key"))(scope, receive, send)

    socket = {**SOCKET, "headers": [(b"idempotency-key", b"of the stream")]}
    assert from_json((await post(app, socket, "/", key=key)).body) == keys


async def test_the_client_stays_until_the_answer_is_complete() -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        leaving = asyncio.create_task(receive())
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.sleep(0)
        assert not leaving.done()
        await send({"type": "http.response.body", "body": b"b"})
        received.append(await leaving)

    assert (await post(app, SOCKET, "/x")).body == b"ab"
    assert [message["type"] for message in received] == ["http.request", "http.disconnect"]


async def test_of_a_large_answer_only_the_beginning_is_kept() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        for _ in range(9):
            await send({"type": "http.response.body", "body": b"x" * MAX_TOLD, "more_body": True})
        await send({"type": "http.response.body"})

    assert (await post(app, SOCKET, "/x")).body == b"x" * 2 * MAX_TOLD


async def test_an_error_of_the_application_is_logged_and_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response("half", 200)(scope, receive, send)
        raise ValueError("secret")

    answer = await post(app, SOCKET, "/x")
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert [record.getMessage() for record in caplog.records] == ["/x: a POST for a WebSocket failed"]
    assert "secret" in str(caplog.records[0].exc_info)
