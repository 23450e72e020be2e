"""Responses before their first event."""

from __future__ import annotations

from tailrace import StreamError, StreamResponse, StreamSettings
from tests.asgi.apps import SSE_HEADERS, Served
from tests.raw import exchange, frames, values
from tests.serving import serving
from tests.sources import Faucet, soon


async def test_headers_do_not_wait_for_the_first_event_for_ever() -> None:
    faucet = Faucet()
    app = Served(x=StreamResponse(faucet.run, StreamSettings(status_wait=0.01)))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS) as got:
        assert got.status == 200
        faucet.put(StreamError("too late for a status", code="late", status=409))
        (error,) = frames(await got.rest())
        assert (error.event, error.data) == ("error", {"code": "late", "message": "too late for a status"})
        assert not got.whole


async def test_a_late_failure_without_an_event_is_logged_too() -> None:
    faucet = Faucet()
    app = Served(x=StreamResponse(faucet.run, StreamSettings(status_wait=0.01)))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS) as got:
        faucet.put(ValueError("secret"))
        assert [frame.event for frame in frames(await got.rest())] == ["error"]
    assert [str(error) for error in app.raised] == ["secret"]


async def test_a_stream_stopped_before_its_first_event_says_so() -> None:
    faucet = Faucet()
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS, head=False) as got:
        await soon(faucet.started)
        (producer,) = app.engine.producers._running.values()
        producer.stop()
        await got.read_head()
        assert got.status == 200
        assert values(await got.rest()) == ["cancelled"]
        assert got.whole
