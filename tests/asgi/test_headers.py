from __future__ import annotations

from tailrace.asgi.headers import stream_headers
from tailrace.engine import Engine
from tailrace.modes import DEFAULT_WIRES
from tailrace.wire.batch import Batch
from tailrace.wire.sse import SSE


def test_every_wire_says_what_it_is_and_that_nobody_may_keep_it() -> None:
    for wire in DEFAULT_WIRES:
        assert stream_headers(wire) == [
            (b"content-type", wire.content_type.encode()),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"vary", b"accept"),
        ]


async def test_a_tail_says_where_it_begins() -> None:
    log = Engine().log("weather")
    await log.extend([1, 2, 3])
    with log.tail(2) as tail:
        headers = dict(stream_headers(SSE(), tail))
    assert headers[b"tailrace-cursor"].decode() == str(log.cursor(2))
    assert b"content-location" not in headers
    assert b"link" not in headers


async def test_an_addressed_stream_says_where_it_is_resumed_and_stopped() -> None:
    log = Engine().new_stream("/räume/a b")
    stream = log.name.rpartition("/")[2]
    with log.tail() as tail:
        headers = dict(stream_headers(SSE(), tail, addressed=True))
        document = dict(stream_headers(Batch(), tail, addressed=True))
    assert headers[b"content-location"].decode() == f"/r%C3%A4ume/a%20b/{stream}"
    assert headers[b"link"].decode() == f'</r%C3%A4ume/a%20b/{stream}/stop>; rel="stop"'
    # A document is complete when its headers come: nothing is left to resume or stop.
    assert b"content-location" not in document
    assert b"link" not in document
