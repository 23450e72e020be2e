"""Newline-delimited JSON: https://github.com/ndjson/ndjson-spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from ..errors import DecodeError, FrameTooLarge, Truncated
from ..events import Entries, Notice, encode_data
from .base import MAX_FRAME_BYTES, Decoder, Encoder, Frame, Wire, frame_members, notice_frame, read_members


class NDJSONEncoder(Encoder):
    ping = b"\n"

    def __init__(self, stream: str, epoch: str) -> None:
        self._id = f'{{"id":"{stream}.{epoch}.'.encode()

    def encode(self, entries: Entries) -> bytes:
        prefix, events = self._id, entries.events
        rows = zip(entries.offsets, entries.json, strict=True)
        if not events:
            return b"".join([b'%b%d","data":%b}\n' % (prefix, offset, json) for offset, json in rows])
        return b"".join(
            [b'%b%d"%b,"data":%b}\n' % (prefix, offset, _member(events, offset), json) for offset, json in rows]
        )

    def notice(self, notice: Notice, cursor: str) -> bytes:
        return frame_members(notice_frame(notice, cursor)) + b"\n"


def _member(events: Mapping[int, str], offset: int) -> bytes:
    return b',"event":%b' % encode_data(events[offset]) if offset in events else b""


class JSONLines:
    """Any server's lines of JSON, as values; blank lines are passed over."""

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The values of the lines that `data` completes; DecodeError for one that is not JSON, with those before it."""
        head, found, tail = data.rpartition(b"\n")
        if not found:
            self._rest += data
            self._check_size(len(self._rest))
            return []
        whole = bytes(self._rest + head) if self._rest else head
        self._rest = bytearray(tail)
        values = self._read_all(whole)
        self._check_size(len(tail), values)
        return values

    def close(self) -> list[Any]:
        """The value of a last line without its line end; Truncated if it is not whole."""
        rest, self._rest = bytes(self._rest), bytearray()
        if not rest or rest.isspace():
            return []
        try:
            return [from_json(rest)]
        except ValueError as error:
            raise Truncated(f"expected a whole line of JSON at the end, but got {rest!r:.80}: {error}") from None

    def _read_all(self, whole: bytes) -> list[Any]:
        lines = [line for line in whole.split(b"\n") if line and not line.isspace()]
        if len(whole) <= self._max_bytes:
            try:
                return list(map(from_json, lines))
            except ValueError:
                pass  # the bad one is named below
        values: list[Any] = []
        for line in lines:
            self._check_size(len(line), values)
            try:
                values.append(from_json(line))
            except ValueError as error:
                raise DecodeError(f"expected a line of JSON, but got {line!r:.80}: {error}", before=values) from None
        return values

    def _check_size(self, size: int, before: Sequence[Any] = ()) -> None:
        if size > self._max_bytes:
            raise FrameTooLarge(self._max_bytes, size, before=before)


class NDJSONDecoder(Decoder):
    """The frames of a log: a line is an object with `id`, `data` and, where it has a name, `event`."""

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._lines = JSONLines(max_bytes=max_bytes)

    def feed(self, data: bytes) -> list[Frame]:
        try:
            return [read_members(value) for value in self._lines.feed(data)]
        except DecodeError as error:
            error.before = [read_members(value) for value in error.before]
            raise

    def close(self) -> list[Frame]:
        return [read_members(value) for value in self._lines.close()]


class NDJSON(Wire):
    """`application/x-ndjson`: each line a frame."""

    media_type = "application/x-ndjson"
    aliases = ("application/ndjson", "application/jsonl", "application/x-jsonlines")
    content_type = "application/x-ndjson"

    def encoder(self, stream: str, epoch: str, created: int) -> NDJSONEncoder:
        return NDJSONEncoder(stream, epoch)

    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> NDJSONDecoder:
        return NDJSONDecoder(max_bytes=max_bytes)

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = {
            "id": {"type": "string", "description": "The cursor."},
            "event": {"type": "string"},
            "data": schema,
        }
        return {"itemSchema": {"type": "object", "required": ["id", "data"], "properties": properties}}
