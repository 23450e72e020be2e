from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI, WebSocket

from tailrace import FrameTooLarge
from tailrace.client import StreamFailed, StreamLost, StreamRefused, Timeouts, Unreachable, tail
from tailrace.client.socket import AsyncSocket, SyncSocket
from tailrace.client.transport import Ended, Failed, Open
from tailrace.testing import Fault, Relay, relayed
from tests.client.apps import LETTERS, tailrace_app
from tests.client.drivers import AT_ONCE, Driver
from tests.client.speaking import own_certificate, saying, speaking, until_left
from tests.raw import BOUND
from tests.serving import serving


@pytest.fixture
def app() -> FastAPI:
    return tailrace_app()


@pytest.fixture
async def relay(app: FastAPI) -> AsyncIterator[Relay]:

    @app.websocket("/other")
    async def other(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.send_json({"n": 1})
        await socket.close(1000)

    @app.websocket("/shut")
    async def shut(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(1008, "not you")

    @app.websocket("/big")
    async def big(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("small")
        await socket.send_text("x" * 5_000)
        await socket.close(1000)

    async with serving(app) as url, relayed(url.replace("http", "ws")) as relay:
        yield relay


async def test_a_stream_comes_in_messages(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/named")
    assert [(event.event, event.data) for event in got.events] == [(None, "first"), ("second", 2)]
    assert got.outcome is not None
    assert got.outcome.state == "done"


async def test_cut_at_each_byte_every_event_comes_once(relay: Relay, driver: Driver) -> None:
    await driver.read(f"{relay.url}/letters")
    total = relay.passed
    for count in [*range(0, total - 240, 31), *range(total - 240, total, 1 if driver.name == "async" else 9)]:
        relay.next(Fault(after=count))
        got = await driver.read(f"{relay.url}/letters")
        assert got.error is None, (count, got.error)
        assert got.data == LETTERS, count


async def test_a_body_is_the_first_message(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/words", json=["x", "y"])
    assert got.data == ["x", "y"]


async def test_cut_before_its_first_event_a_body_is_not_sent_twice(relay: Relay, driver: Driver, app: FastAPI) -> None:
    await driver.read(f"{relay.url}/words", json=["x"])
    lost, total = 0, relay.passed
    for count in range(total - 200, total - 60, 4):
        relay.next(Fault(after=count))
        got = await driver.read(f"{relay.url}/words?post={count}", json=["x"])
        assert (got.error is None) == (got.data == ["x"])
        lost += isinstance(got.error, StreamLost)
    # Where the socket was open already, but no event had come, it is unknown whether the body has arrived.
    assert 0 < lost < 35
    # A post may begin to run after its client has gone on, so each is counted by itself.
    assert set(app.state.runs.values()) == {1}


async def test_stop_is_a_message(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/long", stop_after=2)
    assert got.error is None
    assert got.outcome is not None
    assert got.outcome.code == "stopped"


async def test_what_is_said_to_a_socket_that_is_gone(relay: Relay) -> None:
    request = Open("GET", f"{relay.url}/shut", {}, None, 5.0, 5.0, 5.0)
    socket = AsyncSocket(1 << 20)
    await socket.open(request)
    assert await socket.read(None) == Ended(1008, "not you")
    assert isinstance(await socket.say("x"), Failed)
    await socket.close()
    assert isinstance(await socket.say("x"), Failed)

    def without_asyncio() -> None:
        socket = SyncSocket(1 << 20)
        socket.open(request)
        assert socket.read(None) == Ended(1008, "not you")
        assert isinstance(socket.say("x"), Failed)
        socket.close()
        assert isinstance(socket.say("x"), Failed)

    await asyncio.to_thread(without_asyncio)


async def test_stop_without_a_connection_is_told(relay: Relay) -> None:
    async with tail(f"{relay.url}/letters") as events:
        assert [event.data async for event in events] == LETTERS
        with pytest.raises(Unreachable, match="there is no connection now"):
            await events.stop()


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [("/nowhere", {}, 403), ("/early", {}, 401), ("/words", {"json": 5}, 422), ("/shut", {}, 1008)],
)
async def test_refusals(relay: Relay, driver: Driver, path: str, options: dict[str, object], status: int) -> None:
    got = await driver.read(relay.url + path, **options)
    assert isinstance(got.error, StreamRefused)
    assert got.error.status == status


async def test_failures(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/late")
    assert got.data == ["a"]
    assert isinstance(got.error, StreamFailed)


async def test_other_servers_messages(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/other")
    assert got.data == ["hello", {"n": 1}]
    assert (got.error, got.outcome) == (None, None)


async def test_silence_is_bounded(relay: Relay, driver: Driver) -> None:
    relay.next(Fault(after=480, how="stall"))
    got = await driver.read(f"{relay.url}/letters", timeouts=Timeouts(idle=0.6))
    assert got.data == LETTERS


async def test_the_total_is_kept_in_silence(relay: Relay, driver: Driver) -> None:
    got = await driver.read(f"{relay.url}/quiet", timeouts=Timeouts(total=0.3))
    assert isinstance(got.error, StreamLost)
    assert "total" in str(got.error)


async def test_nobody_there(driver: Driver) -> None:
    got = await driver.read("ws://127.0.0.1:1/x", retry=AT_ONCE)
    assert isinstance(got.error, StreamLost)
    assert got.error.attempts == 9


async def test_a_message_that_is_too_large_is_told_once(relay: Relay, driver: Driver) -> None:
    with pytest.raises(FrameTooLarge, match="expected a frame of at most 4096 bytes, but got at least 4097"):
        await driver.read(f"{relay.url}/big", max_bytes=4096)
    assert relay.accepted == 1
    got = await driver.read(f"{relay.url}/big", max_bytes=5_000)
    assert got.data == ["small", "x" * 5_000]


def test_a_body_that_is_no_text_is_told() -> None:
    with pytest.raises(ValueError, match="expected UTF-8 text as a WebSocket's message, but got other bytes"):
        tail("ws://x", content=b"\xff")


@pytest.mark.parametrize(
    ("location", "count", "said"),
    [
        ("/", 11, "redirects endlessly"),
        ("https://127.0.0.1/", 1, "expected an address with ws or wss"),
        ("ws://[oops/", 1, "Invalid IPv6 URL"),
        ("ws://127.0.0.1:99999/", 1, "a port from 1 to 65535"),
    ],
)
async def test_a_redirection_that_leads_nowhere_is_not_repeated(
    driver: Driver, location: str, count: int, said: str
) -> None:
    asked = 0

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        head = f"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: {location}\r\n\r\n"
        await saying(head.encode())(reader, writer)

    async with speaking(redirect) as address:
        got = await driver.read(f"ws{address}/")
    assert isinstance(got.error, StreamLost)
    assert said in str(got.error)
    assert (asked, got.error.attempts) == (count, 0)


async def test_a_certificate_that_cannot_be_verified_does_not_heal(driver: Driver, tmp_path: Path) -> None:
    async with speaking(until_left, tls=own_certificate(tmp_path)) as address:
        got = await driver.read(f"wss{address}/")
    assert str(got.error) == "the stream is lost: the server's certificate cannot be verified: self-signed certificate"


async def test_a_server_of_something_else_does_not_heal(driver: Driver) -> None:
    async with speaking(saying(b"SSH-2.0-x\r\n\r\n")) as address:
        got = await driver.read(f"ws{address}/")
    assert str(got.error) == "the stream is lost: no connection: did not receive a valid HTTP response"


async def test_a_stream_is_left_while_somebody_waits_for_its_next_event(relay: Relay) -> None:
    following = tail(f"{relay.url}/quiet")
    events = await following.__aenter__()
    await anext(events)
    waiting = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    await following.__aexit__(None, None, None)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting, BOUND)
