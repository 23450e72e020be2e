"""Framed facts for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import ROUNDED
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .printable import printable

WIDTH = 80
"""Columns of a frame; fewer where the terminal has fewer."""


def frame(title: str, rows: Iterable[tuple[str, object]], style: str) -> Panel:
    """A panel of names and values. Values are text, never markup; what does not fit goes on in the next line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(printable(str(value)), overflow="fold"))
    heading = Text(printable(title), style=f"bold {style}")
    return Panel(grid, title=heading, title_align="left", border_style=style, box=ROUNDED, width=None, padding=(0, 1))
