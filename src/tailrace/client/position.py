"""Where a client is in its stream."""

from __future__ import annotations

import re

from ..cursor import Cursor, is_cursor

_FIELD_VALUE = re.compile(r"[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?")


class Elsewhere(Exception):
    """An event of another stream, or of another life of it, where none was announced; raised inside the client only."""


class Position:
    """The id of the last event. Any server's ids are kept; of cursors it is known which come after which.

    An id is a cursor only where the server gives cursors: others may look like one.
    """

    def __init__(self, token: str | None = None, *, gives_cursors: bool = False) -> None:
        self.token = token
        self.gives_cursors = gives_cursors
        self._stem = ""
        self._offset = -1
        if token is not None:
            self.move(token)

    @property
    def is_at_end(self) -> bool:
        """Whether the server has no more than this, by its own word."""
        return self.gives_cursors and self.token is not None and is_cursor(self.token) and self.token.endswith(".end")

    def begin(self, token: str) -> None:
        """A response says by a cursor where it begins: at the last event, where there is one already."""
        self.gives_cursors = True
        self.move(self.token or token)

    def move(self, token: str) -> None:
        """Go there, wherever that is."""
        self.token = token
        self._stem, self._offset = "", -1
        if self.gives_cursors and is_cursor(token):
            cursor = Cursor.parse(token)
            self._stem, self._offset = f"{cursor.stream}.{cursor.epoch}", cursor.offset

    def advance(self, token: str) -> bool:
        """Go on to an event's id, unless it is not after the last one; Elsewhere if it is of another stream."""
        if not self.gives_cursors:
            self.token = token
            return True
        stem, _, offset = token.rpartition(".")
        # As is_cursor has it, for the rest of a token whose stem is known: this is done for every event.
        if stem == self._stem and len(offset) <= 15 and offset.isascii() and offset.isdecimal():
            if (number := int(offset)) <= self._offset:
                return False
            self._offset = number
            self.token = token
            return True
        if self._stem and is_cursor(token):
            raise Elsewhere
        self.move(token)
        return True


def can_be_sent(token: str) -> bool:
    """Whether an id, which may be another server's, can be the value of a header (RFC 9110, section 5.5)."""
    return _FIELD_VALUE.fullmatch(token) is not None
