"""Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import repeat
from types import MappingProxyType
from typing import Any, TypeAlias

from pydantic_core import from_json

from ..errors import DecodeError, EventError, FrameTooLarge
from ..events import Entries, Notice, encode_data
from .base import MAX_FRAME_BYTES, Decoder, Encoder, Frame, Wire, notice_frame

ONLY_RETRY = object()
"""The data of a frame that has only `retry`. Unlike None, it is not a JSON value."""

_CR = ord("\r")  # `in` searches bytes faster for an int than for a bytes object
_BOM = b"\xef\xbb\xbf"
# One event as almost every server writes it. Possessive quantifiers make any other event fail at its first odd line.
_EVENT = re.compile(r"(?:id: ?+([^\n\0]*+)\n)?+(?:event: ?+(.*+)\n)?+data: ?+(.*+(?:\ndata: .*+)*+)\n\n")
_Columns: TypeAlias = tuple[list[str], list[str | None], list[str]]
"""The texts, names and ids of events. The list of names or of ids may be empty."""
# From this many characters on, reading uniform blocks by column is faster.
_MANY = 1024
# The first characters of JSON values. A failed attempt to read JSON costs more than the rest of the decoding.
_BEGINNINGS = frozenset('{["-0123456789tfnNI \t\n')
_COMMENTS = re.compile(rb"(?::.*\n|\n)*")
# JavaScript holds 15 digits exactly. A bound is necessary because int() refuses a number of thousands of digits.
_MILLISECONDS = re.compile(r"[0-9]{1,15}")


def format_sse(
    data: str | None = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """Encode one event as text/event-stream. Each line of `data` becomes a data field; `retry` is in milliseconds.

    Raise EventError if the event name or the id has a line break or a NUL. Also raise it for `retry` without data,
    because some clients take that for an event without data.
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
    """Writes each entry with its cursor as `id`, its name as `event` and its JSON as `data`."""

    # A comment without a blank line. If a block has only a comment, some decoders (such as httpx-sse) emit an event for
    # it once they have seen an id.
    ping = b": ping\n"

    def __init__(self, stream: str, epoch: str) -> None:
        self._id = f"id: {stream}.{epoch}.".encode()

    def encode(self, entries: Entries) -> bytes:
        prefix, events = self._id, entries.events
        if not events and entries.tags is None:
            if len(entries.json) == 1:
                return b"%b%d\ndata: %b\n\n" % (prefix, entries.offsets[0], entries.json[0])
            plain = zip(entries.offsets, entries.json, strict=True)
            return b"".join([b"%b%d\ndata: %b\n\n" % (prefix, offset, json) for offset, json in plain])
        rows = zip(entries.spelled, entries.offsets, entries.json, strict=True)
        return b"".join(
            [b"%b%b\n%bdata: %b\n\n" % (prefix, place, _field(events, offset), json) for place, offset, json in rows]
        )

    def notice(self, notice: Notice, cursor: str) -> bytes:
        frame = notice_frame(notice, cursor)
        return format_sse(encode_data(frame.data).decode(), event=frame.event, id=frame.id, retry=frame.retry)


def _field(events: Mapping[int, str], offset: int) -> bytes:
    return b"event: %b\n" % events[offset].encode() if offset in events else b""


class SSEDecoder(Decoder):
    """Reads any server's events. `Frame.data` is the text of the data fields; `Frame.id` is the last id so far.

    A block with only `retry` becomes a frame without data. An event without its blank line is dropped, as the HTML
    standard requires (section 9.2.6).
    """

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._at_start = True
        self._after_cr = False
        self._last_id: str | None = None

    def feed(self, data: bytes) -> list[Frame]:
        if self._after_cr or _CR in data:
            data = self._unify_line_ends(data)
        if self._buffer or self._at_start or data[-2:] != b"\n\n":
            data = self._gather(data)
        if len(data) > self._max_bytes:
            self._check_blocks(data)
        blocks = data.decode("utf-8", "replace")
        if len(blocks) < _MANY:
            if (match := _EVENT.fullmatch(blocks)) is not None:
                return [self._read_one(match)]
        elif (columns := _read_columns(blocks)) is not None:
            return self._read_many(columns)
        return self._read_lines(blocks)

    def _gather(self, data: bytes) -> bytes:
        """Add a piece. Return the blocks that it completes."""
        buffer = self._buffer
        # An earlier piece may have brought the first of the two line ends that close a block.
        scanned = max(len(buffer) - 1, 0)
        buffer += data
        if self._at_start and not self._skip_bom():
            return b""
        end = buffer.rfind(b"\n\n", scanned) + 2
        blocks = bytes(buffer[:end]) if end >= 2 else b""
        del buffer[: len(blocks)]
        if buffer:
            self._skip_comments()
            self._check_size(len(buffer))
        return blocks

    def _unify_line_ends(self, data: bytes) -> bytes:
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _skip_bom(self) -> bool:
        """Skip a byte order mark. False while there are too few bytes to tell."""
        if len(self._buffer) < 3 and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[:3]
        self._at_start = False
        return True

    def _skip_comments(self) -> None:
        # Pings have no blank line. If they were kept, an idle stream would fill the buffer with them.
        del self._buffer[: _end_of_comments(self._buffer)]
        if self._buffer.startswith(b":"):
            del self._buffer[1:]

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise FrameTooLarge(self._max_bytes, size)

    def _check_blocks(self, blocks: bytes) -> None:
        for block in blocks.split(b"\n\n"):
            # Count the last line's end too, as `_gather` does before the blank line arrives.
            self._check_size(len(block) + 1 - _end_of_comments(block))

    def _read_one(self, match: re.Match[str]) -> Frame:
        id_, event, text = match.groups()
        if id_ is not None:
            self._last_id = id_
        if "\n" in text:
            text = text.replace("\ndata: ", "\n")
        return Frame(self._read_text(text), event or None, self._last_id)

    def _read_many(self, columns: _Columns) -> list[Frame]:
        texts, events, ids = columns
        if ids:
            self._last_id = ids[-1]
        return list(map(Frame, self._read_texts(texts), events or repeat(None), ids or repeat(self._last_id)))

    def _read_lines(self, blocks: str) -> list[Frame]:
        """Read blocks line by line, whatever they contain."""
        frames: list[Frame] = []
        data: list[str] = []
        event: str | None = None
        retry: int | None = None
        for line in blocks.split("\n")[:-1]:
            field, _, value = line.partition(":")
            if value[:1] == " ":
                value = value[1:]
            if field == "data":
                data.append(value)
            elif field == "id":
                if "\0" not in value:
                    self._last_id = value
            elif field == "event":
                event = value or None
            elif field == "retry":
                retry = int(value) if _MILLISECONDS.fullmatch(value) else retry
            elif not line:
                if data:
                    frames.append(Frame(self._read_text("\n".join(data)), event, self._last_id, retry))
                elif retry is not None:
                    frames += self._read_delay(retry)
                data, event, retry = [], None, None
        return frames

    def _read_delay(self, retry: int) -> list[Frame]:
        """Return the frames for a block with only a delay."""
        return [Frame(None, None, self._last_id, retry)]

    def _read_text(self, text: str) -> Any:
        """Turn the text of the data fields into a frame's data."""
        return text

    def _read_texts(self, texts: list[str]) -> list[Any]:
        """Turn many texts into data."""
        return texts


def _read_columns(blocks: str) -> _Columns | None:
    """Read events with the same fields: an id, a name, and one or more data lines, in this order.

    All events must begin with the same field. Return None if the blocks contain anything else, which shows in a surplus
    line end.
    """
    first = blocks[: blocks.find(" ") + 1]
    if first not in ("id: ", "event: ", "data: ") or (first == "id: " and "\0" in blocks):
        return None
    texts = blocks[len(first) : -2].split(f"\n\n{first}")
    ids: list[str] = []
    names: list[str] = []
    if first != "data: ":
        heads, texts, missing = _partition(texts, "\ndata: ")
        if missing:
            return None
        if first == "event: ":
            names = heads
        elif "\n" in ",".join(heads):
            ids, names, _ = _partition(heads, "\nevent: ")
        else:
            ids = heads
        if "\n" in ",".join(ids) or "\n" in ",".join(names):
            return None
    together = ",".join(texts)  # no mark has a comma, so joining cannot create one
    if "\n" in together:
        if together.count("\n") != together.count("\ndata: "):
            return None
        texts = [text.replace("\ndata: ", "\n") for text in texts]
    return texts, [name or None for name in names], ids


def _partition(texts: list[str], mark: str) -> tuple[list[str], list[str], bool]:
    """Split each text at its first mark. Return the parts before, the parts after, and whether any text has no mark."""
    before: list[str] = []
    after: list[str] = []
    missing = False
    for text in texts:
        head, found, tail = text.partition(mark)
        before.append(head)
        after.append(tail)
        if not found:
            missing = True
    return before, after, missing


def _end_of_comments(block: bytes | bytearray) -> int:
    """Return the index after the blank lines and complete comments at the beginning of a block."""
    match = _COMMENTS.match(block)
    assert match is not None
    return match.end()


class SSEJSONDecoder(SSEDecoder):
    """Reads events whose data is JSON.

    If `strict`, other data raises DecodeError, and a block with only a delay gives no frame. If not, other data becomes
    text, or the value that `marks` has for it, and a block with only a delay gives a frame with ONLY_RETRY as data.
    """

    def __init__(
        self, *, max_bytes: int = MAX_FRAME_BYTES, strict: bool = True, marks: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        super().__init__(max_bytes=max_bytes)
        self._strict = strict
        self._marks = marks

    def _read_delay(self, retry: int) -> list[Frame]:
        return [] if self._strict else [Frame(ONLY_RETRY, None, self._last_id, retry)]

    def _read_text(self, text: str) -> Any:
        if self._strict or text[:1] in _BEGINNINGS:
            try:
                return from_json(text)
            except ValueError as error:
                if self._strict:
                    expected = f"expected JSON in the data of an event, but got {text!r:.80}: {error}"
                    raise DecodeError(expected) from None
        return self._marks.get(text, text)

    def _read_texts(self, texts: list[str]) -> list[Any]:
        try:
            return list(map(from_json, texts))
        except ValueError:
            return list(map(self._read_text, texts))


class SSE(Wire):
    """`text/event-stream`: each event has its cursor as `id` and its data as JSON."""

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
