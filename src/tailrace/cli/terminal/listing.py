"""The list of sessions, each a line that is no wider than the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from .formatting import moment
from .safe import safe_line
from .state import short

if TYPE_CHECKING:
    from ...client import Session

TITLE = 20
"""Columns that a title wants. Without them the time is left out, in whose order the sessions are."""

# A mark, the id, how many messages, and when it was last used.
_COLUMNS = "{:1} {:8}  {:>8}  "
_TIME = "{:16}  "


class Listing:
    """Its lines for a terminal of so many columns; the current session is marked."""

    def __init__(self, columns: int, current: str | None) -> None:
        self._current = current
        fits = len(_COLUMNS.format("", "", "")) + len(_TIME.format("")) + TITLE <= columns
        self._columns = _COLUMNS + _TIME if fits else _COLUMNS
        self._room = columns - len(self._line("", "", "", "", ""))

    @property
    def heading(self) -> str:
        return self._line("", "Session", "Messages", "Last used", "Title")

    def line(self, session: Session) -> str:
        mark = "*" if session.session_id == self._current else ""
        used = moment(session.updated)
        return self._line(mark, short(session.session_id), str(session.message_count), used, self._title(session))

    def _title(self, session: Session) -> str:
        answering = " (answering)" if session.stream_id else ""
        return cut(safe_line(session.title) or "–", self._room - len(answering)) + answering

    def _line(self, mark: str, session: str, messages: str, used: str, title: str) -> str:
        return self._columns.format(mark, session, messages, used) + title


def cut(text: str, columns: int) -> str:
    """The text, or as much of its beginning as has room with an ellipsis behind it."""
    line = Text(text)
    line.truncate(max(1, columns), overflow="ellipsis")
    return line.plain
