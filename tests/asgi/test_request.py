from __future__ import annotations

import re
from typing import Any

import pytest

from tailrace.asgi.request import StreamRequest, address
from tailrace.cursor import STREAM_ID_PATTERN, Cursor
from tailrace.errors import CursorError, NotAcceptable
from tailrace.modes import DEFAULT_WIRES


def scope(query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, **more: Any) -> dict[str, Any]:
    return {"method": "GET", "path": "/x", "query_string": query, "headers": headers or [], **more}


def read(*arguments: Any, **more: Any) -> StreamRequest:
    return StreamRequest.read(scope(*arguments, **more), DEFAULT_WIRES)


def test_a_request_that_asks_for_nothing_gets_the_first_wire_from_the_start() -> None:
    assert read() == StreamRequest("GET", "/x", DEFAULT_WIRES[0], None)


@pytest.mark.parametrize(
    ("query", "headers", "token"),
    [
        (b"after=s.e.1", [], "s.e.1"),
        (b"", [(b"last-event-id", b"s.e.2")], "s.e.2"),
        (b"", [(b"last-event-id", b" s.e.2 ")], "s.e.2"),
        (b"after=s.e.1", [(b"last-event-id", b"s.e.2")], "s.e.2"),
        (b"after=s.e.1&after=s.e.3", [], "s.e.3"),
        (b"after=s%2Ee.3.end", [], "s.e.3.end"),
    ],
)
def test_the_cursor_is_the_header_or_else_the_last_of_the_query(
    query: bytes, headers: list[tuple[bytes, bytes]], token: str
) -> None:
    assert read(query, headers).cursor == Cursor.parse(token)


@pytest.mark.parametrize(("query", "header"), [(b"after=", b""), (b"", b"  "), (b"other=1", b"")])
def test_an_empty_cursor_is_none(query: bytes, header: bytes) -> None:
    # A browser's EventSource whose last event had an empty id, and forms that send every field.
    assert read(query, [(b"last-event-id", header)]).cursor is None


@pytest.mark.parametrize("token", [b"x", b"s.e.-1", b"\xff\xfe", b"%00", b"s.e.1 s.e.2", b"s.e.01"])
def test_what_is_no_cursor_is_refused(token: bytes) -> None:
    with pytest.raises(CursorError):
        read(b"after=" + token)
    with pytest.raises(CursorError):
        read(b"", [(b"last-event-id", token)])


def test_several_accept_headers_count_as_one() -> None:
    headers = [(b"accept", b"text/html"), (b"accept", b"application/x-ndjson")]
    assert read(b"", headers).wire.media_type == "application/x-ndjson"


@pytest.mark.parametrize(
    ("query", "expected"), [(b"stream=true", "text/event-stream"), (b"stream=0", "application/json")]
)
def test_the_query_beats_accept(query: bytes, expected: str) -> None:
    other = b"application/json" if b"true" in query else b"text/event-stream"
    assert read(query, [(b"accept", other)]).wire.media_type == expected


def test_no_wire_is_refused_with_the_list() -> None:
    with pytest.raises(NotAcceptable) as refused:
        read(b"", [(b"accept", b"image/png")])
    assert refused.value.available == tuple(wire.media_type for wire in DEFAULT_WIRES)


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("", "/a", "/a"),
        ("", "/a/", "/a"),
        ("", "/", ""),
        ("/v1", "/a", "/v1/a"),  # a proxy has taken the prefix off
        ("/v1/", "/a", "/v1/a"),
        ("/v1", "/v1/a", "/v1/a"),  # mounted, or a server that puts it on
        ("/v1", "/v1", "/v1"),
        ("/v1", "/v10", "/v1/v10"),
    ],
)
def test_an_address_is_the_path_that_the_client_sees(root: str, path: str, expected: str) -> None:
    assert address({"root_path": root, "path": path}) == expected


def test_an_address_needs_no_root_path() -> None:
    assert address({"path": "/a"}) == "/a"


KEY = (b"idempotency-key", b"once")


def test_a_key_names_the_stream_of_its_path_and_its_credentials() -> None:
    named = read(headers=[KEY]).stream_id
    assert named is not None
    assert re.fullmatch(STREAM_ID_PATTERN, named)
    assert read(headers=[KEY, (b"accept", b"text/plain")]).stream_id == named
    others = [
        read(headers=[(b"idempotency-key", b"twice")]),
        read(headers=[KEY], path="/y"),
        read(headers=[KEY, (b"authorization", b"Bearer me")]),
        read(headers=[KEY, (b"authorization", b"Bearer you")]),
        read(headers=[KEY, (b"cookie", b"session=me")]),
    ]
    assert len({named, *(other.stream_id for other in others)}) == 1 + len(others)
    assert read(headers=[(b"idempotency-key", b"")]).stream_id is None
