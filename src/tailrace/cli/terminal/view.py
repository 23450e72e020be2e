"""Where a conversation is shown: a terminal, or a pipe that gets plain text."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text
from rich.theme import Theme

from .preview import WIDTH, Preview
from .safe import SafeStream, safe_json, safe_line

if TYPE_CHECKING:
    from ...client import ChatObject
    from .blocks import Block, Blocks

WAITING = "…"


class View(ABC):
    """`begin`, then pieces and notes in any order, then `end`. What it is given may be any text."""

    @abstractmethod
    def begin(self, heading: str) -> None:
        """A reply begins."""

    @abstractmethod
    def piece(self, text: str) -> None:
        """Some more of the reply's text."""

    @abstractmethod
    def note(self, line: str) -> None:
        """Something has happened that the reader should know."""

    @abstractmethod
    def wait(self, line: str) -> None:
        """What is waited for, until something comes."""

    @abstractmethod
    def end(self, summary: str) -> None:
        """The reply is over, or what there is of it."""

    @abstractmethod
    def fail(self, summary: str) -> None:
        """The same, but something went wrong; perhaps before a reply began."""

    def hide(self) -> None:
        """Leave the terminal to others."""
        return

    def show(self) -> None:
        """Have it again, wherever the cursor is now."""
        return

    @abstractmethod
    def take(self, each: ChatObject) -> None:
        """An object as the server has sent it, before anything else is made of it."""


class TerminalView(View):
    """Finished blocks are printed once; below them is the end of what is not finished, which is drawn again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._preview = Preview(console)
        self._text = SafeStream()
        self._blocks: Blocks | None = None
        self._waits_for = ""

    def take(self, each: ChatObject) -> None:
        self._waits_for = ""

    def begin(self, heading: str) -> None:
        # Only here, because a prompt should not have to wait for it.
        from .blocks import Blocks

        self._text = SafeStream()
        self._blocks = Blocks()
        self._write(self._wrapped(heading, "dim"))

    def piece(self, text: str) -> None:
        assert self._blocks is not None
        self._write(self._lines(self._blocks.feed(self._text.feed(text))))

    def note(self, line: str) -> None:
        gap: list[list[Segment]] = [] if self._blocks is None else [[]]
        self._write([*gap, *self._wrapped(line, "yellow")])

    def wait(self, line: str) -> None:
        self._waits_for = f"{WAITING} {safe_line(line)}"
        self._write([])

    def end(self, summary: str) -> None:
        self._end(summary, "dim")

    def fail(self, summary: str) -> None:
        self._end(summary, "red")

    def hide(self) -> None:
        self._console.file.write(self._preview.erase())
        self._console.file.flush()

    def show(self) -> None:
        self._write([])

    def _end(self, summary: str, style: str) -> None:
        lines = [] if self._blocks is None else [*self._lines(self._blocks.flush()), []]
        self._blocks = None
        self._waits_for = ""
        self._write([*lines, *self._wrapped(summary, style), []])

    def _lines(self, blocks: Iterable[Block]) -> list[list[Segment]]:
        from .markdown import render

        lines: list[list[Segment]] = []
        for block in blocks:
            rendered = render(block.tokens, self._console, self._width)
            if rendered and not block.goes_on:
                lines.append([])
            lines += rendered
        return lines

    def _wrapped(self, line: str, style: str) -> list[list[Segment]]:
        wrapped = Text(safe_line(line), style=style).wrap(self._console, self._width)
        return [list(each.render(self._console)) for each in wrapped]

    def _write(self, lines: Sequence[list[Segment]]) -> None:
        """What stays, and below it the rest; all at once, so that nothing flickers."""
        out = self._preview.erase()
        if lines:
            segments = [segment for line in lines for segment in (*line, Segment.line())]
            with self._console.capture() as capture:
                self._console.print(Segments(segments), crop=False, end="")
            out += capture.get()
        pending, gap = "", True
        if self._blocks is not None:
            pending = self._blocks.pending if self._blocks.pending.strip() else WAITING
            gap = pending == WAITING or not self._blocks.goes_on
        out += self._preview.draw(pending, self._width, self._console.height, gap=gap, below=self._waits_for)
        self._console.file.write(out)
        self._console.file.flush()

    @property
    def _width(self) -> int:
        return min(self._console.width - 1, WIDTH)


class PlainView(View):
    """The text as it comes, without anything else; what happens is said beside it."""

    def __init__(self, out: TextIO, beside: TextIO) -> None:
        self._out = out
        self._beside = beside
        self._text = SafeStream()
        self._in_line = False

    def take(self, each: ChatObject) -> None: ...

    def begin(self, heading: str) -> None:
        self._text = SafeStream()

    def piece(self, text: str) -> None:
        if text := self._text.feed(text):
            self._out.write(text)
            self._out.flush()
            self._in_line = not text.endswith("\n")

    def note(self, line: str) -> None:
        print(safe_line(line), file=self._beside, flush=True)

    def wait(self, line: str) -> None: ...

    def end(self, summary: str) -> None:
        if self._in_line:
            self._out.write("\n")
            self._out.flush()
            self._in_line = False

    def fail(self, summary: str) -> None:
        self.end(summary)
        self.note(summary)


class DumbView(PlainView):
    """The same with a heading and a summary, on a terminal that cannot even move its cursor."""

    def begin(self, heading: str) -> None:
        super().begin(heading)
        self.note(heading)

    def end(self, summary: str) -> None:
        super().end(summary)
        self.note(summary)

    def fail(self, summary: str) -> None:
        self.end(summary)


class JSONView(View):
    """The objects as they come, one a line; what happens beside them is said beside."""

    def __init__(self, out: TextIO, beside: TextIO) -> None:
        self._out = out
        self._beside = beside

    def take(self, each: ChatObject) -> None:
        members = each.model_dump(mode="json", exclude_unset=True)
        line = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
        print(safe_json(line), file=self._out, flush=True)

    def note(self, line: str) -> None:
        print(safe_line(line), file=self._beside, flush=True)

    def begin(self, heading: str) -> None: ...
    def piece(self, text: str) -> None: ...
    def wait(self, line: str) -> None: ...
    def end(self, summary: str) -> None: ...
    def fail(self, summary: str) -> None:
        self.note(summary)


THEME = Theme(
    {
        **{f"markdown.h{level}": "bold underline" if level < 3 else "bold" for level in range(1, 7)},
        "markdown.code": "cyan",
        "markdown.block_quote": "none",
        "markdown.item.bullet": "cyan",
        "markdown.link": "cyan",
        "markdown.link_url": "dim",
    }
)
"""One accent, and no backgrounds, which would not fit half of all terminals."""


def make_console() -> Console:
    """What is written to the output, as far as it can show it."""
    return Console(highlight=False, theme=THEME)


def view_for(console: Console) -> View:
    """The one that can be shown there."""
    if not console.is_terminal:
        return PlainView(sys.stdout, sys.stderr)
    return DumbView(sys.stdout, sys.stdout) if console.is_dumb_terminal else TerminalView(console)


def say(console: Console, line: str, style: str = "") -> None:
    """One line, whatever its words, and as many rows as it takes."""
    for row in Text(safe_line(line), style=style).wrap(console, max(1, console.width - 1)):
        console.print(row, soft_wrap=True)
