"""The headers of a stream's response."""

from __future__ import annotations

from urllib.parse import quote

from ..log.base import Tail
from ..wire.base import Wire

Header = tuple[bytes, bytes]

_ALWAYS: list[Header] = [
    # Proxies must neither keep, nor rewrite, nor gather what they pass on.
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"vary", b"accept"),
]


def stream_headers(wire: Wire, tail: Tail | None = None, *, addressed: bool = False) -> list[Header]:
    """What every response of a wire says; of a tail also where it begins and, `addressed`, its resume and stop."""
    headers = [(b"content-type", wire.content_type.encode()), *_ALWAYS]
    if tail is not None:
        headers.append((b"tailrace-cursor", str(tail.log.cursor(tail.position)).encode()))
    if tail is not None and addressed and wire.streaming:
        path = quote(tail.log.name).encode()
        headers += [(b"content-location", path), (b"link", b'<%b/stop>; rel="stop"' % path)]
    return headers
