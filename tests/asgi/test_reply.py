from __future__ import annotations

import pytest
from pydantic_core import from_json

from tailrace import CursorError, LogReset, NotAcceptable, StreamError, TailraceError
from tailrace.asgi.reply import send_refusal, send_whole
from tests.asgi.apps import ACCEPTED, Served, Server, of, small_engine
from tests.raw import fetch
from tests.serving import serving

REFUSALS: list[tuple[TailraceError, int, dict[str, object]]] = [
    (
        CursorError("x", "<stream>.<epoch>.<offset>"),
        400,
        {"detail": "expected a cursor like <stream>.<epoch>.<offset>, but got 'x'", "code": "bad_cursor"},
    ),
    (
        NotAcceptable("image/png", ["text/plain"]),
        406,
        {
            "detail": "expected Accept to allow one of text/plain, but got 'image/png'",
            "code": "not_acceptable",
            "available": ["text/plain"],
        },
    ),
    (
        LogReset("news", "trimmed", "s.e.8"),
        410,
        {
            "detail": "the cursor cannot be continued in log 'news' (trimmed); go on from s.e.8",
            "code": "reset",
            "reason": "trimmed",
            "cursor": "s.e.8",
        },
    ),
    (StreamError("no more", code="dry", status=502), 502, {"detail": "no more", "code": "dry"}),
]


@pytest.mark.parametrize(("error", "status", "expected"), REFUSALS)
async def test_a_refusal_says_why_in_words_and_as_a_code(
    error: TailraceError, status: int, expected: dict[str, object]
) -> None:
    server = Server()
    await send_refusal(server.send, error)
    headers = dict(server.messages[0]["headers"])
    assert server.messages[0]["status"] == status
    assert from_json(server.body) == expected
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-length"] == b"%d" % len(server.body)
    assert b"retry-after" not in headers


async def test_a_refusal_for_now_says_when_to_come_back() -> None:
    server = Server()
    await send_refusal(server.send, StreamError("later", status=503))
    assert dict(server.messages[0]["headers"])[b"retry-after"] == b"1"


async def test_a_refusal_may_carry_what_came_before_it() -> None:
    server = Server()
    await send_refusal(server.send, StreamError("no more"), data=b"[1,2]")
    assert from_json(server.body) == {"detail": "no more", "code": "error", "data": [1, 2]}


async def test_to_head_only_the_length_is_said() -> None:
    server = Server()
    await send_whole(server.send, 200, b"abc", [], head=True)
    assert dict(server.messages[0]["headers"])[b"content-length"] == b"3"
    assert server.body == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/x?after=nonsense", {}, 400),
        ("/x", {"Last-Event-ID": "nonsense"}, 400),
        ("/x", {"Accept": "image/png"}, 406),
        ("/x", {"Accept": "text/event-stream;q=0"}, 406),
    ],
)
async def test_what_cannot_be_answered_is_refused(method: str, path: str, headers: dict[str, str], status: int) -> None:
    app = Served(x=of(1))
    async with serving(app) as url:
        answer, body = await fetch(url, path, headers, method=method)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    if method == "HEAD":
        assert body == b""
    elif status == 406:
        assert from_json(body)["available"] == ACCEPTED
    else:
        assert from_json(body)["code"] == "bad_cursor"
    assert app.engine.statistics().producers == 0


async def test_a_new_stream_is_refused_while_the_server_leaves() -> None:
    engine = small_engine(shutdown_grace=60.0)
    async with serving(Served(engine, x=of(1))) as url:
        engine.drain()
        answer, body = await fetch(url, "/x")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert from_json(body) == {"detail": "the server is shutting down", "code": "shutting_down"}
