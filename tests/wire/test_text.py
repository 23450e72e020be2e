from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import DecodeError, Truncated
from tailrace.events import DONE, Entries, Entry, Outcome, Reset
from tailrace.wire.base import Frame
from tailrace.wire.text import Text
from tests.wire.cases import (
    CREATED,
    EPOCH,
    STREAM,
    WAYS,
    Case,
    byte_by_byte,
    entry,
    read,
    read_until_error,
    spell,
    splits,
)

CASES = {
    "a string": Case([entry(1, "hello")], b"hello", [Frame("hello")]),
    "an empty string": Case([entry(1, "")], b"", []),
    "strings join without anything between": Case([entry(1, "a "), entry(2, "b")], b"a b", [Frame("a b")]),
    "escapes are undone": Case([entry(1, 'a\n"\\\t\x00')], b'a\n"\\\t\x00', [Frame('a\n"\\\t\x00')]),
    "characters beyond ASCII": Case([entry(1, "é→😀\n")], "é→😀\n".encode(), [Frame("é→😀\n")]),
    "line separators are as they were": Case(
        [entry(1, "a\u2028\x85b")], "a\u2028\x85b".encode(), [Frame("a\u2028\x85b")]
    ),
    "names have no place": Case([entry(1, "a", "tick")], b"a", [Frame("a")]),
    "other data is a line of JSON": Case(
        [entry(1, {"left": 3}), entry(2, None), entry(3, 1.5), entry(4, ["é"])],
        '{"left":3}\nnull\n1.5\n["é"]\n'.encode(),
        [Frame('{"left":3}\nnull\n1.5\n["é"]\n')],
    ),
    "notices have no place": Case(
        [entry(1, "a"), Reset("ahead"), Outcome("error", "x", "y"), DONE], b"a", [Frame("a")]
    ),
}


def text(frames: list[Frame]) -> str:
    return "".join(frame.data for frame in frames)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_log_says_is_spelled(case: Case) -> None:
    assert spell(Text().encoder(STREAM, EPOCH, CREATED), case.said) == case.spelled


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_spelled_is_read(case: Case) -> None:
    assert read(Text().decoder(), [case.spelled]) == case.read


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cuts_change_nothing(case: Case, way: Any) -> None:
    assert text(read(Text().decoder(), way(case.spelled))) == case.spelled.decode()


def test_a_character_comes_when_it_is_whole() -> None:
    decoder = Text().decoder()
    assert [decoder.feed(byte) for byte in byte_by_byte("a😀é".encode())] == [
        [Frame("a")],
        [],
        [],
        [],
        [Frame("😀")],
        [],
        [Frame("é")],
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", [b"\xc3", b"\xf0\x9f", b"\xf0\x9f\x98"])
def test_bytes_that_stop_inside_a_character_are_truncated(cut: bytes, way: Any) -> None:
    frames, error = read_until_error(Text().decoder(), way(b"ab" + cut))
    assert text(frames) == "ab"
    assert isinstance(error, Truncated)
    assert str(error) == f"expected UTF-8 text, but got {cut!r}: unexpected end of data"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("invalid", [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\x80", b"\xc0\x80"])
def test_what_is_not_utf_8_is_a_decode_error(invalid: bytes, way: Any) -> None:
    _, error = read_until_error(Text().decoder(), way(b"ab" + invalid + b"cd"))
    assert type(error) is DecodeError
    assert str(error).startswith("expected UTF-8 text, but got b'")


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.data())
def test_any_strings_are_read_back_as_their_whole_at_any_splits(strings: list[str], data: st.DataObject) -> None:
    rows: list[Entry] = [entry(offset, string) for offset, string in enumerate(strings, 1)]
    spelled = Text().encoder(STREAM, EPOCH, CREATED).encode(Entries.of(rows))
    frames = read(Text().decoder(), data.draw(splits(spelled)))
    assert text(frames) == "".join(strings)
    assert all(frame.data for frame in frames)


def test_text_has_no_room_for_notices_or_pings() -> None:
    encoder = Text().encoder(STREAM, EPOCH, CREATED)
    assert not encoder.spells_notices
    assert encoder.ping == encoder.preamble == b""


def test_the_schema_is_a_string() -> None:
    assert Text().item_schema({"type": "integer"}) == {"schema": {"type": "string"}}
