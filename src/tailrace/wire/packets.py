"""The wire of packet sessions: one packet per line, with its cursor."""

from __future__ import annotations

from typing import Any

from ..events import Entries, Notice, Outcome, encode_data
from .base import MAX_FRAME_BYTES, Encoder, notice_frame
from .ndjson import NDJSON, NDJSONDecoder

RESULT = "RESULT"
"""The event name of the entry that is a session's result. Nothing follows it but this outcome."""

RESULT_SENT = Outcome("done", "result")


class PacketsEncoder(Encoder):
    """Writes each packet with the further member `cursor`, and each notice as a packet.

    The cursor of a RESULT is that of the end, so the outcome of a session with a result needs no line of its own.
    """

    ping = b"\n"

    def __init__(self, stream: str, epoch: str) -> None:
        self._cursor = f',"cursor":"{stream}.{epoch}.'.encode()

    def encode(self, entries: Entries) -> bytes:
        member, places = self._cursor, entries.spelled
        if entries.events:
            names = map(entries.events.get, entries.offsets)
            places = [place + b".end" if name == RESULT else place for place, name in zip(places, names, strict=True)]
        return b"".join(
            [b'%b%b%b"}\n' % (json[:-1], member, place) for place, json in zip(places, entries.json, strict=True)]
        )

    def notice(self, notice: Notice, cursor: str) -> bytes:
        if notice == RESULT_SENT:
            return b""
        frame = notice_frame(notice, cursor)
        packet = {"packet_type": (frame.event or "").upper(), "payload": frame.data, "cursor": cursor}
        return encode_data(packet) + b"\n"


class PacketLines(NDJSON):
    """`application/x-ndjson`: one packet per line."""

    # `curl --json` accepts only this type, and a session cannot be one document.
    aliases = (*NDJSON.aliases, "application/json")

    def encoder(self, stream: str, epoch: str, created: int) -> Any:
        return PacketsEncoder(stream, epoch)

    def decoder(self, *, max_bytes: int = MAX_FRAME_BYTES) -> NDJSONDecoder:
        return NDJSONDecoder(max_bytes=max_bytes, strict=False)

    def item_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        cursor = {"type": "object", "required": ["cursor"], "properties": {"cursor": {"type": "string"}}}
        return {"itemSchema": {"allOf": [schema, cursor]}}
