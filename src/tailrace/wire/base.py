"""The contract of a wire: an encoder and a decoder, both without I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..cursor import is_cursor
from ..errors import DecodeError
from ..events import RESERVED, Degraded, Dropped, Entries, Farewell, Notice, Outcome, Reset, State, encode_data

MAX_FRAME_BYTES = 1 << 20
"""A decoder's default bound for one frame."""

SHARED_BODIES = 8
"""The most encoded bodies that a batch keeps. The bound matters if an application makes a wire for each request."""


@dataclass(slots=True)
class Frame:
    """An event on a wire or, under a reserved name, a notice."""

    data: Any
    event: str | None = None
    id: str | None = None
    retry: int | None = None


class Encoder(ABC):
    """Turns the entries and notices of one log into bytes, for all readers on one wire."""

    ping: bytes = b""
    """Bytes that keep an idle connection alive and that clients ignore. Empty if the wire has no such bytes."""

    spells_notices: bool = True
    """False if the wire has no notices. Then only a body that is cut short tells clients of them."""

    preamble: bytes = b""
    """Bytes before the first entry."""

    @abstractmethod
    def encode(self, entries: Entries) -> bytes:
        """Encode a batch. The bytes depend on the entries alone, so a replay equals the live stream."""

    @abstractmethod
    def notice(self, notice: Notice, cursor: str) -> bytes:
        """Encode a notice. A reader continues after it at `cursor`."""

    def is_whole(self, outcome: Outcome) -> bool:
        """Tell whether the body should end cleanly, so that HTTP clients take it for complete."""
        return outcome.state != "error"

    def encode_shared(self, entries: Entries) -> bytes:
        """Encode a batch once for all its readers. The batch keeps the bytes."""
        body = entries.bodies.get(self)
        if body is None:
            body = self.encode(entries)
            if len(entries.bodies) < SHARED_BODIES:
                entries.bodies[self] = body
        return body


class Decoder(ABC):
    """Turns bytes into frames, whatever pieces they arrive in.

    With `strict=True`, a decoder reads only what tailrace writes. With `strict=False`, it reads any server's bytes.
    """

    @abstractmethod
    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. Raise DecodeError for bytes that do not belong on this wire.

        After an error, the decoder has lost its place. Continue from the last cursor, with a new decoder.
        """

    def close(self) -> list[Frame]:
        """Return the frames that the end of the bytes completes. Raise Truncated if a frame is incomplete."""
        return []


class Wire(ABC):
    """A representation of a log as bytes. Make one wire per route, so that its readers share what it encodes."""

    media_type: str
    aliases: ClassVar[tuple[str, ...]] = ()
    content_type: str
    streaming: ClassVar[bool] = True
    names_a_stream: ClassVar[bool] = True
    """True if a client that accepts both this media type and a document wants a stream."""

    @abstractmethod
    def encoder(self, stream: str, epoch: str, created: int) -> Encoder:
        """Return an encoder for a log: the `stream` and `epoch` of its cursors, and the Unix time when it was made."""

    @abstractmethod
    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> Decoder:
        """Return a decoder for one response. A frame of more than `max_bytes` raises FrameTooLarge."""

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the OpenAPI media type object for items with a schema (OpenAPI 3.2, section 4.14)."""
        return {"itemSchema": schema}


def notice_frame(notice: Notice, cursor: str) -> Frame:
    """Return a notice as a frame, with its reserved name and the data that it has on every wire."""
    if isinstance(notice, Outcome):
        return Frame(notice.members, notice.state, cursor)
    if isinstance(notice, Reset):
        return Frame({"reason": notice.reason}, "reset", cursor)
    if isinstance(notice, Farewell):
        return Frame({"reason": notice.reason, "retry": notice.retry}, "farewell", cursor, notice.retry)
    if isinstance(notice, Degraded):
        return Frame({"degraded": notice.degraded}, "degraded", cursor)
    return Frame({"count": notice.count}, "dropped", cursor)


_NOTICES: dict[str, Callable[[dict[str, Any]], Notice]] = {
    "done": lambda data: _outcome("done", data),
    "error": lambda data: _outcome("error", data),
    "cancelled": lambda data: _outcome("cancelled", data),
    "reset": lambda data: Reset(data["reason"]),
    "farewell": lambda data: Farewell(data["reason"], _number(data, "retry")),
    "dropped": lambda data: Dropped(_number(data, "count")),
    "degraded": lambda data: Degraded(_truth(data, "degraded")),
}


def _outcome(state: State, data: dict[str, Any]) -> Outcome:
    return Outcome(state, _text(data, "code"), _text(data, "message"), data.get("data"))


def _text(data: dict[str, Any], member: str) -> str | None:
    # Other servers use numbers as error codes.
    return None if (value := data.get(member)) is None else str(value)


def _number(data: dict[str, Any], member: str) -> int:
    if type(value := data[member]) is not int:
        raise DecodeError(f"expected {member!r} to be a whole number, but got {value!r:.80}")
    return value


def _truth(data: dict[str, Any], member: str) -> bool:
    if type(value := data[member]) is not bool:
        raise DecodeError(f"expected {member!r} to be true or false, but got {value!r:.80}")
    return value


def read_notice(frame: Frame) -> Notice | None:
    """Return the notice in a frame with a reserved name, or None for an application's event."""
    if frame.event is None or (read := _NOTICES.get(frame.event)) is None:
        return None
    if not isinstance(frame.data, dict):
        raise DecodeError(f"expected an object as data of {frame.event!r}, but got {frame.data!r:.80}")
    try:
        return read(frame.data)
    except KeyError as missing:
        raise DecodeError(f"expected {missing} in the data of {frame.event!r}, but got {frame.data!r:.80}") from None


def frame_members(frame: Frame) -> bytes:
    """Encode a frame as one JSON object. NDJSON sends it as a line, and WebSocket as a message."""
    members = {"id": frame.id, "event": frame.event, "data": frame.data, "retry": frame.retry}
    return encode_data({key: value for key, value in members.items() if value is not None or key == "data"})


def read_members(value: Any) -> Frame:
    """Read a frame from one JSON object, as `frame_members` writes it. Raise DecodeError for anything else."""
    if not isinstance(value, dict) or "data" not in value:
        raise DecodeError(f'expected an object with "data", but got {value!r:.80}')
    frame = Frame(value["data"], value.get("event"), value.get("id"), value.get("retry"))
    if not (
        (frame.event is None or type(frame.event) is str)
        and (frame.id is None or type(frame.id) is str)
        and (frame.retry is None or type(frame.retry) is int)
    ):
        raise DecodeError(f'expected "event" and "id" to be strings and "retry" a whole number, but got {value!r:.80}')
    return frame


def read_any(value: Any) -> Frame:
    """Read a frame from any JSON value of a server that sends cursors.

    An object with a cursor as its `id` is an envelope if it has `data`. Otherwise the object itself is the data, and if
    its `type` is a reserved name, it is a notice. A packet has its cursor as `cursor`. Any other value is data without
    an id.
    """
    if isinstance(value, dict):
        if "packet_type" in value and _is_cursor(value.get("cursor")):
            return _read_packet(value)
        if _is_cursor(value.get("id")):
            return _read_object(value)
    return Frame(value)


def _is_cursor(value: Any) -> bool:
    return isinstance(value, str) and is_cursor(value)


def _read_object(value: dict[str, Any]) -> Frame:
    if "data" in value:
        try:
            return read_members(value)
        except DecodeError:
            return Frame(value)
    kind = value.get("type")
    return Frame(value, kind if isinstance(kind, str) and kind in RESERVED else None, value["id"])


def _read_packet(value: dict[str, Any]) -> Frame:
    """Read a line of a packet session: a packet, or a notice in the form of a packet."""
    cursor, kind = value["cursor"], str(value["packet_type"]).lower()
    # An application sends packets of the type ERROR, too. Only the last one is the session's outcome.
    if kind in RESERVED and (kind != "error" or cursor.endswith(".end")):
        return Frame(value.get("payload"), kind, cursor)
    return Frame({name: member for name, member in value.items() if name != "cursor"}, None, cursor)
