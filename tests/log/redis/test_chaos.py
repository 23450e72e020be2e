"""Publishers and readers in two processes, while connections are cut, frames are lost and mirrors come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from tailrace.errors import StoreUnavailable
from tailrace.events import DONE, encode_event
from tailrace.flow import Retention
from tailrace.log.base import Log
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.log.store import Keeping
from tailrace.pulse import Pulse

from .redis_server import RedisServer

LIMIT = 30.0
SECONDS = 2.0
"""For how long there is chaos. On a slow machine, it lasts until each publisher has published `LEAST`."""

LEAST = 100
"""Items that show something."""

LOSS = 0.05
"""The share of frames that do not arrive."""

PACE = Pace(interval=0.5, linger=0.05)


class LossyStore(RedisStore):
    """A store whose subscription loses frames without a sign, as when a server forgets a subscription."""

    chance = random.Random(0)

    def _pushed(self, push: list[Any]) -> None:
        if b":to:" in push[1] or self.chance.random() >= LOSS:
            super()._pushed(push)


@pytest.fixture
def chance() -> random.Random:
    return random.Random(1)


@asynccontextmanager
async def two_stores(url: str) -> AsyncIterator[tuple[LossyStore, LossyStore]]:
    one, other = (LossyStore(url, Keeping(), Pulse(0.05), pace=PACE) for _ in range(2))
    yield one, other
    await one.aclose()
    await other.aclose()


async def cut(server: RedisServer, chance: random.Random) -> None:
    """Cut a connection four times a second."""
    while True:
        await asyncio.sleep(0.25)
        if names := [client["id"] for client in server.clients() if client["name"].startswith("tailrace-")]:
            server.ask("CLIENT", "KILL", "ID", chance.choice(names))


async def follow(find: Callable[[], Any], read: list[Any], chance: random.Random) -> None:
    """Read to the end, and come back with the cursor now and then, as clients do."""
    cursor = None
    while True:
        log: Log = await find()
        with log.tail(await log.resolve(cursor) if cursor else 0) as tail:
            async for entries in tail:
                read += [entry.data for entry in entries]
                assert tail.position == len(read)
                if chance.random() < 0.02:
                    cursor = tail.cursor()
                    break
            else:
                return
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.2)


async def test_a_room_loses_doubles_and_reorders_nothing(redis: RedisServer, chance: random.Random) -> None:
    async with asyncio.timeout(LIMIT), two_stores(redis.url) as stores:
        known: dict[int, Any] = {}
        unknown: list[Any] = []
        until = asyncio.get_running_loop().time() + SECONDS

        async def publish(publisher: int) -> None:
            number = 0
            while asyncio.get_running_loop().time() < until or number < LEAST:
                log = await stores[publisher % 2].attach("/room", Retention())
                items = [[publisher, number + index] for index in range(chance.randrange(1, 4))]
                number += len(items)
                try:
                    offsets = await log.append(*items)
                except StoreUnavailable:
                    unknown.extend(items)
                else:
                    known.update(zip(offsets, items, strict=True))
                await asyncio.sleep(chance.random() * 0.01)

        reads: list[list[Any]] = [[], [], [], []]
        async with asyncio.TaskGroup() as group:
            cutting = group.create_task(cut(redis, chance))
            for index, read in enumerate(reads):
                store = stores[index % 2]
                group.create_task(follow(partial(store.attach, "/room", Retention()), read, chance))
            publishing = [group.create_task(publish(publisher)) for publisher in range(3)]
            await asyncio.wait(publishing)
            cutting.cancel()
            await (await stores[0].attach("/room", Retention())).close()
        items = reads[0]
        assert len(items) > LEAST
        assert all(read == items for read in reads)
        assert {offset: items[offset - 1] for offset in known} == known
        assert [item for offset, item in enumerate(items, 1) if offset not in known and item not in unknown] == []
        for publisher in range(3):
            numbers = [number for of, number in items if of == publisher]
            assert numbers == sorted(set(numbers))


async def test_a_stream_loses_doubles_and_reorders_nothing(redis: RedisServer, chance: random.Random) -> None:
    async with asyncio.timeout(LIMIT), two_stores(redis.url) as stores:
        log = await stores[0].create("/stream", Retention())
        writer = await stores[0].lease(log)
        reads: list[list[Any]] = [[], [], [], []]
        async with asyncio.TaskGroup() as group:
            cutting = group.create_task(cut(redis, chance))
            for index, read in enumerate(reads):
                group.create_task(follow(partial(stores[index % 2].find, "/stream"), read, chance))
            until = asyncio.get_running_loop().time() + SECONDS
            number = 0
            while asyncio.get_running_loop().time() < until or number < LEAST:
                for _ in range(chance.randrange(1, 4)):
                    number += 1
                    writer.write(*encode_event(number))
                await asyncio.sleep(chance.random() * 0.01)
            assert await writer.end(DONE, patience=LIMIT) == DONE
            cutting.cancel()
        assert reads == [list(range(1, number + 1))] * 4
