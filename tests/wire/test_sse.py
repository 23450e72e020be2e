from __future__ import annotations

import re
import tracemalloc
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import DecodeError, EventError, FrameTooLarge
from tailrace.events import DONE, Entry, Farewell
from tailrace.wire.base import Frame, read_notice
from tailrace.wire.sse import ONLY_RETRY, SSE, SSEDecoder, SSEEncoder, SSEJSONDecoder, format_sse
from tests.wire.cases import (
    CREATED,
    ENTRIES,
    EPOCH,
    EVENT_NAMES,
    STREAM,
    WAYS,
    Case,
    at,
    byte_by_byte,
    cases,
    entry,
    in_one_piece,
    read,
    read_until_error,
    spell,
    splits,
    tagged,
)

CASES = cases(
    {
        "bare data": b'id: s1.e1.1\ndata: {"left":3}\n\n',
        "a named event": b'id: s1.e1.2\nevent: greeting\ndata: "hi"\n\n',
        "null": b"id: s1.e1.1\ndata: null\n\n",
        "text with line ends": b'id: s1.e1.1\ndata: "a\\r\\nb"\n\n',
        "text beyond ASCII": 'id: s1.e1.1\nevent: 名\ndata: "é\\u2028\\u0085😀"\n\n'.encode(),
        "entries, then done": b"id: s1.e1.1\ndata: 1\n\n"
        b"id: s1.e1.2\ndata: 2\n\n"
        b"id: s1.e1.2.end\nevent: done\ndata: {}\n\n",
        "an end with a value": b'id: s1.e1.0.end\nevent: done\ndata: {"data":{"tokens":3}}\n\n',
        "an error": b"id: s1.e1.1\ndata: 1\n\n"
        b'id: s1.e1.1.end\nevent: error\ndata: {"code":"quota","message":"no\\nmore"}\n\n',
        "a cancellation": b'id: s1.e1.0.end\nevent: cancelled\ndata: {"code":"stopped"}\n\n',
        "a reset": b'id: s1.e1.0\nevent: reset\ndata: {"reason":"trimmed"}\n\n',
        "a farewell": b"id: s1.e1.5\ndata: 1\n\n"
        b'id: s1.e1.5\nevent: farewell\nretry: 250\ndata: {"reason":"slow","retry":250}\n\n',
        "a replacement": b'id: s1.e1.0\nevent: farewell\nretry: 0\ndata: {"reason":"replaced","retry":0}\n\n',
        "dropped entries": b'id: s1.e1.0\nevent: dropped\ndata: {"count":3}\n\nid: s1.e1.4\ndata: 1\n\n',
        "a store out of reach": (
            b"id: s1.e1.1\ndata: 1\n\n"
            b'id: s1.e1.1\nevent: degraded\ndata: {"degraded":true}\n\n'
            b'id: s1.e1.1\nevent: degraded\ndata: {"degraded":false}\n\n'
            b"id: s1.e1.2\ndata: 2\n\n"
        ),
    }
) | {
    "a name with spaces and colons": Case(
        [entry(2, 1, " a: b")], b"id: s1.e1.2\nevent:  a: b\ndata: 1\n\n", [Frame(1, " a: b", at(2))]
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_log_says_is_spelled(case: Case) -> None:
    assert spell(SSE().encoder(STREAM, EPOCH, CREATED), case.said) == case.spelled


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_spelled_is_read(case: Case, way: Any) -> None:
    assert read(SSE().decoder(), way(case.spelled)) == case.read


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("line_end", [b"\r", b"\r\n"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_other_line_ends_and_a_byte_order_mark_change_nothing(case: Case, line_end: bytes, way: Any) -> None:
    spelled = b"\xef\xbb\xbf" + case.spelled.replace(b"\n", line_end)
    assert read(SSE().decoder(), way(spelled)) == case.read


@pytest.mark.parametrize(
    "garbage", [b"\0", b"id: x", b"data: cut", b"\xff\xfe", b"data: cut\n", b": ping\n", b"\n", b"\r"]
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_block_without_its_blank_line_is_no_event(case: Case, way: Any, garbage: bytes) -> None:
    assert read(SSE().decoder(), way(case.spelled + garbage)) == case.read


@given(ENTRIES, st.data())
def test_any_entries_are_read_back_at_any_splits(rows: list[Entry], data: st.DataObject) -> None:
    spelled = spell(SSEEncoder(STREAM, EPOCH), rows)
    frames = read(SSE().decoder(), data.draw(splits(spelled)))
    assert frames == [Frame(row.data, row.event, at(row.offset)) for row in rows]


TAGGED = tagged([entry(1, 1), entry(2, 2, "tick"), entry(4, 3)], "Ab3d", "_-90xyzZ", "0000")


def test_a_tag_is_a_part_of_the_id() -> None:
    encoder = SSE().encoder(STREAM, EPOCH, CREATED)
    spelled = (
        b"id: s1.e1.1~Ab3d\ndata: 1\n\nid: s1.e1.2~_-90xyzZ\nevent: tick\ndata: 2\n\nid: s1.e1.4~0000\ndata: 3\n\n"
    )
    assert encoder.encode(TAGGED) == spelled
    assert read(SSE().decoder(), [spelled]) == [
        Frame(1, None, "s1.e1.1~Ab3d"),
        Frame(2, "tick", "s1.e1.2~_-90xyzZ"),
        Frame(3, None, "s1.e1.4~0000"),
    ]


# Any server's streams

STREAMS: dict[str, tuple[bytes, list[Frame]]] = {
    "fields without a space": (b"id:1\nevent:a\ndata:x\n\n", [Frame("x", "a", "1")]),
    "only one space is taken": (b"event:  a\ndata:  x \n\n", [Frame(" x ", " a")]),
    "several lines of data": (b"data: a\ndata:\ndata:  b\n\n", [Frame("a\n\n b")]),
    "a field without a colon": (b"data\n\ndata\ndata\n\n", [Frame(""), Frame("\n")]),
    "empty data": (b"data:\n\n", [Frame("")]),
    "no data is no event": (b"event: a\n\nid: 1\n\n:only\n\n\n\n", []),
    "an id without data lasts": (b"id: 1\n\ndata: x\n\n", [Frame("x", None, "1")]),
    "an id lasts": (b"id: 1\ndata: x\n\ndata: y\n\n", [Frame("x", None, "1"), Frame("y", None, "1")]),
    "an empty id takes it back": (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [Frame("x", None, "1"), Frame("y", None, "")]),
    "an id of a space and nothing": (b"id: \ndata: x\n\n", [Frame("x", None, "")]),
    "an id with NUL is no id": (
        b"id: 1\ndata: x\n\nid: 2\0\ndata: y\n\n",
        [Frame("x", None, "1"), Frame("y", None, "1")],
    ),
    "the last id, event and retry of a block hold": (
        b"id: 1\nid: 2\nevent: a\nevent: b\nretry: 1\nretry: 2\ndata: x\n\n",
        [Frame("x", "b", "2", 2)],
    ),
    "an empty event is none": (b"event: a\nevent:\ndata: x\n\n", [Frame("x")]),
    "an event name lasts for one block": (b"event: a\ndata: x\n\ndata: y\n\n", [Frame("x", "a"), Frame("y")]),
    "a name without data is forgotten": (b"event: a\n\ndata: y\n\n", [Frame("y")]),
    "fields in another order": (b"data: x\nretry: 5\nevent: a\nid: 1\n\n", [Frame("x", "a", "1", 5)]),
    "retry alone": (b"event: a\nretry: 5\n\n", [Frame(None, None, None, 5)]),
    "retry that is no number": (b"retry: 5s\nretry: -5\nretry: 1.5\nretry:\nretry:  5\ndata: x\n\n", [Frame("x")]),
    "retry of digits that are not ASCII": ("retry: ٣\nretry: ²\ndata: x\n\n".encode(), [Frame("x")]),
    "retry beyond what numbers hold": (b"retry: %b\ndata: x\n\n" % (b"9" * 5000), [Frame("x")]),
    "unknown fields and other cases": (b"Data: a\n data: b\nfoo: c\nfoo\nID: 1\ndata: x\n\n", [Frame("x")]),
    "comments everywhere": (b": a\n\n:b\n:\ndata: x\n: c\ndata: y\n\n: d\n", [Frame("x\ny")]),
    "comments in front of an event": (b": ping\n: ping\nid: 1\ndata: x\n\n", [Frame("x", None, "1")]),
    "blank lines": (b"\n\n\ndata: x\n\n\n\n\ndata: y\n\n\n", [Frame("x"), Frame("y")]),
    "a lone CR ends a line": (b"data: a\rdata: b\r\rdata: c\r\r", [Frame("a\nb"), Frame("c")]),
    "line ends of all kinds": (b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\r", [Frame("a\nb\nc"), Frame("d")]),
    "CRLF is one line end": (b"data: a\r\ndata: b\r\n\r\n", [Frame("a\nb")]),
    "other Unicode line ends are text": (
        "data: a\u2028b\x85c\x0bd\x0ce\n\n".encode(),
        [Frame("a\u2028b\x85c\x0bd\x0ce")],
    ),
    "a BOM is skipped": (b"\xef\xbb\xbfdata: x\n\n", [Frame("x")]),
    "only one BOM is skipped": (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\ndata: y\n\n", [Frame("y")]),
    "half a BOM is no BOM": (b"\xef\xbbdata: x\n\ndata: y\n\n", [Frame("y")]),
    "a BOM in the middle is text": (
        b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: \xef\xbb\xbfc\n\n",
        [Frame("a"), Frame("\ufeffc")],
    ),
    "invalid UTF-8 is replaced": (b"data: a\xff\xc3\n\ndata: \xe2\x82\n\n", [Frame("a\ufffd\ufffd"), Frame("\ufffd")]),
    "characters cut by pieces": ("event: é\nid: 😀\ndata: ß→\n\n".encode(), [Frame("ß→", "é", "😀")]),
    "NUL in data": (b"data: a\0b\n\n", [Frame("a\0b")]),
    "a colon in a value": (b"data: a: b\n\n", [Frame("a: b")]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("stream", "frames"), STREAMS.values(), ids=STREAMS)
def test_any_server_s_stream_is_read_as_the_specification_says(stream: bytes, frames: list[Frame], way: Any) -> None:
    assert read(SSEDecoder(), way(stream)) == frames


@given(st.data())
def test_splits_change_nothing(data: st.DataObject) -> None:
    lines = st.sampled_from(
        [b"data: x", b"data", b"id: 1", b"id: \0", b"event: \xc3\xa9", b": c", b"retry: 5", b"", b"\xff"]
    )
    ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
    stream = b"".join(data.draw(st.lists(st.tuples(lines, ends).map(b"".join), max_size=20)))
    whole = read(SSEDecoder(), [stream])
    assert read(SSEDecoder(), data.draw(splits(stream))) == whole
    assert read(SSEDecoder(), byte_by_byte(stream)) == whole


@given(st.binary(max_size=200), st.data())
def test_any_bytes_at_all_are_read_without_an_error(stream: bytes, data: st.DataObject) -> None:
    assert read(SSEDecoder(), data.draw(splits(stream))) == read(SSEDecoder(), [stream])


def test_an_event_comes_as_soon_as_its_blank_line_begins() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [Frame("a")]
    assert decoder.feed(b"\ndata: b\r\n\r\n") == [Frame("b")]
    assert decoder.feed(b"data: c\n") == []
    assert decoder.feed(b"\n") == [Frame("c")]


ONE_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=10)
BLOCKS = st.lists(st.tuples(st.lists(ONE_LINE, min_size=1, max_size=3), EVENT_NAMES, ONE_LINE, st.integers(0, 10**6)))


@given(BLOCKS, st.sampled_from(["\n", "\r", "\r\n"]))
def test_httpx_sse_reads_the_same(blocks: list[tuple[list[str], str, str, int]], line_end: str) -> None:
    stream = b"".join(
        format_sse("\n".join(lines), event=event, id=id, retry=retry) for lines, event, id, retry in blocks
    ).replace(b"\n", line_end.encode())
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    theirs = [Frame(sse.data, sse.event, sse.id, sse.retry) for sse in EventSource(response).iter_sse()]
    assert read(SSEDecoder(), [stream]) == theirs


# Bounds

LIMIT = 64


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * LIMIT,
        b"data: " + b"x" * LIMIT + b"\n\n",
        b"data: x\n" * LIMIT,
        b"data: x\n" * LIMIT + b"\n",
        b"x" * (LIMIT + 1),
        b"data: x\n" + b": a comment in an event\n" * LIMIT,
    ],
)
def test_an_event_beyond_the_bound_is_an_error_that_says_so(stream: bytes, way: Any) -> None:
    frames, error = read_until_error(SSEDecoder(max_bytes=LIMIT), way(stream))
    assert frames == []
    assert isinstance(error, FrameTooLarge)
    assert error.limit == LIMIT < error.size <= len(stream)
    assert re.fullmatch(r"expected a frame of at most 64 bytes, but got at least \d+", str(error))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [b"", b": a comment that is no part of it\n", b"\n\n\n"])
@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_the_bound_is_on_the_lines_of_an_event(size: int, before: bytes, way: Any) -> None:
    block = b"data: " + b"x" * (size - len(b"data: \n")) + b"\n"
    frames, error = read_until_error(SSEDecoder(max_bytes=LIMIT), way(b"data: 1\n\n" + before + block + b"\n"))
    assert (error is None) == (size <= LIMIT)
    assert len(frames) == 2 or error


def test_many_events_in_one_piece_may_be_larger_than_the_bound() -> None:
    assert len(read(SSEDecoder(max_bytes=LIMIT), [b"data: x\n\n" * 1000])) == 1000


@pytest.mark.parametrize("endless", [b": ping\n", b": no line end ever", b"\n", b"\r\n", b":\r"])
@pytest.mark.parametrize("way", [in_one_piece, byte_by_byte])
def test_what_is_no_event_is_not_gathered(endless: bytes, way: Any) -> None:
    decoder = SSEDecoder(max_bytes=LIMIT)
    for _ in range(100):
        assert [frame for piece in way(endless) for frame in decoder.feed(piece)] == []
    assert decoder.feed(b"\n\ndata: x\n\n") == [Frame("x")]


def test_a_gigantic_line_takes_no_more_memory_than_the_bound() -> None:
    decoder = SSEDecoder(max_bytes=1 << 16)
    piece = b"x" * 4096
    tracemalloc.start()
    try:
        _, error = read_until_error(decoder, [piece] * 10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, FrameTooLarge)
    assert peak < 4 << 16


# The events of a log

NOT_JSON: dict[str, bytes] = {
    "text": b"hello",
    "nothing": b"",
    "a cut object": b'{"a":',
    "two values": b"1 2",
    "a replaced character outside a string": b"\xff",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_data_that_is_not_json_is_a_decode_error(data: bytes, way: Any) -> None:
    frames, error = read_until_error(SSE().decoder(), way(b"data: %b\n\n" % data))
    assert frames == []
    assert str(error).startswith("expected JSON in the data of an event, but got ")


def test_a_delay_alone_is_no_event_of_a_log() -> None:
    assert read(SSE().decoder(), [b"retry: 5\n\ndata: null\n\n"]) == [Frame(None)]


def test_json_may_stand_on_several_lines() -> None:
    assert read(SSE().decoder(), [b"data: [1,\ndata: 2]\n\n"]) == [Frame([1, 2])]


def test_long_data_is_cut_in_the_error() -> None:
    with pytest.raises(DecodeError) as raised:
        SSE().decoder().feed(b"data: %b\n\n" % (b"x" * 10_000))
    assert len(str(raised.value)) < 300


def test_the_bound_holds_for_a_log_s_events_too() -> None:
    with pytest.raises(FrameTooLarge):
        SSE().decoder(max_bytes=LIMIT).feed(b"data: " + b"1" * LIMIT)


def test_notices_are_told_by_their_names() -> None:
    frames = read(SSE().decoder(), [CASES["a farewell"].spelled])
    assert [read_notice(frame) for frame in frames] == [None, Farewell("slow", 250)]


# The events of any server, whose data may be JSON


@pytest.mark.parametrize("times", [1, 500])
@pytest.mark.parametrize(
    ("text", "data"), [("[1]", [1]), ("[1", "[1"), ("word", "word"), ("null", None), ("[DONE]", DONE), ("", "")]
)
def test_other_data_is_what_its_mark_stands_for_or_text(text: str, data: Any, times: int) -> None:
    decoder = SSEJSONDecoder(strict=False, marks={"[DONE]": DONE})
    assert decoder.feed(f"data: {text}\n\n".encode() * times) == [Frame(data)] * times


def test_a_delay_alone_is_told_apart_from_null() -> None:
    frames = SSEJSONDecoder(strict=False).feed(b"retry: 5\n\ndata: null\n\n")
    assert frames == [Frame(ONLY_RETRY, retry=5), Frame(None)]


# Writing

FORMATTED = [
    (format_sse("x"), b"data: x\n\n"),
    (format_sse(""), b"data: \n\n"),
    (format_sse("a\nb"), b"data: a\ndata: b\n\n"),
    (format_sse("a\r\nb\rc\n"), b"data: a\ndata: b\ndata: c\ndata: \n\n"),
    (format_sse("x", event="e", id="1", retry=0), b"id: 1\nevent: e\nretry: 0\ndata: x\n\n"),
    (format_sse("x", id=""), b"id: \ndata: x\n\n"),
    (format_sse(id="1"), b"id: 1\n\n"),
    (format_sse("é"), "data: é\n\n".encode()),
]


@pytest.mark.parametrize(("formatted", "expected"), FORMATTED)
def test_fields_are_written_in_lines(formatted: bytes, expected: bytes) -> None:
    assert formatted == expected


@given(
    st.text(st.characters(codec="utf-8")),
    st.none() | EVENT_NAMES,
    st.none() | ONE_LINE,
    st.none() | st.integers(0, 10**6),
    st.data(),
)
def test_what_is_formatted_is_read_back(
    text: str, event: str | None, id: str | None, retry: int | None, data: st.DataObject
) -> None:
    formatted = format_sse(text, event=event, id=id, retry=retry)
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert read(SSEDecoder(), data.draw(splits(formatted))) == [Frame(expected, event, id, retry)]


@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\0"])
@pytest.mark.parametrize("field", ["event", "id"])
def test_a_field_that_would_break_out_of_its_line_is_refused(field: str, break_: str) -> None:
    with pytest.raises(EventError, match=f"expected the SSE field '{field}' to be one line, but got "):
        format_sse("x", **{field: f"a{break_}data: injected"})  # type: ignore[arg-type]


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(EventError, match="expected retry to be at least 0 milliseconds, but got -1"):
        format_sse("x", retry=-1)


def test_a_delay_alone_is_refused_because_it_breaks_clients() -> None:
    with pytest.raises(EventError, match="expected retry to come with data, but got 5 alone"):
        format_sse(retry=5)


def test_a_ping_is_a_comment_without_a_blank_line() -> None:
    ping = SSE().encoder(STREAM, EPOCH, CREATED).ping
    assert ping.startswith(b":")
    assert ping.count(b"\n") == 1
    stream = b"id: 1\ndata: x\n\n" + ping + ping + b"id: 2\ndata: y\n\n" + ping
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    assert [sse.data for sse in EventSource(response).iter_sse()] == ["x", "y"]


def test_the_schema_names_the_fields_of_an_event() -> None:
    schema = SSE().item_schema({"type": "integer"})["itemSchema"]
    assert schema["required"] == ["data"]
    assert schema["properties"]["data"]["contentSchema"] == {"type": "integer"}


# Fast and slow

FIELDS = [
    *(
        "data: x",
        "data: y",
        "data:z",
        "data",
        "data:",
        "data: ",
        "data: data: x",
        "data: event: e",
        "data: \0",
        "data: é",
    ),
    *(
        "id: 1",
        "id: 2",
        "id:3",
        "id",
        "id: ",
        "id: \0",
        "id: event: e",
        "event: e",
        "event: f",
        "event:",
        "event: data: x",
    ),
    *("retry: 5", "retry: x", ": ping", ":", "Data: x", " data: x", "", "\ufeff"),
]
IN_ORDER = st.tuples(
    st.sampled_from([[], [], ["id: 1"], ["id: 2"], ["id: "]]),
    st.sampled_from([[], [], ["event: e"], ["event: f"]]),
    st.lists(st.sampled_from(["data: x", "data: y", "data: data: x", "data: event: e"]), min_size=1, max_size=3),
).map(lambda fields: [line for field in fields for line in field])
RUNS = st.lists(
    st.tuples(IN_ORDER | st.lists(st.sampled_from(FIELDS), max_size=5), st.sampled_from([1, 1, 2, 100])), max_size=4
)


def by_the_book(stream: bytes) -> list[Frame]:
    """Line by line, as the specification words it; and blocks with only a delay."""
    frames, data, last_id = [], list[str](), None
    event: str | None = None
    retry: int | None = None
    for line in re.split("\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf").decode())[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data or retry is not None:
                frames.append(Frame("\n".join(data) if data else None, event if data else None, last_id, retry))
            data, event, retry = [], None, None
        elif field == "data":
            data.append(value)
        elif field == "event":
            event = value or None
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "retry" and value.isdigit():
            retry = int(value)
    return frames


@given(RUNS, st.sampled_from(["\n", "\r", "\r\n"]), st.data())
def test_many_events_at_once_are_what_the_lines_say(
    runs: list[tuple[list[str], int]], line_end: str, data: st.DataObject
) -> None:
    stream = "".join(f"{line_end.join([*lines, ''])}{line_end}" * times for lines, times in runs).encode()
    expected = by_the_book(stream)
    assert read(SSEDecoder(), [stream]) == expected
    assert read(SSEDecoder(), data.draw(splits(stream))) == expected


def test_the_ends_of_two_events_make_no_line_together() -> None:
    stream = b"data: x\ndata:\n\n" * 200 + b"data: y\n\n" * 200
    assert SSEDecoder().feed(stream) == by_the_book(stream)


ALIKE = {
    "ids": "id: {n}\ndata: {n}\n\n",
    "data alone": "data: {n}\n\n",
    "names": "id: {n}\nevent: e{n}\ndata: {n}\n\n",
    "names without ids": "event: e\ndata: {n}\n\n",
}
STRANGERS = [
    "",
    "\n\n",
    "id: x\n\n",
    "id:y\ndata:1\n\n",
    "data: 1\nid: z\n\n",
    "id: \ndata: 2\n\n",
    "event: \ndata: 3\n\n",
    "id: w\ndata: event: v\nevent: u\n\n",
    "id: n\0l\ndata: 4\n\n",
    "data: 5\ndata: 6\n\n",
    ": ping\nid: t\ndata: 7\n\n",
    "id: s\nretry: 8\n\n",
    "retry: 9\n\n",
    "id: r\nevent: data: q\ndata: id: p\n\n",
    "id: o\ndata: \n\n",
]


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("block", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("place", [0, 50, 100])
def test_many_events_alike_are_read_as_each_would_be(block: str, stranger: str, place: int) -> None:
    blocks = [block.format(n=n) for n in range(100)]
    blocks.insert(place, stranger)
    together = SSEDecoder().feed("".join(blocks).encode())
    one_by_one = SSEDecoder()
    assert together == [frame for each in blocks for frame in one_by_one.feed(each.encode())]


def test_the_bad_one_of_many_events_is_named() -> None:
    blocks = [f"data: {n}\n\n" for n in range(200)] + ["data: {]\n\n"]
    with pytest.raises(DecodeError, match=r"but got '\{\]'"):
        SSE().decoder().feed("".join(blocks).encode())


@pytest.mark.parametrize("field", ["other: 2", "data:2", "id: 7"])
def test_many_events_with_a_field_behind_their_data_are_read_line_by_line(field: str) -> None:
    block = f"data: 1\n{field}\n\n".encode()
    assert SSEDecoder().feed(block * 200) == SSEDecoder().feed(block) * 200
