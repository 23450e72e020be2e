"""The contract of a wire: an encoder and a decoder, both without I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..cursor import is_cursor
from ..errors import DecodeError
from ..events import RESERVED, Dropped, Entries, Farewell, Notice, Outcome, Reset, State, encode_data

MAX_FRAME_BYTES = 1 << 20
"""The default bound of one frame in a decoder."""

SHARED_BODIES = 8
"""How many wires' bytes a batch keeps. An application may make a wire for each request."""


@dataclass(slots=True)
class Frame:
    """What a wire carries: an event or, under a reserved name, a notice."""

    data: Any
    event: str | None = None
    id: str | None = None
    retry: int | None = None


class Encoder(ABC):
    """Turns the entries and notices of one log into bytes, for all its readers on one wire."""

    ping: bytes = b""
    """Bytes that keep an idle connection alive. Empty if the wire has nothing that clients ignore."""

    spells_notices: bool = True
    """False if the wire has no place for notices. Then only an unclean end of the body tells of them."""

    preamble: bytes = b""
    """Bytes before the first entry."""

    @abstractmethod
    def encode(self, entries: Entries) -> bytes:
        """Encode a batch in one piece. The bytes depend on nothing but the entries, so replay equals live."""

    @abstractmethod
    def notice(self, notice: Notice, cursor: str) -> bytes:
        """Encode a notice. A reader that has seen it continues at `cursor`."""

    def is_whole(self, outcome: Outcome) -> bool:
        """Whether the body ends cleanly, so that HTTP clients take what they have for the whole."""
        return outcome.state != "error"

    def encode_shared(self, entries: Entries) -> bytes:
        """Like `encode`, but once for all readers of the same batch, which keeps the bytes."""
        body = entries.bodies.get(self)
        if body is None:
            body = self.encode(entries)
            if len(entries.bodies) < SHARED_BODIES:
                entries.bodies[self] = body
        return body


class Decoder(ABC):
    """Turns bytes into frames, in whatever pieces they arrive.

    Where a decoder has `strict`, True reads what a log writes and refuses all else; False reads any server's bytes.
    """

    @abstractmethod
    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes; DecodeError for what is not of this wire.

        After an error the decoder has lost its place: continue from the last cursor, with a new decoder.
        """

    def close(self) -> list[Frame]:
        """Return the frames that the end of the bytes completes; Truncated if it cuts one."""
        return []


class Wire(ABC):
    """How the events of a log become bytes. Make a wire once for a route: readers of one wire share what it encodes."""

    media_type: str
    aliases: ClassVar[tuple[str, ...]] = ()
    content_type: str
    streaming: ClassVar[bool] = True
    names_a_stream: ClassVar[bool] = True
    """Whether a client that accepts this media type beside a document means a stream."""

    @abstractmethod
    def encoder(self, stream: str, epoch: str, created: int) -> Encoder:
        """Return an encoder for a log: `stream` and `epoch` of its cursors, and when it was made, in Unix time."""

    @abstractmethod
    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> Decoder:
        """Return a decoder for one response. A frame of more than `max_bytes` raises FrameTooLarge."""

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the OpenAPI media type object for items of a schema (OpenAPI 3.2, section 4.14)."""
        return {"itemSchema": schema}


def notice_frame(notice: Notice, cursor: str) -> Frame:
    """Return a notice as a frame: its reserved name, and the data that every wire gives it."""
    if isinstance(notice, Outcome):
        return Frame(notice.members, notice.state, cursor)
    if isinstance(notice, Reset):
        return Frame({"reason": notice.reason}, "reset", cursor)
    if isinstance(notice, Farewell):
        return Frame({"reason": notice.reason, "retry": notice.retry}, "farewell", cursor, notice.retry)
    return Frame({"count": notice.count}, "dropped", cursor)


_NOTICES: dict[str, Callable[[dict[str, Any]], Notice]] = {
    "done": lambda data: _outcome("done", data),
    "error": lambda data: _outcome("error", data),
    "cancelled": lambda data: _outcome("cancelled", data),
    "reset": lambda data: Reset(data["reason"]),
    "farewell": lambda data: Farewell(data["reason"], _number(data, "retry")),
    "dropped": lambda data: Dropped(_number(data, "count")),
}


def _outcome(state: State, data: dict[str, Any]) -> Outcome:
    return Outcome(state, _text(data, "code"), _text(data, "message"), data.get("data"))


def _text(data: dict[str, Any], member: str) -> str | None:
    # Other servers number their errors.
    return None if (value := data.get(member)) is None else str(value)


def _number(data: dict[str, Any], member: str) -> int:
    if type(value := data[member]) is not int:
        raise DecodeError(f"expected {member!r} to be a whole number, but got {value!r:.80}")
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
    """Encode a frame as one JSON object, which NDJSON writes as a line and WebSocket as a message."""
    members = {"id": frame.id, "event": frame.event, "data": frame.data, "retry": frame.retry}
    return encode_data({key: value for key, value in members.items() if value is not None or key == "data"})


def read_members(value: Any) -> Frame:
    """Read a frame from one JSON object, as `frame_members` writes it; DecodeError for anything else."""
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
    """Read a frame from any JSON value of a server that gives cursors.

    An object with a cursor as `id` is an envelope if it has `data`; otherwise it is flat: the object is the data, and a
    reserved name as its `type` names a notice. Anything else is data without an id.
    """
    if not (isinstance(value, dict) and isinstance(id_ := value.get("id"), str) and is_cursor(id_)):
        return Frame(value)
    if "data" in value:
        try:
            return read_members(value)
        except DecodeError:
            return Frame(value)
    kind = value.get("type")
    return Frame(value, kind if isinstance(kind, str) and kind in RESERVED else None, id_)
