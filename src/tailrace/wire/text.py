"""Plain text: strings and bytes unchanged, any other data as a line of JSON."""

from __future__ import annotations

import codecs
from binascii import a2b_base64
from typing import Any

from pydantic_core import from_json

from ..errors import DecodeError, Truncated
from ..events import BYTES, Entries, Notice
from .base import MAX_FRAME_BYTES, Decoder, Encoder, Frame, Wire


class TextEncoder(Encoder):
    """Writes the data alone, without ids, names or notices."""

    # Text has no room for notices, so only a clean end tells clients that the text is complete.
    spells_notices = False

    def encode(self, entries: Entries) -> bytes:
        if not entries.events:
            return b"".join([_text(json) for json in entries.json])
        rows = zip(entries.offsets, entries.json, strict=True)
        return b"".join([_named(entries.events.get(offset), json) for offset, json in rows])

    def notice(self, notice: Notice, cursor: str) -> bytes:
        return b""


def _named(event: str | None, json: bytes) -> bytes:
    return a2b_base64(json[1:-1]) if event == BYTES else _text(json)


def _text(json: bytes) -> bytes:
    if json[:1] != b'"':
        return json + b"\n"
    return json[1:-1] if b"\\" not in json else str(from_json(json)).encode()


class TextDecoder(Decoder):
    """Turns bytes into pieces of text, never cut inside a UTF-8 character."""

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
    """`text/plain` or another media type. The body is the data alone, and is cut short if the stream fails."""

    media_type = "text/plain"
    content_type = "text/plain; charset=utf-8"
    # Browsers' HTTP libraries send text/plain beside JSON by default, so it expresses no wish.
    names_a_stream = False

    def __init__(self, media_type: str = "text/plain") -> None:
        """Make a wire. `media_type` may have parameters; `text/…` without a charset gets `charset=utf-8`."""
        self.media_type = media_type.partition(";")[0].strip().lower()
        needs_charset = self.media_type.startswith("text/") and "charset=" not in media_type.lower()
        self.content_type = f"{media_type}; charset=utf-8" if needs_charset else media_type

    def encoder(self, stream: str, epoch: str, created: int) -> TextEncoder:
        return TextEncoder()

    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> TextDecoder:
        return TextDecoder()

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"schema": {"type": "string"}}
