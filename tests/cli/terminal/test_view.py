"""What a terminal has of a reply when it is over, whatever its size and however it came."""

from __future__ import annotations

import io

import pyte
import pytest
from rich.cells import cell_len
from rich.console import Console

from tailrace.blocks import PARSER
from tailrace.chat.models.demo import cut
from tailrace.chat.models.demo_parts import PARTS
from tailrace.cli.terminal.markdown import ChatMarkdown
from tailrace.cli.terminal.view import (
    LONGEST,
    ROWS,
    DumbView,
    JSONView,
    PlainView,
    Preview,
    TerminalView,
    last_rows,
    say,
    wraps_on_resize,
)
from tailrace.client import ChatObject

TEXT = "\n\n".join(part.text for part in PARTS)


def screen_after(columns: int, rows: int, words: float) -> list[str]:
    file = io.StringIO()
    view = TerminalView(Console(file=file, force_terminal=True, width=columns, height=rows))
    view.begin("session · model")
    for piece in cut(TEXT, words):
        view.piece(piece)
    view.end("end")
    screen = pyte.HistoryScreen(columns, rows, history=9000, ratio=0.5)
    pyte.Stream(screen).feed(file.getvalue().replace("\n", "\r\n"))
    lines = [*screen.history.top, *(screen.buffer[number] for number in range(rows))]
    return ["".join(line[column].data for column in range(columns)).rstrip() for line in lines]


def rows(file: io.StringIO, count: int) -> list[str]:
    """The first ones of the screen."""
    screen = pyte.Screen(60, 20)
    pyte.Stream(screen).feed(file.getvalue().replace("\n", "\r\n"))
    return [row.rstrip() for row in screen.display[:count]]


@pytest.mark.parametrize(("columns", "rows", "words"), [(81, 24, 4), (60, 24, 1), (40, 5, 3), (100, 3, 30)])
def test_the_screen_has_the_whole_reply_once(columns: int, rows: int, words: float) -> None:
    found = screen_after(columns, rows, words)
    while not found[-1]:
        found.pop()
    console = Console(width=min(columns - 1, 80))
    with console.capture() as capture:
        console.print(ChatMarkdown(PARSER.parse(TEXT)), crop=False)
    rendered = [line.rstrip() for line in capture.get().strip("\n").split("\n")]
    # Only code goes over the edge, where the terminal breaks it.
    broken = [
        line[begin : begin + columns].rstrip() for line in rendered for begin in range(0, len(line) or 1, columns)
    ]
    assert found == ["session · model", "", *broken, "", "end"]


def test_notes_stand_between_what_stays_and_what_is_drawn_again() -> None:
    file = io.StringIO()
    view = TerminalView(Console(file=file, force_terminal=True, width=60, height=20))
    view.note("before")
    view.begin("heading")
    view.piece("One.\n\nTwo and")
    view.note("lost\x1b[2J")
    view.piece(" three.")
    view.fail("failed: why")
    assert rows(file, 12) == [
        *("before", "heading", "", "One.", "", "lost␛[2J", "", "Two and three.", "", "failed: why", "", "")
    ]


def test_plain_text_has_each_line_break_once() -> None:
    out = io.StringIO()
    view = PlainView(out, io.StringIO())
    view.begin("heading")
    for piece in ("one\r", "\n", "two", "\r\n"):
        view.piece(piece)
    view.end("summary")
    assert out.getvalue() == "one\ntwo\n"


def test_json_has_nothing_but_objects() -> None:
    out, beside = io.StringIO(), io.StringIO()
    view = JSONView(out, beside)
    view.begin("a")
    view.piece("b")
    view.end("c")
    view.note("d")
    view.fail("e")
    assert (out.getvalue(), beside.getvalue()) == ("", "d\ne\n")


def test_what_is_waited_for_stands_last_until_something_comes() -> None:
    file = io.StringIO()
    view = TerminalView(Console(file=file, force_terminal=True, width=60, height=20))
    view.wait("attempt 1")
    assert rows(file, 2) == ["attempt 1", ""]
    view.begin("heading")
    view.piece("One")
    view.wait("attempt 2\x1b")
    assert rows(file, 5) == ["heading", "", "One", "attempt 2␛", ""]
    view.take(ChatObject(type="chunk"))
    view.piece(" two")
    assert rows(file, 4) == ["heading", "", "One two", ""]


def test_an_unfinished_item_stands_where_it_will_be() -> None:
    file = io.StringIO()
    view = TerminalView(Console(file=file, force_terminal=True, width=60, height=20))
    view.begin("heading")
    assert rows(file, 3) == ["heading", "", ""]
    view.wait("generating")
    assert rows(file, 4) == ["heading", "", "generating", ""]
    view.take(ChatObject(type="chunk"))
    view.piece("- one\n- two\n\n")
    assert rows(file, 5) == ["heading", "", "• one", "- two", ""]
    view.hide()
    assert rows(file, 5) == ["heading", "", "• one", "", ""]
    view.show()
    assert rows(file, 5) == ["heading", "", "• one", "- two", ""]


def test_sentences_are_broken_between_words() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=20, height=20)
    say(console, "one line\x1b that is too long for it", "red")
    view = TerminalView(console)
    view.note("a note that is too long")
    view.begin("a heading that is too long")
    assert rows(file, 8) == [
        *(
            "one line␛ that is",
            "too long for it",
            "a note that is too",
            "long",
            "a heading that is",
            "too long",
            "",
            "",
        )
    ]


def test_a_terminal_that_cannot_move_has_all_of_it_in_its_order() -> None:
    out = io.StringIO()
    view = DumbView(out, out)
    view.begin("heading")
    view.piece("**one**")
    view.wait("attempt 1")
    view.end("summary")
    view.begin("heading")
    view.hide()
    view.show()
    view.fail("failed")
    assert out.getvalue() == "heading\n**one**\nsummary\nheading\nfailed\n"


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


def preview(width: int = 40, height: int = 24, *, wraps: bool = True) -> tuple[Preview, Console]:
    console = Console(file=io.StringIO(), width=width, height=height)
    return Preview(console, wraps=wraps), console


def test_what_was_drawn_is_erased_once() -> None:
    drawn, _ = preview()
    assert drawn.erase() == ""
    assert drawn.draw("one\ntwo", 40) == "\none\ntwo"
    assert drawn.erase() == "\r\x1b[2A\x1b[J"
    assert drawn.erase() == ""
    low, _ = preview(height=4)
    assert low.draw("one\ntwo\nthree", 40) == "\nthree"


@pytest.mark.parametrize(("width", "wraps", "up"), [(40, True, 2), (20, True, 4), (19, True, 5), (19, False, 2)])
def test_the_height_of_what_was_drawn_is_measured_again(width: int, wraps: bool, up: int) -> None:
    drawn, console = preview(wraps=wraps)
    drawn.draw("語" * 19 + "\n" + "b" * 38, 40)
    console.width = width
    assert drawn.erase() == f"\r\x1b[{up}A\x1b[J"


def test_a_row_can_stand_below_it() -> None:
    drawn, _ = preview()
    assert drawn.draw("one", 40, below="attempt 1") == "\none\nattempt 1"
    assert drawn.erase() == "\r\x1b[2A\x1b[J"
    assert drawn.draw("", 4, below="attempt 1") == "\natte"
    assert drawn.draw("", 4, gap=False, below="attempt 1") == "atte"
    assert drawn.draw("\n", 40) == ""


def test_what_goes_on_stands_without_a_gap() -> None:
    drawn, _ = preview()
    assert drawn.draw("- two", 40, gap=False) == "- two"


@pytest.mark.parametrize(
    ("environment", "wraps"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-256color", "XTERM_VERSION": "XTerm(379)"}, False),
        ({"TERM": "linux"}, False),
        ({"TERM": "rxvt-unicode"}, False),
        ({"TERM": "screen-256color"}, False),
        ({"TERM": "screen-256color", "TMUX": "/tmp/tmux-0/default,1,0", "XTERM_VERSION": "XTerm(379)"}, True),
    ],
)
def test_most_terminals_wrap_again_when_they_are_resized(environment: dict[str, str], wraps: bool) -> None:
    assert wraps_on_resize(environment) is wraps
