"""Choose the wire that a client asks for: by `?stream=`, then by Accept (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from .errors import NotAcceptable
from .wire.base import Wire
from .wire.batch import Batch
from .wire.ndjson import NDJSON
from .wire.sse import SSE
from .wire.text import Text

MAX_ACCEPT = 4 << 10
MAX_RANGES = 50

_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class ResponseMode(StrEnum):
    """One document at the end, or each event as it is produced."""

    BATCH = "batch"
    STREAM = "stream"


class RequestLike(Protocol):
    """The parts of a request that determine its wire."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def query_params(self) -> Mapping[str, str]: ...


class Accept:
    """The media ranges of an Accept header, with their qualities.

    Malformed ranges are ignored. So is everything after MAX_RANGES ranges or MAX_ACCEPT characters, which bounds the
    cost of a long header.
    """

    def __init__(self, header: str | None) -> None:
        self._qualities: dict[str, float] = {}
        text = (header or "")[:MAX_ACCEPT].strip() or "*/*"
        for element in text.split(",", MAX_RANGES)[:MAX_RANGES]:
            media, *parameters = element.split(";", MAX_RANGES)
            media = media.strip().lower()
            type_, slash, subtype = media.partition("/")
            if type_ and slash and subtype:
                self._qualities[media] = max(self._qualities.get(media, 0.0), _quality(parameters))

    def match(self, media_type: str) -> tuple[int, float]:
        """Return the specificity and the quality of the most specific range that matches a media type.

        The specificity is 2 for the type itself, 1 for `type/*`, 0 for `*/*`, and -1 if no range matches.
        """
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        for specificity, range_ in zip((2, 1, 0), ranges, strict=True):
            if (quality := self._qualities.get(range_)) is not None:
                return specificity, quality
        return -1, 0.0


def detect_mode(request: RequestLike) -> ResponseMode:
    """Return the mode that a request asks for, or BATCH if it has no preference or accepts neither mode."""
    try:
        wire = choose_wire(request, DEFAULT_WIRES)
    except NotAcceptable:
        return ResponseMode.BATCH
    return ResponseMode.STREAM if wire.streaming else ResponseMode.BATCH


def choose_wire(request: RequestLike, wires: Sequence[Wire]) -> Wire:
    """Return the wire that a request asks for by `?stream=` and Accept. Raise NotAcceptable if none fits.

    Clients that express no preference get the first of `wires`.
    """
    return negotiate(_accept(request.headers), stream_flag(request.query_params.get("stream")), wires)


def _accept(headers: Mapping[str, str]) -> str | None:
    """Return the Accept header. Several lines of it count as one list (RFC 9110, section 5.3)."""
    lines = [value for name, value in headers.items() if name.lower() == "accept"]
    return ",".join(lines) if lines else None


def stream_flag(value: str | None) -> bool | None:
    """Read `?stream=`. Return None if it is absent or not a boolean."""
    return _FLAGS.get(value.lower()) if value is not None else None


def negotiate(accept: str | None, stream: bool | None, wires: Sequence[Wire]) -> Wire:
    """Choose the wire of a response. Clients that express no preference get the first of `wires`.

    If `stream` is given, it decides whether to stream, and Accept only chooses among the wires of that mode.
    Raise NotAcceptable if none fits.
    """
    ranges = Accept(accept)
    if stream is not None and (of_mode := [wire for wire in wires if wire.streaming is stream]):
        return _best(ranges, of_mode) or of_mode[0]
    if (wire := _best(ranges, wires)) is None:
        raise NotAcceptable(accept or "", [wire.media_type for wire in wires])
    return wire


def _best(accept: Accept, wires: Sequence[Wire]) -> Wire | None:
    best: Wire | None = None
    best_rank = (0.0, 0, False)
    for wire in wires:
        specificity, quality = max(accept.match(media_type) for media_type in (wire.media_type, *wire.aliases))
        # A client that lists a stream's own media type beside a document can read the stream. An alias proves less.
        named = wire.names_a_stream and accept.match(wire.media_type)[0] == 2
        rank = (quality, specificity, named)
        if quality > 0 and rank > best_rank:
            best, best_rank = wire, rank
    return best


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return max(0.0, min(float(value), 1.0))  # this order turns NaN into 0
            except ValueError:
                return 0.0
    return 1.0


DEFAULT_WIRES: tuple[Wire, ...] = (Batch(), SSE(), NDJSON(), Text())
"""The wires that a stream offers by default. The first one is for clients without a preference."""
