"""Read the packets in a request's body, within bounds of bytes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from ..errors import StreamError
from ..wire.ndjson import NDJSON
from .inbox import PacketLimits, Rules

_LINES = frozenset({NDJSON.media_type, *NDJSON.aliases})
_JSON = "application/json"

MOST_MISTAKES = 5


class PacketRefused(StreamError):
    """Packets that the server does not take. `reply_to` is the id of the one that is to blame, if it has one.

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
    place = "line {}: " if len(lines) > 1 else ""
    return [_checked(line, rules, place.format(number)) for number, line in enumerate(lines, 1)]


def _lines_of(body: bytes, *, is_json: bool) -> list[bytes]:
    return [body] if is_json else [line for line in body.split(b"\n") if line and not line.isspace()]


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
    except ClientDisconnect:  # nobody reads this answer, but the server's log has no traceback
        raise PacketRefused(f"expected a whole body, but got {size} bytes", code="cut_short", status=400) from None
    return b"".join(parts)


def _too_large(size: str, limits: PacketLimits) -> PacketRefused:
    message = f"expected a body of at most {limits.body} bytes, but got {size[:20]}"
    return PacketRefused(message, code="body_too_large", status=413)


def _checked(line: bytes, rules: Rules, place: str) -> bytes:
    """Return a packet as the inbox keeps it, on one line. Raise PacketRefused if it is not valid."""
    if len(line) > rules.limits.packet:
        message = f"{place}expected a packet of at most {rules.limits.packet} bytes, but got {len(line)}"
        raise PacketRefused(message, code="packet_too_large", status=413)
    try:
        if b"NaN" in line or b"Infinity" in line:
            from_json(line, allow_inf_nan=False)  # which pydantic would accept outside of strings
        packet = rules.model.decode(line, strict=True)
    except ValidationError as error:
        raise _refusal(line, error, place) from None
    except ValueError as error:
        raise _not_json(line, str(error), place) from None
    if packet.packet_type not in rules.types:
        known, got = ", ".join(sorted(rules.types)), packet.packet_type
        message = f"{place}expected a packet type among {known}, but got {got!r}"
        raise PacketRefused(message, code="unknown_packet_type", status=422, reply_to=packet.id)
    # A request looks for its answer by the spelling of the id. JSON has no raw line ends in its strings, so those of a
    # valid packet are white space (RFC 8259, section 7).
    return line.replace(b"\n", b" ") if packet.reply_to is None else packet.encode()


def _refusal(line: bytes, error: ValidationError, place: str) -> PacketRefused:
    if (count := error.error_count()) > MOST_MISTAKES:
        told = f"{count} mistakes"  # which would take longer to tell than to find
    else:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(map(_sentence, mistakes))
        if mistakes[0]["type"] == "json_invalid":
            return _not_json(line, told, place)
    members = from_json(line)
    name = members.get("id") if isinstance(members, dict) else None
    reply_to = name if isinstance(name, str) and len(name) <= 128 else None
    return PacketRefused(f"{place}expected a packet, but: {told}", code="bad_packet", status=422, reply_to=reply_to)


def _not_json(line: bytes, told: str, place: str) -> PacketRefused:
    return PacketRefused(f"{place}expected JSON, but got {line!r:.80}: {told}", code="bad_json", status=400)


def _sentence(mistake: Any) -> str:
    where: Sequence[Any] = mistake["loc"]
    return f"{'.'.join(map(str, where))[:80]}: {mistake['msg'][:200]}" if where else mistake["msg"][:200]
