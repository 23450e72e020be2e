"""Messages that are sent again, because nobody knows whether they are in the room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import Depends

from tailrace import Engine
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.testing.relay import Fault, relayed
from tests.asgi.apps import small_engine
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.raw import BOUND
from tests.rooms.apps import House
from tests.serving import http_client

pytestmark = pytest.mark.usefixtures("silent_loop")

KEYED = {"Idempotency-Key": "7c0ffee"}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(redis: RedisServer) -> None:
    redis.ask("FLUSHALL")


def impatient_engine(redis: RedisServer) -> Engine:
    """An engine over Redis that soon gives up a call that is not answered."""
    return small_engine(url=RedisStore(redis.url, pace=Pace(interval=0.2, linger=0.1, patience=0.1)))


class Watched(House):
    """A house that counts how often a message was tried."""

    def __init__(self, **options: Any) -> None:
        self.tries: asyncio.Queue[None] = asyncio.Queue()
        super().__init__(write=[Depends(self._note)], **options)

    async def _note(self) -> None:
        self.tries.put_nowait(None)


async def said(house: House, room: str = "red") -> list[Any]:
    entries = await (await house.router.room(room)).log.read(0, 100)
    return [entry.data["message"] for entry in entries if entry.event == "message"]


async def test_a_message_whose_answer_is_lost_is_in_the_room_once() -> None:
    async with House().open() as house, relayed(house.url) as relay, http_client(relay.url) as client:
        relay.next(Fault(after=1))  # of the answer
        with pytest.raises(httpx.TransportError):
            await client.post("/rooms/red", json="hello", headers=KEYED)
        answer = await client.post("/rooms/red", json="hello", headers=KEYED)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
        assert await said(house) == ["hello"]


@pytest.mark.parametrize(
    "other",
    [
        {"json": "bye", "headers": KEYED},
        {"json": "hello", "headers": {"Idempotency-Key": "decaf"}},
        {"json": "hello", "headers": KEYED, "params": {"name": "ada"}},
        {"json": "hello"},
    ],
    ids=["message", "key", "member", "no key"],
)
async def test_another_message_is_no_repeat(other: dict[str, Any]) -> None:
    async with House().open() as house:
        for request in ({"json": "hello", "headers": KEYED}, other, {"json": "hello", "headers": KEYED}):
            assert (await house.client.post("/rooms/red", **request)).status_code == 202
        assert await said(house) == ["hello", other["json"]]


async def test_a_socket_message_is_in_the_room_once_although_redis_froze(redis: RedisServer) -> None:
    house = Watched(engine=impatient_engine(redis))
    async with house.open(), house.enter("red", "ada") as ada:
        await ada.hear()
        with redis.frozen():
            await ada.say("frozen")
            async with asyncio.timeout(BOUND):
                for _ in range(3):
                    await house.tries.get()
        await ada.say("thawed")
        assert await ada.until("message", "thawed") == [("message", "frozen"), ("message", "thawed")]
        assert await said(house) == ["frozen", "thawed"]


async def test_another_process_knows_the_message_that_redis_took_when_it_froze(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        houses = [await stack.enter_async_context(House(engine=impatient_engine(redis)).open()) for _ in range(2)]
        here, there = houses
        for house in houses:
            await house.client.post("/rooms/red", json="before")
        with redis.frozen():
            answer = await here.client.post("/rooms/red", json="hello", headers=KEYED)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        for house in (there, here):
            answer = await house.client.post("/rooms/red", json="hello", headers=KEYED)
            assert answer.status_code == 202
        assert await said(there) == await said(here) == ["before", "before", "hello"]
