"""The events of any server, by the media type of its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import from_json

from ..cursor import is_cursor
from ..errors import DecodeError
from ..events import DONE, RESERVED
from ..wire.base import Decoder, Frame, read_members
from ..wire.batch import Batch
from ..wire.ndjson import NDJSON, JSONLines
from ..wire.sse import SSE, SSEValuesDecoder
from ..wire.text import Text
from .errors import NotAStream

DONE_MARK = "[DONE]"
"""The data with which OpenAI's streams, and those like them, say that they are done."""


# With what JSON begins: a failure to read what has no such beginning would cost more than all the rest.
_BEGINNINGS = frozenset('{["-0123456789tfnNI \t\n')


class AnySSE(SSEValuesDecoder):
    """Server-Sent Events whose data is JSON, or text where it is none. What says by itself that all is done is DONE."""

    def _read_text(self, text: str) -> Any:
        if text[:1] in _BEGINNINGS:
            try:
                return from_json(text)
            except ValueError:
                pass
        return DONE if text == DONE_MARK else text


class AnyNDJSON(Decoder):
    """Lines of JSON, each of them an event."""

    def __init__(self, max_bytes: int) -> None:
        self._lines = JSONLines(max_bytes=max_bytes)

    def feed(self, data: bytes) -> list[Frame]:
        try:
            return self._read(self._lines.feed(data))
        except DecodeError as error:
            error.before = self._read(error.before)
            raise

    def close(self) -> list[Frame]:
        return self._read(self._lines.close())

    def _read(self, values: Sequence[Any]) -> list[Frame]:
        return list(map(Frame, values))


class CursorNDJSON(AnyNDJSON):
    """Lines of a server that gives cursors: the envelopes of a log, or a chat's flat objects."""

    def _read(self, values: Sequence[Any]) -> list[Frame]:
        return _read_lines(values)


class AnyMessages(Decoder):
    """The messages of a socket, fed one by one: each is what a line would be, or text where it is no JSON."""

    def feed(self, data: bytes) -> list[Frame]:
        try:
            value = from_json(data)
        except ValueError:
            return [Frame(data.decode("utf-8", "replace"))]
        return self._read(value)

    def _read(self, value: Any) -> list[Frame]:
        return [Frame(value)]


class CursorMessages(AnyMessages):
    """Messages of a server that gives cursors, or refuses the stream when the socket is open already."""

    def _read(self, value: Any) -> list[Frame]:
        return [Frame(value["data"], "error")] if _is_refusal(value) else _read_lines([value])


def _is_refusal(value: Any) -> bool:
    """Whether a message is what a socket says in place of HTTP's answer, once it is open."""
    return (
        isinstance(value, dict)
        and value.get("event") == "error"
        and isinstance(data := value.get("data"), dict)
        and type(status := data.get("status")) is int
        and 400 <= status <= 599
    )


def _read_lines(values: Sequence[Any]) -> list[Frame]:
    frames: list[Frame] = []
    for value in values:
        frame = _read_object(value) if isinstance(value, dict) else Frame(value)
        frames.append(frame)
        # A chat's last object says by itself that the stream is done.
        if frame.data is value and frame.id is not None and value.get("type") == "complete":
            frames.append(Frame(DONE, None, frame.id))
    return frames


def _read_object(value: dict[str, Any]) -> Frame:
    if not (isinstance(id_ := value.get("id"), str) and is_cursor(id_)):
        return Frame(value)
    if "data" in value:
        try:
            return read_members(value)
        except DecodeError:
            return Frame(value)
    kind = value.get("type")
    return Frame(value, kind if isinstance(kind, str) and kind in RESERVED else None, id_)


SOCKET = "websocket"
"""The media type under which a driver gives the messages of a WebSocket, one with each reading."""

_MakeDecoder = Callable[[int], Decoder]

_LINES = (NDJSON.media_type, *NDJSON.aliases, "application/jsonlines", "application/json-lines", "application/x-jsonl")

_DECODERS: dict[str, _MakeDecoder] = {
    SSE.media_type: lambda max_bytes: AnySSE(max_bytes=max_bytes),
    **dict.fromkeys(_LINES, AnyNDJSON),
    Batch.media_type: lambda max_bytes: Batch().decoder(),
    Text.media_type: lambda max_bytes: Text().decoder(max_bytes=max_bytes),
    SOCKET: lambda max_bytes: AnyMessages(),
}

_WITH_CURSORS: dict[str, _MakeDecoder] = {
    **dict.fromkeys(_LINES, CursorNDJSON),
    SOCKET: lambda max_bytes: CursorMessages(),
}

ACCEPT = f"{SSE.media_type}, {NDJSON.media_type};q=0.9, {Batch.media_type};q=0.5, {Text.media_type};q=0.3"
"""What a client asks for where its caller does not say."""


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def decoder_for(media_type: str, max_bytes: int, *, has_cursors: bool) -> Decoder:
    """A decoder of the events, which may have cursors; NotAStream where no events can be."""
    make = _DECODERS.get(media_type)
    if make is None:
        raise NotAStream(media_type, ", ".join((SSE.media_type, NDJSON.media_type, Batch.media_type, Text.media_type)))
    if has_cursors:
        make = _WITH_CURSORS.get(media_type, make)
    return make(max_bytes)
