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
from tailrace.cli.terminal.view import JSONView, PlainView, TerminalView

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
    screen = pyte.Screen(60, 20)
    pyte.Stream(screen).feed(file.getvalue().replace("\n", "\r\n"))
    assert [line.rstrip() for line in screen.display[:12]] == [
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
