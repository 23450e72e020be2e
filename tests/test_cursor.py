from __future__ import annotations

import re
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.cursor import ONLY_EPOCH, STREAM_ID_PATTERN, Cursor, is_cursor, new_epoch, new_stream_id, stream_token
from tailrace.errors import CursorError
from tests.wire.cases import TAGS

TOKENS = [
    ("s.e.0", Cursor("s", "e", 0)),
    ("s.e.7", Cursor("s", "e", 7)),
    ("s.e.7.end", Cursor("s", "e", 7, ended=True)),
    ("A-z_0~9.A-z_0.999999999999999", Cursor("A-z_0~9", "A-z_0", 999_999_999_999_999)),
    ("s.e.7~Ab3d", Cursor("s", "e", 7, tag="Ab3d")),
    ("s.e.7~A-z_0123.end", Cursor("s", "e", 7, ended=True, tag="A-z_0123")),
    ("s~1234.e.0~4321", Cursor("s~1234", "e", 0, tag="4321")),
]

MALFORMED = [
    "",
    "s",
    "s.e",
    "s.e.",
    ".e.1",
    "s..1",
    "s.e.-1",
    "s.e.+1",
    "s.e.01",  # one place has one token
    "s.e.1 ",
    " s.e.1",
    "s.e.1\n",
    "s.e.1.END",
    "s.e.1.end.end",
    "s.e.1.2",
    "s.e.x",
    "s.e.1_0",
    "s.e.٣",  # a digit, but not an ASCII one
    "é.e.1",
    "s/t.e.1",
    "s.e.1000000000000000",  # more digits than JavaScript holds exactly
    "s" * 129 + ".e.1",
    "s." + "e" * 33 + ".1",
    "s.e.1\0",
    "%73.e.1",
    "s.e.1~",
    "s.e.1~abc",
    "s.e.1~abcdefghi",
    "s.e.1~ab~cd",
    "s.e.1~abcd~efgh",
    "s.e.1~abc.",
    "s.e.1.end~abcd",
    "s.e.1~abçd",
    "s.e.~abcd",
    "s.e~abcd.1",
]

PLAIN = st.text("ABCxyz019_-", min_size=1, max_size=32)


@pytest.mark.parametrize(("token", "cursor"), TOKENS)
def test_a_token_and_its_cursor_name_the_same_place(token: str, cursor: Cursor) -> None:
    assert Cursor.parse(token) == cursor
    assert str(cursor) == token


@pytest.mark.parametrize("token", MALFORMED)
def test_a_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(CursorError, match=re.escape("expected a cursor like <stream>.<epoch>.<offset>")) as raised:
        Cursor.parse(token)
    assert raised.value.token == token


@given(PLAIN, PLAIN, st.integers(0, 10**15 - 1), st.booleans(), st.just("") | TAGS)
def test_every_cursor_is_read_back(stream: str, epoch: str, offset: int, ended: bool, tag: str) -> None:
    cursor = Cursor(stream, epoch, offset, ended, tag)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text())
def test_any_text_is_a_cursor_or_an_error(token: str) -> None:
    try:
        cursor = Cursor.parse(token)
    except CursorError:
        assert not is_cursor(token)
    else:
        assert str(cursor) == token
        assert is_cursor(token)


def test_a_cursor_does_not_change() -> None:
    cursor = Cursor("s", "e", 1)
    with pytest.raises(FrozenInstanceError):
        cursor.offset = 2  # type: ignore[misc]


def test_new_epochs_and_streams_differ_and_fit_into_cursors() -> None:
    for new in (new_epoch, new_stream_id):
        names = [new() for _ in range(100)]
        assert len(set(names)) == 100
        assert all(Cursor.parse(f"{name}.{name}.1").stream == name for name in names)


def test_an_epoch_has_six_characters_and_the_only_one_of_a_stream_has_one() -> None:
    assert all(re.fullmatch("[A-Za-z0-9_-]{6}", new_epoch()) for _ in range(100))
    assert str(Cursor("s", ONLY_EPOCH, 7)) == "s.0.7"


def test_a_new_stream_id_has_the_published_pattern() -> None:
    assert all(re.fullmatch(STREAM_ID_PATTERN, new_stream_id()) for _ in range(100))


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("news", "news"),
        ("rooms/lobby", "lobby"),
        ("a/b/c~1", "c~1"),
        ("x" * 128, "x" * 128),
    ],
)
def test_the_last_segment_of_a_name_is_its_token(name: str, token: str) -> None:
    assert stream_token(name) == token


@pytest.mark.parametrize("name", ["", "rooms/", "über", "a b", "a.b", "x" * 129, "rooms/a.b", "a\n"])
def test_a_name_that_is_not_url_safe_gets_a_digest_for_its_token(name: str) -> None:
    token = stream_token(name)
    assert re.fullmatch("[A-Za-z0-9_-]{22}", token)
    assert token == stream_token(name)
    assert token != stream_token(name + "x.")


@given(st.text())
def test_every_name_has_a_token_that_cursors_can_carry(name: str) -> None:
    token = stream_token(name)
    assert Cursor.parse(f"{token}.e.1").stream == token
