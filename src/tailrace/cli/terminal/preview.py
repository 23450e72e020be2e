"""The end of a text that is not finished, drawn again with each piece."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

ROWS = 6
WIDTH = 80

LONGEST = 8192
"""Characters at the end of a text that are looked at, however long it has become."""


class Preview:
    """Rows below the lines that stay. What its methods give is to be written to the terminal, in one piece.

    Each row ends before the edge of the terminal. So a resize may have made more rows of them, but never fewer, and
    nothing that stays is erased with them.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn = 0

    def erase(self) -> str:
        """Back to where it began."""
        if not self._drawn:
            return ""
        up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
        self._drawn = 0
        return f"\r{up}\x1b[J"

    def draw(self, text: str, width: int, height: int, *, gap: bool = True, below: str = "") -> str:
        """The end of the text, after an empty line for a `gap`, and one row `below` it; nothing, if there is neither.

        What was drawn before has to be erased first.
        """
        rows = last_rows(text, width, min(ROWS, height - 3), self._console) if text.strip() else []
        if rows and gap:
            rows.insert(0, "")
        if below:
            row = Text(below)
            row.truncate(max(1, width))
            rows.append(row.plain)
        self._drawn = len(rows)
        return "\n".join(rows)


def last_rows(text: str, width: int, limit: int, console: Console) -> list[str]:
    """At most `limit` rows from the end of a text, of at most `width` columns."""
    width, limit = max(2, width), max(1, limit)
    rows: list[str] = []
    for line in reversed(text[-LONGEST:].rstrip().split("\n")):
        wrapped = Text(line).wrap(console, width, overflow="fold", tab_size=4)
        rows = [row.plain.rstrip() for row in wrapped] + rows
        if len(rows) >= limit:
            break
    return rows[-limit:]
