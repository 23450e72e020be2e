from __future__ import annotations

import asyncio

import pytest
from pydantic_core import from_json

from tailrace import (
    CursorError,
    Engine,
    LogReset,
    NotAcceptable,
    OpenAIChunks,
    Retention,
    StreamError,
    StreamResponse,
    StreamSettings,
    TailraceError,
)
from tailrace.asgi.reply import cursor_header, refusal_of, stream_headers
from tailrace.log.base import Log
from tailrace.modes import DEFAULT_WIRES
from tailrace.wire.base import Wire
from tests.asgi.apps import ACCEPTED, Served, of, request, small_engine
from tests.raw import fetch, frames, values
from tests.serving import serving
from tests.sources import Faucet, soon

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
            "detail": "log 'news' no longer has the next event (trimmed); go on from s.e.8",
            "code": "reset",
            "reason": "trimmed",
            "cursor": "s.e.8",
        },
    ),
    (StreamError("no more", code="dry", status=502), 502, {"detail": "no more", "code": "dry"}),
]


@pytest.mark.parametrize(("error", "status", "expected"), REFUSALS)
def test_a_refusal_says_why_in_words_and_as_a_code(
    error: TailraceError, status: int, expected: dict[str, object]
) -> None:
    response = refusal_of(error)
    assert response.status_code == status
    assert from_json(bytes(response.body)) == expected
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-length"] == str(len(response.body))
    assert "retry-after" not in response.headers


def test_a_refusal_for_now_says_when_to_come_back() -> None:
    assert refusal_of(StreamError("later", status=503)).headers["retry-after"] == "1"


@pytest.mark.parametrize("status", [409, 503])
def test_an_application_says_when_to_come_back(status: int) -> None:
    assert refusal_of(StreamError("later", status=status, retry_after=30)).headers["retry-after"] == "30"


def test_a_refusal_may_carry_what_came_before_it() -> None:
    response = refusal_of(StreamError("no more"), data=b"[1,2]")
    assert from_json(bytes(response.body)) == {"detail": "no more", "code": "error", "data": [1, 2]}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/x?after=nonsense", {}, 400),
        ("/x", {"Last-Event-ID": "nonsense"}, 400),
        ("/x", {"Accept": "image/png"}, 406),
        ("/x", {"Accept": "text/event-stream;q=0"}, 406),
        (f"/x?q={'a' * (16 << 10)}", {}, 414),
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
        assert from_json(body)["code"] == {400: "bad_cursor", 414: "query_too_long"}[status]
    assert app.engine.statistics().producers == 0


async def test_a_new_stream_is_refused_while_the_server_leaves() -> None:
    engine = small_engine(shutdown_grace=60.0)
    async with serving(Served(engine, x=of(1))) as url:
        engine.drain()
        answer, body = await fetch(url, "/x")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert from_json(body) == {"detail": "the server is shutting down", "code": "shutting_down"}


# Headers


def test_every_stream_says_what_it_is_and_that_nobody_may_hold_it_back() -> None:
    for wire in DEFAULT_WIRES:
        headers = dict(stream_headers(request(wire), None))
        assert headers.pop(b"content-type") == wire.content_type.encode()
        assert headers.pop(b"vary") == b"accept"
        if wire.streaming:
            assert headers == {
                b"cache-control": b"no-cache, no-transform",
                b"x-accel-buffering": b"no",
                b"incremental": b"?1",
            }
        else:
            assert headers == {b"cache-control": b"no-store"}


@pytest.mark.parametrize("wire", DEFAULT_WIRES)
def test_an_application_chooses_how_its_stream_is_cached(wire: Wire) -> None:
    assert dict(stream_headers(request(wire), "private"))[b"cache-control"] == b"private"


async def test_a_response_says_where_its_body_begins() -> None:
    log = await small_engine().log("weather")
    assert cursor_header(log.cursor(2)) == (b"tailrace-cursor", str(log.cursor(2)).encode())


# Resets


WIRES = {wire.media_type: wire for wire in DEFAULT_WIRES}


async def shared(engine: Engine) -> Log:
    log = await engine.log("news", retention=Retention(count=2))
    await log.append(*range(10))
    await log.close()
    return log


CASES = [
    ("news.other.1", "epoch_changed"),
    ("other.{epoch}.1", "epoch_changed"),
    ("{log}.11", "ahead"),
    ("{log}.3", "trimmed"),
]


@pytest.mark.parametrize(("cursor", "reason"), CASES)
@pytest.mark.parametrize("media_type", ["text/event-stream", "application/x-ndjson"])
async def test_a_reset_is_said_in_band_with_a_cursor_to_go_on_from(media_type: str, cursor: str, reason: str) -> None:
    engine = small_engine()
    log = await shared(engine)
    cursor = cursor.format(log=f"{log.stream}.{log.epoch}", epoch=log.epoch)
    headers = {"Accept": media_type}
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        answer, body = await fetch(url, f"/x?after={cursor}", headers)
        (reset,) = frames(body, WIRES[media_type])
        assert (answer.status, reset.event, reset.data) == (200, "reset", {"reason": reason})
        assert answer.whole
        assert answer.headers["content-type"].startswith(media_type)
        assert reset.id == answer.headers["tailrace-cursor"] == str(log.cursor(8))
        _, body = await fetch(url, f"/x?after={reset.id}", headers)
        assert values(body, WIRES[media_type]) == [8, 9, "done"]


@pytest.mark.parametrize(("cursor", "reason"), CASES)
@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
async def test_a_wire_without_room_for_a_reset_answers_410(media_type: str, cursor: str, reason: str) -> None:
    engine = small_engine()
    log = await shared(engine)
    cursor = cursor.format(log=f"{log.stream}.{log.epoch}", epoch=log.epoch)
    headers = {"Accept": media_type}
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        answer, body = await fetch(url, f"/x?after={cursor}", headers)
        frame = from_json(body)
        assert answer.status == 410
        assert (frame["code"], frame["reason"], frame["cursor"]) == ("reset", reason, str(log.cursor(8)))
        answer, body = await fetch(url, f"/x?after={frame['cursor']}", headers)
        assert (answer.status, body) == (
            200,
            {"application/json": b'{"data":[8,9]}', "text/plain": b"8\n9\n"}[media_type],
        )


@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
async def test_a_lost_stream_is_not_found_without_a_cursor(media_type: str) -> None:
    engine = small_engine()
    lost = await engine.log("lost")
    await engine.forget(lost)
    headers = {"Accept": media_type}
    async with serving(Served(engine, x=StreamResponse(lost))) as url:
        answer, body = await fetch(url, "/x", headers)
        detail = "expected stream 'lost' to be there, but its store has forgotten or lost it"
        assert (answer.status, from_json(body)) == (404, {"detail": detail, "code": "stream_not_found"})
        answer, body = await fetch(url, f"/x?after={lost.cursor(0)}", headers)
        frame = from_json(body)
        assert (answer.status, frame["code"], frame["reason"]) == (410, "reset", "epoch_changed")
        assert frame["detail"].startswith("the store has forgotten or lost the log 'lost' that was read")


async def test_a_stream_that_is_lost_before_its_first_event_has_failed() -> None:
    faucet = Faucet()
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url:
        asking = asyncio.create_task(fetch(url, "/x", {"Accept": "text/plain"}))
        await soon(faucet.started)
        (producer,) = app.engine.producers._running.values()
        await app.engine.forget(producer.log)
        answer, body = await asking
    assert (answer.status, from_json(body)["code"]) == (503, "entries_lost")


async def test_a_stream_that_nobody_knows_is_reset_to_its_end_which_stops_a_browser() -> None:
    async with serving(Served(x=of(1))) as url:
        _, body = await fetch(url, "/x?after=s.e.5&stream=true")
        (reset,) = frames(body)
        assert (reset.event, reset.data, reset.id) == ("reset", {"reason": "epoch_changed"}, "s.e.5.end")
        answer, body = await fetch(url, f"/x?after={reset.id}&stream=true")
        assert (answer.status, body) == (204, b"")


async def test_a_wire_may_spell_a_reset_in_its_own_way() -> None:
    settings = StreamSettings(wires=[OpenAIChunks("m")])
    async with serving(Served(x=of(1, settings=settings))) as url:
        answer, body = await fetch(url, "/x?after=s.e.5")
    assert answer.status == 200
    assert b'"stream_reset"' in body
