"""Plain text: strings as they are, any other data as a line of JSON."""

from __future__ import annotations

import codecs
from typing import Any

from pydantic_core import from_json

from ..errors import DecodeError, Truncated
from ..events import Entries, Notice
from .base import MAX_FRAME_BYTES, Decoder, Encoder, Frame, Wire


class TextEncoder(Encoder):
    # Text has no room for anything but itself: only a clean end says that it is whole.
    spells_notices = False

    def encode(self, entries: Entries) -> bytes:
        return b"".join([_text(json) for json in entries.json])

    def notice(self, notice: Notice, cursor: str) -> bytes:
        return b""


def _text(json: bytes) -> bytes:
    if json[:1] != b'"':
        return json + b"\n"
    return json[1:-1] if b"\\" not in json else str(from_json(json)).encode()


class TextDecoder(Decoder):
    """Pieces of UTF-8 text, never cut inside a character."""

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> list[Frame]:
        return self._decode(data, final=False)

    def close(self) -> list[Frame]:
        return self._decode(b"", final=True)

    def _decode(self, data: bytes, *, final: bool) -> list[Frame]:
        try:
            text = self._characters.decode(data, final)
        except UnicodeDecodeError as error:
            kind = Truncated if final else DecodeError
            raise kind(f"expected UTF-8 text, but got {error.object!r:.80}: {error.reason}") from None
        return [Frame(text)] if text else []


class Text(Wire):
    """`text/plain`. A stream that failed or was cancelled breaks off without the end of its body."""

    media_type = "text/plain"
    # Browsers' HTTP libraries name it beside JSON without meaning anything by it.
    names_a_stream = False
    content_type = "text/plain; charset=utf-8"

    def encoder(self, stream: str, epoch: str, created: int) -> TextEncoder:
        return TextEncoder()

    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> TextDecoder:
        return TextDecoder()

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"schema": {"type": "string"}}
