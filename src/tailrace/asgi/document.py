"""A log as one JSON document."""

from __future__ import annotations

from ..errors import LogReset, StreamError
from ..wire.batch import Batch, document
from .disconnect import Send
from .headers import Header
from .opening import Opening
from .reply import send_refusal, send_whole


async def send_document(opening: Opening, send: Send, status: int, headers: list[Header]) -> None:
    """Of a stream that the request started, all of it, or its failure; of any other log, what is there."""
    tail, producer, wire = opening.tail, opening.producer, opening.request.wire
    assert isinstance(wire, Batch)
    trimmed = tail.position > 0 and opening.request.cursor is None
    after = str(tail.log.cursor(tail.position)) if trimmed else None
    try:
        data = await _collect(opening, wire)
    except (LogReset, StreamError) as refusal:
        await send_refusal(send, refusal)
        return
    finally:
        if producer is not None:
            opening.engine.forget(tail.log)
    outcome = tail.log.outcome if tail.ended else None
    cursor = tail.log.cursor(tail.position)
    if producer is not None and outcome is not None and outcome.state != "done":
        # Part of an answer must not look like the whole of it.
        failure = producer.error or StreamError(outcome.message or "", code=outcome.code or "cancelled", status=503)
        if not isinstance(failure, StreamError):
            raise failure
        await send_refusal(send, failure, data=data)
        return
    await send_whole(send, status, document(data, outcome, str(cursor), after), headers)


async def _collect(opening: Opening, wire: Batch) -> bytes:
    """The entries as a JSON list. StreamError when they are more than the wire's bound."""
    tail = opening.tail
    encoder = tail.log.encoder(wire)
    parts: list[bytes] = []
    size = 0
    while True:
        if entries := await tail.read():
            parts.append(encoder.encode(entries))
            size += len(parts[-1])
            if size > wire.max_bytes:
                message = (
                    f"expected at most {wire.max_bytes} bytes in one document, but there are more: ask for a stream"
                )
                raise StreamError(message, code="document_too_large")
        elif tail.ended or opening.producer is None:
            return b"[" + b",".join(parts) + b"]"
        else:
            await tail.wait()
