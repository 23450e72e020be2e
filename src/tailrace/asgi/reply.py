"""Whole answers: the headers of streams, refusals, and resets."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..cursor import Cursor
from ..errors import CursorError, LogReset, NotAcceptable, StreamError, TailraceError
from ..events import Reset, encode_data
from .decision import StreamRequest

Header = tuple[bytes, bytes]


def stream_headers(request: StreamRequest, cache_control: str | None) -> list[Header]:
    """The headers of every response on a wire."""
    wire = request.wire
    default = "no-cache, no-transform" if wire.streaming else "no-store"
    headers = [
        (b"content-type", wire.content_type.encode()),
        (b"cache-control", (cache_control or default).encode()),
    ]
    if wire.streaming:
        # nginx's name, and RFC 10036's, for: pass on each piece as it comes.
        headers += [(b"x-accel-buffering", b"no"), (b"incremental", b"?1")]
    return [*headers, (b"vary", b"accept")]


def cursor_header(cursor: Cursor | str) -> Header:
    """The cursor at which the body begins."""
    return b"tailrace-cursor", str(cursor).encode()


def refusal(status: int, detail: str, code: str, *, data: bytes | None = None, **members: Any) -> Response:
    """An error in FastAPI's words: `detail` for people, and `code` for programs.

    `data` is the JSON of what came before the error.
    """
    headers = {"Cache-Control": "no-store"}
    if status == 503:
        headers["Retry-After"] = "1"
    body = encode_data({"detail": detail, "code": code, **members})
    if data is not None:
        body = body[:-1] + b',"data":' + data + b"}"
    return Response(body, status, headers, media_type="application/json")


def refusal_of(error: TailraceError, *, data: bytes | None = None) -> Response:
    """The refusal that an exception stands for."""
    if isinstance(error, StreamError):
        return refusal(error.status, error.message, error.code, data=data)
    if isinstance(error, NotAcceptable):
        return refusal(406, str(error), "not_acceptable", available=error.available)
    if isinstance(error, LogReset):
        return refusal(410, str(error), "reset", reason=error.reason, cursor=error.resume)
    assert isinstance(error, CursorError), error
    return refusal(400, str(error), "bad_cursor")


def reset_of(error: LogReset, request: StreamRequest, status: int, headers: list[Header]) -> Response:
    """The answer to a cursor that cannot be continued: in band where the wire has room for it, else status 410."""
    resume = Cursor.parse(error.resume)
    encoder = request.wire.encoder(resume.stream, resume.epoch, 0)
    if not (request.wire.streaming and encoder.spells_notices):
        return refusal_of(error)
    response = Response(encoder.notice(Reset(error.reason), error.resume), status)
    response.raw_headers = [*headers, cursor_header(error.resume)]
    return response
