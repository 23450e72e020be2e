"""A Redis that is frozen, ends, comes back with less than it had, or takes nothing."""

from __future__ import annotations

import asyncio

import pytest

from tailrace.log.redis.store import Pace
from tests.log.redis.redis_server import RedisServer, redis_server, watched_servers
from tests.log.redis.stores import until

from .clock import Clock
from .oracle import LIMIT
from .scene import scene

fault = pytest.mark.fault


@fault(
    "Redis is frozen (SIGSTOP), and continues",
    noticed="a published number that does not come back",
    reader="`degraded`; then what is new, late",
    writer="nothing; what is written waits",
)
async def test_a_server_stands_still(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        with clock.fault(by="degraded"), server.frozen():
            await played.until(lambda: all(client.degraded for client in played.clients), "everybody to be told")
        await played.repaired()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends) == (set(), {"done"})


@fault(
    "Redis is down for a while, and comes back with everything",
    noticed="the connections' end",
    reader="`degraded` after half a second; then what is new, late",
    writer="nothing; what is written waits",
)
async def test_a_server_is_down(clock: Clock) -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        async with scene(clock, *[server.url] * 3) as played:
            with clock.fault():
                server.kill()
                await played.until(lambda: all(client.degraded for client in played.clients), "everybody to be told")
                await asyncio.to_thread(server.start)
            await played.repaired()
            await played.finish()
        played.judge(server)
        assert (played.resets, played.ends) == (set(), {"done"})


@fault(
    "Redis is killed and restarted, with an AOF (`appendfsync always`)",
    noticed="the connections' end",
    reader="nothing; late",
    writer="nothing; what is written waits",
)
async def test_a_server_restarts_with_everything(clock: Clock) -> None:
    await restart_with("always", clock, set())


@fault(
    "Redis is killed and restarted, with an AOF (`appendfsync everysec`)",
    noticed="the connections' end",
    reader="nothing; a reset (`diverged`) if Redis lost something",
    writer="nothing; if Redis lost something, its stream ends as `error` with the code `entries_lost`",
)
async def test_a_server_restarts_with_nearly_everything(clock: Clock) -> None:
    await restart_with("everysec", clock, {"diverged"})


async def restart_with(fsync: str, clock: Clock, allowed: set[str]) -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", fsync) as server:
        async with scene(clock, *[server.url] * 3) as played:
            await played.until(server.has_written, "a file with both logs")
            with clock.fault():
                await asyncio.to_thread(server.restart)
            await played.repaired()
            await played.finish()
        played.judge(server, may_lose=bool(allowed))
        assert played.resets <= allowed


@fault(
    "Redis is killed and restarted, without persistence",
    noticed="the connections' end, then the missing metadata",
    reader="a reset (`epoch_changed`)",
    writer="its log is gone, and its producer is cancelled; a publish goes to a new log",
)
async def test_a_server_restarts_with_nothing(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3) as played:
        with clock.fault():
            await asyncio.to_thread(server.restart)
        await played.check_new_logs(server)


@fault(
    "A replica that lacks the last writes becomes the master",
    noticed="the connections' end, then a tag that differs",
    reader="a reset (`diverged`)",
    writer="its stream ends as `error` with the code `entries_lost`; a publish continues what is left",
)
async def test_a_replica_without_the_last_writes_is_promoted(clock: Clock) -> None:
    with watched_servers() as watched:
        async with scene(clock, *[watched.url] * 3) as played:
            # A Sentinel promotes no replica that has been without its master for ten times as long.
            watched.sentinel.ask("SENTINEL", "SET", watched.name, "down-after-milliseconds", 1500)
            # From now on, the master gives nothing to replicas.
            watched.master.ask("ACL", "SETUSER", "default", "-psync", "-sync")
            watched.master.ask("CLIENT", "KILL", "TYPE", "replica")
            await played.news()
            lost = played.clients[0].cursor
            with clock.fault():
                watched.master.kill()
                await until(watched.replaced, LIMIT)
            await played.repaired()
            fresh = played.another(watched.url)
            late = played.client([played.room_of(fresh)], played.room, cursor=lost)
            await played.news()
            await played.finish()
        played.judge(watched.replica, may_lose=True)
        for resets in (*played.resets_of(played.room), *played.resets_of(played.stream)):
            assert resets == {"diverged"}
        assert late.resets == ["diverged"]
        assert played.ends == {"done", "entries_lost"}


@fault(
    "The memory is full (`noeviction`), then free again",
    noticed="the refusal of each append",
    reader="nothing",
    writer="nothing; what is written waits. A publish raises `StoreUnavailable` after the store's patience, "
    "which is 1 s here",
)
async def test_the_memory_is_full(server: RedisServer, clock: Clock) -> None:
    async with scene(clock, *[server.url] * 3, pace=Pace(patience=1.0)) as played:
        with clock.fault(by="StoreUnavailable"):
            server.ask("CONFIG", "SET", "maxmemory", 1)
            await clock.noticed()
            server.ask("CONFIG", "SET", "maxmemory", 0)
        await played.repaired()
        await played.finish()
    played.judge(server)
    assert (played.resets, played.ends) == (set(), {"done"})
    assert set(played.refused) == {"StoreUnavailable"}
