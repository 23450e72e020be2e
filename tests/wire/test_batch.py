from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import DecodeError, FrameTooLarge, Truncated
from tailrace.events import DONE, Entries, Entry, Outcome
from tailrace.wire.base import Frame
from tailrace.wire.batch import Batch, document
from tests.wire.cases import CREATED, ENTRIES, EPOCH, STREAM, WAYS, at, entry, read, read_until_error, splits

# What the log holds, how it ended (None: not yet), the document, its frames.
CASES: dict[str, tuple[list[Entry], Outcome | None, bytes, list[Frame]]] = {
    "nothing, done": ([], DONE, b'{"data":[]}', [Frame({}, "done")]),
    "entries, done": (
        [entry(1, 1), entry(2, "é")],
        DONE,
        '{"data":[1,"é"]}'.encode(),
        [Frame(1), Frame("é"), Frame({}, "done")],
    ),
    "an end with a value": (
        [entry(1, 1)],
        Outcome("done", data={"tokens": 3}),
        b'{"data":[1],"outcome":{"state":"done","data":{"tokens":3}}}',
        [Frame(1), Frame({"data": {"tokens": 3}}, "done")],
    ),
    "names have no place": ([entry(1, 1, "tick")], DONE, b'{"data":[1]}', [Frame(1), Frame({}, "done")]),
    "an error": (
        [entry(1, None)],
        Outcome("error", "quota", "no more"),
        b'{"data":[null],"outcome":{"state":"error","code":"quota","message":"no more"}}',
        [Frame(None), Frame({"code": "quota", "message": "no more"}, "error")],
    ),
    "a cancellation": (
        [entry(1, 1)],
        Outcome("cancelled"),
        b'{"data":[1],"outcome":{"state":"cancelled"}}',
        [Frame(1), Frame({}, "cancelled")],
    ),
    "an open log": (
        [entry(1, 1), entry(2, 2)],
        None,
        b'{"data":[1,2],"cursor":"s1.e1.2"}',
        [Frame(1), Frame(2, None, at(2))],
    ),
    "an open log without entries": ([], None, b'{"data":[],"cursor":"s1.e1.0"}', []),
}


def spelled(entries: list[Entry], outcome: Outcome | None) -> bytes:
    encoder = Batch().encoder(STREAM, EPOCH, CREATED)
    data = encoder.encode(Entries.of(entries))
    return document(b"[" + data + b"]", outcome, at(entries[-1].offset if entries else 0))


@pytest.mark.parametrize(("entries", "outcome", "json_", "frames"), CASES.values(), ids=CASES)
def test_a_log_is_one_document(
    entries: list[Entry], outcome: Outcome | None, json_: bytes, frames: list[Frame]
) -> None:
    assert spelled(entries, outcome) == json_
    assert json.loads(json_)["data"] == [entry.data for entry in entries]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("entries", "outcome", "json_", "frames"), CASES.values(), ids=CASES)
def test_a_document_is_read(
    entries: list[Entry], outcome: Outcome | None, json_: bytes, frames: list[Frame], way: Any
) -> None:
    assert read(Batch().decoder(), way(json_)) == frames
    assert read(Batch().decoder(), way(b" \r\n" + json_ + b"\n")) == frames


def test_frames_come_with_the_end_of_the_document() -> None:
    decoder = Batch().decoder()
    assert decoder.feed(b'{"data":[1]}') == []
    assert decoder.close() == [Frame(1), Frame({}, "done")]


@pytest.mark.parametrize("way", WAYS)
def test_a_document_without_its_beginning_says_so_first(way: Any) -> None:
    json_ = document(b"[3]", None, at(3), at(2))
    assert read(Batch().decoder(), way(json_)) == [Frame({"count": 2}, "dropped", at(2)), Frame(3, None, at(3))]
    empty = document(b"[]", None, at(2), at(2))
    assert read(Batch().decoder(), way(empty)) == [Frame({"count": 2}, "dropped", at(2))]


@pytest.mark.parametrize("json_", [json_ for _, _, json_, _ in CASES.values()], ids=CASES)
def test_a_document_cut_anywhere_is_truncated(json_: bytes) -> None:
    for length in range(len(json_)):
        frames, error = read_until_error(Batch().decoder(), [json_[:length]])
        assert frames == []
        assert isinstance(error, Truncated), length


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("json_", "message"),
    [
        (b"<html>", "expected a JSON document, but got b'<html>'"),
        (b'{"data":[1]}x', "expected a JSON document, but got "),
        (b'{"data":[1]}{}', "expected a JSON document, but got "),
        (b'{"data":["\xff"]}', "expected a JSON document, but got "),
        (b"[1]", 'expected an object with a list as "data", but got [1]'),
        (b"null", 'expected an object with a list as "data", but got None'),
        (b"{}", 'expected an object with a list as "data", but got {}'),
        (b'{"data":{}}', 'expected an object with a list as "data", but got '),
        (b'{"data":[],"after":1}', 'expected a cursor as "after", but got 1'),
        (b'{"data":[],"after":"x"}', "expected a cursor as \"after\", but got 'x'"),
        (b'{"data":[],"cursor":1}', 'expected a string as "cursor", but got 1'),
        (b'{"data":[],"outcome":null}', 'expected an object with a "state" as "outcome", but got None'),
        (b'{"data":[],"outcome":{}}', 'expected an object with a "state" as "outcome", but got {}'),
        (b'{"data":[],"outcome":{"state":"tick"}}', 'expected an object with a "state" as "outcome", but got '),
        (b'{"data":[],"outcome":{"state":[]}}', 'expected an object with a "state" as "outcome", but got '),
    ],
)
def test_what_is_no_such_document_is_a_decode_error(json_: bytes, message: str, way: Any) -> None:
    frames, error = read_until_error(Batch().decoder(), way(json_))
    assert frames == []
    assert type(error) is DecodeError
    assert re.match(re.escape(message), str(error))


@given(ENTRIES, st.data())
def test_any_entries_are_read_back_at_any_splits(rows: list[Entry], data: st.DataObject) -> None:
    frames = read(Batch().decoder(), data.draw(splits(spelled(rows, DONE))))
    assert frames == [*(Frame(row.data) for row in rows), Frame({}, "done")]


@pytest.mark.parametrize("way", WAYS)
def test_a_document_beyond_the_bound_is_an_error_that_says_so(way: Any) -> None:
    _, error = read_until_error(Batch().decoder(max_bytes=16), way(b'{"data":[1,2,3,4]}'))
    assert isinstance(error, FrameTooLarge)
    assert (error.limit, error.size > 16) == (16, True)
    assert len(read(Batch().decoder(max_bytes=18), way(b'{"data":[1,2,3,4]}'))) == 5


def test_notices_stand_in_no_list() -> None:
    encoder = Batch().encoder(STREAM, EPOCH, CREATED)
    assert encoder.notice(DONE, at(1)) == b""


def test_a_document_is_no_stream_and_has_a_bound() -> None:
    assert not Batch.streaming
    assert Batch().max_bytes == 64 * 1024 * 1024
    assert Batch(max_bytes=9).max_bytes == 9
