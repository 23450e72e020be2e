"""Read a request's body as lines, within bounds of bytes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.requests import ClientDisconnect, Request

from ..errors import StreamError
from ..wire.ndjson import NDJSON

_LINES = frozenset({NDJSON.media_type, *NDJSON.aliases})
_JSON = "application/json"


class BodyRefused(StreamError):
    """A body that the server does not accept. `reply_to` names the part of it that is to blame, if it has a name.

    `members` are further members of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        reply_to: str | None = None,
        members: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(message, code=code, status=status, retry_after=1 if status == 429 else None)
        self.reply_to = reply_to
        self.members = members


async def read_lines(request: Request, *, limit: int, seconds: float) -> list[bytes]:
    """Return the lines of an NDJSON body that are not blank, or a JSON body as one line. Their content is unchecked.

    Raise BodyRefused for another media type, for more than `limit` bytes, and for a body that has not arrived within
    `seconds`.
    """
    media_type = media_type_of(request)
    if media_type != _JSON and media_type not in _LINES:
        # A page of another site can send other types without asking the server first (CORS).
        message = f"expected a body of type {_JSON} or {NDJSON.media_type}, but got {media_type[:80]!r}"
        raise BodyRefused(message, code="unsupported_media_type", status=415)
    body = await read_body(request, limit=limit, seconds=seconds)
    if media_type == _JSON:
        return [body]
    return [line for line in body.split(b"\n") if line and not line.isspace()]


def media_type_of(request: Request) -> str:
    """Return the media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """Return a request's body. Raise BodyRefused for more than `limit` bytes, or if it takes more than `seconds`."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > limit):
        raise _too_large(length, limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise _too_large(f"at least {size}", limit)
    except TimeoutError:
        message = f"expected a body within {seconds:g} s, but got {size} bytes of it"
        raise BodyRefused(message, code="too_slow", status=408) from None
    except ClientDisconnect:  # nobody reads this answer, but the server's log has no traceback
        raise BodyRefused(f"expected a whole body, but got {size} bytes", code="cut_short", status=400) from None
    return b"".join(parts)


def _too_large(size: str, limit: int) -> BodyRefused:
    message = f"expected a body of at most {limit} bytes, but got {size[:20]}"
    return BodyRefused(message, code="body_too_large", status=413)
