"""What the readers of a log are told while its store is out of reach."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import websockets
from pydantic_core import from_json
from starlette.types import Message

from tailrace import OpenAIChunks, StreamResponse, StreamSettings, Wire
from tailrace.asgi.connection import Connection
from tailrace.events import Entries
from tailrace.log.base import BATCH_BYTES
from tailrace.log.memory import MemoryLog
from tailrace.modes import DEFAULT_WIRES
from tailrace.wire.packets import PacketLines
from tests.asgi.apps import SSE_HEADERS, Served, Server, small_engine
from tests.loops import on_each_loop
from tests.raw import BOUND, exchange, values
from tests.serving import serving
from tests.silence import silent_loop as silent_loop
from tests.storing import FetchingLog

from .test_delivery import Gate, broadcast

pytestmark = pytest.mark.usefixtures("silent_loop")

WIRES = {wire.media_type: wire for wire in DEFAULT_WIRES}

TOLD: dict[str, bytes] = {
    "text/event-stream": (
        b'id: news.E.1\nevent: degraded\ndata: {"degraded":true}\n\n'
        b'id: news.E.1\nevent: degraded\ndata: {"degraded":false}\n\n'
    ),
    "application/x-ndjson": (
        b'{"id":"news.E.1","event":"degraded","data":{"degraded":true}}\n'
        b'{"id":"news.E.1","event":"degraded","data":{"degraded":false}}\n'
    ),
    "text/plain": b"",
}


async def told(wire: Wire) -> tuple[MemoryLog, bytes]:
    """A log, and its body: an entry, then a change and another one, then an entry and the end."""
    log = MemoryLog("news")
    await log.append("a")
    settings = StreamSettings(wires=[wire])
    headers = {"Accept": wire.media_type}
    async with serving(Served(x=StreamResponse(log, settings))) as url, exchange(url, "/x", headers) as got:
        body = await got.until(b"a")
        for degraded, word in (True, b"true"), (False, b"false"):
            for _ in range(2):  # the second time, it is no news
                log.set_degraded(degraded)
            if wire.media_type != "text/plain":
                body += await got.until(word)
        await log.append("b")
        await log.close()
        return log, body + await got.rest()


@pytest.mark.parametrize("media_type", TOLD)
async def test_each_change_is_told_once_on_every_wire(media_type: str) -> None:
    wire = WIRES[media_type]
    log, body = await told(wire)
    encoder = wire.encoder(log.stream, log.epoch, 0)
    one, other = [encoder.encode(await log.read(after, 1)) for after in (0, 1)]
    expected = one + TOLD[media_type].replace(b".E.", f".{log.epoch}.".encode()) + other
    assert body.startswith(expected)


async def test_a_client_of_openai_gets_comments() -> None:
    _, body = await told(OpenAIChunks("m"))
    lines = body.split(b"\n")
    assert lines.count(b": degraded true") == lines.count(b": degraded false") == 1
    assert lines[-3:] == [b"data: [DONE]", b"", b""]


async def test_a_packet_session_tells_it_by_a_packet() -> None:
    log = MemoryLog("news")
    log.set_degraded(True)
    app = Served(x=StreamResponse(log, StreamSettings(wires=[PacketLines()])))
    async with serving(app) as url, exchange(url, "/x", {"Accept": "application/x-ndjson"}) as got:
        packet = from_json(await got.until(b"\n"))
        assert packet == {"packet_type": "DEGRADED", "payload": {"degraded": True}, "cursor": str(log.cursor(0))}


async def test_a_socket_gets_messages() -> None:
    log = MemoryLog("news")
    app = Served(x=StreamResponse(log, websocket=True))
    async with serving(app) as url, websockets.connect(f"ws{url.removeprefix('http')}/x") as socket:
        await log.append(1)
        assert from_json(await asyncio.wait_for(socket.recv(), BOUND))["data"] == 1
        for degraded in (True, False):
            log.set_degraded(degraded)
            message = from_json(await asyncio.wait_for(socket.recv(), BOUND))
            assert message == {"id": str(log.cursor(1)), "event": "degraded", "data": {"degraded": degraded}}
        await log.close()
        assert from_json(await asyncio.wait_for(socket.recv(), BOUND))["event"] == "done"


async def test_a_document_says_nothing_of_it() -> None:
    log = MemoryLog("news")
    await log.append(1)
    log.set_degraded(True)
    async with (
        serving(Served(x=StreamResponse(log))) as url,
        exchange(url, "/x", {"Accept": "application/json"}) as got,
    ):
        assert from_json(await got.rest()) == {"data": [1], "cursor": str(log.cursor(1))}


@on_each_loop
async def test_one_that_joins_meanwhile_is_told_at_once() -> None:
    async with broadcast() as cast:
        cast.log.set_degraded(True)
        await cast.log.append(1)
        reader = cast.read()
        await reader.wait(1, "degraded")
        cast.log.set_degraded(False)
        await reader.wait(1, "degraded", "degraded")


@on_each_loop
async def test_what_was_missed_comes_before_the_news_that_nothing_is_missing() -> None:
    async with broadcast() as cast:
        readers = [cast.read() for _ in range(3)]
        await cast.idle(3)
        cast.log.set_degraded(True)
        for reader in readers:
            await reader.wait("degraded")
        await cast.idle(3)
        # The readers are due to be sent the entry without their tasks, which have to tell of the change.
        await cast.log.append(1)
        cast.log.set_degraded(False)
        await cast.log.append(2)
        for reader in readers:
            await reader.wait("degraded", 1, 2, "degraded")
        await cast.idle(3)
        await cast.log.append(3)
        for reader in readers:
            await reader.wait("degraded", 1, 2, "degraded", 3)


@on_each_loop
async def test_a_change_that_is_over_before_a_slow_reader_could_be_told_is_not_told() -> None:
    async with broadcast() as cast:
        gate = Gate()
        slow, quick = cast.read(gate.wrap), cast.read()
        await cast.idle(2)
        await cast.log.append(1)
        await gate.reached.wait()
        await quick.wait(1)
        for degraded in (True, False):
            cast.log.set_degraded(degraded)
            await quick.wait(1, "degraded", *["degraded"] * (not degraded))
        gate.open.set()
        await cast.log.append(2)
        await slow.wait(1, 2)
        assert values(slow.body) == [1, 2]


@on_each_loop
async def test_new_entries_go_on_to_those_who_were_told() -> None:
    async with broadcast() as cast:
        alone = cast.read()
        await cast.idle(1)
        cast.log.set_degraded(True)
        await alone.wait("degraded")
        await cast.log.append(1)
        await alone.wait("degraded", 1)
        other = cast.read()
        await other.wait(1, "degraded")
        await cast.log.append(2)
        for reader, expected in ((alone, ["degraded", 1, 2]), (other, [1, "degraded", 2])):
            await reader.wait(*expected)


class Distant(FetchingLog):
    """A log whose entries cannot be fetched while it is degraded."""

    async def read(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        assert not self.degraded
        return await super().read(after, limit, size)


async def distant() -> Distant:
    log = Distant("news")
    await log.append(1)
    await log.close()
    log.set_degraded(True)
    return log


async def test_history_is_not_asked_for_while_its_store_is_out_of_reach() -> None:
    log = await distant()
    async with serving(Served(x=StreamResponse(log))) as url, exchange(url, "/x", SSE_HEADERS) as got:
        body = await got.until(b'{"degraded":true}\n\n')
        log.set_degraded(False)
        assert values(body + await got.rest()) == ["degraded", "degraded", 1, "done"]


async def test_history_comes_after_a_ping_during_which_its_store_came_back() -> None:
    log, server, engine = await distant(), Server(), small_engine()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            (connection,) = engine.readers._readers
            assert isinstance(connection, Connection)
            connection.beat()  # a ping is due before the client can be told anything
        elif b": ping" in message["body"]:
            log.set_degraded(False)
        await server.send(message)

    async with asyncio.timeout(BOUND):
        await StreamResponse(log, engine=engine)(server.scope, server.receive, send)
    assert values(server.body) == ["degraded", "degraded", 1, "done"]


@on_each_loop
async def test_a_log_that_is_lost_is_late_no_more() -> None:
    async with broadcast() as cast:
        reader = cast.read()
        await cast.idle(1)
        cast.log.set_degraded(True)
        await reader.wait("degraded")
        cast.log.lose("diverged")
        await reader.wait("degraded", "reset")
        assert not cast.log.degraded


async def test_listeners_are_told_in_their_order_and_once_a_change() -> None:
    log, heard = MemoryLog("news"), list[tuple[str, Any]]()
    assert not log.degraded
    log.listen(lambda log: heard.append(("one", log.degraded)))
    log.listen(lambda log: heard.append(("other", log.degraded)))
    for degraded in (False, True, True, False):
        log.set_degraded(degraded)
    assert heard == [("one", True), ("other", True), ("one", False), ("other", False)]
