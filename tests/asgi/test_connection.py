from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tailrace import Event, Flow, OpenAIChunks, Outcome, Result, Retention, StreamResponse, StreamSettings
from tailrace.asgi.connection import MAX_SEND, Connection
from tailrace.engine.readers import REPLACED
from tailrace.log.base import BATCH_ENTRIES
from tailrace.log.memory import MemoryLog
from tailrace.modes import DEFAULT_WIRES
from tests.asgi.apps import SSE_HEADERS, STREAMED, TEXT_HEADERS, Served, Server, of, small_engine
from tests.raw import BOUND, exchange, fetch, frames, values
from tests.serving import serving
from tests.sources import Faucet, soon, turns
from tests.storing import FetchingLog

WIRES = {wire.media_type: wire for wire in DEFAULT_WIRES}
PINGS = {"text/event-stream": b": ping\n", "application/x-ndjson": b"\n"}


# The start


async def test_an_empty_stream_is_done() -> None:
    async with serving(Served(x=of())) as url:
        answer, body = await fetch(url, "/x", SSE_HEADERS)
    assert values(body) == ["done"]
    assert answer.whole


async def test_a_preamble_is_said_once_at_the_start() -> None:
    settings = StreamSettings(wires=[OpenAIChunks("m")])
    faucet = Faucet(["a", "b"])
    async with (
        serving(Served(x=StreamResponse(faucet.run, settings))) as url,
        exchange(url, "/x", SSE_HEADERS) as first,
    ):
        await first.until(b'"b"')
        log = first.headers["tailrace-cursor"].removesuffix(".0")
        for offset, roles in (0, 1), (1, 0):
            async with exchange(url, f"/x?after={log}.{offset}", SSE_HEADERS) as got:
                body = await got.until(b'"b"')
                assert body.count(b'"role":"assistant"') == roles
        faucet.end()
        assert (await first.rest()).endswith(b"data: [DONE]\n\n")


# Heartbeats


@pytest.mark.parametrize("media_type", PINGS)
async def test_an_idle_connection_is_pinged_and_no_decoder_minds(media_type: str) -> None:
    faucet = Faucet([1])
    app = Served(small_engine(heartbeat=0.02), x=StreamResponse(faucet.run))
    async with serving(app) as url, exchange(url, "/x", {"Accept": media_type}) as got:
        body = await got.until(b"1")
        for _ in range(3):
            assert await got.chunk() == PINGS[media_type]
            body += PINGS[media_type]
        faucet.put(2)
        faucet.end()
        body += await got.rest()
    assert values(body, WIRES[media_type]) == [1, 2, "done"]


async def test_text_is_never_pinged() -> None:
    faucet = Faucet(["a"])
    engine = small_engine(heartbeat=0.01)
    beats = asyncio.Event()

    class Witness:
        count = 0

        def beat(self) -> None:
            self.count += 1
            if self.count == 5:
                beats.set()

    async with serving(Served(engine, x=StreamResponse(faucet.run))) as url, exchange(url, "/x", TEXT_HEADERS) as got:
        await got.until(b"a")
        slot = engine.pulse.join(Witness())
        await soon(beats)
        slot.clear()
        faucet.put("b")
        faucet.end()
        assert await got.rest() == b"b"


async def test_a_busy_connection_is_not_pinged() -> None:
    faucet = Faucet([0])
    engine = small_engine(heartbeat=2 * BOUND)
    async with serving(Served(engine, x=StreamResponse(faucet.run))) as url, exchange(url, "/x", SSE_HEADERS) as got:
        body = await got.until(b"data: 0\n")
        (connection,) = engine.readers._readers
        assert isinstance(connection, Connection)
        for number in range(1, 4):
            connection.beat()
            faucet.put(number)
            body += await got.until(b"data: %d\n" % number)
        assert b"ping" not in body
        connection.beat()
        connection.beat()
        await got.until(b": ping")
        faucet.end()
        assert values(await got.rest()) == ["done"]


# The server leaves


@pytest.mark.parametrize("media_type", STREAMED)
async def test_readers_of_a_log_get_a_farewell_at_once(media_type: str) -> None:
    engine = small_engine(reconnect=(0.5, 0.7))
    log = await engine.log("news")
    await log.append(1)
    app = Served(engine, x=StreamResponse(log))
    async with serving(app) as url, exchange(url, "/x", {"Accept": media_type}) as got:
        await got.until(b"1")
        engine.drain()
        body = await got.rest()
        if media_type == "text/plain":
            # Nothing can be said here, and a clean end would count as whole.
            assert (body, got.whole) in [(b"", False), (b"\n", False)]
            assert not app.raised
        else:
            (farewell,) = frames(body.lstrip(), WIRES[media_type])
            assert farewell.event == "farewell"
            assert farewell.data["reason"] == "shutdown"
            assert 500 <= farewell.data["retry"] <= 700
            assert farewell.retry == farewell.data["retry"]
            assert farewell.id == str(log.cursor(1))
            assert got.whole


async def test_who_comes_to_a_log_while_the_server_leaves_gets_what_is_there_and_the_farewell() -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(*range(2 * BATCH_ENTRIES))
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        engine.drain()
        _, body = await fetch(url, "/x", SSE_HEADERS)
        assert values(body) == [*range(2 * BATCH_ENTRIES), "farewell"]


async def test_a_producer_has_its_grace_and_its_readers_stay_until_the_end() -> None:
    engine = small_engine(shutdown_grace=60.0)
    faucet = Faucet([1])
    async with serving(Served(engine, x=StreamResponse(faucet.run))) as url, exchange(url, "/x", SSE_HEADERS) as got:
        await got.until(b"data: 1")
        engine.drain()
        await turns()
        faucet.put(2)
        faucet.end()
        assert values(await got.rest()) == [2, "done"]


async def test_a_producer_beyond_its_grace_is_cancelled_with_the_reason() -> None:
    engine = small_engine(shutdown_grace=0.0)
    faucet = Faucet([1])
    async with serving(Served(engine, x=StreamResponse(faucet.run))) as url, exchange(url, "/x", SSE_HEADERS) as got:
        await got.until(b"data: 1")
        engine.drain()
        (cancelled,) = frames(await got.rest())
    assert (cancelled.event, cancelled.data["code"]) == ("cancelled", "shutdown")
    assert faucet.closed.is_set()


# One reader at a time


@pytest.mark.parametrize("media_type", ["text/event-stream", "application/x-ndjson"])
async def test_a_reader_that_is_replaced_gets_a_farewell_with_its_cursor(media_type: str) -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(1)
    headers, wire = {"Accept": media_type}, WIRES[media_type]
    app = Served(engine, x=StreamResponse(log, exclusive=True))
    async with serving(app) as url, exchange(url, "/x", headers) as first:
        await first.until(b"1\n" if media_type == "text/event-stream" else b"1}")
        async with exchange(url, f"/x?takeover=true&after={log.cursor(1)}", headers) as second:
            (farewell,) = frames((await first.rest()).lstrip(), wire)
            assert (farewell.event, farewell.data) == ("farewell", {"reason": "replaced", "retry": 0})
            assert (farewell.id, farewell.retry) == (str(log.cursor(1)), 0)
            assert first.whole
            await log.append(2)
            await log.close()
            assert values((await second.rest()).lstrip(), wire) == [2, "done"]
    assert not engine.readers._seats


async def test_a_reader_that_is_behind_leaves_without_what_it_lacks() -> None:
    engine = small_engine()
    log = await engine.log("history", retention=Retention(count=None, size=None))
    await log.append(*["x" * 1000] * 1000)
    await log.close()
    response = StreamResponse(log, engine=engine, exclusive=True)
    one, two = Server(), Server(query=b"takeover=1")
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        group.create_task(response(one.scope, one.receive, one.send))
        while len(one.messages) < 2:  # noqa: ASYNC110 - nobody says that a server has got a message
            await asyncio.sleep(0)
        group.create_task(response(two.scope, two.receive, two.send))
    *before, farewell = frames(one.body)
    assert farewell.data == {"reason": "replaced", "retry": 0}
    assert 0 < len(before) < 500
    assert farewell.id == before[-1].id
    assert len(frames(two.body)) == 1001


async def test_of_several_that_take_over_at_once_the_last_reads() -> None:
    engine = small_engine()
    log = await engine.log("news")
    response = StreamResponse(log, engine=engine, exclusive=True)
    servers = [Server(query=b"takeover=true") for _ in range(4)]
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(response(server.scope, server.receive, server.send))
        await turns()
        assert engine.statistics().readers == 1
        await log.append(1)
        await log.close()
    assert [values(server.body) for server in servers] == [["farewell"]] * 3 + [[1, "done"]]
    assert not engine.readers._seats


async def test_only_one_of_several_that_come_at_once_is_admitted() -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(1)
    response = StreamResponse(log, engine=engine, exclusive=True)
    servers = [Server() for _ in range(4)]
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(response(server.scope, server.receive, server.send))
        await turns()
        await log.close()
    assert [server.messages[0]["status"] for server in servers] == [200, 409, 409, 409]
    assert values(servers[0].body) == [1, "done"]


@pytest.mark.parametrize("ends", ["leaves", "is cut off"])
async def test_a_reader_may_end_by_itself_while_it_is_replaced(ends: str) -> None:
    engine = small_engine()
    log = await engine.log("news")
    response = StreamResponse(log, engine=engine, exclusive=True)
    one, two, three = Server(), Server(query=b"takeover=true"), Server()
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        group.create_task(response(one.scope, one.receive, one.send))
        await turns()
        group.create_task(response(two.scope, two.receive, two.send))
        if ends == "leaves":
            one.gone.set()
        else:
            (connection,) = engine.readers._readers
            connection.abandon()
        await turns()
        await response(three.scope, three.receive, three.send)  # the one that has ended gave back nobody's seat
        assert three.messages[0]["status"] == 409
        await log.close()
    assert values(two.body) == ["done"]
    assert not engine.readers._seats


async def test_a_stalled_reader_keeps_nobody_waiting_and_is_cut_off_soon() -> None:
    engine = small_engine(heartbeat=30.0)
    log = await engine.log("news")
    stalled, one, two = asyncio.Event(), Server(), Server(query=b"takeover=true")

    async def send(message: Any) -> None:
        if message.get("body"):
            stalled.set()
            await asyncio.Event().wait()
        await one.send(message)

    response = StreamResponse(log, engine=engine, exclusive=True)
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        first = group.create_task(response(one.scope, one.receive, send))
        await turns()
        await log.append(1)
        await soon(stalled)
        group.create_task(response(two.scope, two.receive, two.send))
        await turns()
        assert values(two.body) == [1]
        connection, _ = engine.readers._readers
        assert isinstance(connection, Connection)
        connection.beat()  # the first beat may follow the beginning of the send at once
        await turns()
        assert log.readers == 2
        connection.beat()
        await turns()
        assert log.readers == 1
        one.gone.set()
        await first
        await log.close()
    assert not one.whole
    assert values(two.body) == [1, "done"]


async def test_a_replaced_reader_is_told_so_even_while_the_server_leaves() -> None:
    engine = small_engine(shutdown_grace=60.0)
    faucet = Faucet([1])
    response = StreamResponse(faucet.run, StreamSettings(on_disconnect="detach"), engine=engine, exclusive=True)
    one = Server()
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        group.create_task(response(one.scope, one.receive, one.send))
        await soon(faucet.started)
        await turns()
        (log,) = engine.readers._seats
        two = Server(query=f"takeover=true&after={log.cursor(0)}".encode())
        engine.drain()
        group.create_task(response(two.scope, two.receive, two.send))
        await turns()
        faucet.end()
    assert values(one.body) == [1, "farewell"]
    assert frames(one.body)[-1].data["reason"] == "replaced"
    assert values(two.body) == [1, "done"]


async def test_a_reader_that_was_replaced_is_told_so_though_the_server_leaves_at_once() -> None:
    engine = small_engine()
    log = await engine.log("news")
    server, response = Server(), StreamResponse(log, engine=engine)
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        group.create_task(response(server.scope, server.receive, server.send))
        await turns()
        (connection,) = engine.readers._readers
        assert isinstance(connection, Connection)
        connection.dismiss(REPLACED)
        engine.drain()
    assert frames(server.body)[-1].data["reason"] == "replaced"


# Servers and clients that take what they want


async def test_a_server_whose_send_never_suspends_does_not_hold_the_loop() -> None:
    engine = small_engine()
    log = await engine.log("history", retention=Retention(count=None, size=None))
    await log.append(*["x" * 1000] * 3000)
    await log.close()
    server = Server()
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    async with asyncio.timeout(BOUND):
        await StreamResponse(log, engine=engine)(server.scope, server.receive, server.send)
    beside.cancel()
    batches = len(server.messages) - 1
    assert batches > 10
    assert others >= batches - 1
    assert len(frames(server.body)) == 3001


async def test_a_generator_that_never_suspends_does_not_hold_the_loop_and_stops_when_its_client_goes() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    app = Served(x=StreamResponse(endless, StreamSettings(grace=0.0)))
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS) as got:
            await got.until(b"data: 1")
        await soon(closed)


async def test_a_client_that_leaves_before_the_first_event_ends_the_stream() -> None:
    faucet = Faucet()
    app = Served(x=StreamResponse(faucet.run, StreamSettings(grace=0.0)))
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS, head=False):
            await soon(faucet.started)
        await soon(faucet.closed)
    assert not app.raised


async def test_a_client_that_leaves_within_an_event_ends_the_stream() -> None:
    closed = asyncio.Event()

    async def large() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1_000_000
        finally:
            closed.set()

    app = Served(x=StreamResponse(large, StreamSettings(grace=0.0)))
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS, window=4096) as got:
            await got.reader.readexactly(1000)
        await soon(closed)
    assert not app.raised


async def test_a_client_that_takes_nothing_is_given_up() -> None:
    closed = asyncio.Event()

    async def large() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1_000_000
        finally:
            closed.set()

    engine = small_engine(heartbeat=0.05, send_timeout=0.1)
    app = Served(engine, x=StreamResponse(large, StreamSettings(grace=0.0)))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS, window=4096) as got:
        await soon(closed)
        assert engine.statistics().readers == 0
        assert not got.whole
    assert not app.raised


async def test_a_client_that_takes_nothing_holds_no_shutdown_beyond_its_grace() -> None:
    engine = small_engine(shutdown_grace=0.1)
    log = await engine.log("large")
    await log.append(*("x" * 1_000_000 for _ in range(5)))
    app = Served(engine, x=StreamResponse(log))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS, window=4096) as got:
        await got.reader.readexactly(1000)
        assert engine.statistics().readers == 1
        async with asyncio.timeout(BOUND):
            await engine.aclose()
            while engine.statistics().readers:  # noqa: ASYNC110 - nobody says that a reader has parted
                await asyncio.sleep(0.01)
        assert not got.whole


async def test_a_client_that_takes_a_little_is_not_given_up() -> None:
    # What is measured is one send; each of these ends before its time.
    engine = small_engine(heartbeat=0.05, send_timeout=60.0)
    app = Served(engine, x=of(*["x" * 100_000] * 20))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS, window=4096) as got:
        body = b""
        while part := await got.chunk():
            body += part
            await asyncio.sleep(0)
        assert got.whole
    assert len(frames(body)) == 21


async def test_each_send_is_timed_by_itself() -> None:
    engine = small_engine(heartbeat=10.0, send_timeout=20.0)
    log = await engine.log("news")
    server, permits, sending = Server(), asyncio.Semaphore(0), asyncio.Event()

    async def send(message: Any) -> None:
        sending.set()
        await permits.acquire()
        sending.clear()
        await server.send(message)

    async with asyncio.timeout(BOUND):
        answering = asyncio.create_task(StreamResponse(log, engine=engine)(server.scope, server.receive, send))
        await sending.wait()
        (connection,) = engine.readers._readers
        assert isinstance(connection, Connection)
        for number in range(50):  # ten minutes in which a send is under way at every beat, and a new one each time
            connection.beat()
            permits.release()
            await turns()
            await log.append(number)
            await sending.wait()
        assert engine.statistics().readers == 1
        for readers in 1, 0:  # the first beat of a send may follow its beginning at once
            connection.beat()
            connection.beat()
            await turns()
            assert engine.statistics().readers == readers
        server.gone.set()
        await answering
    assert not server.whole


async def test_a_client_that_took_all_is_not_given_up_while_there_is_no_more() -> None:
    engine = small_engine(heartbeat=10.0, send_timeout=20.0)
    log = await engine.log("news")
    server = Server()
    server.scope["headers"] = [(b"accept", b"text/plain")]  # so that no ping is sent between the events
    async with asyncio.timeout(BOUND):
        answering = asyncio.create_task(StreamResponse(log, engine=engine)(server.scope, server.receive, server.send))
        for number in range(3):
            await turns()
            (connection,) = engine.readers._readers
            assert isinstance(connection, Connection)
            for _ in range(4):
                connection.beat()
            await log.append(number)
        await log.close()
        await answering
    assert [message["body"] for message in server.messages[1:]] == [b"", b"0\n", b"1\n", b"2\n"]
    assert server.whole


async def test_a_large_event_is_sent_in_pieces_that_are_timed_by_themselves() -> None:
    server = Server()
    engine = small_engine()
    large = "x" * (3 * MAX_SEND)
    async with asyncio.timeout(BOUND):
        answering = asyncio.create_task(of(large, "y", engine=engine)(server.scope, server.receive, server.send))
        await answering
        await engine.aclose()
    assert values(server.body) == [large, "y", "done"]
    assert max(len(message.get("body", b"")) for message in server.messages) <= MAX_SEND


async def test_a_large_result_is_sent_in_pieces_as_well() -> None:
    server = Server()
    engine = small_engine()
    async with asyncio.timeout(BOUND):
        await of(1, Result("x" * (2 * MAX_SEND)), engine=engine)(server.scope, server.receive, server.send)
        await engine.aclose()
    assert values(server.body) == [1, "done"]
    assert max(len(message.get("body", b"")) for message in server.messages) <= MAX_SEND


async def test_a_half_closed_connection_counts_as_gone() -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run, StreamSettings(grace=0.0)))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS) as got:
        await got.until(b"data: 1")
        got.writer.write_eof()
        await soon(faucet.closed)


async def test_a_generator_that_ignores_its_cancellation_is_left_behind() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def stubborn() -> AsyncIterator[int]:
        yield 1
        started.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    engine = small_engine()
    app = Served(engine, x=StreamResponse(stubborn, StreamSettings(grace=0.0)), y=of(2))
    async with serving(app) as url, asyncio.timeout(2 * BOUND):
        async with exchange(url, "/x", SSE_HEADERS):
            await soon(started)
        while not engine.statistics().stuck:  # noqa: ASYNC110 - nobody says that a generator is given up
            await asyncio.sleep(0.05)
        assert engine.statistics().producers == 0
        _, body = await fetch(url, "/y", SSE_HEADERS)
        assert values(body) == [2, "done"]
        release.set()
        while engine.statistics().stuck:  # noqa: ASYNC110 - nor that it has ended after all
            await asyncio.sleep(0.05)


async def test_a_slow_client_slows_no_other() -> None:
    count, fast_count = 400, 3
    engine = small_engine()
    log = await engine.log("news", retention=Retention(count=None, size=None))
    app = Served(engine, x=StreamResponse(log))
    item = "x" * 20_000
    async with (
        serving(app) as url,
        exchange(url, "/x", SSE_HEADERS, window=4096) as slow,
        exchange(url, "/x", SSE_HEADERS) as first,
        exchange(url, "/x", SSE_HEADERS) as second,
        exchange(url, "/x", SSE_HEADERS) as third,
    ):
        taken = 0

        async def trickle() -> None:
            nonlocal taken
            while True:
                taken += len(await slow.reader.read(1024))
                await asyncio.sleep(1)

        fast = [asyncio.create_task(each.rest()) for each in (first, second, third)]
        assert len(fast) == fast_count
        trickling = asyncio.create_task(trickle())
        for _ in range(count):
            await log.append(item)
            await asyncio.sleep(0)
        await log.close()
        for body in await asyncio.gather(*fast):
            assert len(frames(body)) == count + 1
        # They have everything while the slow one is far from it.
        assert taken < count * len(item) / 2
        trickling.cancel()


# Flow policies over a slow socket


class Slow:
    """A log with more in it than a socket that nobody reads takes, and a client who then reads all."""

    SIZE = 40_000

    def __init__(self, flow: Flow, **retention: Any) -> None:
        self.engine = small_engine()
        keep = Retention(**{"count": None, "size": None, **retention})
        self.log = MemoryLog("news", keep)
        self.app = Served(self.engine, x=StreamResponse(self.log, StreamSettings(flow=flow)))

    async def write(self, count: int, event: str | None = None) -> None:
        """More than the sockets between hold, letting the server send what it can."""
        for _ in range(count):
            number = self.log.top + 1
            await self.log.append(Event({"number": number, "filling": "x" * self.SIZE}, event))
            await turns(3)

    async def read_late(self, count: int, end: bool = True, event: str | None = None) -> list[Any]:
        """What a client reads that takes nothing until `count` events are written."""
        async with serving(self.app) as url, exchange(url, "/x", SSE_HEADERS, window=4096) as got:
            await self.write(count, event)
            if end:
                await self.log.close()
            body = await got.rest()
            assert got.whole
        return [
            frame.data["number"] if frame.data and "number" in frame.data else (frame.event, frame.data, frame.id)
            for frame in frames(body)
        ]


COUNT = 300


async def test_log_gives_a_slow_reader_everything() -> None:
    slow = Slow(Flow.log())
    *numbers, (event, _, _) = await slow.read_late(COUNT)
    assert numbers == list(range(1, COUNT + 1))
    assert event == "done"


async def test_log_resets_a_reader_whose_place_was_trimmed() -> None:
    slow = Slow(Flow.log(), count=10)
    *numbers, (event, data, cursor) = await slow.read_late(COUNT)
    assert (event, data, cursor) == ("reset", {"reason": "trimmed"}, str(slow.log.cursor(slow.log.base)))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) < COUNT


async def test_latest_gives_a_slow_reader_the_newest_of_each_name() -> None:
    slow = Slow(Flow.latest())
    *numbers, (event, _, _) = await slow.read_late(COUNT, event="reading")
    assert event == "done"
    assert numbers == sorted(numbers)
    assert numbers[-1] == COUNT
    assert len(numbers) < COUNT
    assert slow.log.statistics().conflated == COUNT - len(numbers)


async def test_drop_says_how_many_were_missed_and_where() -> None:
    high = 20
    slow = Slow(Flow.drop(high))
    read = await slow.read_late(COUNT)
    notices = [item for item in read if isinstance(item, tuple)]
    numbers = [item for item in read if not isinstance(item, tuple)]
    assert [event for event, _, _ in notices] == ["dropped"] * (len(notices) - 1) + ["done"]
    missed = sum(data["count"] for _, data, _ in notices[:-1])
    assert missed == COUNT - len(numbers) == slow.log.statistics().dropped > 0
    assert numbers[-high:] == list(range(COUNT - high + 1, COUNT + 1))
    # A notice stands at the place to which the reader jumped.
    for place, item in enumerate(read):
        if isinstance(item, tuple) and item[0] == "dropped":
            assert item[2] == str(slow.log.cursor(read[place + 1] - 1))


async def test_disconnect_sends_a_slow_reader_away_with_its_cursor() -> None:
    slow = Slow(Flow.disconnect(20))
    *numbers, (event, data, cursor) = await slow.read_late(COUNT, end=False)
    assert (event, data["reason"]) == ("farewell", "slow")
    assert numbers == list(range(1, len(numbers) + 1))
    assert cursor == str(slow.log.cursor(len(numbers)))
    await slow.log.close()
    async with serving(slow.app) as url:
        # History that was there before it came does not count as being slow.
        _, body = await fetch(url, f"/x?after={cursor}", SSE_HEADERS)
    rest = [frame.data["number"] for frame in frames(body)[:-1]]
    assert numbers + rest == list(range(1, COUNT + 1))


async def test_block_holds_the_producer_while_its_only_reader_takes_nothing() -> None:
    high, yielded = 5, 0

    async def source() -> AsyncIterator[dict[str, Any]]:
        nonlocal yielded
        for number in range(1, COUNT + 1):
            yielded = number
            yield {"number": number, "filling": "x" * Slow.SIZE}

    engine = small_engine()
    app = Served(engine, x=StreamResponse(source, StreamSettings(flow=Flow.block(high))))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS, window=4096) as got:
        before = -1
        while before != yielded:  # until the sockets are full
            before = yielded
            await turns(50)
        assert yielded < COUNT
        body = await got.rest()
    assert [frame.data["number"] for frame in frames(body)[:-1]] == list(range(1, COUNT + 1))


# Ends


async def test_entries_may_have_to_be_fetched() -> None:
    log = FetchingLog("news")
    await log.append(1, 2)
    async with serving(Served(x=StreamResponse(log))) as url, exchange(url, "/x", SSE_HEADERS) as got:
        await got.until(b"data: 2")
        await log.append(3)
        await log.close()
        assert values(await got.rest()) == [3, "done"]


async def test_a_reader_is_told_of_the_end_that_comes_with_the_last_event_in_one_message() -> None:
    server = Server()
    async with asyncio.timeout(BOUND):
        await of(1, 2, engine=small_engine())(server.scope, server.receive, server.send)
    bodies = [message["body"] for message in server.messages if "body" in message]
    assert len(bodies) == 1
    assert values(bodies[0]) == [1, 2, "done"]


@pytest.mark.parametrize("state", ["error", "cancelled"])
async def test_text_breaks_off_unless_it_is_done(state: Any) -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append("half")
    await log.close(Outcome(state, "code", "message"))
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        answer, body = await fetch(url, "/x", TEXT_HEADERS)
    assert body == b"half"
    assert not answer.whole


async def test_the_error_of_another_s_producer_is_said_but_not_raised() -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.close(Outcome("error", "dry", "no more"))
    app = Served(engine, x=StreamResponse(log))
    async with serving(app) as url:
        answer, body = await fetch(url, "/x", SSE_HEADERS)
    (error,) = frames(body)
    assert (error.event, error.data) == ("error", {"code": "dry", "message": "no more"})
    assert not answer.whole
    assert not app.raised
