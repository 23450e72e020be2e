"""What a client's decoders make of other people's events, one by one and many at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.client.decoding import AnyNDJSON, AnySSE, CursorNDJSON
from tailrace.errors import DecodeError, FrameTooLarge
from tailrace.events import DONE
from tailrace.wire.base import Decoder, Frame
from tailrace.wire.ndjson import NDJSONDecoder
from tailrace.wire.sse import ONLY_RETRY
from tests.wire.cases import JSON_DATA, read, splits

LIMIT = 1 << 16

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
    frames = AnySSE(max_bytes=LIMIT).feed(f"data: {text}\n\n".encode() * times)
    assert [repr(frame.data) for frame in frames] == [repr(as_it_is(text))] * times


@given(st.lists(st.tuples(JSON_DATA.map(json.dumps) | st.sampled_from(TEXTS), st.sampled_from([1, 50]))), st.data())
def test_texts_among_json_change_nothing(runs: list[tuple[str, int]], data: st.DataObject) -> None:
    texts = [text for text, times in runs for _ in range(times)]
    stream = "".join(f"data: {text}\n\n" for text in texts).encode()
    frames = read(AnySSE(max_bytes=LIMIT), data.draw(splits(stream)))
    assert [repr(frame.data) for frame in frames] == [repr(as_it_is(text)) for text in texts]


@pytest.mark.parametrize("before", [0, 1, 500])
def test_a_mark_says_that_all_is_done(before: int) -> None:
    frames = AnySSE(max_bytes=LIMIT).feed(b'data: {"a":1}\n\n' * before + b"data: [DONE]\n\n")
    assert frames == [Frame({"a": 1})] * before + [Frame(DONE)]


@pytest.mark.parametrize("times", [1, 500])
def test_a_delay_alone_has_no_value(times: int) -> None:
    frames = AnySSE(max_bytes=LIMIT).feed(b"retry: 5\n\n" + b"data: null\n\n" * times)
    assert frames == [Frame(ONLY_RETRY, retry=5)] + [Frame(None)] * times


LINES = [
    (b'{"id":"x","data":1}', [Frame({"id": "x", "data": 1})]),
    (b'{"id":"S.e.1","data":1}', [Frame(1, None, "S.e.1")]),
    (b'{"id":"S.e.1","event":5,"data":1}', [Frame({"id": "S.e.1", "event": 5, "data": 1})]),
    (b'{"id":"S.e.1","type":"chunk"}', [Frame({"id": "S.e.1", "type": "chunk"}, None, "S.e.1")]),
    (b'{"id":"S.e.1","type":["done"]}', [Frame({"id": "S.e.1", "type": ["done"]}, None, "S.e.1")]),
    (b'{"id":"S.e.1","type":"done"}', [Frame({"id": "S.e.1", "type": "done"}, "done", "S.e.1")]),
    (
        b'{"id":"S.e.1","type":"complete"}',
        [Frame({"id": "S.e.1", "type": "complete"}, None, "S.e.1"), Frame(DONE, None, "S.e.1")],
    ),
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
    assert read(CursorNDJSON(LIMIT), data.draw(splits(stream))) == expected
    values = [json.loads(line) for line, _ in lines if not line.isspace()]
    assert read(AnyNDJSON(LIMIT), data.draw(splits(stream))) == list(map(Frame, values))


def test_many_lines_at_once_may_be_larger_than_the_bound() -> None:
    assert AnyNDJSON(8).feed(b"1234567\n" * 100) == [Frame(1234567)] * 100
    with pytest.raises(FrameTooLarge):
        AnyNDJSON(8).feed(b"1\n" * 100 + b"123456789\n")


@pytest.mark.parametrize("max_bytes", [8, LIMIT])
def test_the_bad_line_is_named(max_bytes: int) -> None:
    decoder: Decoder = AnyNDJSON(max_bytes)
    with pytest.raises(DecodeError, match=r"expected a line of JSON, but got b'\{\]'"):
        decoder.feed(b"1\n" * 100 + b"{]\n2\n")


@pytest.mark.parametrize("bad", [b"{]\n", b"12345678901\n", b"12345678901"])
@pytest.mark.parametrize(
    ("make", "line"),
    [(AnyNDJSON, b"1"), (CursorNDJSON, b"1"), (lambda limit: NDJSONDecoder(max_bytes=limit), b'{"data":1}')],
)
def test_an_error_has_what_came_before_it(make: Callable[[int], Decoder], line: bytes, bad: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        make(10).feed(line + b"\n" + line + b"\n" + bad)
    assert caught.value.before == [Frame(1), Frame(1)]
