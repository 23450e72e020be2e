from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.console import Console

from tailrace.cli.terminal.preview import LONGEST, ROWS, Preview, last_rows


@pytest.mark.parametrize("width", [1, 2, 9, 79])
def test_rows_fit(width: int) -> None:
    text = "A long line of words, 日本語 and averyveryverylongword.\n\tindented\n" * 9
    for end in range(0, len(text), 7):
        rows = last_rows(text[:end], width, ROWS, Console(width=80))
        assert len(rows) <= ROWS
        assert all(cell_len(row) <= max(2, width) for row in rows)


def test_rows_are_the_last_ones() -> None:
    assert last_rows("a\nb\n\nc d\n", 2, 3, Console()) == ["", "c", "d"]
    assert last_rows("x" * 3 * LONGEST, 10, 2, Console()) == ["xxxxxxxxxx", "xx"]


def test_what_was_drawn_is_erased_once() -> None:
    preview = Preview(Console())
    assert preview.erase() == ""
    assert preview.draw("one\ntwo", 40, 24) == "\none\ntwo"
    assert preview.erase() == "\r\x1b[2A\x1b[J"
    assert preview.erase() == ""
    assert preview.draw("one\ntwo\nthree", 40, 4) == "\nthree"


def test_a_row_can_stand_below_it() -> None:
    preview = Preview(Console())
    assert preview.draw("one", 40, 24, below="attempt 1") == "\none\nattempt 1"
    assert preview.erase() == "\r\x1b[2A\x1b[J"
    assert preview.draw("", 4, 24, below="attempt 1") == "atte"
    assert preview.draw("\n", 40, 24) == ""


def test_what_goes_on_stands_without_a_gap() -> None:
    assert Preview(Console()).draw("- two", 40, 24, gap=False) == "- two"
