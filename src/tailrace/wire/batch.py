"""One JSON document with all entries: `{"data": [...]}`."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from ..cursor import Cursor, is_cursor
from ..errors import DecodeError, FrameTooLarge, Truncated
from ..events import DONE, Entries, Notice, Outcome, encode_data
from .base import Decoder, Encoder, Frame, Wire


class BatchEncoder(Encoder):
    """Encodes the elements of the list. `document` adds the object around them."""

    def encode(self, entries: Entries) -> bytes:
        return b",".join(entries.json)

    def notice(self, notice: Notice, cursor: str) -> bytes:
        return b""


def document(data: bytes, outcome: Outcome | None, cursor: str, after: str | None = None) -> bytes:
    """Return the document for a list of entries.

    It has `after`, the cursor before the list, if earlier entries were trimmed. It has `cursor` while the log is open,
    and after that `outcome`, unless the log is done without a result.
    """
    head = b'{"data":' + data
    if after is not None:
        head += b',"after":' + encode_data(after)
    if outcome is None:
        return head + b',"cursor":' + encode_data(cursor) + b"}"
    if outcome == DONE:
        return head + b"}"
    return head + b',"outcome":' + encode_data({"state": outcome.state, **outcome.members}) + b"}"


class BatchDecoder(Decoder):
    """Turns a document's data into frames, followed by its outcome.

    If the beginning of the log was trimmed, the first frame is `dropped`.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._document = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        self._document += data
        if len(self._document) > self._max_bytes:
            raise FrameTooLarge(self._max_bytes, len(self._document))
        return []

    def close(self) -> list[Frame]:
        try:
            value = from_json(bytes(self._document))
        except ValueError as error:
            kind = Truncated if str(error).startswith("EOF") else DecodeError
            raise kind(f"expected a JSON document, but got {bytes(self._document)!r:.80}: {error}") from None
        if not isinstance(value, dict) or not isinstance(value.get("data"), list):
            raise DecodeError(f'expected an object with a list as "data", but got {value!r:.80}')
        frames = [*_dropped_frames(value.get("after")), *map(Frame, value["data"])]
        if (cursor := value.get("cursor")) is None:
            return [*frames, _outcome_frame(value.get("outcome", {"state": "done"}))]
        if not isinstance(cursor, str):
            raise DecodeError(f'expected a string as "cursor", but got {cursor!r:.80}')
        if value["data"]:
            frames[-1].id = cursor
        return frames


def _dropped_frames(after: Any) -> list[Frame]:
    """Return a `dropped` frame with the number of entries before the cursor `after`, if there is one."""
    if after is None:
        return []
    if not (isinstance(after, str) and is_cursor(after)):
        raise DecodeError(f'expected a cursor as "after", but got {after!r:.80}')
    return [Frame({"count": Cursor.parse(after).offset}, "dropped", after)]


def _outcome_frame(outcome: Any) -> Frame:
    if not isinstance(outcome, dict) or outcome.get("state") not in ("done", "error", "cancelled"):
        raise DecodeError(f'expected an object with a "state" as "outcome", but got {outcome!r:.80}')
    members = {key: outcome[key] for key in ("code", "message", "data") if outcome.get(key) is not None}
    return Frame(members, outcome["state"])


class Batch(Wire):
    """`application/json`: the whole stream once it has ended, or an open log's current entries and cursor."""

    media_type = "application/json"
    content_type = "application/json"
    streaming = False
    names_a_stream = False

    def __init__(self, *, max_bytes: int = 64 << 20) -> None:
        self.max_bytes = max_bytes

    def encoder(self, stream: str, epoch: str, created: int) -> BatchEncoder:
        return BatchEncoder()

    def decoder(self, *, max_bytes: int = 64 << 20) -> BatchDecoder:
        return BatchDecoder(max_bytes=max_bytes)
