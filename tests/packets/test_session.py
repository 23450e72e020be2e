"""The life of a packet session: its hooks, its packets in both directions, and its ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from contextlib import suppress
from time import perf_counter
from typing import Any

import pytest
from fastapi import HTTPException
from pydantic import field_validator

from tailrace import Flow, Log, LogClosed, StoreUnavailable, StreamError
from tailrace.log.memory import MemoryLog
from tailrace.packets import (
    ClientSession,
    PacketLimits,
    PacketType,
    RequestFailed,
    SessionState,
    SocketPacket,
)
from tailrace.packets.inbox import MAX_READ, Inbox, Parcel, Rules
from tailrace.packets.kept import Kept, Share
from tailrace.packets.sessions import owner_of
from tailrace.pulse import Pulse
from tailrace.routing.body import BodyRefused
from tailrace.stepping import HOLD, STEPS
from tests.packets.apps import Recorded, client_of, data, echo, insist, opened, resumed
from tests.raw import BOUND
from tests.sources import soon, turns

pytestmark = pytest.mark.usefixtures("silent_loop")


async def nothing(session: ClientSession, packet: SocketPacket) -> None:
    """Take a packet."""


def result(payload: Any = None) -> SocketPacket:
    return SocketPacket(packet_type=PacketType.RESULT, payload=payload)


async def test_a_session_from_its_first_packet_to_its_result() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data("a", id="1")) as talk:
        assert await talk.packet() == {
            "packet_type": "DATA",
            "payload": "a",
            "reply_to": "1",
            "cursor": f"{talk.address.rpartition('/')[2]}.0.1",
        }
        assert list(recorded.router.sessions) == [talk.address.rpartition("/")[2]]
        answer = await talk.say(data("b"), data("bye"))
        assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
        first, last = await talk.rest()
        assert first["payload"] == "b"
        assert last["packet_type"] == "RESULT"
        assert last["cursor"].endswith(".2.end") or last["cursor"].endswith(".3.end")
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", "a", "b", "bye", "disconnect"]
    assert not recorded.router.sessions


async def test_hooks_are_called_one_at_a_time_and_in_order() -> None:
    running = 0

    async def slow(session: ClientSession, packet: SocketPacket) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1
        if packet.payload == 99:
            await session.send(result())

    recorded = Recorded(slow)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        for start in range(1, 100, 9):
            await talk.say(*(data(number) for number in range(start, start + 9)))
        await talk.rest()
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", *range(100), "disconnect"]


@pytest.mark.parametrize(("size", "again"), [(MAX_READ // 16, 0), (MAX_READ // 4, 3)])
async def test_packets_that_wait_are_read_once_unless_they_are_large(size: int, again: int) -> None:
    read = Counter[str]()

    class Noted(SocketPacket[str]):
        @field_validator("payload")
        @classmethod
        def note(cls, payload: str) -> str:
            read[payload] += 1
            return payload

    async def slow(session: ClientSession, packet: SocketPacket) -> None:
        await released.wait()
        await echo(session, packet)

    released = asyncio.Event()
    payloads = [str(number) * (size - 100) for number in range(8)]
    recorded = Recorded(slow, packet=Noted)
    async with client_of(recorded) as client, opened(client, data(payloads[0])) as talk:
        await recorded.until(payloads[0])
        for number in (1, 3, 5):
            assert (await talk.say(*map(data, payloads[number : number + 2]))).status_code == 202
        assert (await talk.say(data(payloads[7]))).status_code == 202
        released.set()
        assert [(await talk.packet())["payload"] for _ in payloads] == payloads
        assert read.total() == 1 + len(payloads) + again  # the session reads its first packet again
        assert (await talk.say(data(later := "x" * (size - 100)))).status_code == 202
        assert (await talk.packet())["payload"] == later
        assert read[later] == 1


async def test_packets_that_are_repeated_do_not_wait_again() -> None:
    log = MemoryLog("inbox")
    share = Share(Kept(1_000), Pulse(60), log)
    inbox = Inbox(log, Rules(SocketPacket, frozenset(), PacketLimits()), share, reports=False)
    packet = SocketPacket(packet_type="DATA", payload="hello")
    parcel = Parcel([line := packet.encode()], [packet])
    for _ in range(2):
        await inbox.add(parcel, key="key")
    assert inbox._size == len(line)
    assert inbox.take(1, line) is packet
    await inbox.add(parcel, key="key")
    assert (inbox._read, inbox._size) == ({}, 0)


async def test_sync_hooks_run_in_threads() -> None:
    def read(session: ClientSession, packet: SocketPacket) -> None:
        session.send_from_thread(result(threading.get_ident()))

    recorded = Recorded()
    recorded.app.dependency_overrides.clear()
    recorded.read = read  # type: ignore[method-assign,assignment]
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert (await talk.packet())["payload"] != threading.get_ident()


async def test_the_disconnect_hook_waits_for_a_sync_hook_that_cannot_be_cancelled() -> None:
    def read(session: ClientSession, packet: SocketPacket) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert released.wait(BOUND)
        assert session.dead
        recorded.calls.append("returned")

    loop, begun, released = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    recorded = Recorded()
    recorded.read = read  # type: ignore[method-assign,assignment]
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await soon(begun)
        assert recorded.session is not None
        recorded.session.die()
        await turns()
        assert recorded.calls == ["connect"]
        released.set()
        [end] = await talk.rest()
        assert end["packet_type"] == "CANCELLED"
    assert recorded.calls == ["connect", "returned", "disconnect"]


async def test_a_session_is_dead_for_its_disconnect_hook_whatever_ended_it() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        raise StreamError("no")

    async def disconnect(session: ClientSession) -> None:
        recorded.calls.append(session.dead)

    recorded = Recorded(read)
    recorded.disconnect = disconnect  # type: ignore[method-assign]
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.packet()
        assert recorded.session is not None
        await asyncio.wait_for(recorded.session.wait_dead(), BOUND)
    assert recorded.calls == ["connect", 0, True]


async def test_the_hook_may_go_on_after_its_result() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await session.send(result())
        await released.wait()
        assert session.dead
        with pytest.raises(LogClosed):
            await session.send(result())
        finished.set()

    released, finished = asyncio.Event(), asyncio.Event()
    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.rest()
        assert (await talk.say(data(1))).status_code == 410
        assert "disconnect" not in recorded.calls
        released.set()
        await asyncio.wait_for(finished.wait(), BOUND)
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "disconnect"]


async def test_a_packet_that_came_before_the_result_but_was_not_read() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await released.wait()
        await session.send(result())

    released = asyncio.Event()
    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.say(data(1))
        released.set()
        await talk.rest()
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "disconnect"]


# Death


async def test_the_server_ends_a_session_while_its_hook_waits() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await asyncio.Event().wait()

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        assert recorded.session is not None
        assert not recorded.session.dead
        recorded.session.die("enough")
        recorded.session.die("again")
        assert recorded.session.dead
        [end] = await talk.rest()
        assert end["packet_type"] == "CANCELLED"
        assert end["payload"] == {"code": "died", "message": "enough"}
        await asyncio.wait_for(recorded.session.wait_dead(), BOUND)
    assert recorded.calls == ["connect", 0, "disconnect"]
    assert recorded.session.state is SessionState.DEAD


async def test_a_hook_ends_its_own_session() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        session.die()
        await session.send(SocketPacket(packet_type="DATA", payload="last words"))
        await asyncio.sleep(BOUND)

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        words, end = await talk.rest()
        assert words["payload"] == "last words"
        assert end["payload"]["code"] == "died"
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "disconnect"]


async def test_a_thread_ends_a_session() -> None:
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        assert recorded.session is not None
        await asyncio.to_thread(recorded.session.die)
        [end] = await talk.rest()
        assert end["payload"]["code"] == "died"


async def test_the_client_ends_a_session_and_may_do_so_again() -> None:
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        for _ in range(2):
            answer = await talk.end()
            assert answer.status_code == 200
            assert answer.json()["state"] == "cancelled"
            assert answer.json()["code"] == "stopped"
        [end] = await talk.rest()
        assert end["packet_type"] == "CANCELLED"
        assert (await talk.say(data(1))).status_code == 410
    assert recorded.calls == ["connect", 0, "disconnect"]


async def test_a_session_of_another_process_that_has_not_ended_yet() -> None:
    recorded = Recorded()
    outbox = await recorded.engine.new_stream("/stream", fingerprint=owner_of(None))
    async with client_of(recorded) as client:
        answer = await client.delete(outbox.name)
    assert (answer.status_code, answer.json()) == (202, {"session_id": outbox.stream, "state": "open"})


async def test_a_session_that_nobody_reads_dies_after_its_grace() -> None:
    recorded = Recorded(nothing, grace=0.05)
    async with client_of(recorded) as client:
        async with opened(client, data(0)) as talk:
            await recorded.until(0)
        await recorded.until("disconnect")
        assert (await talk.say(data(1))).status_code == 410
        async with resumed(talk) as again:
            [end] = await again.rest()
            assert end["payload"]["code"] == "disconnected"
    assert recorded.calls == ["connect", 0, "disconnect"]


async def test_the_end_of_the_server_ends_its_sessions() -> None:
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        recorded.engine.drain()
        [end] = await talk.rest()
        assert end["payload"]["code"] == "shutdown"
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "disconnect"]


async def test_nothing_interrupts_the_disconnect_hook_of_a_session_that_has_a_result() -> None:
    async def disconnect(session: ClientSession) -> None:
        session.die()
        await asyncio.sleep(0)
        recorded.calls.append("disconnected")

    recorded = Recorded()
    recorded.disconnect = disconnect  # type: ignore[method-assign]
    async with client_of(recorded) as client, opened(client, data("bye")) as talk:
        [end] = await talk.rest()
        assert end["packet_type"] == "RESULT"
        assert recorded.session is not None
        await asyncio.wait_for(recorded.session.wait_dead(), BOUND)
    assert recorded.calls == ["connect", "bye", "disconnected"]


async def test_a_result_does_not_follow_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await session.send(SocketPacket(packet_type="DATA", payload="last words"))
            await session.send(result("too late"))

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        await talk.end()
        assert [packet["packet_type"] for packet in await talk.rest()] == ["DATA", "CANCELLED"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_session_that_dies_while_it_connects() -> None:
    async def connect(session: ClientSession) -> None:
        session.die()

    recorded = Recorded(connect=connect)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        [end] = await talk.rest()
        assert end["payload"]["code"] == "died"
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", "disconnect"]


async def test_packets_for_a_session_that_is_dying() -> None:
    async def disconnect(session: ClientSession) -> None:
        await released.wait()

    released = asyncio.Event()
    recorded = Recorded(nothing)
    recorded.disconnect = disconnect  # type: ignore[method-assign]
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        assert recorded.session is not None
        recorded.session.die()
        assert (await talk.say(data(1))).status_code == 410
        released.set()
        await talk.rest()


# Tasks


async def test_work_beside_the_hooks_ends_before_the_disconnect_hook() -> None:
    async def work(session: ClientSession) -> None:
        try:
            await session.send(SocketPacket(packet_type="DATA", payload="begun"))
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            recorded.calls.append("work")

    async def read(session: ClientSession, packet: SocketPacket) -> None:
        session.create_task(work(session))

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert (await talk.packet())["payload"] == "begun"
        await talk.end()
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "work", "disconnect"]


async def test_a_task_ends_its_session_by_a_result() -> None:
    async def work(session: ClientSession) -> int:
        await session.send(result("from a task"))
        return 7

    async def connect(session: ClientSession) -> None:
        tasks.append(session.create_task(work(session)))

    tasks: list[asyncio.Task[int]] = []
    recorded = Recorded(nothing, connect=connect)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        [end] = await talk.rest()
        assert end["payload"] == "from a task"
        await recorded.until("disconnect")
    assert tasks[0].result() == 7


async def test_a_session_that_has_ended_takes_no_more_tasks() -> None:
    async def disconnect(session: ClientSession) -> None:
        with pytest.raises(RuntimeError):
            session.create_task(asyncio.sleep(0))
        await recorded._note("disconnected")

    recorded = Recorded()
    recorded.disconnect = disconnect  # type: ignore[method-assign]
    async with client_of(recorded) as client, opened(client, data("bye")) as talk:
        await talk.rest()
        await recorded.until("disconnected")


async def test_a_task_that_fails_ends_its_session(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ValueError("a secret")

    async def read(session: ClientSession, packet: SocketPacket) -> None:
        session.create_task(work())
        await asyncio.Event().wait()

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        error, _ = await talk.rest()
        assert error["payload"] == {"code": "hook_failed", "message": "the server failed in a task"}
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "disconnect"]
    assert "a task raised" in caplog.text


async def test_a_hook_that_ignores_the_failure_of_a_task() -> None:
    async def work() -> None:
        raise StreamError("no more", code="spent")

    async def read(session: ClientSession, packet: SocketPacket) -> None:
        session.create_task(work())
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.say(data(1))
        error, _ = await talk.rest()
        assert error["payload"]["code"] == "spent"
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "disconnect"]


# Errors


async def failing(session: ClientSession, packet: SocketPacket) -> None:
    raise ValueError("a secret")


async def test_a_hook_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded(failing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        error, cut = await talk.rest()
        assert error["packet_type"] == "ERROR"
        assert error["payload"] == {"code": "hook_failed", "message": "the server failed in the read hook"}
        assert error["cursor"].endswith(".end")
        assert cut is None
        await recorded.until("disconnect")
        session_id = talk.address.rpartition("/")[2]
    assert recorded.calls == ["connect", 0, "disconnect"]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"session {session_id}: the read hook raised"
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (StreamError("no more", code="spent"), {"code": "spent", "message": "no more"}),
        (HTTPException(403, "not you"), {"code": "http_403", "message": "not you"}),
    ],
)
async def test_an_error_that_is_meant_for_the_client(raised: Exception, told: Any) -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        raise raised

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        error, _ = await talk.rest()
        assert error["payload"] == told


async def test_a_packet_that_cannot_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await session.send(SocketPacket(packet_type="DATA", payload=object()))

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        error, _ = await talk.rest()
        assert error["packet_type"] == "ERROR"
        await recorded.until("disconnect")
    assert "expected JSON-able data" in caplog.text


async def test_a_packet_type_that_the_server_does_not_know() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        with pytest.raises(ValueError, match=r"expected a packet type among DATA, ERROR, .*, but got 'DTAA'"):
            await session.send(SocketPacket(packet_type="DTAA"))
        await session.send(result())

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert (await talk.packet())["packet_type"] == "RESULT"


async def test_a_connect_hook_that_refuses() -> None:
    async def connect(session: ClientSession) -> None:
        raise HTTPException(403, "not you", headers={"X-Why": "because"})

    recorded = Recorded(connect=connect)
    async with client_of(recorded) as client:
        answer = await client.post("/stream", json=data(0))
        assert (answer.status_code, answer.json()) == (403, {"detail": "not you"})
        assert answer.headers["x-why"] == "because"
    assert recorded.calls == ["connect"]


async def test_a_connect_hook_that_fails() -> None:
    async def connect(session: ClientSession) -> None:
        raise ValueError("a secret")

    recorded = Recorded(connect=connect)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        error, _ = await talk.rest()
        assert error["payload"]["code"] == "hook_failed"
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", "disconnect"]


async def test_a_connect_hook_that_refuses_after_it_has_sent_something() -> None:
    async def connect(session: ClientSession) -> None:
        await session.send(SocketPacket(packet_type="DATA", payload="welcome"))
        raise HTTPException(403, {"no": "more"})

    recorded = Recorded(connect=connect)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        welcome, error, _ = await talk.rest()
        assert welcome["payload"] == "welcome"
        assert error["payload"] == {"code": "http_403", "message": '{"no":"more"}'}
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", "disconnect"]


async def test_an_error_is_told_before_the_disconnect_hook_returns() -> None:
    async def disconnect(session: ClientSession) -> None:
        await released.wait()

    released = asyncio.Event()
    recorded = Recorded(failing)
    recorded.disconnect = disconnect  # type: ignore[method-assign]
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert (await talk.packet())["packet_type"] == "ERROR"
        released.set()


async def test_a_packet_that_is_sent_too_late_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await session.send(result())
        await session.send(result())

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert [packet["packet_type"] for packet in await talk.rest()] == ["RESULT"]
        await recorded.until("disconnect")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_outbox_that_somebody_has_closed() -> None:
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        assert recorded.session is not None
        await recorded.session.outbox.close()
        [end] = await talk.rest()
        assert (end["packet_type"], end["cursor"][-4:]) == ("DONE", ".end")
        await recorded.until("disconnect")


async def test_the_headers_come_once_the_session_is_connected() -> None:
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert talk.response.headers["content-type"] == "application/x-ndjson"
        assert talk.response.headers["link"] == f'<{talk.address}/stop>; rel="stop", <{talk.address}>; rel="send"'


async def test_a_disconnect_hook_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def disconnect(session: ClientSession) -> None:
        recorded.calls.append("disconnect")
        raise ValueError

    recorded = Recorded()
    recorded.disconnect = disconnect  # type: ignore[method-assign]
    async with client_of(recorded) as client, opened(client, data("bye")) as talk:
        [end] = await talk.rest()
        assert end["packet_type"] == "RESULT"
        assert recorded.session is not None
        await asyncio.wait_for(recorded.session.wait_dead(), BOUND)
    assert "the disconnect hook raised" in caplog.text


# Requests


async def test_the_server_asks_the_client_while_its_hook_waits() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        if packet.payload == 0:
            answer = await session.request(SocketPacket(packet_type="REQUEST", payload="your name?"))
            await session.send(packet.reply(answer.payload))
        elif packet.payload == "bye":
            await session.send(result())

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        asked = await talk.packet()
        answer = {"packet_type": "DATA", "payload": "Ada", "reply_to": asked["id"], "id": "1"}
        await talk.say(data("other"), data("wrong", reply_to="else"), answer, answer, data("bye"))
        first, last = await talk.rest()
        assert first["payload"] == "Ada"
        assert last["packet_type"] == "RESULT"
        await recorded.until("disconnect")
    assert recorded.calls == ["connect", 0, "other", "wrong", "bye", "disconnect"]


async def test_an_answer_may_spell_the_id_in_another_way() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        answer = await session.request(SocketPacket(packet_type="REQUEST", id="job/1"))
        await session.send(result(answer.payload))

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.packet()
        answer = b'{"packet_type":"DATA","payload":1,"reply_to":"job\\/1"}'
        await client.post(talk.address, content=answer, headers={"Content-Type": "application/json"})
        assert (await talk.packet())["payload"] == 1


async def test_an_answer_does_not_reach_the_hook() -> None:
    async def ask(session: ClientSession) -> None:
        asking.append(asyncio.create_task(session.request(SocketPacket(packet_type="REQUEST", id="q"))))

    asking: list[asyncio.Task[SocketPacket]] = []
    recorded = Recorded(nothing, connect=ask)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert (await talk.packet())["id"] == "q"
        await talk.say(data("answer", reply_to="q"), data("next"))
        await recorded.until("next")
        assert (await asking[0]).payload == "answer"
        await talk.say(data("late", reply_to="q"))
        await recorded.until("late")
    assert recorded.calls[:4] == ["connect", 0, "next", "late"]


async def test_an_answer_that_is_an_error() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        with pytest.raises(RequestFailed, match="too busy"):
            await session.request(SocketPacket(packet_type="REQUEST", id="q"))
        await session.send(result())

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.packet()
        await talk.say({"packet_type": "ERROR", "payload": "too busy", "reply_to": "q"})
        assert (await talk.packet())["packet_type"] == "RESULT"


async def test_an_answer_that_does_not_come() -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        with pytest.raises(TimeoutError, match=r"expected an answer to packet 'q' within 0.01 s, but got none"):
            await session.request(SocketPacket(packet_type="REQUEST", id="q"), timeout=0.01)
        await session.send(result())

    recorded = Recorded(read)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        assert (await talk.packet())["id"] == "q"
        assert (await talk.packet())["packet_type"] == "RESULT"


async def test_a_request_whose_session_ends() -> None:
    async def ask(session: ClientSession) -> None:
        asking.append(asyncio.create_task(session.request(SocketPacket(packet_type="REQUEST", id="q"))))

    asking: list[asyncio.Task[SocketPacket]] = []
    recorded = Recorded(nothing, connect=ask)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.packet()
        await talk.end()
        with pytest.raises(LogClosed):
            await asyncio.wait_for(asking[0], BOUND)


# Flow


async def test_a_packet_that_comes_twice_is_delivered_once() -> None:
    recorded = Recorded()
    async with client_of(recorded) as client, opened(client, data(0, id="0")) as talk:
        await talk.say(data(1, id="1"), data(2, id="2"))
        await talk.say(data(1, id="1"), data(2, id="2"), data(3, id="3"))
        await talk.say(data(0, id="0"), data("bye"))
        assert [packet["payload"] for packet in await talk.rest()] == [0, 1, 2, 3, "bye"]
    assert recorded.calls[:6] == ["connect", 0, 1, 2, 3, "bye"]


async def test_bodies_that_come_again_are_not_delivered_again() -> None:
    bodies = [[data(number, id=str(number)) for number in range(start, start + 1_000)] for start in (0, 1_000)]
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data("first")) as talk:
        for body in (*bodies, *bodies, [data("last")]):
            await insist(client, talk.address, *body)
        await recorded.until("last")
    assert recorded.calls[1:-1] == ["first", *range(2_000), "last"]


async def test_a_hook_that_floods_waits_for_its_client() -> None:
    sent = 0

    async def flood(session: ClientSession, packet: SocketPacket) -> None:
        nonlocal sent
        for _ in range(100_000):
            await session.send(SocketPacket(packet_type="DATA", payload="x" * 1_000))
            sent += 1

    recorded = Recorded(flood, flow=Flow.block(100))
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.packet()
        assert recorded.session is not None
        statistics = recorded.session.statistics()
        assert statistics.policy == "block"
        assert statistics.high == 100
        assert statistics.behind <= 100
        assert statistics.outbox.size < 2 << 20
        assert statistics.pending == 1
        assert statistics.handled == 1
    assert sent < 100_000


async def test_a_thread_that_floods_ends_with_its_session() -> None:
    def flood(session: ClientSession, packet: SocketPacket) -> None:
        try:
            while True:
                session.send_from_thread(SocketPacket(packet_type="DATA", payload="x" * 1_000))
        except LogClosed:
            ended.append(session.dead)
            raise

    ended: list[bool] = []
    recorded = Recorded(grace=0.05)
    recorded.read = flood  # type: ignore[method-assign,assignment]
    async with client_of(recorded) as client:
        async with opened(client, data(0)) as talk:
            await talk.packet()
        await recorded.until("disconnect")
    assert ended == [True]


async def test_ids_are_remembered_for_a_while() -> None:
    WINDOW = PacketLimits().window
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data("first", id="x")) as talk:
        for start in range(0, WINDOW, 256):
            await talk.say(*(data(number, id=str(number)) for number in range(start, start + 256)))
            await recorded.until(start + 255)
        await talk.say(data("again", id=str(WINDOW - 1)), data("old", id="x"))
        await recorded.until("old")
    assert "again" not in recorded.calls


async def test_an_inbox_that_the_store_has_lost(caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        assert recorded.session is not None
        await recorded.engine.forget(recorded.session.inbox.log)
        error, _ = await talk.rest()
        assert error["payload"]["code"] == "packets_lost"
        await recorded.until("disconnect")
    assert "its inbox is lost (epoch_changed)" in caplog.text


async def test_an_inbox_that_somebody_has_closed() -> None:
    recorded = Recorded(nothing)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await recorded.until(0)
        assert recorded.session is not None
        await recorded.session.inbox.log.close()
        parcel = Parcel([b"{}", b"{}"], ())
        with pytest.raises(BodyRefused, match="it has ended"):  # before the hooks know
            await recorded.router._sessions.accept(recorded.engine, recorded.session.outbox, parcel)
        error, _ = await talk.rest()
        assert error["payload"]["code"] == "packets_lost"


async def test_an_inbox_that_cannot_be_forgotten(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(log: Log) -> None:
        raise StoreUnavailable(log.name, "gone")

    recorded = Recorded()
    monkeypatch.setattr(recorded.engine, "forget", forget)
    async with client_of(recorded) as client, opened(client, data("bye")) as talk:
        [last] = await talk.rest()
        assert last["packet_type"] == "RESULT"
        assert recorded.session is not None
        await asyncio.wait_for(recorded.session.wait_dead(), BOUND)
    assert "could not be forgotten" in caplog.text


async def test_a_flood_of_one_hook_leaves_the_others_in_peace() -> None:
    turn = 0
    handled = Counter[int]()  # how many packets were handled in each turn of the event loop

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def compute(session: ClientSession, packet: SocketPacket) -> None:
        """Take long, and never wait for anything."""
        handled[turn] += 1
        end = perf_counter() + HOLD / 4
        while perf_counter() < end:
            pass

    counting = asyncio.create_task(count_turns())
    recorded = Recorded(compute)
    async with client_of(recorded) as client, opened(client, data(0)) as talk:
        await talk.say(*(data(number) for number in range(1, 61)))
        await recorded.until(60)
    counting.cancel()
    assert handled.total() == 61
    assert max(handled.values()) <= STEPS
