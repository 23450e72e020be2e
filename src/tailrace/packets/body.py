"""Read the packets in a request's body, within bounds of bytes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from ..errors import StreamError
from ..wire.ndjson import NDJSON
from .inbox import PacketLimits, Rules

_LINES = frozenset({NDJSON.media_type, *NDJSON.aliases})
_JSON = "application/json"


class PacketRefused(StreamError):
    """A packet that the server does not take. `reply_to` is its id, if it has one."""

    def __init__(self, message: str, *, code: str, status: int, reply_to: str | None = None) -> None:
        super().__init__(message, code=code, status=status, retry_after=1 if status == 429 else None)
        self.reply_to = reply_to


async def read_packets(request: Request, rules: Rules) -> list[bytes]:
    """Return the lines of an NDJSON body, or a JSON body as one line. Raise PacketRefused unless each is a packet."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON and media_type not in _LINES:
        # A page of another site can send other types without asking the server first (CORS).
        message = f"expected a body of type {_JSON} or {NDJSON.media_type}, but got {media_type[:80]!r}"
        raise PacketRefused(message, code="unsupported_media_type", status=415)
    body = await _read(request, rules.limits)
    lines = _lines_of(body, is_json=media_type == _JSON)
    if len(lines) > rules.limits.pending:
        message = f"expected at most {rules.limits.pending} packets in a body, but got {len(lines)}"
        raise PacketRefused(message, code="body_too_large", status=413)
    if not lines:
        raise PacketRefused("expected a packet, but got an empty body", code="bad_json", status=400)
    for number, line in enumerate(lines, 1):
        _check(line, rules, f"line {number}: " if len(lines) > 1 else "")
    return lines


def _lines_of(body: bytes, *, is_json: bool) -> list[bytes]:
    """Split a body. Outside of its strings, JSON may have line ends; inside, it has none (RFC 8259, section 7)."""
    if is_json:
        return [body.replace(b"\n", b" ")]
    return [line for line in body.split(b"\n") if line and not line.isspace()]


async def _read(request: Request, limits: PacketLimits) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > limits.body):
        raise _too_large(length, limits)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limits.body:
                    raise _too_large(f"at least {size}", limits)
    except TimeoutError:
        message = f"expected a body within {limits.seconds:g} s, but got {size} bytes of it"
        raise PacketRefused(message, code="too_slow", status=408) from None
    return b"".join(parts)


def _too_large(size: str, limits: PacketLimits) -> PacketRefused:
    message = f"expected a body of at most {limits.body} bytes, but got {size[:20]}"
    return PacketRefused(message, code="body_too_large", status=413)


def _check(line: bytes, rules: Rules, place: str) -> None:
    if len(line) > rules.limits.packet:
        message = f"{place}expected a packet of at most {rules.limits.packet} bytes, but got {len(line)}"
        raise PacketRefused(message, code="packet_too_large", status=413)
    try:
        packet = rules.model.decode(line, strict=True)
    except ValidationError as error:
        raise _refusal(line, error, place) from None
    if packet.packet_type not in rules.types:
        message = (
            f"{place}expected a packet type among {', '.join(sorted(rules.types))}, but got {packet.packet_type!r}"
        )
        raise PacketRefused(message, code="unknown_packet_type", status=422, reply_to=packet.id)


def _refusal(line: bytes, error: ValidationError, place: str) -> PacketRefused:
    mistakes = error.errors(include_url=False, include_context=False)
    told = "; ".join(_sentence(mistake) for mistake in mistakes[:5])
    if mistakes[0]["type"] == "json_invalid":
        return PacketRefused(f"{place}expected JSON, but got {line!r:.80}: {told}", code="bad_json", status=400)
    members = from_json(line)
    name = members.get("id") if isinstance(members, dict) else None
    reply_to = name if isinstance(name, str) and len(name) <= 128 else None
    return PacketRefused(f"{place}expected a packet, but: {told}", code="bad_packet", status=422, reply_to=reply_to)


def _sentence(mistake: Any) -> str:
    where: Sequence[Any] = mistake["loc"]
    return f"{'.'.join(map(str, where))[:80]}: {mistake['msg'][:200]}" if where else mistake["msg"][:200]
