"""The headers of streams, and the responses that are not streams: refusals and resets."""

from __future__ import annotations

import logging
from typing import Any

from starlette.responses import Response

from ..cursor import Cursor
from ..errors import CursorError, LogReset, NotAcceptable, StoreUnavailable, StreamError, TailraceError
from ..events import Reset, encode_data
from .decision import StreamRequest

logger = logging.getLogger("tailrace")

Header = tuple[bytes, bytes]

_LOST = StreamError("the store has lost the stream", code="entries_lost", status=503)


def stream_headers(request: StreamRequest, cache_control: str | None) -> list[Header]:
    """Return the headers that every response on a wire has."""
    wire = request.wire
    default = "no-cache, no-transform" if wire.streaming else "no-store"
    headers = [
        (b"content-type", wire.content_type.encode()),
        (b"cache-control", (cache_control or default).encode()),
    ]
    if wire.streaming:
        # Both ask proxies not to buffer: the first one is nginx's, the second one is RFC 10036's.
        headers += [(b"x-accel-buffering", b"no"), (b"incremental", b"?1")]
    return [*headers, (b"vary", b"accept")]


def cursor_header(cursor: Cursor | str) -> Header:
    """Return the header with the cursor at which the body begins."""
    return b"tailrace-cursor", str(cursor).encode()


def refusal(
    status: int, detail: str, code: str, *, data: bytes | None = None, retry_after: int | None = None, **members: Any
) -> Response:
    """Return an error response as FastAPI writes it: `detail` for people, plus `code` for programs.

    `data` is the JSON list of the items before the error. A 503 has a Retry-After of a second by default.
    """
    headers = {"Cache-Control": "no-store"}
    if retry_after is None and status == 503:
        retry_after = 1
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    body = encode_data({"detail": detail, "code": code, **members})
    if data is not None:
        body = body[:-1] + b',"data":' + data + b"}"
    return Response(body, status, headers, media_type="application/json")


def refusal_of(error: TailraceError, *, data: bytes | None = None) -> Response:
    """Return the error response for an exception."""
    if isinstance(error, StreamError):
        return refusal(error.status, error.message, error.code, data=data, retry_after=error.retry_after)
    if isinstance(error, NotAcceptable):
        return refusal(406, str(error), "not_acceptable", available=error.available)
    if isinstance(error, LogReset):
        return refusal(410, str(error), "reset", reason=error.reason, cursor=error.resume)
    if isinstance(error, StoreUnavailable):
        logger.error("%s", error)  # not in the response, because it tells where the store is
        detail = "the store does not answer, so it is unknown whether the request took effect"
        return refusal(503, detail, "store_unavailable")
    assert isinstance(error, CursorError), error
    return refusal(400, str(error), "bad_cursor")


def reset_refusal_of(error: LogReset, request: StreamRequest, *, started: bool, data: bytes | None = None) -> Response:
    """Return the error response for a reader that cannot go on, on a wire without notices.

    It is a reset, unless the store has lost a stream of which the client has no cursor to go on from.
    """
    if request.cursor is not None or error.reason == "trimmed":
        return refusal_of(error)
    if started:
        return refusal_of(_LOST, data=data)
    detail = f"expected stream {error.name!r} to be there, but its store has forgotten or lost it"
    return refusal(404, detail, "stream_not_found")


def reset_of(
    error: LogReset, request: StreamRequest, status: int, headers: list[Header], *, started: bool = False
) -> Response:
    """Return the answer to a reader that cannot go on: a notice if the wire has notices, else an error response.

    `started`: whether the request has started the stream.
    """
    resume = Cursor.parse(error.resume)
    encoder = request.wire.encoder(resume.stream, resume.epoch, 0)
    if not (request.wire.streaming and encoder.spells_notices):
        return reset_refusal_of(error, request, started=started)
    response = Response(encoder.notice(Reset(error.reason), error.resume), status)
    response.raw_headers = [*headers, cursor_header(error.resume)]
    return response
