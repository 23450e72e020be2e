from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tailrace.cli.text import SafeStream, count, duration, moment, safe, safe_json, safe_line

CASES = {
    "plain": ("ein Wörtchen\n\tא 語 👩‍👩‍👧", "ein Wörtchen\n\tא 語 👩‍👩‍👧"),
    "escape": ("\x1b[2J\x1b]0;t\x07", "␛[2J␛]0;t␇"),
    "controls": ("\0\b\x7f\x9b\x85", "␀␈␡��"),
    "returns": ("a\r\nb\rc\r\r\n\n", "a\nb\nc\n\n\n"),
    "reversed": ("\u202eabc\u2066", "�abc�"),
    "lines": ("a\u2028b\u2029", "a\nb\n"),
    "halves": ("\ud83d", "�"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_nothing_is_left_that_a_terminal_obeys(text: str, expected: str) -> None:
    assert safe(text) == expected
    for cut in range(len(text) + 1):
        stream = SafeStream()
        assert stream.feed(text[:cut]) + stream.feed("") + stream.feed(text[cut:]) == expected


def test_a_line_stays_one() -> None:
    assert safe_line("a\nb\tc\r\u2028d\x1b") == "a b c␍ d␛"


def test_json_stays_what_it_is() -> None:
    value = {"text": "ä\x9b\u202e\x7f\u2028"}
    line = safe_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(line) == value
    assert line == '{"text": "ä\\u009b\\u202e\\u007f\\u2028"}'


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7_500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(("number", "expected"), [(0, "0 chunks"), (1, "1 chunk"), (2, "2 chunks")])
def test_one_is_singular(number: int, expected: str) -> None:
    assert count(number, "chunk") == expected


def test_a_moment_is_in_the_users_own_time() -> None:
    at = datetime(2026, 11, 21, 15, 43, 48, tzinfo=UTC)
    assert moment(at) == moment(at.replace(tzinfo=None)) == at.astimezone().strftime("%Y-%m-%d %H:%M")
