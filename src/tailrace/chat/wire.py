"""The wires of a reply: flat objects with their cursor, one per line or per event, or all in one document."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from typing import Any

from fastapi.responses import Response
from pydantic import TypeAdapter

from .. import (
    NDJSON,
    SSE,
    Batch,
    Degraded,
    Encoder,
    Entries,
    Farewell,
    Log,
    LogReset,
    Notice,
    Outcome,
    Reset,
    Wire,
    encode_data,
    format_sse,
)
from .objects import INTERRUPTED, REASONING, AnyObject, FailedReply, Reply, now


def end_of(outcome: Outcome) -> dict[str, Any]:
    """Return the last object of a stream, `complete` or `error`. Usually it is the turn's own result."""
    if isinstance(outcome.data, dict):
        return outcome.data
    code, message = outcome.code or outcome.state, outcome.message or outcome.state
    if code == "shutdown":
        code, message = "interrupted", INTERRUPTED  # as the store will have it
    return {"type": "error", "timestamp": now(), "code": code, "message": message}


def spell_notice(notice: Notice) -> dict[str, Any]:
    """Return a notice as an object of the stream: the end of the reply, or the reason why this connection ends."""
    if isinstance(notice, Outcome):
        return end_of(notice)
    if isinstance(notice, Reset):
        members: dict[str, Any] = {"type": "reset", "reason": notice.reason}
    elif isinstance(notice, Farewell):
        members = {"type": "farewell", "reason": notice.reason, "retry": notice.retry}
    elif isinstance(notice, Degraded):
        members = {"type": "degraded", "degraded": notice.degraded}
    else:
        members = {"type": "dropped", "count": notice.count}
    return {"timestamp": now(), **members}


class ChatEncoder(Encoder):
    """The common part of lines and events. Without `reasoning`, it omits the model's reasoning."""

    def __init__(self, *, reasoning: bool) -> None:
        self._reasoning = reasoning

    def is_whole(self, outcome: Outcome) -> bool:
        return bool(end_of(outcome)["type"] == "complete")

    def encode(self, entries: Entries) -> bytes:
        if not entries.events:
            return self.spell(entries)
        if self._reasoning:
            return self.spell(Entries(entries.offsets, entries.json, tags=entries.tags))
        rest = [index for index, offset in enumerate(entries.offsets) if offset not in entries.events]
        # Show readers without reasoning that the model is still at work.
        return self.spell(entries.pick(rest)) if rest else self.ping

    @abstractmethod
    def spell(self, entries: Entries) -> bytes:
        """Encode one or more objects."""


class LinesEncoder(ChatEncoder):
    """Writes each object as a line, with its cursor as `id`."""

    ping = b"\n"

    def __init__(self, stream: str, epoch: str, *, reasoning: bool) -> None:
        super().__init__(reasoning=reasoning)
        self._id = f',"id":"{stream}.{epoch}.'.encode()

    def spell(self, entries: Entries) -> bytes:
        prefix, places, jsons = self._id, entries.spelled, entries.json
        if len(jsons) == 1:  # almost always the case for a reader that keeps up
            return b'%b%b%b"}\n' % (jsons[0][:-1], prefix, places[0])
        return b"".join([b'%b%b%b"}\n' % (json[:-1], prefix, place) for place, json in zip(places, jsons, strict=True)])

    def notice(self, notice: Notice, cursor: str) -> bytes:
        return encode_data({**spell_notice(notice), "id": cursor}) + b"\n"


class EventsEncoder(ChatEncoder):
    """Writes Server-Sent Events. Objects have no event name. The end and other notices have those of every stream.

    `done` has the last object as the member `data`.
    """

    def __init__(self, inner: Encoder, *, reasoning: bool) -> None:
        super().__init__(reasoning=reasoning)
        self._inner = inner
        self.ping = inner.ping

    def spell(self, entries: Entries) -> bytes:
        return self._inner.encode(entries)

    def notice(self, notice: Notice, cursor: str) -> bytes:
        spelled = spell_notice(notice)
        name, retry = spelled["type"], spelled.get("retry")
        if name == "complete":
            name, spelled = "done", {"data": spelled}
        return format_sse(encode_data(spelled).decode(), event=name, id=cursor, retry=retry)


class ChatLines(NDJSON):
    """`application/x-ndjson`: each line is an object with `type`, `timestamp` and `id`."""

    def __init__(self, *, reasoning: bool = False) -> None:
        self.reasoning = reasoning

    def encoder(self, stream: str, epoch: str, created: int) -> Any:
        return LinesEncoder(stream, epoch, reasoning=self.reasoning)


class ChatEvents(SSE):
    """`text/event-stream`: the data of each event is an object with `type` and `timestamp`."""

    def __init__(self, *, reasoning: bool = False) -> None:
        self.reasoning = reasoning

    def encoder(self, stream: str, epoch: str, created: int) -> Any:
        return EventsEncoder(super().encoder(stream, epoch, created), reasoning=self.reasoning)


STREAMS: dict[bool, tuple[Wire, ...]] = {
    reasoning: (ChatLines(reasoning=reasoning), ChatEvents(reasoning=reasoning)) for reasoning in (False, True)
}
"""The wires of a stream, without and with reasoning. The first wire is the default."""

WIRES: tuple[Wire, ...] = (*STREAMS[False], Batch())
"""The media types of a reply: streams, and one document."""


def stream_content(kind: Any = AnyObject) -> dict[str, Any]:
    """Return the media types of a stream, for the OpenAPI document."""
    schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    lines = {"allOf": [schema, {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}]}
    in_lines, in_events = STREAMS[False]
    return {
        in_lines.media_type: {"itemSchema": lines},
        in_events.media_type: in_events.item_schema(schema),
    }


# One document

_STATUS = {
    "context_too_long": 413,
    "model_refused": 422,
    "internal_error": 500,
    "storage_failed": 500,
    "interrupted": 503,
    "model_rate_limited": 503,
    "model_unavailable": 503,
    "producer_lost": 503,
    "unavailable": 503,
}
"""The HTTP status by the code of a failure. Other failures of a model get 502."""


async def read_reply(log: Log, *, reasoning: bool = False) -> Response:
    """Wait for the end, and answer with the whole reply. A failure has its own status, and a partial reply as data."""
    data: list[dict[str, Any]] = []
    with log.tail() as tail, suppress(LogReset):
        async for entries in tail:
            data += [
                {**entry.data, "id": f"{log.stream}.{log.epoch}.{place.decode()}"}
                for entry, place in zip(entries, entries.spelled, strict=True)
                if reasoning or entry.event != REASONING
            ]
    if log.outcome is None:
        # The store has lost the stream, so the reply ends here.
        return _failed("interrupted", INTERRUPTED, data)
    end = end_of(log.outcome)
    if end["type"] != "complete":
        return _failed(end["code"], end["message"], data)
    info, status, *rest = data
    reply = Reply.model_construct(
        session_id=info["session_id"],
        stream_id=info["stream_id"],
        model=info["model"],
        text="".join(each["text"] for each in rest if each["type"] == "chunk"),
        state=end["state"],
        total_chunks=end["total_chunks"],
        processing_time=end["processing_time"],
        message_count=end["message_count"],
        context_messages=status["context_messages"],
        data=[*data, {**end, "id": str(log.end_cursor())}],
    )
    return Response(encode_data(reply.__dict__), media_type="application/json", headers={"Cache-Control": "no-store"})


def _failed(code: str, message: str, data: list[dict[str, Any]]) -> Response:
    failed = FailedReply.model_construct(detail=message, code=code, data=data)
    headers = {"Cache-Control": "no-store"}
    status = _STATUS.get(code, 502)
    if status == 503:
        headers["Retry-After"] = "1"
    return Response(encode_data(failed.__dict__), status, headers, "application/json")
