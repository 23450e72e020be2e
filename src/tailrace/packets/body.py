"""The packets in a request's body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from ..routing.body import BodyRefused, read_lines
from .inbox import Rules

MOST_MISTAKES = 5


async def read_packets(request: Request, rules: Rules) -> list[bytes]:
    """Return the lines of an NDJSON body, or a JSON body as one line. Raise BodyRefused unless each is a packet."""
    limits = rules.limits
    lines = await read_lines(request, limit=limits.body, seconds=limits.seconds)
    if len(lines) > limits.pending:
        message = f"expected at most {limits.pending} packets in a body, but got {len(lines)}"
        raise BodyRefused(message, code="body_too_large", status=413)
    if not lines:
        raise BodyRefused("expected a packet, but got an empty body", code="bad_json", status=400)
    place = "line {}: " if len(lines) > 1 else ""
    return [_checked(line, rules, place.format(number)) for number, line in enumerate(lines, 1)]


def _checked(line: bytes, rules: Rules, place: str) -> bytes:
    """Return a packet as the inbox keeps it, on one line. Raise BodyRefused if it is not valid."""
    if len(line) > rules.limits.packet:
        message = f"{place}expected a packet of at most {rules.limits.packet} bytes, but got {len(line)}"
        raise BodyRefused(message, code="packet_too_large", status=413)
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
        raise BodyRefused(message, code="unknown_packet_type", status=422, reply_to=packet.id)
    # A request looks for its answer by the spelling of the id. JSON has no raw line ends in its strings, so those of a
    # valid packet are white space (RFC 8259, section 7).
    return line.replace(b"\n", b" ") if packet.reply_to is None else packet.encode()


def _refusal(line: bytes, error: ValidationError, place: str) -> BodyRefused:
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
    return BodyRefused(f"{place}expected a packet, but: {told}", code="bad_packet", status=422, reply_to=reply_to)


def _not_json(line: bytes, told: str, place: str) -> BodyRefused:
    return BodyRefused(f"{place}expected JSON, but got {line!r:.80}: {told}", code="bad_json", status=400)


def _sentence(mistake: Any) -> str:
    where: Sequence[Any] = mistake["loc"]
    return f"{'.'.join(map(str, where))[:80]}: {mistake['msg'][:200]}" if where else mistake["msg"][:200]
