"""Data that Redis loses while it runs."""

from __future__ import annotations

import asyncio
import random

import pytest

from tailrace import Retention
from tailrace.cursor import Cursor
from tailrace.log.redis.scripts import Keys
from tailrace.log.redis.store import Pace
from tests.log.redis.redis_server import RedisServer

from .clock import Clock
from .scene import ROOM, STREAM, StoreClient, scene

fault = pytest.mark.fault

BATCH = 8
"""How many entries of 16 KB a reader takes at once."""


@fault(
    "`FLUSHALL`",
    noticed="the missing metadata, at the next append",
    reader="a reset (`epoch_changed`)",
    writer="its log is gone, and its producer is cancelled; a publish goes to a new log",
)
async def test_everything_is_flushed(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        with clock.fault():
            server.ask("FLUSHALL")
        await played.check_new_logs(server)


@fault(
    "Only the metadata of a log is evicted",
    noticed="the missing metadata, at the next append",
    reader="a reset (`epoch_changed`)",
    writer="its log is gone, and its producer is cancelled; a publish goes to a new log",
)
async def test_the_metadata_is_evicted(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        with clock.fault():
            server.ask("DEL", *(Keys.of("tailrace", name).meta for name in (ROOM, STREAM)))
        await played.check_new_logs(server)


@fault(
    "`FLUSHALL` while nothing is written",
    noticed="the probe of quiet streams",
    reader="a reset (`epoch_changed`)",
    writer="–",
)
async def test_a_quiet_log_is_flushed(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 2, quiet=True) as played:
        await asyncio.sleep(random.random() * Pace().interval)  # the next round may be near or far
        with clock.fault():
            server.ask("FLUSHALL")
        await played.until(lambda: all(client.resets for client in played.clients), "a reset for each client")
        await played.publish()
        await played.repaired()
        await played.finish()
    played.judge(server, may_lose=True)
    assert (played.resets, played.ends) == ({"epoch_changed"}, {"done"})


@fault(
    "Only the entries of a log are evicted",
    noticed="the missing entries, by readers that need them",
    reader="nothing if it needs only what is new; otherwise a reset (`trimmed`)",
    writer="nothing",
)
async def test_the_entries_are_evicted(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        log = await played.engines[0].log(ROOM)
        await played.until(lambda: log.top > 5, "more than the entry of the cursor")
        early = str(log.cursor(1))
        with clock.fault():
            server.ask("DEL", *(Keys.of("tailrace", name).log for name in (ROOM, STREAM)))
        await played.news()
        assert played.resets == set()
        fresh = played.another(server.url)
        late = played.client([played.room_of(fresh)], played.room, cursor=early)
        await played.repaired()
        await played.finish()
    played.judge(server, may_lose=True)
    assert late.resets == ["trimmed"]
    assert (played.resets, played.ends) == ({"trimmed"}, {"done"})


@fault(
    "`SCRIPT FLUSH`",
    noticed="the refusal of the next script, which is sent again in full",
    reader="nothing",
    writer="nothing",
)
async def test_the_scripts_are_flushed(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        with clock.fault():
            server.ask("SCRIPT", "FLUSH")
        await played.repaired()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


@fault(
    "Entries are trimmed before a reader has read them",
    noticed="its next read",
    reader="a reset (`trimmed`)",
    writer="nothing",
)
async def test_trimming_overtakes_a_reader_that_catches_up(server: RedisServer, clock: Clock) -> None:
    # More than a mirror holds, so that the rest is fetched from Redis.
    kept, padding = Retention(count=None, size=2 << 20), "x" * (16 << 10)
    async with scene(clock, *[server.url] * 2, quiet=True, retention=kept, padding=padding) as played:
        log = await played.engines[0].log(ROOM)
        enough = asyncio.Event()

        async def publish() -> None:
            while not enough.is_set():
                await played.publish()

        async def until_trimmed(client: StoreClient) -> None:
            """Wait until the next entry is trimmed, once."""
            if not clock.begun:
                assert client.cursor is not None
                behind = Cursor.parse(client.cursor).offset
                await played.until(lambda: log.base > behind, "an entry that is trimmed")
                with clock.fault():
                    pass
            elif not clock.samples:
                clock.repaired()

        async def until_more(_: StoreClient) -> None:
            """Wait for as many entries as a batch has, so as to stay where entries are trimmed."""
            top = log.top
            await played.until(lambda: log.top >= top + BATCH or enough.is_set(), "more entries")

        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(publish())
            await played.until(lambda: log.base, "a log that trims")
            for room in played.finds:
                for rest in (None, until_more, until_more):
                    played.client([room], played.room, rest=rest)
            behind = played.client(played.finds[1:], played.room, rest=until_trimmed)
            await played.until(lambda: clock.samples, "a reader that is reset and goes on")
            await played.news()
            enough.set()
            await publishing
        await played.finish()
    played.judge(server)
    assert behind.resets
    assert (played.resets, played.ends, played.refused) == ({"trimmed"}, {"done"}, [])
