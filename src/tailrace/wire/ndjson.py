"""Newline-delimited JSON: https://github.com/ndjson/ndjson-spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic_core import from_json

from ..errors import DecodeError, FrameTooLarge, Truncated
from ..events import Entries, Notice, encode_data
from .base import MAX_FRAME_BYTES, Decoder, Encoder, Frame, Wire, frame_members, notice_frame, read_any, read_members


class NDJSONEncoder(Encoder):
    """Writes each entry as `{"id": …, "event": …, "data": …}`."""

    # The specification lets parsers skip empty lines (section 3.2).
    ping = b"\n"

    def __init__(self, stream: str, epoch: str) -> None:
        self._id = f'{{"id":"{stream}.{epoch}.'.encode()

    def encode(self, entries: Entries) -> bytes:
        prefix, events = self._id, entries.events
        if not events and entries.tags is None:
            plain = zip(entries.offsets, entries.json, strict=True)
            return b"".join([b'%b%d","data":%b}\n' % (prefix, offset, json) for offset, json in plain])
        rows = zip(entries.spelled, entries.offsets, entries.json, strict=True)
        return b"".join(
            [b'%b%b"%b,"data":%b}\n' % (prefix, place, _member(events, offset), json) for place, offset, json in rows]
        )

    def notice(self, notice: Notice, cursor: str) -> bytes:
        return frame_members(notice_frame(notice, cursor)) + b"\n"


def _member(events: Mapping[int, str], offset: int) -> bytes:
    return b',"event":%b' % encode_data(events[offset]) if offset in events else b""


class LinesDecoder(Decoder):
    """Reads any server's lines of JSON. Each value is the data of a frame; blank lines are skipped."""

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        head, found, tail = data.rpartition(b"\n")
        if not found:
            self._rest += data
            self._check_size(len(self._rest))
            return []
        whole = bytes(self._rest + head) if self._rest else head
        self._rest = bytearray(tail)
        frames = self._read_all(whole)
        self._check_size(len(tail), frames)
        return frames

    def close(self) -> list[Frame]:
        """Return the frame of a last line without a line end. Raise Truncated if the line is incomplete."""
        rest, self._rest = bytes(self._rest), bytearray()
        if not rest or rest.isspace():
            return []
        try:
            value = from_json(rest)
        except ValueError as error:
            raise Truncated(f"expected a whole line of JSON at the end, but got {rest!r:.80}: {error}") from None
        return self._frames([value])

    def _frames(self, values: Sequence[Any]) -> list[Frame]:
        return list(map(Frame, values))

    def _read_all(self, whole: bytes) -> list[Frame]:
        lines = [line for line in whole.split(b"\n") if line and not line.isspace()]
        if len(whole) <= self._max_bytes:
            try:
                values = list(map(from_json, lines))
            except ValueError:
                pass  # the bad line is named below
            else:
                return self._frames(values)
        values = []
        for line in lines:
            if len(line) > self._max_bytes:
                raise FrameTooLarge(self._max_bytes, len(line), before=self._frames(values))
            try:
                values.append(from_json(line))
            except ValueError as error:
                before = self._frames(values)
                raise DecodeError(f"expected a line of JSON, but got {line!r:.80}: {error}", before=before) from None
        return self._frames(values)

    def _check_size(self, size: int, before: Sequence[Frame] = ()) -> None:
        if size > self._max_bytes:
            raise FrameTooLarge(self._max_bytes, size, before=before)


class NDJSONDecoder(LinesDecoder):
    """Reads the lines of a server that sends cursors. If `strict`, each must be an envelope: an object with `data`."""

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES, strict: bool = True) -> None:
        super().__init__(max_bytes=max_bytes)
        self._read = read_members if strict else read_any

    def _frames(self, values: Sequence[Any]) -> list[Frame]:
        frames: list[Frame] = []
        try:
            for value in values:
                frames.append(self._read(value))  # noqa: PERF401 - the frames before a bad one must remain
        except DecodeError as error:
            error.before = frames
            raise
        return frames


class NDJSON(Wire):
    """`application/x-ndjson`: one frame per line."""

    media_type = "application/x-ndjson"
    aliases: ClassVar[tuple[str, ...]] = ("application/ndjson", "application/jsonl", "application/x-jsonlines")
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
