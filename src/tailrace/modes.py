"""Which wire a client asks for: `?stream=` first, then Accept (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from .errors import NotAcceptable
from .wire.base import Wire
from .wire.batch import Batch
from .wire.ndjson import NDJSON
from .wire.sse import SSE
from .wire.text import Text

_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class ResponseMode(StrEnum):
    """Everything at the end in one document, or each event as it comes."""

    BATCH = "batch"
    STREAM = "stream"


class RequestLike(Protocol):
    """What is read of a request to choose its wire."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def query_params(self) -> Mapping[str, str]: ...


class MediaRange(NamedTuple):
    """One element of an Accept header."""

    type: str
    subtype: str
    quality: float

    def specificity(self, media_type: str) -> int:
        """2 for the very type, 1 for `type/*`, 0 for `*/*`, -1 where it does not match."""
        type_, _, subtype = media_type.partition("/")
        if (self.type, self.subtype) == (type_, subtype):
            return 2
        if (self.type, self.subtype) == (type_, "*"):
            return 1
        return 0 if (self.type, self.subtype) == ("*", "*") else -1


def detect_mode(request: RequestLike) -> ResponseMode:
    """What a request asks for; BATCH where it leaves the choice, and where it accepts neither."""
    try:
        wire = choose_wire(request, DEFAULT_WIRES)
    except NotAcceptable:
        return ResponseMode.BATCH
    return ResponseMode.STREAM if wire.streaming else ResponseMode.BATCH


def choose_wire(request: RequestLike, wires: Sequence[Wire]) -> Wire:
    """Which of `wires` a request asks for, by `?stream=` and Accept; NotAcceptable if none fits.

    The first of `wires` is for clients that leave the choice.
    """
    return negotiate(_accept(request.headers), stream_flag(request.query_params.get("stream")), wires)


def _accept(headers: Mapping[str, str]) -> str | None:
    """The Accept header, which may come in several lines (RFC 9110, section 5.3)."""
    lines = [value for name, value in headers.items() if name.lower() == "accept"]
    return ",".join(lines) if lines else None


def stream_flag(value: str | None) -> bool | None:
    """`?stream=` as a choice; None where it makes none."""
    return _FLAGS.get(value.lower()) if value is not None else None


def negotiate(accept: str | None, stream: bool | None, wires: Sequence[Wire]) -> Wire:
    """The wire for a response. The first of `wires` is for clients that leave the choice.

    `stream` beats Accept in whether to stream; Accept then only chooses among the wires that are left.
    NotAcceptable if none fits.
    """
    if stream is not None and (of_mode := [wire for wire in wires if wire.streaming is stream]):
        return _best(accept, of_mode) or of_mode[0]
    if (wire := _best(accept, wires)) is None:
        raise NotAcceptable(accept or "", [wire.media_type for wire in wires])
    return wire


def _best(accept: str | None, wires: Sequence[Wire]) -> Wire | None:
    ranges = parse_accept(accept) if accept and accept.strip() else [MediaRange("*", "*", 1.0)]
    best: Wire | None = None
    best_rank = (0.0, 0, False)
    for wire in wires:
        specificity, quality = max(_match(media_type, ranges) for media_type in (wire.media_type, *wire.aliases))
        # A client that names a stream beside a document can read the stream; an alias names it only by custom.
        named = wire.names_a_stream and _match(wire.media_type, ranges)[0] == 2
        rank = (quality, specificity, named)
        if quality > 0 and rank > best_rank:
            best, best_rank = wire, rank
    return best


def _match(media_type: str, ranges: Sequence[MediaRange]) -> tuple[int, float]:
    """The most specific range decides on the quality, RFC 9110 section 12.5.1."""
    return max(
        ((range_.specificity(media_type), range_.quality) for range_ in ranges if range_.specificity(media_type) >= 0),
        default=(-1, 0.0),
    )


def parse_accept(accept: str) -> list[MediaRange]:
    """The media ranges of an Accept header; what is no media range is passed over."""
    return [range_ for element in accept.split(",") if (range_ := _parse_range(element)) is not None]


def _parse_range(element: str) -> MediaRange | None:
    media, *parameters = (part.strip() for part in element.split(";"))
    type_, slash, subtype = media.lower().partition("/")
    if not (type_ and slash and subtype):
        return None
    return MediaRange(type_, subtype, _quality(parameters))


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
