from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tailrace.cli.terminal.formatting import aligned, count, duration, moment

ID = "93d405f7-897f-49e2-b6d9-ef2daa08de84"


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


@pytest.mark.parametrize(
    ("rows", "width", "expected"),
    [
        ([("One", "1"), ("Three", "")], 40, ["  One    1", "  Three"]),
        ([("Long", "word " * 8)], 34, ["  Long  word word word word word", "        word word word"]),
        ([("A long name", "word " * 4)], 30, ["  A long name", "    word word word word"]),
        ([("A long name", "word")], 19, ["  A long name  word"]),
        ([("Session", ID)], 40, ["  Session", f"    {ID}"]),
        ([("Session", ID)], 39, ["  Session", f"   {ID}"]),
        ([("Session", ID)], 20, ["  Session", ID]),
        ([("Session", ID)], 79, [f"  Session  {ID}"]),
    ],
)
def test_two_columns_whose_words_stay_whole(rows: list[tuple[str, str]], width: int, expected: list[str]) -> None:
    assert list(aligned(rows, width)) == expected
