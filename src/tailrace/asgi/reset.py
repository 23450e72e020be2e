"""The answer to a cursor that cannot be continued."""

from __future__ import annotations

from ..errors import LogReset
from ..events import Reset
from .disconnect import Send
from .headers import Header
from .reply import send_refusal
from .request import StreamRequest


async def send_reset(request: StreamRequest, reset: LogReset, send: Send, status: int, headers: list[Header]) -> None:
    """In band where the wire can say it, else by status 410."""
    wire, cursor = request.wire, request.cursor
    assert cursor is not None
    encoder = wire.encoder(cursor.stream, cursor.epoch, 0)
    if not (wire.streaming and encoder.spells_notices):
        await send_refusal(send, reset)
        return
    headers = [*headers, (b"tailrace-cursor", reset.resume.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = encoder.notice(Reset(reset.reason), reset.resume)
    await send({"type": "http.response.body", "body": body, "more_body": False})
