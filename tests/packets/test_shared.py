"""Packet sessions in Redis: several processes know how far the hooks are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tailrace import Engine, StoreUnavailable
from tailrace.packets import ClientSession, PacketLimits, SocketPacket
from tests.asgi.apps import small_engine
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.packets.apps import Recorded, client_of, data, echo, insist, opened, say
from tests.raw import BOUND

pytestmark = pytest.mark.usefixtures("silent_loop")

LIMITS = PacketLimits(pending=8)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def engine_on(redis: RedisServer) -> Engine:
    return small_engine(url=redis.url)


async def test_a_flood_at_another_process_is_answered_429(redis: RedisServer) -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await released.wait()
        await echo(session, packet)

    released = asyncio.Event()
    here = Recorded(read, engine=engine_on(redis), limits=LIMITS)
    elsewhere = Recorded(engine=engine_on(redis), limits=LIMITS)
    async with client_of(here) as client, client_of(elsewhere) as other, opened(client, data(0)) as talk:
        number = 1
        while (answer := await say(other, talk.address, data(number))).status_code == 202:
            number += 1
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_packets")
        assert number == 8
        released.set()
        await here.until(7)
        await insist(other, talk.address, data("bye"))
        assert [packet["payload"] for packet in await talk.rest()] == [*range(8), "bye"]
        await here.until("disconnect")
    assert elsewhere.calls == []


@pytest.mark.parametrize("pending", [1, 2, 3, 4, 8])
async def test_a_session_takes_any_number_of_packets_from_another_process(redis: RedisServer, pending: int) -> None:
    limits = PacketLimits(pending=pending)
    here = Recorded(engine=engine_on(redis), limits=limits)
    elsewhere = Recorded(engine=engine_on(redis), limits=limits)
    async with client_of(here) as client, client_of(elsewhere) as other, opened(client, data(0)) as talk:
        await talk.packet()
        for number in range(1, 40):
            await insist(other, talk.address, data(number))
            assert (await talk.packet())["payload"] == number
        assert here.session is not None
        assert here.session.statistics().handled == 40
        assert here.session.inbox.log.top < 40 * 2 + 3


async def test_requests_at_once_do_not_lose_what_was_accepted(redis: RedisServer) -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        await released.wait()

    released = asyncio.Event()
    here = Recorded(read, engine=engine_on(redis), limits=PacketLimits(pending=50))
    async with client_of(here) as client, opened(client, data("first")) as talk:
        bodies = [[data(number) for number in range(start, start + 50)] for start in range(0, 600, 50)]
        answers = await asyncio.gather(*(talk.say(*body) for body in bodies))
        accepted = [body for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 202]
        released.set()
        for body in accepted:
            await here.until(body[-1]["payload"])
        assert len(here.calls) == 2 + 50 * len(accepted)
        assert 1 <= len(accepted) < 12


async def test_a_session_has_its_grace_at_the_end_of_its_server(redis: RedisServer) -> None:
    async def read(session: ClientSession, packet: SocketPacket) -> None:
        if packet.payload == "last":
            await session.send(packet.reply("handled", "RESULT"))

    engine = small_engine(url=redis.url, shutdown_grace=BOUND)
    here = Recorded(read, engine=engine)
    async with client_of(here) as client, opened(client, data(0)) as talk:
        await here.until(0)
        engine.drain()
        assert (await talk.say(data("last"))).status_code == 202
        assert (await talk.packet())["payload"] == "handled"


async def test_a_store_that_does_not_take_a_report(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailable("inbox", "busy")

    here = Recorded(engine=engine_on(redis), limits=PacketLimits(pending=1))
    async with client_of(here) as client, opened(client, data(0)) as talk:
        await talk.packet()
        assert here.session is not None
        inbox = here.session.inbox
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "log", SimpleNamespace(add=unavailable))
            await inbox.report(1)
        assert (await talk.say(data(1))).status_code == 202
        assert (await talk.packet())["payload"] == 1
