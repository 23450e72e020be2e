"""The events of any server, by the media type of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from ..errors import DecodeError
from ..events import DONE, RESERVED
from ..wire.base import Decoder, Frame, read_members
from ..wire.batch import Batch
from ..wire.ndjson import NDJSON, JSONLines
from ..wire.sse import SSE, SSEValuesDecoder
from ..wire.text import Text
from .errors import NotAStream
from .position import read_cursor

DONE_MARK = "[DONE]"
"""The data with which OpenAI's streams, and those like them, say that they are done."""

_MEMBERS = frozenset({"id", "event", "data", "retry"})


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
    """Lines of JSON: the envelopes of a log, a chat's flat objects with a cursor, or whatever values they are."""

    def __init__(self, max_bytes: int) -> None:
        self._lines = JSONLines(max_bytes=max_bytes)

    def feed(self, data: bytes) -> list[Frame]:
        return _read_lines(self._lines.feed(data))

    def close(self) -> list[Frame]:
        return _read_lines(self._lines.close())


class Messages(Decoder):
    """The messages of a socket, fed one by one: each is what a line would be, or text where it is no JSON."""

    def feed(self, data: bytes) -> list[Frame]:
        try:
            value = from_json(data)
        except ValueError:
            return [Frame(data.decode("utf-8", "replace"))]
        return _read_lines([value])


def _read_lines(values: list[Any]) -> list[Frame]:
    frames: list[Frame] = []
    for value in values:
        frame = _read_object(value) if isinstance(value, dict) else Frame(value)
        frames.append(frame)
        # A chat's last object says by itself that the stream is done.
        if frame.data is value and frame.id is not None and value.get("type") == "complete":
            frames.append(Frame(DONE, None, frame.id))
    return frames


def _read_object(value: dict[str, Any]) -> Frame:
    if "data" in value and len(value) > 1 and (value.keys() <= _MEMBERS or _is_named(value)):
        try:
            return read_members(value)
        except DecodeError:
            return Frame(value)
    if not _is_named(value):
        return Frame(value)
    kind = value.get("type")
    return Frame(value, kind if isinstance(kind, str) and kind in RESERVED else None, value["id"])


def _is_named(value: dict[str, Any]) -> bool:
    """Whether an object has a cursor, which other servers' ids are not."""
    id_ = value.get("id")
    return isinstance(id_, str) and "." in id_ and read_cursor(id_) is not None


SOCKET = "websocket"
"""The media type under which a driver gives the messages of a WebSocket, one with each reading."""

MakeDecoder = Callable[[int], Decoder]

_LINES = (NDJSON.media_type, *NDJSON.aliases, "application/jsonlines", "application/json-lines", "application/x-jsonl")

_DECODERS: dict[str, MakeDecoder] = {
    SSE.media_type: lambda max_bytes: AnySSE(max_bytes=max_bytes),
    **dict.fromkeys(_LINES, AnyNDJSON),
    Batch.media_type: lambda max_bytes: Batch().decoder(),
    Text.media_type: lambda max_bytes: Text().decoder(max_bytes=max_bytes),
    SOCKET: lambda max_bytes: Messages(),
}

ACCEPT = f"{SSE.media_type}, {NDJSON.media_type};q=0.9, {Batch.media_type};q=0.5, {Text.media_type};q=0.3"
"""What a client asks for where its caller does not say."""


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def decoder_for(media_type: str, max_bytes: int) -> Decoder:
    """A decoder of the events; NotAStream where no events can be."""
    if (make := _DECODERS.get(media_type)) is None:
        raise NotAStream(media_type, ", ".join((SSE.media_type, NDJSON.media_type, Batch.media_type, Text.media_type)))
    return make(max_bytes)
