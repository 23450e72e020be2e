"""Connections that are killed, frames that are lost."""

from __future__ import annotations

import pytest

from tailrace.log.redis.scripts import Keys
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import settled

from .clock import Clock
from .network import network
from .scene import ROOM, scene

fault = pytest.mark.fault


@fault(
    "Redis cuts the subscriptions (`CLIENT KILL TYPE pubsub`), again and again",
    noticed="the connection's end",
    reader="nothing",
    writer="nothing",
)
async def test_subscriptions_are_killed(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        with clock.fault():
            assert server.ask("CLIENT", "KILL", "TYPE", "pubsub") == 3
        await played.repaired()
        for _ in range(4):  # each time, the stores wait longer before they connect again
            await played.until(lambda: server.ask("CLIENT", "KILL", "TYPE", "pubsub"), "a subscription to kill")
            await played.news()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


@fault(
    "Redis cuts the connections for commands (`CLIENT KILL TYPE normal`), again and again",
    noticed="the connection's end",
    reader="nothing",
    writer="nothing",
)
async def test_commands_are_killed(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        with clock.fault():
            assert server.ask("CLIENT", "KILL", "TYPE", "normal") == 3
        await played.repaired()
        for _ in range(4):
            await played.until(lambda: server.ask("CLIENT", "KILL", "TYPE", "normal"), "a connection to kill")
            await played.news()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


@fault(
    "A subscription is deaf: published messages do not arrive",
    noticed="a published number that does not come back",
    reader="`degraded`; then what is new, late",
    writer="nothing",
)
async def test_a_subscription_is_deaf(server: RedisServer, clock: Clock) -> None:
    async with network(server.url) as (way, url), scene(clock, *[server.url] * 2, url) as played:
        await settled(*played.stores)
        with clock.fault(by="degraded"):
            way.deafen()
        await clock.noticed()
        await played.repaired()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


@fault(
    "The last message of a quiet stream is lost",
    noticed="the probe of quiet streams",
    reader="the entry, late",
    writer="nothing",
)
async def test_the_last_message_of_a_quiet_stream_is_lost(server: RedisServer, clock: Clock) -> None:
    async with network(server.url) as (way, url), scene(clock, server.url, url, quiet=True) as played:
        await settled(*played.stores)
        with clock.fault():
            way.drop_next(Keys.of("tailrace", ROOM).log)
            await played.publish()
        await played.news(clock.begun)
        clock.notice("it is there")
        clock.repaired()
        assert way.dropped == 1
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


@fault(
    "A message is lost, and others follow",
    noticed="the gap before the next message",
    reader="nothing",
    writer="nothing",
)
async def test_a_message_before_others_is_lost(server: RedisServer, clock: Clock) -> None:
    async with network(server.url) as (way, url), scene(clock, *[server.url] * 2, url) as played:
        await settled(*played.stores)
        with clock.fault():
            way.drop_next(Keys.of("tailrace", ROOM).log)
            await played.until(lambda: way.dropped, "a message that is lost")
        await played.repaired()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


@fault(
    "A subscription is late: its messages have already been loaded",
    noticed="the offset of each message",
    reader="nothing",
    writer="nothing",
)
async def test_a_subscription_is_late(server: RedisServer, clock: Clock) -> None:
    async with network(server.url) as (way, url), scene(clock, server.url, url) as played:
        await settled(*played.stores)
        reader = played.clients[1]  # of the room, in the second process, which loads what comes before its own appends
        with clock.fault():
            way.hold_news()
            count = reader.count
            await played.until(lambda: reader.count > count + 5, "a reader with entries that were loaded")
            way.let_go()
        await played.repaired()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])
