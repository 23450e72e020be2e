"""The wire that a client asks for: `?stream=` first, then Accept (RFC 9110, section 12.5.1)."""

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
    """The parts of a request that choose its wire."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def query_params(self) -> Mapping[str, str]: ...


class Accept:
    """The media ranges of an Accept header with their qualities, for any number of look-ups.

    Malformed ranges are ignored, and so is everything past MAX_RANGES ranges or MAX_ACCEPT characters: a request costs
    little, however long its header is.
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
        """How specific the range for a media type is, and its quality: the most specific range decides.

        2 stands for the type itself, 1 for `type/*`, 0 for `*/*`, and -1 for no match.
        """
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        for specificity, range_ in zip((2, 1, 0), ranges, strict=True):
            if (quality := self._qualities.get(range_)) is not None:
                return specificity, quality
        return -1, 0.0


def detect_mode(request: RequestLike) -> ResponseMode:
    """Return the mode that a request asks for; BATCH if it expresses no preference, or accepts neither."""
    try:
        wire = choose_wire(request, DEFAULT_WIRES)
    except NotAcceptable:
        return ResponseMode.BATCH
    return ResponseMode.STREAM if wire.streaming else ResponseMode.BATCH


def choose_wire(request: RequestLike, wires: Sequence[Wire]) -> Wire:
    """Return the one of `wires` that a request asks for, by `?stream=` and Accept. Raise NotAcceptable if none fits.

    Clients that express no preference get the first.
    """
    return negotiate(_accept(request.headers), stream_flag(request.query_params.get("stream")), wires)


def _accept(headers: Mapping[str, str]) -> str | None:
    """The Accept header, which may come in several lines (RFC 9110, section 5.3)."""
    lines = [value for name, value in headers.items() if name.lower() == "accept"]
    return ",".join(lines) if lines else None


def stream_flag(value: str | None) -> bool | None:
    """Read `?stream=`; None if it is absent or not a boolean."""
    return _FLAGS.get(value.lower()) if value is not None else None


def negotiate(accept: str | None, stream: bool | None, wires: Sequence[Wire]) -> Wire:
    """Choose the wire of a response. Clients that express no preference get the first of `wires`.

    `stream` decides whether to stream, whatever Accept says; Accept then only chooses among the wires of that mode.
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
        # A client that names a stream beside a document can read the stream; an alias names it only by custom.
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
                return max(0.0, min(float(value), 1.0))  # in this order, nan is 0
            except ValueError:
                return 0.0
    return 1.0


DEFAULT_WIRES: tuple[Wire, ...] = (Batch(), SSE(), NDJSON(), Text())
"""What a stream offers unless told otherwise, the default first."""
