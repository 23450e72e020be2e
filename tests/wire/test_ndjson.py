from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import DecodeError, FrameTooLarge, Truncated
from tailrace.events import Entry, Outcome
from tailrace.wire.base import Frame, read_notice
from tailrace.wire.ndjson import NDJSON, LinesDecoder, NDJSONEncoder
from tests.wire.cases import (
    CREATED,
    ENTRIES,
    EPOCH,
    JSON_DATA,
    STREAM,
    WAYS,
    Case,
    at,
    byte_by_byte,
    cases,
    entry,
    read,
    read_until_error,
    spell,
    splits,
    tagged,
)

CASES = cases(
    {
        "bare data": b'{"id":"s1.e1.1","data":{"left":3}}\n',
        "a named event": b'{"id":"s1.e1.2","event":"greeting","data":"hi"}\n',
        "null": b'{"id":"s1.e1.1","data":null}\n',
        "text with line ends": b'{"id":"s1.e1.1","data":"a\\r\\nb"}\n',
        "text beyond ASCII": '{"id":"s1.e1.1","event":"名","data":"é\\u2028\\u0085😀"}\n'.encode(),
        "entries, then done": b'{"id":"s1.e1.1","data":1}\n'
        b'{"id":"s1.e1.2","data":2}\n'
        b'{"id":"s1.e1.2.end","event":"done","data":{}}\n',
        "an end with a value": b'{"id":"s1.e1.0.end","event":"done","data":{"data":{"tokens":3}}}\n',
        "an error": b'{"id":"s1.e1.1","data":1}\n'
        b'{"id":"s1.e1.1.end","event":"error","data":{"code":"quota","message":"no\\nmore"}}\n',
        "a cancellation": b'{"id":"s1.e1.0.end","event":"cancelled","data":{"code":"stopped"}}\n',
        "a reset": b'{"id":"s1.e1.0","event":"reset","data":{"reason":"trimmed"}}\n',
        "a farewell": b'{"id":"s1.e1.5","data":1}\n'
        b'{"id":"s1.e1.5","event":"farewell","data":{"reason":"slow","retry":250},"retry":250}\n',
        "a replacement": b'{"id":"s1.e1.0","event":"farewell","data":{"reason":"replaced","retry":0},"retry":0}\n',
        "dropped entries": b'{"id":"s1.e1.0","event":"dropped","data":{"count":3}}\n{"id":"s1.e1.4","data":1}\n',
        "a store out of reach": (
            b'{"id":"s1.e1.1","data":1}\n'
            b'{"id":"s1.e1.1","event":"degraded","data":{"degraded":true}}\n'
            b'{"id":"s1.e1.1","event":"degraded","data":{"degraded":false}}\n'
            b'{"id":"s1.e1.2","data":2}\n'
        ),
    }
) | {
    "a name with quotes": Case(
        [entry(2, 1, '"a\\')], b'{"id":"s1.e1.2","event":"\\"a\\\\","data":1}\n', [Frame(1, '"a\\', at(2))]
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_log_says_is_spelled(case: Case) -> None:
    assert spell(NDJSON().encoder(STREAM, EPOCH, CREATED), case.said) == case.spelled


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_line_is_json_to_anybody(case: Case) -> None:
    lines = case.spelled.decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["data"] for line in lines] == [frame.data for frame in case.read]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_spelled_is_read(case: Case, way: Any) -> None:
    assert read(NDJSON().decoder(), way(case.spelled)) == case.read


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("old", "new"), [(b"\n", b"\r\n"), (b"\n", b"\n\n\r\n \n"), (b"\n", b" \t\n"), (b'{"id', b' {"id')]
)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_blank_lines_and_white_space_change_nothing(case: Case, old: bytes, new: bytes, way: Any) -> None:
    assert read(NDJSON().decoder(), way(case.spelled.replace(old, new))) == case.read


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_last_line_may_lack_its_end(case: Case, way: Any) -> None:
    assert read(NDJSON().decoder(), way(case.spelled.removesuffix(b"\n"))) == case.read


@pytest.mark.parametrize("garbage", [b"\0", b"{", b'{"id":"s1.e1.9","da', b"\xff", b"<html>", b'"cut', b"nul", b"{}x"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bytes_that_stop_inside_a_line_are_truncated(case: Case, way: Any, garbage: bytes) -> None:
    frames, error = read_until_error(NDJSON().decoder(), way(case.spelled + garbage))
    assert frames == case.read
    assert isinstance(error, Truncated)
    assert str(error).startswith(f"expected a whole line of JSON at the end, but got {garbage!r}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"<html>", "expected a line of JSON, but got b'<html>'"),
        (b'{"data":1', "expected a line of JSON, but got "),
        (b'{"data":1}}', "expected a line of JSON, but got "),
        (b'{"data":"\xff"}', "expected a line of JSON, but got "),
        (b"\xef\xbb\xbf{}", "expected a line of JSON, but got "),
        (b"[" * 1000, "expected a line of JSON, but got "),
        (b"1", 'expected an object with "data", but got 1'),
        (b"null", 'expected an object with "data", but got None'),
        (b'{"id":"1"}', 'expected an object with "data", but got {'),
        (b'{"data":1,"id":1}', 'expected "event" and "id" to be strings'),
        (b'{"data":1,"event":[]}', 'expected "event" and "id" to be strings'),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_a_line_that_is_no_frame_is_a_decode_error(line: bytes, message: str, way: Any) -> None:
    frames, error = read_until_error(NDJSON().decoder(), way(b"\n" + line + b'\n{"data":1}\n'))
    assert frames == []
    assert type(error) is DecodeError
    assert re.match(re.escape(message), str(error))
    assert len(str(error)) < 300


@given(ENTRIES, st.data())
def test_any_entries_are_read_back_at_any_splits(rows: list[Entry], data: st.DataObject) -> None:
    spelled = spell(NDJSONEncoder(STREAM, EPOCH), rows)
    frames = read(NDJSON().decoder(), data.draw(splits(spelled)))
    assert frames == [Frame(row.data, row.event, at(row.offset)) for row in rows]


TAGGED = tagged([entry(1, 1), entry(2, 2, "tick"), entry(4, 3)], "Ab3d", "_-90xyzZ", "0000")


def test_a_tag_is_a_part_of_the_id() -> None:
    encoder = NDJSON().encoder(STREAM, EPOCH, CREATED)
    spelled = (
        b'{"id":"s1.e1.1~Ab3d","data":1}\n'
        b'{"id":"s1.e1.2~_-90xyzZ","event":"tick","data":2}\n'
        b'{"id":"s1.e1.4~0000","data":3}\n'
    )
    assert encoder.encode(TAGGED) == spelled
    assert read(NDJSON().decoder(), [spelled]) == [
        Frame(1, None, "s1.e1.1~Ab3d"),
        Frame(2, "tick", "s1.e1.2~_-90xyzZ"),
        Frame(3, None, "s1.e1.4~0000"),
    ]


@given(
    st.binary(max_size=100) | st.lists(st.sampled_from([b'{"data":1}', b"\n", b"\r", b"x", b" "])).map(b"".join),
    st.data(),
)
def test_any_bytes_at_all_are_frames_or_a_decode_error_however_they_are_cut(stream: bytes, data: st.DataObject) -> None:
    frames, error = read_until_error(NDJSON().decoder(), byte_by_byte(stream))
    in_pieces, same_error = read_until_error(NDJSON().decoder(), data.draw(splits(stream)))
    assert type(same_error) is type(error)
    # What came in one piece with the error is lost with it.
    assert in_pieces == frames if error is None else in_pieces == frames[: len(in_pieces)]


@given(st.lists(JSON_DATA), st.data())
def test_lines_of_any_json_are_read_as_values(values: list[Any], data: st.DataObject) -> None:
    stream = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    lines = LinesDecoder()
    assert read(lines, data.draw(splits(stream))) == list(map(Frame, values))
    assert lines.close() == []


LIMIT = 32


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", [b"", b"\n", b'\n{"data":1}\n'])
def test_a_line_beyond_the_bound_is_an_error_that_says_so(end: bytes, way: Any) -> None:
    frames, error = read_until_error(NDJSON().decoder(max_bytes=LIMIT), way(b'{"data":"%b"}' % (b"x" * LIMIT) + end))
    assert frames == []
    assert isinstance(error, FrameTooLarge)
    assert error.limit == LIMIT < error.size


@pytest.mark.parametrize("way", WAYS)
def test_a_line_as_large_as_the_bound_is_read(way: Any) -> None:
    text = "x" * (LIMIT - len('{"data":""}'))
    assert read(NDJSON().decoder(max_bytes=LIMIT), way(b'{"data":"%b"}\n' % text.encode() * 3)) == [Frame(text)] * 3


def test_a_ping_is_a_blank_line_and_pings_are_not_gathered() -> None:
    ping = NDJSON().encoder(STREAM, EPOCH, CREATED).ping
    assert ping == b"\n"
    decoder = NDJSON().decoder(max_bytes=LIMIT)
    assert [frame for _ in range(1000) for frame in decoder.feed(ping)] == []
    assert decoder.feed(b'{"data":1}\n') == [Frame(1)]


def test_lines_can_be_read_again_after_the_end() -> None:
    lines = LinesDecoder()
    assert lines.feed(b"1\n2") == [Frame(1)]
    assert lines.close() == [Frame(2)]
    assert lines.close() == []


def test_notices_are_told_by_their_names() -> None:
    frames = read(NDJSON().decoder(), [CASES["an error"].spelled])
    assert [read_notice(frame) for frame in frames] == [None, Outcome("error", "quota", "no\nmore")]


def test_the_schema_is_that_of_a_line() -> None:
    schema = NDJSON().item_schema({"type": "integer"})["itemSchema"]
    assert schema["required"] == ["id", "data"]
    assert schema["properties"]["data"] == {"type": "integer"}
