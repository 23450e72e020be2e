from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from tailrace import DecodeError, StreamError
from tailrace.client import (
    AlreadyRead,
    AsyncPackets,
    Loss,
    NotASession,
    PacketClient,
    Packets,
    PacketType,
    RequestFailed,
    RequestTimedOut,
    Retry,
    SessionEnded,
    SocketPacket,
    StreamFailed,
    StreamLost,
    StreamRefused,
    Timeouts,
    TooManyUnread,
    Unreachable,
)
from tailrace.cursor import new_stream_id
from tailrace.packets import ClientSession, PacketLimits
from tailrace.testing import Fault, Relay, relayed
from tests.client.drivers import AT_ONCE
from tests.packets.apps import Recorded
from tests.raw import BOUND
from tests.serving import http_client, serving

pytestmark = pytest.mark.usefixtures("silent_loop")


def data(payload: Any = None, packet_type: str = "DATA", **members: Any) -> SocketPacket[Any]:
    return SocketPacket(packet_type=packet_type, payload=payload, **members)


# Both drivers


@dataclass
class Got:
    """What a client received, and how its session ended."""

    payloads: list[Any] = field(default_factory=list)
    result: Any = None
    session_id: str = ""
    error: Exception | None = None


Talk = Callable[..., Awaitable[Got]]
"""Opens a session with the first payload, sends the others, and reads to the end."""


async def talk_async(url: str, *payloads: Any, **options: Any) -> Got:
    got = Got()
    client = PacketClient(url, **{"retry": AT_ONCE, **options})
    try:
        async with asyncio.timeout(BOUND), client.open(data(payloads[0])) as session:
            got.session_id = session.id
            for payload in payloads[1:]:
                await session.send(data(payload))
            got.payloads += [packet.payload async for packet in session]
            got.result = session.result
    except Exception as error:
        got.error = error
    return got


def talk_sync(url: str, *payloads: Any, **options: Any) -> Got:
    got = Got()
    client = PacketClient(url, **{"retry": AT_ONCE, **options})
    try:
        with client.open(data(payloads[0])) as session:
            got.session_id = session.id
            for payload in payloads[1:]:
                session.send(data(payload))
            got.payloads += [packet.payload for packet in session]
            got.result = session.result
    except Exception as error:
        got.error = error
    return got


async def talk_in_thread(url: str, *payloads: Any, **options: Any) -> Got:
    return await asyncio.wait_for(asyncio.to_thread(talk_sync, url, *payloads, **options), BOUND)


@pytest.fixture(params=[talk_async, talk_in_thread], ids=["async", "sync"])
def talk(request: pytest.FixtureRequest) -> Talk:
    chosen: Talk = request.param
    return chosen


@pytest.fixture
async def once(talk: Talk) -> AsyncIterator[httpx.Client | httpx.AsyncClient]:
    """A client that uses each connection once, so that each request meets the relay's next fault."""
    limits = httpx.Limits(max_keepalive_connections=0)
    if talk is talk_in_thread:
        with httpx.Client(limits=limits) as client:
            yield client
    else:
        async with httpx.AsyncClient(limits=limits) as other:
            yield other


# The server


class Served:
    """An application with packet sessions, behind a relay."""

    def __init__(self, recorded: Recorded, relay: Relay) -> None:
        self.recorded = recorded
        self.relay = relay
        self.url = f"{relay.url}/stream"

    @property
    def calls(self) -> list[Any]:
        return self.recorded.calls

    @property
    def session(self) -> ClientSession:
        assert self.recorded.session is not None
        return self.recorded.session

    def open(self, payload: Any = "a", **options: Any) -> Any:
        return PacketClient(self.url, **{"retry": AT_ONCE, **options}).open(data(payload))


@asynccontextmanager
async def served(*args: Any, **options: Any) -> AsyncIterator[Served]:
    recorded = Recorded(*args, **options)
    async with asyncio.timeout(4 * BOUND), serving(recorded.app) as url, relayed(url) as relay:
        yield Served(recorded, relay)
        for session in recorded.router.sessions.values():
            session.die()  # so that the server need not wait until nobody has read it for long enough


async def silent(session: ClientSession, packet: SocketPacket) -> None:
    """Take a packet, and say nothing."""


# Losses


async def all_at_once(session: ClientSession, packet: SocketPacket) -> None:
    for letter in packet.payload[:-1]:
        await session.send(packet.reply(letter))
    await session.send(packet.reply(packet.payload[-1], PacketType.RESULT))


def cuts(talk: Talk, total: int, body: int) -> list[int]:
    """Return the places of cuts. In the head one byte is like another; what comes after it is cut at each.

    Without asyncio, it is cut at each third, because the core is the same.
    """
    places = [*range(0, max(total - body, 0), 29), *range(max(total - body, 0), total + 1)]
    return places if talk is talk_async else places[::3]


@pytest.mark.parametrize("side", ["server", "client"])
async def test_cut_at_each_byte_a_session_is_opened_once_and_received_whole(talk: Talk, once: Any, side: Any) -> None:
    async with served(all_at_once) as server:
        await talk(server.url, "abc", client=once)
        total = server.relay.passed if side == "server" else server.relay.taken
        body = 300 if side == "server" else 60
        assert total > body
        for count in cuts(talk, total, body):
            server.calls.clear()
            server.relay.next(Fault(after=count, of=side))
            got = await talk(server.url, "abc", client=once)
            assert (got.error, got.payloads) == (None, ["a", "b", "c"]), count
            assert got.result.payload == "c"
            await server.recorded.until("disconnect")
            assert server.calls == ["connect", "abc", "disconnect"], count


@pytest.mark.parametrize("side", ["server", "client"])
async def test_cut_at_each_byte_a_packet_is_delivered_once(talk: Talk, once: Any, side: Any) -> None:
    async def until_c(session: ClientSession, packet: SocketPacket) -> None:
        await session.send(packet.reply(packet.payload, "RESULT" if packet.payload == "c" else "DATA"))

    async with served(until_c) as server:
        await talk(server.url, "c", client=once)
        before = server.relay.accepted
        await talk(server.url, "a", "b", "b", "c", client=once)
        assert server.relay.accepted - before == 4
        total = server.relay.passed if side == "server" else server.relay.taken
        for count in cuts(talk, total, 120):
            server.calls.clear()
            server.relay.next(Fault(), Fault(after=count, of=side), Fault(), Fault())
            got = await talk(server.url, "a", "b", "b", "c", client=once)
            assert (got.error, got.payloads) == (None, ["a", "b", "b", "c"]), count
            await server.recorded.until("disconnect")
            assert server.calls == ["connect", "a", "b", "b", "c", "disconnect"], count


async def test_packets_that_share_requests_survive_losses_in_order() -> None:
    numbers = list(range(40))

    async def until_last(session: ClientSession, packet: SocketPacket) -> None:
        await session.send(packet.reply(packet.payload, "RESULT" if packet.payload == numbers[-1] else "DATA"))

    async with served(until_last) as server:
        for count in range(0, 1_200, 100):
            server.calls.clear()
            faults = [Fault(after=count, of="client"), Fault(after=count), Fault(after=count // 10)]
            async with server.open("first") as session:
                server.relay.next(*faults)
                server.relay.cut()
                await asyncio.gather(*(session.send(data(number)) for number in numbers[:-1]))
                with suppress(SessionEnded):  # if the answer was lost, the session ends before the packet comes again
                    await session.send(data(numbers[-1]))
                assert [packet.payload async for packet in session] == ["first", *numbers]
            await server.recorded.until("disconnect")
            assert server.calls == ["connect", "first", *numbers, "disconnect"], count


@asynccontextmanager
async def weather(relay: Relay, seed: int) -> AsyncIterator[None]:
    """Let connections fail in any way at any time, the same for a seed as far as time allows."""
    chosen = random.Random(seed)

    def fault() -> Fault:
        how, of = chosen.choice(["close", "reset", "half_close"]), chosen.choice(["client", "server"])
        after, piece = chosen.randrange(chosen.choice([300, 1_500, 6_000])), chosen.choice([None, 1, 7])
        return Fault(after, how, piece=piece, of=of)  # type: ignore[arg-type]

    async def blow() -> None:
        while True:
            relay.next(*[fault() for _ in range(chosen.randrange(4))])
            if chosen.random() < 0.3:
                relay.cut()
            await asyncio.sleep(chosen.uniform(0, 0.03))

    blowing = asyncio.create_task(blow())
    try:
        yield
    finally:
        blowing.cancel()
        await asyncio.wait([blowing])


async def echo_twice(session: ClientSession, packet: SocketPacket) -> None:
    """Send each payload, then answer with it. End after `bye`."""
    if packet.payload != "bye":
        await session.send(data(packet.payload))
    await session.send(packet.reply(packet.payload, "RESULT" if packet.payload == "bye" else "DATA"))


@pytest.mark.parametrize("seed", range(3))
async def test_many_tasks_and_any_losses(seed: int) -> None:
    senders, requesters, each = 5, 3, 8
    async with served(echo_twice) as server:
        options = {"retry": Retry(base=0.005, limit=500), "timeouts": Timeouts(head=2, idle=2, event=None)}
        async with weather(server.relay, seed), server.open("hello", **options) as session:

            async def send(name: str) -> None:
                for number in range(each):
                    await session.send(data(f"{name}{number}"))

            async def request(name: str) -> None:
                for number in range(each):
                    assert (await session.request(data(f"{name}{number}"))).payload == f"{name}{number}"

            async def read() -> list[Any]:
                return [packet.payload async for packet in session]

            reading = asyncio.create_task(read())
            names = [f"s{sender}-" for sender in range(senders)], [f"r{requester}-" for requester in range(requesters)]
            await asyncio.gather(*map(send, names[0]), *map(request, names[1]))
            with suppress(SessionEnded):
                await session.send(data("bye"))
            received = await reading
        await server.recorded.until("disconnect")
        first, *handled, last = server.calls
        assert (first, last) == ("connect", "disconnect")
        for name in (*names[0], *names[1]):
            assert [payload for payload in handled if payload.startswith(name)] == [f"{name}{n}" for n in range(each)]
        assert len(handled) == (senders + requesters) * each + 2
        # The iteration gets each payload, and the answers to packets that were only sent.
        once = {"bye", *(payload for payload in handled if payload.startswith("r"))}
        assert received == [payload for payload in handled for _ in range(1 if payload in once else 2)]


async def test_a_server_that_is_gone_is_given_up(talk: Talk) -> None:
    async with served() as server:
        server.relay.refuse()
        got = await talk(server.url, "a")
        assert isinstance(got.error, StreamLost)
        server.relay.refuse(False)
        async with server.open() as session:
            server.relay.refuse()
            server.relay.cut()
            with pytest.raises(Unreachable):
                await session.send(data("b"))


# A session from its beginning to its end


@pytest.mark.parametrize("headers", [None, {"Accept": "application/x-ndjson"}], ids=["sse", "lines"])
async def test_a_session(talk: Talk, headers: dict[str, str] | None) -> None:
    async with served() as server:
        got = await talk(server.url, "a", b"\0\xff", {"x": [1]}, "bye", headers=headers)
        assert (got.error, got.payloads) == (None, ["a", b"\0\xff", {"x": [1]}, "bye"])
        assert got.result.packet_type == PacketType.RESULT
        assert got.session_id == server.session.id
        await server.recorded.until("disconnect")
        assert server.calls == ["connect", "a", b"\0\xff", {"x": [1]}, "bye", "disconnect"]


async def test_payloads_have_types() -> None:
    async def counting(session: ClientSession, packet: SocketPacket) -> None:
        await session.send(data(1))
        await session.send(data("two"))
        await session.send(data(3, "RESULT"))

    async with served(counting) as server:
        client = PacketClient(server.url, packet=SocketPacket[int])
        async with client.open(data()) as session:
            first = await anext(session)
            assert first.payload + 1 == 2
            with pytest.raises(DecodeError, match=r"expected SocketPacket\[int\] from the server, but in payload"):
                await anext(session)
            assert [packet.payload async for packet in session] == [3]


async def test_a_session_is_ended() -> None:
    async with served() as server:
        async with server.open() as session:
            assert (await anext(session)).payload == "a"
            await session.end()
            assert [packet async for packet in session] == []
            assert session.result is None
            with pytest.raises(SessionEnded):
                await session.send(data("b"))

        def end() -> None:
            with server.open() as packets:
                assert next(packets).payload == "a"
                packets.end()
                assert list(packets) == []
                with pytest.raises(SessionEnded):
                    packets.send(data("b"))

        await asyncio.to_thread(end)


async def dying(session: ClientSession, packet: SocketPacket) -> None:
    session.die("enough")


async def failing(session: ClientSession, packet: SocketPacket) -> None:
    raise StreamError("no more", code="empty")


@pytest.mark.parametrize("headers", [None, {"Accept": "application/x-ndjson"}], ids=["sse", "lines"])
async def test_an_end_that_is_no_success_is_an_error(talk: Talk, headers: dict[str, str] | None) -> None:
    async with served(dying) as server:
        got = await talk(server.url, "a", headers=headers)
        assert isinstance(got.error, SessionEnded)
        assert (got.error.state, got.error.code, got.error.message) == ("cancelled", "died", "enough")
    async with served(failing) as server:
        got = await talk(server.url, "a", headers=headers)
        assert isinstance(got.error, StreamFailed)
        assert (got.error.code, got.error.message) == ("empty", "no more")


async def test_a_session_that_is_refused(talk: Talk) -> None:
    async def refuse(session: ClientSession) -> None:
        raise HTTPException(403, "not you")

    async with served(connect=refuse) as server:
        got = await talk(server.url, "a")
        assert isinstance(got.error, StreamRefused)
        assert (got.error.status, got.error.detail) == (403, "not you")


async def test_the_end_is_raised_to_all_who_wait() -> None:
    async with served(silent) as server, server.open() as session:
        waiting = [asyncio.create_task(session.request(data(number))) for number in range(3)]
        reading = asyncio.create_task(anext(session))
        await server.recorded.until(2)
        server.session.die()
        got = await asyncio.gather(*waiting, reading, return_exceptions=True)
        assert [type(each) for each in got] == [SessionEnded] * 4
        with pytest.raises(SessionEnded):
            await anext(session)


def test_a_websocket_is_no_address_for_requests() -> None:
    for url in ("ws://x/stream", "127.0.0.1/stream"):
        with pytest.raises(ValueError, match=f"^expected a URL with http or https, but got '{url}'$"):
            PacketClient(url)


@pytest.mark.parametrize("session_id", ["", None])
def test_a_session_is_resumed_by_its_id(session_id: Any) -> None:
    with pytest.raises(ValueError, match=f"^expected the id of a session, but got {session_id!r}$"):
        PacketClient("http://x/stream").resume(session_id)


async def test_only_packets_are_sent() -> None:
    nothing: Any = {"packet_type": "DATA"}
    async with served() as server:
        with pytest.raises(TypeError, match=r"^expected a SocketPacket, but got dict$"):
            PacketClient(server.url).open(nothing)
        async with server.open(0) as session:
            for send in (session.send, session.request):
                with pytest.raises(TypeError, match=r"^expected a SocketPacket, but got dict$"):
                    await send(nothing)


async def test_another_server_has_no_sessions() -> None:
    app = FastAPI()

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"data: 1\n\n"]), media_type="text/event-stream")

    async with serving(app) as url:
        stream_at = PacketClient(f"{url}/stream").open(data())
        for _ in range(2):
            with pytest.raises(NotASession, match="expected a packet session, whose response has a Content-Location"):
                await stream_at.__aenter__()
            with pytest.raises(NotASession):
                await asyncio.to_thread(stream_at.__enter__)


# Sending


class Gate:
    """Holds the requests that send packets until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.posts = 0
        self.changed = asyncio.Condition()

    async def __call__(self, request: Request) -> None:
        if request.method == "POST" and "session_id" in request.path_params:
            async with self.changed:
                self.posts += 1
                self.changed.notify_all()
            await self.opened.wait()

    async def until(self, posts: int) -> None:
        async with asyncio.timeout(BOUND), self.changed:
            await self.changed.wait_for(lambda: self.posts >= posts)


@asynccontextmanager
async def gated(*args: Any, **options: Any) -> AsyncIterator[tuple[Served, Gate]]:
    gate = Gate()

    async def principal(request: Request) -> None:
        await gate(request)

    async with served(*args, principal=principal, **options) as server:
        yield server, gate


async def test_packets_that_wait_for_a_request_share_the_next_one() -> None:
    async with gated() as (server, gate), server.open(0) as session:
        sending = [asyncio.create_task(session.send(data(number))) for number in range(1, 100)]
        await gate.until(1)
        assert not any(task.done() for task in sending)
        gate.opened.set()
        await asyncio.gather(*sending)
        assert gate.posts == 2
        assert [(await anext(session)).payload for _ in range(100)] == list(range(100))


async def test_a_cancelled_sender_hands_over() -> None:
    async with gated() as (server, gate), server.open(0) as session:
        first, *others = [asyncio.create_task(session.send(data(number))) for number in range(1, 5)]
        await gate.until(1)
        first.cancel()
        others[0].cancel()
        await gate.until(2)
        gate.opened.set()
        await asyncio.gather(*others[1:])
        assert (first.cancelled(), others[0].cancelled()) == (True, True)
        await server.recorded.until(4)
        # The first packet was on its way. The second was not, and all others have arrived once.
        assert [number for number in server.calls if number not in ("connect", 1)] == [0, 3, 4]


async def test_only_a_wrong_packet_is_refused() -> None:
    async with served() as server, server.open(0) as session:
        packets = [data(1), data(2), data(3, "NOVEL"), data(4)]
        got = await asyncio.gather(*(session.send(packet) for packet in packets), return_exceptions=True)
        refused = got.pop(2)
        assert isinstance(refused, StreamRefused)
        assert (refused.status, refused.code) == (422, "unknown_packet_type")
        assert got == [None] * 3
        assert [(await anext(session)).payload for _ in range(4)] == [0, 1, 2, 4]


async def test_hooks_that_are_behind_are_waited_for(talk: Talk) -> None:
    going = asyncio.Event()

    async def slow(session: ClientSession, packet: SocketPacket) -> None:
        if packet.payload == "a":
            await going.wait()
        if packet.payload == "c":
            await session.send(packet.reply("all", PacketType.RESULT))

    async with gated(slow, limits=PacketLimits(pending=2)) as (server, gate):
        gate.opened.set()
        talking = asyncio.ensure_future(talk(server.url, "a", "b", "c"))
        await gate.until(2)
        await asyncio.sleep(0)  # the answer to this request is 429
        going.set()
        got = await talking
        assert (got.error, got.payloads) == (None, ["all"])
        assert gate.posts >= 2
        await server.recorded.until("disconnect")
        assert server.calls == ["connect", "a", "b", "c", "disconnect"]


async def test_a_payload_that_is_no_json_is_not_sent() -> None:
    async with served() as server, server.open(0) as session:
        with pytest.raises(ValueError, match="JSON"):
            await session.send(data(object()))
        await session.send(data(1))
        assert [(await anext(session)).payload for _ in range(2)] == [0, 1]


# Requests


async def answering(session: ClientSession, packet: SocketPacket) -> None:
    """Answer a packet as its payload says."""
    match packet.payload:
        case "no":
            await session.send(packet.reply({"code": "no"}, PacketType.ERROR))
        case "never":
            pass
        case "late":
            await session.send(data("before"))
            await session.send(packet.reply("late"))
        case "flood":
            for number in range(3_000):
                await session.send(data(number))
            await session.send(packet.reply("flooded"))
        case "end":
            await session.send(data("end", PacketType.RESULT))
        case other:
            await session.send(data(f"before {other}"))
            await session.send(packet.reply(other))


async def test_a_request_returns_its_answer() -> None:
    async with served(answering) as server:
        async with server.open("first") as session:
            assert (await session.request(data("x"))).payload == "x"
            with pytest.raises(RequestFailed) as failed:
                await session.request(data("no"))
            assert failed.value.packet.payload == {"code": "no"}
            with pytest.raises(SessionEnded, match="the session has ended as done"):
                await session.request(data("end"))
            assert [packet.payload async for packet in session] == ["before first", "first", "before x", "end"]

        def request() -> None:
            with server.open("first") as packets:
                assert packets.request(data("x")).payload == "x"
                with pytest.raises(RequestFailed):
                    packets.request(data("no"))
                with pytest.raises(SessionEnded, match="the session has ended as done"):
                    packets.request(data("end"))
                assert [packet.payload for packet in packets] == ["before first", "first", "before x", "end"]

        await asyncio.to_thread(request)


async def test_many_requests_and_an_iteration_read_one_stream() -> None:
    async with served(answering) as server, server.open(-1) as session:

        async def iterate() -> list[Any]:
            return [packet.payload async for packet in session]

        reading = asyncio.create_task(iterate())
        answers = await asyncio.gather(*(session.request(data(number)) for number in range(50)))
        assert [answer.payload for answer in answers] == list(range(50))
        await session.send(data("end"))
        assert await reading == ["before -1", -1, *(f"before {number}" for number in range(50)), "end"]


async def test_a_request_that_is_not_answered_in_time_keeps_the_connection() -> None:
    async with served(answering) as server, server.open("first") as session:
        await session.request(data("x"))
        connections = server.relay.accepted
        for _ in range(3):
            with pytest.raises(RequestTimedOut, match=r"expected an answer to packet 'q' within 0\.05 s") as timed_out:
                await session.request(data("never", id="q"), timeout=0.05)
            assert isinstance(timed_out.value, TimeoutError)
        assert (await session.request(data("y"), timeout=None)).payload == "y"
        assert server.relay.accepted == connections


async def test_without_asyncio_it_costs_the_connection_but_no_packet() -> None:
    async with served(answering) as server:

        def request() -> None:
            with server.open("first", timeouts=Timeouts(idle=10)) as session:
                for _ in range(2):
                    with pytest.raises(RequestTimedOut):
                        session.request(data("never"), timeout=0.2)
                assert session.request(data("y")).payload == "y"
                session.send(data("end"))
                assert [packet.payload for packet in session] == ["before first", "first", "before y", "end"]

        await asyncio.to_thread(request)


async def test_a_request_that_cannot_be_sent_in_time() -> None:
    async with gated(answering) as (server, gate):
        async with server.open("first") as session:
            with pytest.raises(RequestTimedOut):
                await session.request(data("x"), timeout=0.05)

        def request() -> None:
            with server.open("first") as packets, pytest.raises(RequestTimedOut):
                packets.request(data("x"), timeout=0.05)

        await asyncio.to_thread(request)
        gate.opened.set()


async def test_a_request_that_waits_for_another_thread_is_bounded_too() -> None:
    async with gated(answering) as (server, gate):

        def request(packets: Packets) -> None:
            with pytest.raises(RequestTimedOut):
                packets.request(data("x"), timeout=0.05)

        def talk() -> None:
            with server.open("first") as packets, ThreadPoolExecutor(1) as pool:
                sent = pool.submit(packets.send, data("y"))
                try:
                    asyncio.run_coroutine_threadsafe(gate.until(1), loop).result(BOUND)
                    request(packets)
                    assert not sent.done()
                finally:
                    loop.call_soon_threadsafe(gate.opened.set)
                sent.result(BOUND)

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(talk)


async def test_a_server_that_cannot_be_reached_is_no_timeout() -> None:
    async with served(answering) as server:
        async with server.open("first") as session:
            server.relay.refuse()
            with pytest.raises(Unreachable):
                await session.request(data("x"))
        server.relay.refuse(False)

        def request() -> None:
            with server.open("first") as packets:
                server.relay.refuse()
                with pytest.raises(Unreachable):
                    packets.request(data("x"))

        await asyncio.to_thread(request)


async def test_the_answer_to_a_cancelled_request_is_for_the_iteration() -> None:
    async with served(answering) as server, server.open("first") as session:
        waiting = asyncio.create_task(session.request(data("late")))
        await server.recorded.until("late")
        waiting.cancel()
        await asyncio.wait([waiting])
        await session.send(data("end"))
        received = [packet.payload async for packet in session]
        assert received == ["before first", "first", "before", "late", "end"]


async def test_a_request_reads_only_so_far_ahead() -> None:
    async with served(answering) as server:
        async with server.open("first") as session:
            for is_sent in (True, False):
                with pytest.raises(TooManyUnread) as unread:
                    await session.request(data("flood"))
                assert unread.value.sent is is_sent
            await session.send(data("end"))
            received = [packet.payload async for packet in session]
            assert received == ["before first", "first", *range(3_000), "flooded", "end"]

        def request() -> None:
            with server.open("first") as packets:
                for is_sent in (True, False):
                    with pytest.raises(TooManyUnread) as unread:
                        packets.request(data("flood"))
                    assert unread.value.sent is is_sent
                packets.send(data("end"))
                received = [packet.payload for packet in packets]
                assert received == ["before first", "first", *range(3_000), "flooded", "end"]

        await asyncio.to_thread(request)


async def test_the_server_may_request_too() -> None:
    async def asking(session: ClientSession, packet: SocketPacket) -> None:
        answer = await session.request(data("how much?"))
        await session.send(data(answer.payload * 2, PacketType.RESULT))

    async with served(asking) as server, server.open() as session:
        question = await anext(session)
        await session.send(question.reply(21))
        assert [packet.payload async for packet in session] == [42]


async def test_a_cancelled_wait_loses_nothing() -> None:
    async with served() as server, server.open(0) as session:
        assert (await anext(session)).payload == 0
        connections = server.relay.accepted
        for number in range(1, 10):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(session), 0.01)
            await session.send(data(number))
            assert (await asyncio.wait_for(anext(session), BOUND)).payload == number
        assert server.relay.accepted <= connections + 1  # one to send


# Resuming and leaving


async def test_a_session_is_resumed_at_a_cursor() -> None:
    async with served(silent) as server:
        async with server.open() as session:
            for payload in "abc":
                await server.session.send(data(payload))
            assert (await anext(session)).payload == "a"
            saved, session_id = session.cursor, session.id
        client = PacketClient(server.url)
        async with client.resume(session_id, after=saved) as session:
            assert (session.id, session.address) == (session_id, f"{server.url}/{session_id}")
            assert (await anext(session)).payload == "b"
            await session.send(data("d"))
            await server.recorded.until("d")
            await server.session.send(data("end", PacketType.RESULT))
            assert [packet.payload async for packet in session] == ["c", "end"]
            saved = session.cursor
        async with client.resume(session_id, after=saved) as session:
            assert [packet async for packet in session] == []
            assert session.id == session_id
            with pytest.raises(SessionEnded):
                await session.request(data())
        async with client.resume(session_id) as session:
            assert [packet.payload async for packet in session] == ["a", "b", "c", "end"]


async def test_a_session_has_one_reader_at_a_time() -> None:
    async with served() as server, server.open() as session:
        assert (await anext(session)).payload == "a"
        client = PacketClient(server.url)
        with pytest.raises(AlreadyRead):
            await client.resume(session.id, after=session.cursor).__aenter__()
        async with client.resume(session.id, after=session.cursor, takeover=True) as other:
            with pytest.raises(StreamLost) as lost:
                await anext(session)
            assert lost.value.kind == "replaced"
            await other.send(data("bye"))
            assert [packet.payload async for packet in other] == ["bye"]


async def test_an_unknown_session() -> None:
    async with served() as server:
        with pytest.raises(StreamRefused) as refused:
            await PacketClient(server.url).resume(new_stream_id()).__aenter__()
        assert (refused.value.status, refused.value.code) == (404, "session_not_found")


async def test_a_sender_that_still_waits_is_told_that_the_session_was_left() -> None:
    async with gated() as (server, gate):
        async with server.open() as session:
            sending = [asyncio.create_task(session.send(data(number))) for number in range(3)]
            await gate.until(1)
        got = await asyncio.gather(*sending, return_exceptions=True)
        assert [str(error) for error in got] == ["expected to make requests inside of the block, but it was left"] * 3
        gate.opened.set()


async def test_a_session_is_left_while_it_connects_again() -> None:
    async with served(silent) as server:
        async with server.open(timeouts=Timeouts(connect=BOUND)) as session:
            reading = asyncio.create_task(anext(session))
            connections = server.relay.accepted
            server.relay.always(Fault(after=0, how="stall"))
            server.relay.cut()
            await server.relay.wait_accepted(connections + 1)
        with pytest.raises(RuntimeError, match="but the session was left"):
            await reading


async def test_an_error_of_a_callback_is_raised_where_it_matters() -> None:
    def stop(attempt: int, delay: float, loss: Loss) -> None:
        raise TimeoutError("enough")

    async with served(silent) as server, server.open(on_reconnect=stop) as session:
        waiting = asyncio.create_task(session.request(data("b")))
        await server.recorded.until("b")
        server.relay.cut()
        with pytest.raises(TimeoutError, match="enough"):
            await waiting


async def test_a_session_that_was_left_is_not_taken_for_whole() -> None:
    async with served(silent) as server:
        async with server.open() as session:
            reading = asyncio.create_task(anext(session))
            await asyncio.sleep(0)
            await session.close()
            with pytest.raises(RuntimeError, match="expected to read inside of the block, but the session was left"):
                await reading
        with pytest.raises(RuntimeError, match="but the session was left"):
            await anext(session)
        with pytest.raises(RuntimeError, match="expected to make requests inside of the block, but it was left"):
            await session.send(data("b"))

        def leave() -> None:
            with server.open() as packets:
                packets.close()
                with pytest.raises(RuntimeError, match="but the stream was left"):
                    next(packets)
            with pytest.raises(RuntimeError, match="expected to make requests inside of the block, but it was left"):
                packets.send(data("b"))

        await asyncio.to_thread(leave)


async def test_a_callers_client_stays_open() -> None:
    async with served() as server, AsyncExitStack() as stack:
        client = await stack.enter_async_context(http_client(server.relay.url))
        session: AsyncPackets
        async with PacketClient("/stream", client=client).open(data("a")) as session:
            await session.send(data("bye"))
            assert [packet.payload async for packet in session] == ["a", "bye"]
        async with PacketClient("/stream", client=client).resume(session.id) as session:
            assert [packet.payload async for packet in session] == ["a", "bye"]
        assert not client.is_closed
