"""Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from itertools import repeat
from typing import Any

from pydantic_core import from_json, to_json

from ..errors import DecodeError, EventError, FrameTooLarge
from ..events import Entries, Notice
from .base import MAX_FRAME_BYTES, Decoder, Encoder, Frame, Wire, notice_frame

ONLY_RETRY = object()
"""In place of data where there is none: unlike None it cannot be a value."""

_BOM = b"\xef\xbb\xbf"
# First what almost every server writes, read at one go; then any block.
_BLOCK = re.compile(
    r"(?::.*\n)*(?:id: ?+([^\0\n]+)\n)?(?:event: ?+(.+)\n)?data: ?+(.*(?:\ndata:.*)*)\n\n"
    r"|((?:.+\n)*\n)"
)
# What servers write that write all their events alike; and from how many characters on it pays to look for that.
_SHAPES = (["id: ", "data: "], ["data: "], ["id: ", "event: ", "data: "], ["event: ", "data: "])
_MANY = 1024
_NEXT_LINE = re.compile(r"\ndata: ?")
_COMMENTS = re.compile(rb"(?::.*\n|\n)*")
# As many digits as JavaScript holds exactly; int() refuses thousands of them.
_MILLISECONDS = re.compile(r"[0-9]{1,15}")


def format_sse(
    data: str | None = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """One event as text/event-stream. `data` of several lines becomes several data fields; `retry` is in milliseconds.

    EventError for an event name or id with a line break (or an id with NUL), and for `retry` alone,
    which is no event and breaks clients.
    """
    lines = []
    if id is not None:
        lines.append(f"id: {_one_line('id', id)}")
    if event is not None:
        lines.append(f"event: {_one_line('event', event)}")
    if retry is not None:
        if retry < 0:
            raise EventError(f"expected retry to be at least 0 milliseconds, but got {retry}")
        if data is None:
            raise EventError(f"expected retry to come with data, but got {retry} alone")
        lines.append(f"retry: {retry}")
    if data is not None:
        lines.extend(f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join([*lines, "", ""]).encode()


def _one_line(field: str, value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise EventError(f"expected the SSE field {field!r} to be one line, but got {value!r}")
    return value


class SSEEncoder(Encoder):
    # No blank line: a block with only a comment makes some decoders emit an event, once an id was seen.
    ping = b": ping\n"

    def __init__(self, stream: str, epoch: str) -> None:
        self._id = f"id: {stream}.{epoch}.".encode()

    def encode(self, entries: Entries) -> bytes:
        prefix, events = self._id, entries.events
        if not events and len(entries.json) == 1:
            return b"%b%d\ndata: %b\n\n" % (prefix, entries.offsets[0], entries.json[0])
        rows = zip(entries.offsets, entries.json, strict=True)
        if not events:
            return b"".join([b"%b%d\ndata: %b\n\n" % (prefix, offset, json) for offset, json in rows])
        return b"".join(
            [b"%b%d\n%bdata: %b\n\n" % (prefix, offset, _field(events, offset), json) for offset, json in rows]
        )

    def notice(self, notice: Notice, cursor: str) -> bytes:
        frame = notice_frame(notice, cursor)
        return format_sse(to_json(frame.data).decode(), event=frame.event, id=frame.id, retry=frame.retry)


def _field(events: Mapping[int, str], offset: int) -> bytes:
    return b"event: %b\n" % events[offset].encode() if offset in events else b""


class SSEDecoder(Decoder):
    """Any server's events. `Frame.data` is the text of the data fields, `Frame.id` the last id that was seen.

    A block with only `retry` becomes a frame without data. As the specification says, an event whose blank line never
    came is none.
    """

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._at_start = True
        self._after_cr = False
        self._last_id: str | None = None

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self._buffer
        # A block may be closed by a line end that came with an earlier piece.
        scanned = max(len(buffer) - 1, 0)
        buffer += self._unify_line_ends(data) if self._after_cr or b"\r" in data else data
        if self._at_start and not self._skip_bom():
            return []
        end = buffer.rfind(b"\n\n", scanned) + 2
        blocks = bytes(buffer[:end]) if end >= 2 else b""
        del buffer[: len(blocks)]
        if buffer:
            self._skip_comments()
            self._check_size(len(buffer))
        if len(blocks) > self._max_bytes:
            self._check_blocks(blocks)
        return self._read_blocks(blocks.decode("utf-8", "replace"))

    def _unify_line_ends(self, data: bytes) -> bytes:
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _skip_bom(self) -> bool:
        """Whether enough is there to know that no byte order mark is left in front."""
        if len(self._buffer) < 3 and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[:3]
        self._at_start = False
        return True

    def _skip_comments(self) -> None:
        # Pings come without a blank line: an idle stream would otherwise gather them for ever.
        del self._buffer[: _end_of_comments(self._buffer)]
        if self._buffer.startswith(b":"):
            del self._buffer[1:]

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise FrameTooLarge(self._max_bytes, size)

    def _check_blocks(self, blocks: bytes) -> None:
        for block in blocks.split(b"\n\n"):
            # With the end of its last line, as when the blank line has yet to come.
            self._check_size(len(block) + 1 - _end_of_comments(block))

    def _read_blocks(self, blocks: str) -> list[Frame]:
        if len(blocks) < _MANY or (columns := _read_columns(blocks)) is None:
            return self._read_each(blocks)
        data = self._read_data(columns["data: "])
        events = [event or None for event in columns["event: "]] if "event: " in columns else repeat(None)
        if "id: " not in columns:
            return list(map(Frame, data, events, repeat(self._last_id)))
        ids = columns["id: "]
        self._last_id = ids[-1]
        return list(map(Frame, data, events, ids))

    def _read_data(self, texts: list[str]) -> list[Any]:
        """The data of frames, out of the text of their fields."""
        return texts

    def _read_each(self, blocks: str) -> list[Frame]:
        frames = []
        for id_, event, data, other in _BLOCK.findall(blocks):
            if other:
                if (frame := self._read_block(other)) is not None:
                    frames.append(frame)
            else:
                if id_:
                    self._last_id = id_
                if "\n" in data:
                    data = _NEXT_LINE.sub("\n", data)
                frames.append(Frame(data, event or None, self._last_id))
        return frames

    def _read_block(self, block: str) -> Frame | None:
        data: list[str] = []
        event: str | None = None
        retry: int | None = None
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "id":
                if "\0" not in value:
                    self._last_id = value
            elif field == "event":
                event = value or None
            elif field == "retry" and _MILLISECONDS.fullmatch(value):
                retry = int(value)
        if data:
            return Frame("\n".join(data), event, self._last_id, retry)
        return None if retry is None else Frame(None, None, self._last_id, retry)


def _read_columns(blocks: str) -> dict[str, list[str]] | None:
    """The values of each field, if all blocks have the same fields, each once and in the same order; else None.

    Nothing is done in Python for each block.
    """
    fields = [line[: line.find(": ") + 2] for line in blocks[: blocks.find("\n\n")].split("\n")]
    if fields not in _SHAPES or "\0" in blocks:
        return None
    lines = blocks.split("\n")
    width = len(fields) + 1
    count, rest = divmod(len(lines), width)
    if rest != 1 or any(lines[width - 1 :: width]):
        return None
    columns = {}
    for place, field in enumerate(fields):
        # As many parts as there are lines: so each begins with the field.
        values = "\n".join(["", *lines[place:-1:width]]).split(f"\n{field}")
        if len(values) != count + 1:
            return None
        del values[0]
        columns[field] = values
    return columns


def _end_of_comments(block: bytes | bytearray) -> int:
    """Where the blank lines and whole comments in front of a block end."""
    match = _COMMENTS.match(block)
    assert match is not None
    return match.end()


class SSEValuesDecoder(SSEDecoder):
    """Events whose data is read further. A frame that only sets a delay has ONLY_RETRY as data."""

    @abstractmethod
    def _read_data(self, texts: list[str]) -> list[Any]: ...

    def _read_each(self, blocks: str) -> list[Frame]:
        frames = super()._read_each(blocks)
        values = iter(self._read_data([frame.data for frame in frames if frame.data is not None]))
        for frame in frames:
            frame.data = ONLY_RETRY if frame.data is None else next(values)
        return frames


class SSEJSONDecoder(SSEValuesDecoder):
    """The events of a log: `Frame.data` is the value that the data fields hold as JSON."""

    def _read_each(self, blocks: str) -> list[Frame]:
        return [frame for frame in super()._read_each(blocks) if frame.data is not ONLY_RETRY]

    def _read_data(self, texts: list[str]) -> list[Any]:
        try:
            return list(map(from_json, texts))
        except ValueError:
            return list(map(_read_json, texts))


def _read_json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        raise DecodeError(f"expected JSON in the data of an event, but got {text!r:.80}: {error}") from None


class SSE(Wire):
    """`text/event-stream`, each event with its cursor as `id` and its data as JSON."""

    media_type = "text/event-stream"
    content_type = "text/event-stream; charset=utf-8"

    def encoder(self, stream: str, epoch: str, created: int) -> SSEEncoder:
        return SSEEncoder(stream, epoch)

    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> Decoder:
        return SSEJSONDecoder(max_bytes=max_bytes)

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = {
            "id": {"type": "string", "description": "The cursor."},
            "event": {"type": "string"},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": schema},
            "retry": {"type": "integer", "minimum": 0},
        }
        return {"itemSchema": {"type": "object", "required": ["data"], "properties": properties}}
