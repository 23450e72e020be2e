"""What a client's decoders make of other people's events, one by one and many at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.client.sorting import SOCKET, AtEnd, Elsewhere, Position, decoder_for
from tailrace.errors import DecodeError, FrameTooLarge
from tailrace.events import DONE
from tailrace.wire.base import Decoder, Frame
from tailrace.wire.ndjson import LinesDecoder, NDJSONDecoder
from tailrace.wire.sse import ONLY_RETRY
from tests.wire.cases import JSON_DATA, read, splits

LIMIT = 1 << 16


def any_sse(limit: int = LIMIT) -> Decoder:
    return decoder_for("text/event-stream", limit, has_cursors=False)


def any_lines(limit: int = LIMIT) -> Decoder:
    return decoder_for("application/x-ndjson", limit, has_cursors=False)


def lines_with_cursors(limit: int = LIMIT) -> Decoder:
    return decoder_for("application/x-ndjson", limit, has_cursors=True)


def messages(*, has_cursors: bool) -> Decoder:
    return decoder_for(SOCKET, LIMIT, has_cursors=has_cursors)


TEXTS = ["word", "", "true story", "[1", "1 2", '"cut', "{", "NaN ", " 3 ", "null", "-", "1e400", "é", "\ufeff1", "1,2"]


def as_it_is(text: str) -> Any:
    """The data that a text is; what JSON allows and Python's reader reads otherwise is not among the tests."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.mark.parametrize("times", [1, 500])
@pytest.mark.parametrize("text", TEXTS)
def test_data_is_json_or_else_the_text(text: str, times: int) -> None:
    frames = any_sse().feed(f"data: {text}\n\n".encode() * times)
    assert [repr(frame.data) for frame in frames] == [repr(as_it_is(text))] * times


@given(st.lists(st.tuples(JSON_DATA.map(json.dumps) | st.sampled_from(TEXTS), st.sampled_from([1, 50]))), st.data())
def test_texts_among_json_change_nothing(runs: list[tuple[str, int]], data: st.DataObject) -> None:
    texts = [text for text, times in runs for _ in range(times)]
    stream = "".join(f"data: {text}\n\n" for text in texts).encode()
    frames = read(any_sse(), data.draw(splits(stream)))
    assert [repr(frame.data) for frame in frames] == [repr(as_it_is(text)) for text in texts]


@pytest.mark.parametrize("before", [0, 1, 500])
def test_a_mark_says_that_all_is_done(before: int) -> None:
    frames = any_sse().feed(b'data: {"a":1}\n\n' * before + b"data: [DONE]\n\n")
    assert frames == [Frame({"a": 1})] * before + [Frame(DONE)]


@pytest.mark.parametrize("times", [1, 500])
def test_a_delay_alone_has_no_value(times: int) -> None:
    frames = any_sse().feed(b"retry: 5\n\n" + b"data: null\n\n" * times)
    assert frames == [Frame(ONLY_RETRY, retry=5)] + [Frame(None)] * times


LINES = [
    (b'{"id":"x","data":1}', [Frame({"id": "x", "data": 1})]),
    (b'{"id":"S.e.1","data":1}', [Frame(1, None, "S.e.1")]),
    (b'{"id":"S.e.1","event":5,"data":1}', [Frame({"id": "S.e.1", "event": 5, "data": 1})]),
    (b'{"id":"S.e.1","type":"chunk"}', [Frame({"id": "S.e.1", "type": "chunk"}, None, "S.e.1")]),
    (b'{"id":"S.e.1","type":["done"]}', [Frame({"id": "S.e.1", "type": ["done"]}, None, "S.e.1")]),
    (b'{"id":"S.e.1","type":"done"}', [Frame({"id": "S.e.1", "type": "done"}, "done", "S.e.1")]),
    (b'{"id":"S.e.1.end","type":"sum"}', [Frame({"id": "S.e.1.end", "type": "sum"}, None, "S.e.1.end")]),
    (b'{"id":"chat-1","type":"complete"}', [Frame({"id": "chat-1", "type": "complete"})]),
    (b'{"id":"1.5","type":"complete"}', [Frame({"id": "1.5", "type": "complete"})]),
    (b'{"data":1}', [Frame({"data": 1})]),
    (b'{"event":5,"data":1}', [Frame({"event": 5, "data": 1})]),
    (b'"text"', [Frame("text")]),
    (b" ", []),
]


@given(st.lists(st.sampled_from(LINES), max_size=30), st.data())
def test_lines_are_envelopes_objects_or_values(lines: list[tuple[bytes, list[Frame]]], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line, _ in lines)
    expected = [frame for _, frames in lines for frame in frames]
    assert read(lines_with_cursors(), data.draw(splits(stream))) == expected
    values = [json.loads(line) for line, _ in lines if not line.isspace()]
    assert read(any_lines(), data.draw(splits(stream))) == list(map(Frame, values))


def test_many_lines_at_once_may_be_larger_than_the_bound() -> None:
    assert any_lines(8).feed(b"1234567\n" * 100) == [Frame(1234567)] * 100
    with pytest.raises(FrameTooLarge):
        any_lines(8).feed(b"1\n" * 100 + b"123456789\n")


@pytest.mark.parametrize("max_bytes", [8, LIMIT])
def test_the_bad_line_is_named(max_bytes: int) -> None:
    decoder: Decoder = any_lines(max_bytes)
    with pytest.raises(DecodeError, match=r"expected a line of JSON, but got b'\{\]'"):
        decoder.feed(b"1\n" * 100 + b"{]\n2\n")


@pytest.mark.parametrize("bad", [b"{]\n", b"12345678901\n", b"12345678901"])
@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda limit: LinesDecoder(max_bytes=limit), b"1"),
        (lambda limit: NDJSONDecoder(max_bytes=limit, strict=False), b"1"),
        (lambda limit: NDJSONDecoder(max_bytes=limit), b'{"data":1}'),
    ],
)
def test_an_error_has_what_came_before_it(make: Callable[[int], Decoder], line: bytes, bad: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        make(10).feed(line + b"\n" + line + b"\n" + bad)
    assert caught.value.before == [Frame(1), Frame(1)]


@pytest.mark.parametrize(
    ("decoder", "data", "expected"),
    [
        (any_sse(), b'data: {"a":1}\n\ndata: {"a"\n\n', [Frame({"a": 1}), Frame('{"a"')]),
        (any_sse(), b"id: x\nevent: e\ndata: 1\n\n", [Frame(1, "e", "x")]),
        (any_lines(), b'{"id":"x","data":1}\n', [Frame({"id": "x", "data": 1})]),
        (any_lines(), b'{"id":3,"data":1}\n', [Frame({"id": 3, "data": 1})]),
        (any_lines(), b'{"id":"x","data":1,"more":2}\n', [Frame({"id": "x", "data": 1, "more": 2})]),
        (lines_with_cursors(), b'{"id":"S.e.1","data":1,"more":2}\n', [Frame(1, None, "S.e.1")]),
        (
            lines_with_cursors(),
            b'{"id":"S.e.1","type":"reset","reason":"trimmed"}\n',
            [Frame({"id": "S.e.1", "type": "reset", "reason": "trimmed"}, "reset", "S.e.1")],
        ),
        (messages(has_cursors=False), b"hello", [Frame("hello")]),
        (messages(has_cursors=False), b'{"event":"x","data":1}', [Frame({"event": "x", "data": 1})]),
        (
            messages(has_cursors=True),
            b'{"event":"error","data":{"status":"no"}}',
            [Frame({"event": "error", "data": {"status": "no"}})],
        ),
        (messages(has_cursors=True), b'{"event":"error","data":{"status":400}}', [Frame({"status": 400}, "error")]),
        (
            messages(has_cursors=True),
            b'{"event":"error","data":{"status":5}}',
            [Frame({"event": "error", "data": {"status": 5}})],
        ),
        (messages(has_cursors=False), b'{"id":"S.e.1","data":1}', [Frame({"id": "S.e.1", "data": 1})]),
        (messages(has_cursors=True), b'{"id":"S.e.1","data":1}', [Frame(1, None, "S.e.1")]),
    ],
)
def test_any_servers_events(decoder: Decoder, data: bytes, expected: list[Frame]) -> None:
    assert decoder.feed(data) == expected


class TestPosition:
    def test_goes_forward_only(self) -> None:
        position = Position("S.e.4")
        position.begin("S.e.0")
        tokens = ("S.e.4", "S.e.3", "S.e.5", "S.e.5", "S.e.9")
        assert [position.advance(token) for token in tokens] == [False, False, True, False, True]
        assert position.token == "S.e.9"

    def test_does_not_leave_its_stream_unnoticed(self) -> None:
        position = Position("S.e.4", gives_cursors=True)
        with pytest.raises(Elsewhere):
            position.advance("S.f.5")
        assert position.token == "S.e.4"

    def test_takes_other_servers_ids_as_they_come(self) -> None:
        position = Position("a.b.9")
        assert [position.advance(token) for token in ("7", "3", "", "a.b.c", "a.b.9", "c.d.1")] == [True] * 6
        assert position.token == "c.d.1"

    def test_is_a_sockets_first_cursor(self) -> None:
        position = Position(gives_cursors=True)
        assert position.advance("S.e.1")
        assert not position.advance("S.e.1")

    def test_is_told_by_an_events_cursor_that_it_is_the_end(self) -> None:
        position = Position("S.e.4", gives_cursors=True)
        with pytest.raises(AtEnd):
            position.advance("S.e.4.end")
        assert (position.token, position.is_at_end) == ("S.e.4.end", True)
        with pytest.raises(Elsewhere):
            position.advance("S.f.4.end")
