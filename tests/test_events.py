from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, Field, computed_field
from pydantic_core import from_json

from tailrace.errors import EventError
from tailrace.events import (
    DONE,
    RESERVED,
    Entries,
    Entry,
    Event,
    Outcome,
    Result,
    check_event_name,
    encode_data,
    encode_event,
    escape_line_ends,
)
from tests.wire.cases import EVENT_NAMES, JSON_DATA, tagged


class Reading(BaseModel):
    value: float = Field(alias="v")


class Faulty(BaseModel):
    value: int = 1

    @computed_field
    def derived(self) -> int:
        raise RuntimeError("sensor lost")


@dataclass
class Point:
    x: int
    y: int


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def nested(depth: int) -> list[Any]:
    outer: list[Any] = []
    for _ in range(depth):
        outer = [outer]
    return outer


def failing() -> Iterator[int]:
    yield 1
    raise RuntimeError("sensor lost")


JSON_ABLE = [
    (None, b"null"),
    (1, b"1"),
    ("é", '"é"'.encode()),
    ("\x00\n", b'"\\u0000\\n"'),
    ("é\x85\u2028\u2029–\xa0", '"é\\u0085\\u2028\\u2029–\xa0"'.encode()),
    ({"\u2028": ["\\\u2028"]}, b'{"\\u2028":["\\\\\\u2028"]}'),
    (b"bytes", b'"bytes"'),
    (bytearray(b"bytes"), b'"bytes"'),
    (10**30, b"1" + b"0" * 30),
    ({"a": [1, None]}, b'{"a":[1,null]}'),
    ((1, 2), b"[1,2]"),
    (Reading(v=1.5), b'{"v":1.5}'),
    ([Reading(v=1.5)], b'[{"v":1.5}]'),
    (Point(1, 2), b'{"x":1,"y":2}'),
    (datetime(2026, 11, 1, tzinfo=UTC), b'"2026-11-01T00:00:00Z"'),
    (math.nan, b"null"),
    ([math.inf, -math.inf], b"[null,null]"),
    (Reading(v=math.nan), b'{"v":null}'),
]

NOT_JSON_ABLE = [
    (object(), "got object: "),
    (endless(), "got list: .*Circular reference"),
    (nested(100_000), "got list: "),
    ("\ud800", "got str: .*surrogates not allowed"),
    ({"\ud800": 1}, "got dict: "),
    (b"\xff", "got bytes: "),
    (Faulty(), "got Faulty: .*sensor lost"),
    (failing(), "got generator: .*sensor lost"),
    ({object(): 1}, "got dict: "),
]


@pytest.mark.parametrize(("data", "json"), JSON_ABLE)
def test_data_is_encoded_as_fastapi_does(data: object, json: bytes) -> None:
    assert encode_data(data) == json


@pytest.mark.parametrize(("data", "message"), NOT_JSON_ABLE, ids=[message for _, message in NOT_JSON_ABLE])
def test_data_that_is_not_json_able_is_refused_with_its_type_and_the_reason(data: object, message: str) -> None:
    with pytest.raises(EventError, match=f"expected JSON-able data, but {message}"):
        encode_data(data)


@given(JSON_DATA)
def test_any_json_data_is_read_back_from_its_entry(data: Any) -> None:
    assert Entry(1, None, encode_data(data)).data == data


@given(JSON_DATA)
def test_any_json_data_is_one_line_even_for_splitlines(data: Any) -> None:
    json = encode_data(data)
    assert len(json.decode().splitlines()) == 1
    assert escape_line_ends(json) is json


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        ("hello", (None, b'"hello"')),
        (Event("hello"), (None, b'"hello"')),
        (Event(Point(1, 2), "point"), ("point", b'{"x":1,"y":2}')),
        (Event[int](1, event="n"), ("n", b"1")),
        ({"data": 1, "event": "n"}, (None, b'{"data":1,"event":"n"}')),
        (None, (None, b"null")),
        (b"\xc3\xa9", (None, '"é"'.encode())),
        (memoryview(b"\xc3\xa9"), (None, '"é"'.encode())),
        (b"\xff", ("bytes", b'"/w=="')),
        (bytearray(b"\xff"), ("bytes", b'"/w=="')),
        (memoryview(b"\xff"), ("bytes", b'"/w=="')),
        (Event(b"\xff"), ("bytes", b'"/w=="')),
    ],
)
def test_an_item_is_an_event_or_bare_data(item: object, encoded: tuple[str | None, bytes]) -> None:
    assert encode_event(item) == encoded


def test_bytes_that_are_no_text_cannot_have_a_name_of_their_own() -> None:
    with pytest.raises(EventError, match="expected JSON-able data, but got bytes"):
        encode_event(Event(b"\xff", "image"))


def test_a_result_has_no_subclasses() -> None:
    with pytest.raises(TypeError, match="expected no subclass of Result, but got Statistics: put the value into"):
        type("Statistics", (Result,), {})


@pytest.mark.parametrize("name", ["tick", "a b", " a", "a:b", "é", "温度", "done!", "Done", "\u200d🙂"[1:]])
def test_a_printable_name_is_an_event_name(name: str) -> None:
    assert Event(1, name).event == name


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_notice_s_name_is_no_event_name(name: str) -> None:
    with pytest.raises(EventError, match=f"'{name}' is reserved for notices and bytes"):
        Event(1, name)


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\0b", "\t", "\x7f", "\u2028", "\ud800", "\ufeff", "\u200d"])
def test_a_name_that_is_empty_or_unprintable_is_refused(name: str) -> None:
    with pytest.raises(EventError, match="expected a printable event name on one line, but got "):
        check_event_name(name)


@given(EVENT_NAMES)
def test_any_printable_name_that_is_not_reserved_is_accepted(name: str) -> None:
    check_event_name(name)


@pytest.mark.parametrize(("value", "field"), [(Event(1), "data"), (DONE, "state"), (Entry(1, None, b"1"), "json")])
def test_an_event_an_entry_and_an_outcome_do_not_change(value: object, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, None)


def test_done_has_no_code_and_no_message() -> None:
    assert Outcome("done", None, None) == DONE


ROWS = [Entry(3, None, b"1"), Entry(4, "tick", b"2"), Entry(7, None, b"3")]


def test_entries_are_the_sequence_of_their_rows() -> None:
    entries = Entries.of(ROWS)
    assert len(entries) == 3
    assert list(entries) == ROWS
    assert entries[1] == ROWS[1]
    assert entries[-1] == ROWS[-1]
    assert ROWS[2] in entries
    with pytest.raises(IndexError):
        entries[3]


def test_a_slice_of_entries_is_entries() -> None:
    part = Entries.of(ROWS)[1:]
    assert isinstance(part, Entries)
    assert list(part) == ROWS[1:]


def test_entries_keep_a_range_of_offsets_when_sliced() -> None:
    part = Entries(range(1, 4), [b"1", b"2", b"3"])[1:]
    assert part.offsets == range(2, 4)


def test_the_places_of_entries_without_tags_are_their_offsets() -> None:
    entries = Entries.of(ROWS)
    assert entries.tags is None
    assert entries.spelled == [b"3", b"4", b"7"]


def test_the_places_of_entries_with_tags_have_the_tags() -> None:
    entries = tagged(ROWS, "Ab3d", "_-90xyzZ", "0000")
    assert entries.spelled == [b"3~Ab3d", b"4~_-90xyzZ", b"7~0000"]
    assert entries[1:].spelled == [b"4~_-90xyzZ", b"7~0000"]


@pytest.mark.parametrize("indices", [[], [0], [1], [2], [0, 2], [0, 1, 2]])
def test_picked_entries_are_the_rows_at_those_indices(indices: list[int]) -> None:
    plain, with_tags = Entries.of(ROWS), tagged(ROWS, "Ab3d", "_-90xyzZ", "0000")
    for entries in (plain, with_tags):
        picked = entries.pick(indices)
        assert list(picked) == [ROWS[index] for index in indices]
        assert picked.spelled == [entries.spelled[index] for index in indices]
    assert plain.pick(indices).tags is None


def test_a_part_of_a_batch_shares_no_bytes_with_it() -> None:
    entries = Entries.of(ROWS)
    entries.bodies["wire"] = b"all"
    assert entries[1:].bodies == entries.pick([0]).bodies == {}


def test_no_entries_are_false() -> None:
    assert not Entries.of([])
    assert Entries.of(ROWS)


def test_entries_show_their_rows() -> None:
    assert repr(Entries.of(ROWS[1:2])) == "Entries([Entry(offset=4, event='tick', json=b'2')])"


def test_data_is_decoded_at_access() -> None:
    entry = Entry(1, None, b"not JSON")
    with pytest.raises(ValueError, match="expected ident"):
        _ = entry.data
    assert from_json(b"[1]") == Entry(1, None, b"[1]").data
