"""How an event is printed."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from ...wire.base import Frame
from ...wire.text import Text
from ..terminal.safe import SafeStream, safe, safe_json


class Printer:
    """Makes lines of events: text as it is, all else as JSON, or all as objects.

    A terminal obeys nothing of what is printed there; elsewhere nothing is changed.
    """

    def __init__(self, *, objects: bool, terminal: bool) -> None:
        self._prints_objects = objects
        self._is_terminal = terminal
        self._text = SafeStream()

    def line(self, event: Frame, media_type: str | None) -> bytes:
        if self._prints_objects:
            line = self._json({"id": event.id, "event": event.event, "data": event.data})
        elif not isinstance(event.data, str):
            line = self._json(event.data)
        elif media_type == Text.media_type:
            # It has lines of its own, which its pieces know nothing of.
            return (self._text.feed(event.data) if self._is_terminal else event.data).encode("utf-8", "replace")
        else:
            line = safe(event.data) if self._is_terminal else event.data
        return f"{line}\n".encode("utf-8", "replace")

    def _json(self, value: Any) -> str:
        # A number beyond all that a float can be is no JSON: like a browser's, it is null.
        line = to_json(value, inf_nan_mode="null").decode()
        return safe_json(line) if self._is_terminal else line
