from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tailrace import Engine, Log, Outcome, StreamResponse
from tailrace.client import Retry, StreamFailed, StreamLost, StreamRefused, StreamReset, Timeouts, tail
from tailrace.client.errors import NotStoppable
from tailrace.client.http import AsyncHTTP, HTTPClient, SyncHTTP
from tailrace.testing import Fault, Relay, relayed
from tests.client.apps import LETTERS, tailrace_app
from tests.client.drivers import AT_ONCE, Driver, everywhere, read_async
from tests.raw import BOUND
from tests.serving import http_client, serving

SSE, NDJSON = "text/event-stream", "application/x-ndjson"

WIRES = pytest.mark.parametrize("accept", [SSE, NDJSON])


@pytest.fixture
def app() -> FastAPI:
    return tailrace_app()


@pytest.fixture
async def relay(app: FastAPI) -> AsyncIterator[Relay]:
    async with serving(app) as url, relayed(url) as relay:
        yield relay


def cuts(total: int, driver: Driver) -> list[int]:
    """Where to cut a response. In the head one byte is like another; what comes after it is cut at each.

    Without asyncio the same core decides, so every seventh place is enough there. The one in JavaScript is another.
    """
    assert total > 300
    return [*range(0, total - 300, 29), *range(total - 300, total, 7 if driver.name == "sync" else 1)]


@everywhere
@WIRES
async def test_cut_at_each_byte_a_get_yields_every_event_once(
    relay: Relay, driver: Driver, shared: HTTPClient, accept: str
) -> None:
    with_client = {"client": shared, "headers": {"accept": accept}}
    await driver.read(f"{relay.url}/letters", **with_client)
    for count in cuts(relay.passed, driver):
        relay.next(Fault(after=count))
        got = await driver.read(f"{relay.url}/letters", **with_client)
        assert got.error is None, (count, got.error)
        assert got.data == LETTERS, count
        assert got.outcome is not None
        assert got.outcome.state == "done"


@everywhere
@WIRES
async def test_cut_at_each_byte_a_post_is_sent_once(
    relay: Relay, driver: Driver, shared: HTTPClient, accept: str, app: FastAPI
) -> None:
    options = {"client": shared, "headers": {"accept": accept}, "json": LETTERS}
    # Its address has three digits, as those of most posts below.
    await driver.read(f"{relay.url}/words?post=999", **options)
    is_addressed = False
    for count in cuts(relay.passed, driver):
        relay.next(Fault(after=count))
        got = await driver.read(f"{relay.url}/words?post={count}", **options)
        if got.error is None:
            assert got.data == LETTERS, count
            is_addressed = True
        else:
            # The head had not come: nobody knows the stream's address.
            assert isinstance(got.error, StreamLost)
            assert "unknown whether" in str(got.error)
            assert got.data == []
            assert not is_addressed
    assert is_addressed
    # A post whose response was cut may begin to run after its client has gone on, so each is counted by itself.
    assert set(app.state.runs.values()) == {1}


@everywhere
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
async def test_however_the_connection_goes(relay: Relay, driver: Driver, how: str) -> None:
    relay.next(Fault(after=480, how=how))  # type: ignore[arg-type]
    got = await driver.read(f"{relay.url}/letters")
    assert got.data == LETTERS


@everywhere
async def test_bytes_may_come_one_by_one(relay: Relay, driver: Driver) -> None:
    relay.always(Fault(piece=1))
    got = await driver.read(f"{relay.url}/named")
    assert [(event.event, event.data) for event in got.events] == [(None, "first"), ("second", 2)]


@everywhere
async def test_a_connection_that_is_silent_for_too_long_is_left(relay: Relay, driver: Driver) -> None:
    told: list[str] = []
    relay.next(Fault(after=480, how="stall"))
    got = await driver.read(
        f"{relay.url}/letters", timeouts=Timeouts(idle=1.0), on_reconnect=lambda n, delay, why: told.append(str(why))
    )
    assert got.data == LETTERS
    assert told == ["the server has been silent for too long"]


@everywhere
async def test_a_server_that_is_gone_is_given_up(driver: Driver) -> None:
    got = await driver.read("http://127.0.0.1:1/x", retry=Retry(limit=2, base=0))
    assert isinstance(got.error, StreamLost)
    assert got.error.attempts == 3


async def test_the_total_is_kept(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/long", timeouts=Timeouts(total=0.2))
    assert isinstance(got.error, StreamLost)
    assert "total" in str(got.error)
    assert got.data == list(range(len(got.data)))


async def test_the_total_is_kept_in_silence(relay: Relay) -> None:
    got = await read_async(f"{relay.url}/quiet", timeouts=Timeouts(total=0.3, idle=0.2))
    assert isinstance(got.error, StreamLost)


@everywhere
async def test_an_application_that_refuses(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/early")
    assert isinstance(got.error, StreamRefused)
    assert (got.error.status, got.error.detail) == (401, "who are you")


@everywhere
async def test_a_stream_that_fails(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/late")
    assert got.data == ["a"]
    assert isinstance(got.error, StreamFailed)
    assert (got.error.code, got.error.message) == ("model_down", "the model is down")
    assert got.outcome is not None
    assert got.outcome.state == "error"


@everywhere
async def test_a_stream_is_stopped(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/long", stop_after=3)
    assert got.error is None
    assert got.outcome is not None
    assert (got.outcome.state, got.outcome.code) == ("cancelled", "stopped")


@everywhere
async def test_what_has_no_stop_address_cannot_be_stopped(relay: Relay, driver: Driver, app: FastAPI) -> None:
    await app.state.feed.append(1)
    got = await driver.read(f"{relay.url}/feed", stop_after=1)
    assert isinstance(got.error, NotStoppable)


@everywhere
async def test_a_saved_cursor_is_where_another_goes_on(relay: Relay, driver: Driver) -> None:
    async with tail(f"{relay.url}/letters") as events:
        assert events.address is None or events.address.startswith(relay.url)
        assert (events.media_type, (await anext(events)).data) == (SSE, "a")
        saved = events.cursor
        assert saved is not None
        assert saved.endswith(".1")
    got = await driver.read(f"{relay.url}/letters", after=saved)
    assert got.data == ["b", "c"]
    again = await driver.read(f"{relay.url}/letters", after=got.cursor)
    assert (again.data, again.error) == ([], None)


@everywhere
async def test_a_reset_is_an_error_or_a_new_beginning(relay: Relay, driver: Driver, app: FastAPI) -> None:
    feed = app.state.feed
    await feed.append(*range(1, 9))
    first = str(feed.cursor(1))
    got = await driver.read(f"{relay.url}/feed", after=first)
    assert isinstance(got.error, StreamReset)
    assert (got.error.reason, got.error.cursor) == ("trimmed", str(feed.cursor(5)))
    await feed.close(Outcome("done"))
    again = await driver.read(f"{relay.url}/feed", after=first, on_reset="restart")
    assert [event.event or event.data for event in again.events] == ["reset", 6, 7, 8]


@everywhere
@pytest.mark.parametrize("accept", [SSE, NDJSON, "text/plain", "application/json"])
async def test_a_tail_is_never_given_for_the_whole(relay: Relay, driver: Driver, accept: str) -> None:
    address = (await driver.read(f"{relay.url}/short", headers={"accept": SSE})).address
    assert address is not None
    headers = {"accept": accept}
    got = await driver.read(address, headers=headers)
    assert isinstance(got.error, StreamReset), (got.data, got.error)
    assert (got.error.reason, got.data) == ("trimmed", [])
    again = await driver.read(address, headers=headers, on_reset="restart")
    assert again.events[0].event == "reset"
    assert "".join(map(str, again.data[1:])).replace("\n", "") == "789"


@everywhere
async def test_a_document_is_a_stream_too(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/letters", headers={"accept": "application/json"})
    assert got.data == LETTERS
    assert got.outcome is not None


@everywhere
async def test_text_is_a_stream_too(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/letters", headers={"accept": "text/plain"})
    assert "".join(got.data) == "abc"
    assert got.outcome is not None


@everywhere
async def test_openais_chunks_end_with_their_mark(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/chunks")
    assert len(got.data) == 3
    assert got.outcome is not None


@everywhere
async def test_parameters_and_bodies_are_sent(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/words", content='["x"]', headers={"Content-Type": "application/json"})
    assert got.data == ["x"]
    got = await driver.read(f"{relay.url}/letters", params={"stream": False, "other": None})
    assert got.data == LETTERS


async def test_a_slow_consumer_holds_the_producer_back(relay: Relay, app: FastAPI) -> None:
    async with tail(f"{relay.url}/fast") as events:
        await anext(events)
        while (made := app.state.made) is not None:
            await asyncio.sleep(0.05)
            if app.state.made == made:
                break
        assert len(events._pending) < 5_000
        assert app.state.made < 500_000


async def test_a_cancelled_wait_loses_nothing(relay: Relay, app: FastAPI) -> None:
    feed = app.state.feed
    await feed.append("a")
    async with tail(f"{relay.url}/feed", retry=AT_ONCE) as events:
        assert (await anext(events)).data == "a"
        for letter in "bcdefghijkl":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.01)
            await feed.append(letter)
            assert (await asyncio.wait_for(anext(events), BOUND)).data == letter


async def test_a_callers_client_stays_open(relay: Relay) -> None:
    async with http_client(relay.url) as client:
        async with tail("/letters", client=client) as events:
            assert [event.data async for event in events] == LETTERS
        assert not client.is_closed
    with (
        httpx.Client() as other,
        pytest.raises(TypeError, match=r"expected an httpx\.AsyncClient here, but got Client"),
    ):
        async with tail(relay.url, client=other):
            pass
    with pytest.raises(TypeError, match=r"expected an httpx\.Client here, but got AsyncClient"):
        tail(relay.url, client=client).__enter__()
    with pytest.raises(TypeError, match="no httpx client"):
        tail("ws://x", client=httpx.Client())


async def test_nothing_is_said_over_http() -> None:
    transport = AsyncHTTP()
    with pytest.raises(NotImplementedError):
        await transport.say("x")
    await transport.leave()
    other = SyncHTTP()
    with pytest.raises(NotImplementedError):
        other.say("x")
    other.leave()


def test_a_body_is_given_once() -> None:
    with pytest.raises(TypeError, match="json or content"):
        tail("http://x", json=1, content="1")


def test_what_cannot_be_sent_is_told() -> None:
    with pytest.raises(ValueError, match=r"expected JSON-able data, but got '\\ud800': .*surrogates not allowed"):
        tail("http://x", json="\ud800")
    with pytest.raises(ValueError, match="expected JSON-able data, but got <object"):
        tail("http://x", json=object())
    with pytest.raises(
        ValueError, match=r"expected text that UTF-8 can encode, but got '\\ud800': surrogates not allowed"
    ):
        tail("http://x", content="\ud800")


async def test_a_stream_is_entered_once_at_a_time(relay: Relay) -> None:
    following = tail(f"{relay.url}/letters")
    for _ in range(2):
        async with following as events:
            with pytest.raises(RuntimeError, match="expected one `with` at a time, but this stream is being read"):
                await following.__aenter__()
            assert [event.data async for event in events] == LETTERS

    def without_asyncio() -> None:
        for _ in range(2):
            with following as events:
                with pytest.raises(RuntimeError, match="expected one `with` at a time, but this stream is being read"):
                    following.__enter__()
                assert [event.data for event in events] == LETTERS

    await asyncio.to_thread(without_asyncio)
    refused = tail(f"{relay.url}/early")
    for _ in range(2):
        with pytest.raises(StreamRefused):
            await refused.__aenter__()
        with pytest.raises(StreamRefused):
            await asyncio.to_thread(refused.__enter__)


async def test_misuse_is_not_taken_for_the_network(relay: Relay, driver: Driver) -> None:
    with pytest.raises(ValueError, match="expected a URL with one of http, https, ws or wss, but got '/letters'"):
        await driver.read("/letters")
    with pytest.raises(ValueError, match="expected a request that HTTP allows"):
        await driver.read(relay.url, headers={"x": "a\nb"})


async def test_a_callers_client_may_know_the_rest_of_the_address(relay: Relay) -> None:
    async with http_client(relay.url) as client, tail("/letters", client=client) as events:
        assert [event.data async for event in events] == LETTERS


@pytest.mark.parametrize("after", ["", "a.b.1\n", " a.b.1", "a\0"])
def test_an_after_that_cannot_be_sent_is_told(after: str) -> None:
    with pytest.raises(ValueError, match="expected an id that a header can hold as `after`, but got"):
        tail("http://x", after=after)


async def test_the_cursor_is_that_of_the_last_event_that_was_given(relay: Relay, driver: Driver) -> None:
    async with tail(f"{relay.url}/late") as events:
        assert (await anext(events)).data == "a"
        cursor = events.cursor
    got = await driver.read(f"{relay.url}/late", after=cursor)
    assert got.data == []
    assert isinstance(got.error, StreamFailed)


async def test_an_error_is_raised_again_to_who_reads_on(relay: Relay) -> None:
    async with tail(f"{relay.url}/late") as events:
        for _ in range(2):
            with pytest.raises(StreamFailed, match="model_down"):
                [event async for event in events]


async def test_a_stream_that_was_left_is_not_taken_for_whole(relay: Relay) -> None:
    async with tail(f"{relay.url}/letters") as events:
        pass
    with pytest.raises(RuntimeError, match="expected to read inside of the block, but the stream was left"):
        await anext(events)

    def leave() -> None:
        with tail(f"{relay.url}/letters") as letters:
            letters.close()
            next(letters)

    with pytest.raises(RuntimeError, match="but the stream was left"):
        await asyncio.to_thread(leave)


@everywhere
async def test_openais_error_is_a_failure(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/chunks/broken")
    assert isinstance(got.error, StreamFailed)
    assert (got.error.code, got.error.message) == ("model_down", "the model is down")


# A stream with one reader at a time


@asynccontextmanager
async def exclusive() -> AsyncIterator[tuple[Relay, Log]]:
    """A log with one reader at a time, on a server that does not notice when a reader has gone."""
    engine = Engine()
    log = await engine.log("news")
    response = StreamResponse(log, engine=engine, exclusive=True)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def app(scope: Any, _: object, send: Any) -> None:
        await response(scope, receive, send)

    async with serving(app, lifespan="off") as url, relayed(url) as relay:
        yield relay, log
        await log.close()


async def test_a_client_takes_over_from_its_own_connection() -> None:
    async with exclusive() as (relay, log), asyncio.timeout(BOUND):
        await log.append(1)
        async with tail(f"{relay.url}/x", headers={"accept": SSE}, retry=AT_ONCE, takeover=True) as events:
            assert (await anext(events)).data == 1
            relay.cut()
            await log.append(2)
            assert (await anext(events)).data == 2
        assert relay.accepted == 2


@everywhere
async def test_a_client_that_got_no_answer_takes_over_too(driver: Driver) -> None:
    async with exclusive() as (relay, log), asyncio.timeout(BOUND):
        relay.next(Fault(after=10))
        reading = asyncio.ensure_future(driver.read(f"{relay.url}/x", headers={"accept": SSE}, takeover=True))
        await relay.wait_accepted(2)
        await log.append(1)
        await log.close()
        got = await reading
    assert (got.data, got.error) == ([1], None)


@everywhere
async def test_a_client_that_may_not_take_over_is_refused(driver: Driver) -> None:
    async with exclusive() as (relay, _):
        relay.next(Fault(after=10))
        got = await driver.read(f"{relay.url}/x", headers={"accept": SSE})
    assert isinstance(got.error, StreamRefused)
    assert (got.error.status, got.error.code) == (409, "already_read")


@everywhere
async def test_a_client_that_is_replaced_does_not_come_back(driver: Driver) -> None:
    async with exclusive() as (relay, log), asyncio.timeout(BOUND):
        await log.append(1)
        async with tail(f"{relay.url}/x", headers={"accept": SSE}, takeover=True) as events:
            assert (await anext(events)).data == 1
            other = asyncio.ensure_future(driver.read(f"{relay.url}/x?takeover=true", headers={"accept": SSE}))
            with pytest.raises(StreamLost) as lost:
                await anext(events)
        await log.close()
        assert (await other).data == [1]
    assert (lost.value.kind, lost.value.cursor) == ("replaced", str(log.cursor(1)))
    assert relay.accepted == 2
