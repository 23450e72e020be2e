"""What a terminal has of a reply when it is over, whatever its size and however it came."""

from __future__ import annotations

import io

import pyte
import pytest
from rich.console import Console

from tailrace.chat.models.demo import cut
from tailrace.chat.models.demo_parts import PARTS
from tailrace.cli.terminal.blocks import PARSER
from tailrace.cli.terminal.markdown import ChatMarkdown
from tailrace.cli.terminal.view import DumbView, JSONView, PlainView, TerminalView, say
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
    assert rows(file, 2) == ["… attempt 1", ""]
    view.begin("heading")
    view.piece("One")
    view.wait("attempt 2\x1b")
    assert rows(file, 5) == ["heading", "", "One", "… attempt 2␛", ""]
    view.take(ChatObject(type="chunk"))
    view.piece(" two")
    assert rows(file, 4) == ["heading", "", "One two", ""]


def test_an_unfinished_item_stands_where_it_will_be() -> None:
    file = io.StringIO()
    view = TerminalView(Console(file=file, force_terminal=True, width=60, height=20))
    view.begin("heading")
    assert rows(file, 4) == ["heading", "", "…", ""]
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
            "…",
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
