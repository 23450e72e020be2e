"""Where a client is in its stream."""

from __future__ import annotations

from ..cursor import Cursor
from ..errors import CursorError


class Elsewhere(Exception):
    """An event of another stream, or of another life of it, where none was announced; raised inside the client only."""


class Position:
    """The id of the last event. Any server's ids are kept; of cursors it is known which come after which."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.is_cursor = False
        """Whether the server gives cursors."""
        self._stem = "."  # no stem of an id
        self._offset = -1
        if token is not None:
            self.move(token)

    def move(self, token: str) -> None:
        """Go there, wherever that is."""
        self.token = token
        if (cursor := read_cursor(token)) is not None:
            self.is_cursor = True
            self._stem = f"{cursor.stream}.{cursor.epoch}"
            self._offset = cursor.offset

    def advance(self, token: str) -> bool:
        """Go on to an event's id, unless it is not after the last one; Elsewhere if it is of another stream."""
        stem, _, offset = token.rpartition(".")
        if stem == self._stem and offset.isdecimal():
            if (number := int(offset)) <= self._offset:
                return False
            self._offset = number
            self.token = token
            return True
        if not stem:  # no cursor: most other servers only count
            self.token = token
            return True
        if self.is_cursor and read_cursor(token) is not None:
            raise Elsewhere
        self.move(token)
        return True


def read_cursor(token: str) -> Cursor | None:
    try:
        return Cursor.parse(token)
    except CursorError:
        return None
