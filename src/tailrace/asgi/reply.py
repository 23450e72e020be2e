"""Short answers: refusals, and nothing to say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json

from ..errors import CursorError, LogReset, NotAcceptable, StreamError, TailraceError
from .disconnect import Send
from .headers import Header


async def send_whole(send: Send, status: int, body: bytes, headers: Iterable[Header], *, head: bool = False) -> None:
    """A whole response with its length; `head` leaves the body out."""
    length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})


async def send_refusal(send: Send, error: TailraceError, *, head: bool = False, data: bytes | None = None) -> None:
    """An error as FastAPI words them, `detail`, with a `code` for programs; `data` is what came before it, as JSON."""
    status, refusal = _refusal(error)
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    body = to_json(refusal)
    if data is not None:
        body = body[:-1] + b',"data":' + data + b"}"
    await send_whole(send, status, body, headers, head=head)


def _refusal(error: TailraceError) -> tuple[int, dict[str, Any]]:
    if isinstance(error, StreamError):
        return error.status, {"detail": error.message, "code": error.code}
    if isinstance(error, NotAcceptable):
        return 406, {"detail": str(error), "code": "not_acceptable", "available": error.available}
    if isinstance(error, LogReset):
        return 410, {"detail": str(error), "code": "reset", "reason": error.reason, "cursor": error.resume}
    assert isinstance(error, CursorError), error
    return 400, {"detail": str(error), "code": "bad_cursor"}
