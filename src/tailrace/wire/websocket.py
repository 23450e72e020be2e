"""A stream over WebSocket: each message is a JSON object that would be a line of NDJSON.

The close codes are from RFC 6455, section 7.4, and its registry.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from ..errors import DecodeError
from .base import SHARED_BODIES, Decoder, Frame, read_any, read_members

NORMAL = 1000
UNSUPPORTED_DATA = 1003
NO_STATUS = 1005
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
REPLACED = 4409
"""Another connection reads in place of this one, so do not come back. It is HTTP's 409 in the private range."""

_END_CODES = {
    "done": NORMAL,
    "result": NORMAL,
    "cancelled": NORMAL,
    "error": INTERNAL_ERROR,
    "reset": NORMAL,
    "farewell": TRY_AGAIN_LATER,
}
# These come with the cursor of the last event, from which the client can go on.
_WITHOUT_END = frozenset({"farewell", "reset"})
_FAREWELL_CODES = {"shutdown": SERVICE_RESTART, "slow": TRY_AGAIN_LATER, "replaced": REPLACED}


class Messages:
    """Turns NDJSON bytes into the texts of WebSocket messages, and remembers how the stream ended."""

    def __init__(self) -> None:
        self._rest = b""
        self._last = ""

    def feed(self, data: bytes) -> tuple[str, ...]:
        if self._rest or not data.endswith(b"\n"):
            data, end, self._rest = (self._rest + data).rpartition(b"\n")
            data += end
        texts = texts_of(data)
        if texts:
            self._last = texts[-1]
        return texts

    def close(self) -> tuple[str, ...]:
        """Return the rest of a complete body: a document without a line end."""
        rest, self._rest = self._rest, b""
        return texts_of(rest)

    @property
    def close_code(self) -> int:
        """The close code for the end that the last message tells, or NORMAL if it tells none."""
        try:
            value = from_json(self._last)
        except ValueError:
            return NORMAL
        kind, data = _end_in(value) if isinstance(value, dict) else ("", None)
        if kind == "farewell" and isinstance(data, dict) and isinstance(reason := data.get("reason"), str):
            return _FAREWELL_CODES.get(reason, TRY_AGAIN_LATER)
        return _END_CODES.get(kind, NORMAL)


@lru_cache(SHARED_BODIES)
def texts_of(lines: bytes) -> tuple[str, ...]:
    """Return the texts of whole lines. All sockets that read a log are sent the same bytes, which are decoded once."""
    return tuple([line.decode() for line in lines.split(b"\n") if line])


def _end_in(value: dict[str, Any]) -> tuple[str, Any]:
    """Return which end an object tells, and its data: an envelope, a packet, or a line of the application's own form.

    Only an envelope keeps the reserved names for notices. In other forms, an application may use them for its own
    events.
    """
    if isinstance(kind := value.get("event"), str) and "data" in value:
        return kind, value["data"]
    kind = value.get("packet_type", value.get("type"))
    if not isinstance(kind, str):
        return "", None
    kind = kind.lower()
    cursor = value.get("cursor", value.get("id"))
    is_end = kind in _WITHOUT_END or (isinstance(cursor, str) and cursor.endswith(".end"))
    return (kind if is_end else ""), value.get("payload", value)


def read_message(text: str | bytes) -> Frame:
    """Read the frame in a server's message. Raise DecodeError if there is none."""
    try:
        value = from_json(text)
    except ValueError as error:
        raise DecodeError(f"expected a message of JSON, but got {text!r:.80}: {error}") from None
    return read_members(value)


class MessageDecoder(Decoder):
    """Reads the messages of a socket, fed one by one.

    If `strict`, each message must be an envelope. If not, it may be any JSON value, or text. With `has_cursors`, JSON
    is read as a line from a server that sends cursors, or as that server's refusal of the stream.
    """

    def __init__(self, *, strict: bool = True, has_cursors: bool = True) -> None:
        self._strict = strict
        self._has_cursors = has_cursors

    def feed(self, data: bytes) -> list[Frame]:
        if self._strict:
            return [read_message(data)]
        try:
            value = from_json(data)
        except ValueError:
            return [Frame(data.decode("utf-8", "replace"))]
        if not self._has_cursors:
            return [Frame(value)]
        return [Frame(value["data"], "error") if _is_refusal(value) else read_any(value)]


def _is_refusal(value: Any) -> bool:
    """Tell whether a message stands for an HTTP error. Once the socket is open, the server cannot send a status."""
    return (
        isinstance(value, dict)
        and value.get("event") == "error"
        and isinstance(data := value.get("data"), dict)
        and type(status := data.get("status")) is int
        and 400 <= status <= 599
    )


def is_stop(text: str) -> bool:
    """Tell whether a client's message is the command to stop the stream: `{"event": "stop"}`."""
    if '"stop"' not in text:
        return False
    try:
        value = from_json(text)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("event") == "stop"
