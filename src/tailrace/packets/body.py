"""The packets in a request's body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from ..packet import SocketPacket
from ..routing.body import BodyRefused, read_lines
from .inbox import MAX_READ, Parcel, Rules

MOST_MISTAKES = 5


async def read_packets(request: Request, rules: Rules) -> Parcel:
    """Return the packets of an NDJSON body, or the one of a JSON body. Raise BodyRefused unless each is a packet."""
    limits = rules.limits
    lines = await read_lines(request, limit=limits.body, seconds=limits.seconds)
    if len(lines) > limits.pending:
        message = f"expected at most {limits.pending} packets in a body, but got {len(lines)}"
        raise BodyRefused(message, code="body_too_large", status=413)
    if not lines:
        raise BodyRefused("expected a packet, but got an empty body", code="bad_json", status=400)
    packets: list[SocketPacket] = []
    decode = _decoder(rules.model, lines)
    for line in lines:
        try:
            packets.append(_read(line, rules, decode))
        except BodyRefused as error:
            if len(lines) > 1:
                error.message = f"line {len(packets) + 1}: {error.message}"
            raise
    # A request looks for its answer by the spelling of the id. JSON has no raw line ends in its strings, so those of a
    # valid packet are white space (RFC 8259, section 7).
    kept = [
        line.replace(b"\n", b" ") if packet.reply_to is None else packet.encode()
        for line, packet in zip(lines, packets, strict=True)
    ]
    return Parcel(kept, packets if sum(map(len, kept)) <= MAX_READ else ())


def _decoder(model: type[SocketPacket], lines: Sequence[bytes]) -> Callable[[bytes], SocketPacket]:
    """Return what reads a packet from each of these lines, or raises ValueError."""
    # Measured: to search each line for these takes a fifth of the time of a packet.
    body = b"\n".join(lines)
    if any(word in body for word in (b"NaN", b"Infinity", b'"encoding"')):
        return partial(_decode, model)
    return partial(model.__pydantic_validator__.validate_json, extra="forbid")


def _decode(model: type[SocketPacket], line: bytes) -> SocketPacket:
    if b"NaN" in line or b"Infinity" in line:
        from_json(line, allow_inf_nan=False)  # which pydantic would accept outside of strings
    return model.decode(line, strict=True)


def _read(line: bytes, rules: Rules, decode: Callable[[bytes], SocketPacket]) -> SocketPacket:
    """Read a packet. Raise BodyRefused if it is not valid."""
    if len(line) > rules.limits.packet:
        message = f"expected a packet of at most {rules.limits.packet} bytes, but got {len(line)}"
        raise BodyRefused(message, code="packet_too_large", status=413)
    try:
        packet = decode(line)
    except ValidationError as error:
        raise _refusal(line, error) from None
    except ValueError as error:
        raise _not_json(line, str(error)) from None
    if packet.packet_type not in rules.types:
        known, got = ", ".join(sorted(rules.types)), packet.packet_type
        message = f"expected a packet type among {known}, but got {got!r}"
        raise BodyRefused(message, code="unknown_packet_type", status=422, reply_to=packet.id)
    return packet


def _refusal(line: bytes, error: ValidationError) -> BodyRefused:
    if (count := error.error_count()) > MOST_MISTAKES:
        told = f"{count} mistakes"  # to tell more would take longer than to find it
    else:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(map(_sentence, mistakes))
        if mistakes[0]["type"] == "json_invalid":
            return _not_json(line, told)
    members = from_json(line)
    name = members.get("id") if isinstance(members, dict) else None
    reply_to = name if isinstance(name, str) and len(name) <= 128 else None
    return BodyRefused(f"expected a packet, but: {told}", code="bad_packet", status=422, reply_to=reply_to)


def _not_json(line: bytes, told: str) -> BodyRefused:
    return BodyRefused(f"expected JSON, but got {line!r:.80}: {told}", code="bad_json", status=400)


def _sentence(mistake: Any) -> str:
    where: Sequence[Any] = mistake["loc"]
    return f"{'.'.join(map(str, where))[:80]}: {mistake['msg'][:200]}" if where else mistake["msg"][:200]
