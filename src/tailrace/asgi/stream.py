"""A log as a streamed body."""

from __future__ import annotations

import asyncio

from ..errors import LogReset, StreamError
from ..events import Reset
from .connection import Connection
from .disconnect import Send
from .headers import Header
from .opening import Opening
from .reply import send_refusal
from .request import StreamRequest


async def send_stream(opening: Opening, send: Send, status: int, headers: list[Header]) -> None:
    """Entries as they come, and how it ended. A stream that fails before its first event raises, or is refused."""
    producer = opening.producer
    if producer is not None and (failure := await _early_failure(opening)) is not None:
        if not isinstance(failure, StreamError):
            raise failure
        await send_refusal(send, failure)
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    clean = await Connection(opening.engine, opening.tail, opening.request.wire, send).run()
    if clean or producer is None or producer.error is None or isinstance(producer.error, StreamError):
        # An unclean end that everything has been said of: returning without the end of the body breaks it off.
        return
    raise producer.error


async def _early_failure(opening: Opening) -> Exception | None:
    """What went wrong before the first event, if that came to light soon enough to become a status."""
    tail, producer = opening.tail, opening.producer
    assert producer is not None
    timer = asyncio.get_running_loop().call_later(opening.settings.status_wait, tail.wake)
    try:
        await tail.wait()
    finally:
        timer.cancel()
    return producer.error if tail.log.top == 0 else None


async def send_reset(request: StreamRequest, reset: LogReset, send: Send, status: int, headers: list[Header]) -> None:
    """Tell that a cursor cannot be continued: in band where the wire can, else by status 410."""
    wire, cursor = request.wire, request.cursor
    assert cursor is not None
    encoder = wire.encoder(cursor.stream, cursor.epoch, 0)
    if not (wire.streaming and encoder.spells_notices):
        await send_refusal(send, reset)
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = encoder.notice(Reset(reset.reason), reset.resume)
    await send({"type": "http.response.body", "body": body, "more_body": False})
