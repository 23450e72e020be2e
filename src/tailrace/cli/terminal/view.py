"""Show a conversation on a terminal, or write it to a pipe as plain text or JSON."""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.cells import chop_cells
from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text
from rich.theme import Theme

from ..text import SafeStream, safe_json, safe_line

if TYPE_CHECKING:
    from ...blocks import Block, Blocks
    from ...client import ChatObject

WIDTH = 80
"""The most columns of text, because longer lines are harder to read."""

ROWS = 6
"""The most rows of unfinished text to show."""

LONGEST = 8192
"""The most characters to process at the end of an unfinished text, however long it is."""


class View(ABC):
    """Shows replies: `begin`, then pieces and notes in any order, then `end` or `fail`. Any text is safe to show."""

    @abstractmethod
    def begin(self, heading: str) -> None:
        """Show that a reply begins."""

    @abstractmethod
    def piece(self, text: str) -> None:
        """Show more of the reply's text."""

    @abstractmethod
    def note(self, line: str) -> None:
        """Show a line that the user should know."""

    @abstractmethod
    def wait(self, line: str) -> None:
        """Show what the user waits for, until the next object comes."""

    @abstractmethod
    def end(self, summary: str) -> None:
        """Show that the reply is over."""

    @abstractmethod
    def fail(self, summary: str) -> None:
        """Show that the reply failed, perhaps before it began."""

    def hide(self) -> None:
        """Clear the way for another program on the terminal."""
        return

    def show(self) -> None:
        """Use the terminal again, wherever the cursor is now."""
        return

    @abstractmethod
    def take(self, each: ChatObject) -> None:
        """Take an object as the server sent it, before other calls show its contents."""


class TerminalView(View):
    """Prints each block once, when it is finished, and keeps redrawing the end of the unfinished text below.

    So printed text never moves, and the cost does not grow with the length of the reply.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._preview = Preview(console)
        self._text = SafeStream()
        self._blocks: Blocks | None = None
        self._waits_for = ""

    def take(self, each: ChatObject) -> None:
        self._waits_for = ""

    def begin(self, heading: str) -> None:
        # Import it here, because a command should not wait for it.
        from ...blocks import Blocks

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
        self._waits_for = safe_line(line)
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
        """Print lines and draw the preview below them. Use one write, so that nothing flickers."""
        out = self._preview.erase()
        if lines:
            segments = [segment for line in lines for segment in (*line, Segment.line())]
            with self._console.capture() as capture:
                self._console.print(Segments(segments), crop=False, end="")
            out += capture.get()
        pending = "" if self._blocks is None else self._blocks.pending
        gap = self._blocks is not None and not self._blocks.goes_on
        out += self._preview.draw(pending, self._width, gap=gap, below=self._waits_for)
        self._console.file.write(out)
        self._console.file.flush()

    @property
    def _width(self) -> int:
        return min(self._console.width - 1, WIDTH)


class Preview:
    """Rows below the printed lines that can be erased. Its methods return the text to write to the terminal.

    Each row ends before the edge of the terminal. When a terminal becomes narrower, it usually wraps these rows, so
    there are more rows to erase. Some terminals cut them off instead. They cannot be asked, so `wraps` tells which.
    """

    def __init__(self, console: Console, *, wraps: bool | None = None) -> None:
        self._console = console
        self._wraps = wraps_on_resize(os.environ) if wraps is None else wraps
        self._drawn: list[str] = []

    def erase(self) -> str:
        """Erase the rows, and return to the place where they began."""
        if not self._drawn:
            return ""
        columns = self._console.width
        height = sum(len(chop_cells(row, columns)) or 1 for row in self._drawn) if self._wraps else len(self._drawn)
        self._drawn = []
        up = f"\x1b[{height - 1}A" if height > 1 else ""
        return f"\r{up}\x1b[J"

    def draw(self, text: str, width: int, *, gap: bool = True, below: str = "") -> str:
        """Draw the end of a text, with an empty row before it for a `gap`, and one dim row `below`.

        Draw nothing if there is neither text nor `below`. Erase the earlier rows first.
        """
        limit = min(ROWS, self._console.height - 3)
        rows = last_rows(text, width, limit, self._console) if text.strip() else []
        lines = [*rows]
        if below:
            row = Text(below, style="dim")
            row.truncate(max(1, width))
            rows.append(row.plain)
            lines.append(self._styled(row))
        if rows and gap:
            rows.insert(0, "")
            lines.insert(0, "")
        self._drawn = rows
        return "\n".join(lines)

    def _styled(self, row: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(row, end="", soft_wrap=True)
        return capture.get()


def wraps_on_resize(environment: Mapping[str, str]) -> bool:
    """Tell whether the terminal wraps lines again when it is resized, as most terminals do.

    xterm, rxvt, GNU screen and the Linux console do not. tmux does, in any terminal.
    """
    if environment.get("TMUX"):
        return True
    cuts = environment.get("TERM", "").startswith(("linux", "rxvt", "screen"))
    return not (cuts or environment.get("XTERM_VERSION"))


def last_rows(text: str, width: int, limit: int, console: Console) -> list[str]:
    """Return the last rows of a text: at most `limit` rows of at most `width` columns."""
    width, limit = max(2, width), max(1, limit)
    rows: list[str] = []
    for line in reversed(text[-LONGEST:].rstrip().split("\n")):
        wrapped = Text(line).wrap(console, width, overflow="fold", tab_size=4)
        rows = [row.plain.rstrip() for row in wrapped] + rows
        if len(rows) >= limit:
            break
    return rows[-limit:]


class PlainView(View):
    """Writes the text, and nothing else, to `out` as it arrives. Notes go to `beside`."""

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
    """A PlainView with heading and summary, for a terminal that cannot move its cursor."""

    def begin(self, heading: str) -> None:
        super().begin(heading)
        self.note(heading)

    def end(self, summary: str) -> None:
        super().end(summary)
        self.note(summary)

    def fail(self, summary: str) -> None:
        self.end(summary)


class JSONView(View):
    """Writes the objects to `out` as they arrive, one per line. Notes go to `beside`."""

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
"""A theme with one accent colour, and without backgrounds, which do not suit both light and dark terminals."""


def make_console() -> Console:
    return Console(highlight=False, theme=THEME)


def view_for(console: Console) -> View:
    """Return the view that suits the output."""
    if not console.is_terminal:
        return PlainView(sys.stdout, sys.stderr)
    return DumbView(sys.stdout, sys.stdout) if console.is_dumb_terminal else TerminalView(console)


def say(console: Console, line: str, style: str = "") -> None:
    """Print a line, wrapped between words."""
    for row in Text(safe_line(line), style=style).wrap(console, max(1, console.width - 1)):
        console.print(row, soft_wrap=True)
