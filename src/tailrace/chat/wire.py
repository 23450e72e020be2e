"""How a reply's stream is spelled: flat objects with their cursor, one a line or one an event."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from .. import NDJSON, SSE, Batch, Dropped, Encoder, Entries, Farewell, Outcome, Reset, Wire, encode_data, format_sse
from .objects import INTERRUPTED, AnyObject, now

Notice = Outcome | Reset | Farewell | Dropped


def ends_well(outcome: Outcome) -> bool:
    """Whether the objects have said how the reply ended, because it came to its end or was stopped."""
    return outcome.state == "done" or outcome.code == "stopped"


def failure_of(outcome: Outcome) -> tuple[str, str]:
    """The code and the message of an end that is not good, the same as later when the reply comes from the store."""
    if outcome.code == "shutdown":
        return "interrupted", INTERRUPTED
    return outcome.code or outcome.state, outcome.message or outcome.state


def spell_notice(notice: Notice) -> dict[str, Any]:
    """A notice as one more object of the stream: how it ended, or why this connection did."""
    if isinstance(notice, Outcome):
        kind = "done" if ends_well(notice) else "error"
        members: dict[str, Any] = (
            {} if kind == "done" else dict(zip(("code", "message"), failure_of(notice), strict=True))
        )
    elif isinstance(notice, Reset):
        kind, members = "reset", {"reason": notice.reason}
    elif isinstance(notice, Farewell):
        kind, members = "farewell", {"reason": notice.reason, "retry": notice.retry}
    else:
        kind, members = "dropped", {"count": notice.count}
    return {"type": kind, "timestamp": now(), **members}


class LinesEncoder(Encoder):
    """Each object with its cursor as `id`. After `complete` the end needs no line of its own."""

    ping = b"\n"

    def __init__(self, stream: str, epoch: str) -> None:
        self._id = f',"id":"{stream}.{epoch}.'.encode()

    def encode(self, entries: Entries) -> bytes:
        prefix, offsets, jsons = self._id, entries.offsets, entries.json
        if len(jsons) == 1:  # a reader who keeps up: nearly always
            return b'%b%b%d"}\n' % (jsons[0][:-1], prefix, offsets[0])
        return b"".join(
            [b'%b%b%d"}\n' % (json[:-1], prefix, offset) for offset, json in zip(offsets, jsons, strict=True)]
        )

    def notice(self, notice: Notice, cursor: str) -> bytes:
        spelled = spell_notice(notice)
        return b"" if spelled["type"] == "done" else encode_data({**spelled, "id": cursor}) + b"\n"


class EventsEncoder(Encoder):
    """Server-Sent Events: the objects unnamed, the notices named as they are everywhere."""

    def __init__(self, inner: Encoder) -> None:
        self._inner = inner
        self.ping = inner.ping

    def encode(self, entries: Entries) -> bytes:
        return self._inner.encode(entries)

    def notice(self, notice: Notice, cursor: str) -> bytes:
        spelled = spell_notice(notice)
        retry = spelled.get("retry")
        return format_sse(encode_data(spelled).decode(), event=spelled["type"], id=cursor, retry=retry)


class ChatLines(NDJSON):
    """`application/x-ndjson`, each line an object with `type`, `timestamp` and `id`."""

    def encoder(self, stream: str, epoch: str, created: int) -> Any:
        return LinesEncoder(stream, epoch)


class ChatEvents(SSE):
    """`text/event-stream`, the data of each event an object with `type` and `timestamp`."""

    def encoder(self, stream: str, epoch: str, created: int) -> Any:
        return EventsEncoder(super().encoder(stream, epoch, created))


LINES = ChatLines()

STREAMS: tuple[Wire, ...] = (LINES, ChatEvents())
"""How a reply is streamed, the default first."""

WIRES: tuple[Wire, ...] = (*STREAMS, Batch())
"""The same, and as one document."""


def stream_content() -> dict[str, Any]:
    """The media types of a stream, for the OpenAPI document."""
    schema = TypeAdapter(AnyObject).json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    lines = {"allOf": [schema, {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}]}
    return {
        STREAMS[0].media_type: {"itemSchema": lines},
        STREAMS[1].media_type: STREAMS[1].item_schema(schema),
    }
