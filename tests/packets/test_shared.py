"""Packet sessions in Redis: several processes know how far the hooks are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tailrace import Engine
from tailrace.packets import ClientSession, PacketLimits, SocketPacket
from tests.asgi.apps import small_engine
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.packets.apps import Recorded, client_of, data, echo, opened, say
from tests.raw import BOUND

pytestmark = pytest.mark.usefixtures("silent_loop")

LIMITS = PacketLimits(pending=8)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def engine_on(redis: RedisServer) -> Engine:
    return small_engine(url=redis.url)


async def insist(client: httpx.AsyncClient, address: str, packet: Mapping[str, Any]) -> None:
    """Send a packet until it is accepted, as clients do after 429."""
    async with asyncio.timeout(BOUND):
        while True:
            answer = await say(client, address, packet)
            if answer.status_code != 429:
                return
            await asyncio.sleep(0.01)


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


async def test_a_session_takes_any_number_of_packets_from_another_process(redis: RedisServer) -> None:
    here = Recorded(engine=engine_on(redis), limits=LIMITS)
    elsewhere = Recorded(engine=engine_on(redis), limits=LIMITS)
    async with client_of(here) as client, client_of(elsewhere) as other, opened(client, data(0)) as talk:
        await talk.packet()
        for number in range(1, 100):
            await insist(other, talk.address, data(number))
            assert (await talk.packet())["payload"] == number
        assert here.session is not None
        assert here.session.statistics().handled == 100
