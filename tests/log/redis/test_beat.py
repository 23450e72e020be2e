"""Processes that die, stand still, come back or hear nothing, on a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from tailrace.errors import LogClosed
from tailrace.flow import Retention
from tailrace.log.redis import beat as module
from tailrace.log.redis.beat import PRODUCER_LOST
from tailrace.log.redis.connection import NotSent
from tailrace.log.redis.server import Server
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import (
    LIMIT,
    QUICK,
    SLOW,
    FlakyStore,
    attached,
    listening,
    read_all,
    stores,
    take,
    until,
    write,
)

NAME = "/stream"
PACE = replace(QUICK, linger=60.0)


def processes(server: RedisServer) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = server.ask("HGETALL", "{tailrace}:processes")
    return found


def used(server: RedisServer, store: FlakyStore) -> set[bytes]:
    return set(server.ask("SMEMBERS", f"{{tailrace}}:used:{store.process.decode()}"))


async def stand_still(store: FlakyStore) -> None:
    """Stop a store's beat, as a process that stands still does."""
    await until(lambda: store._beat._count)
    store._beating.cancel()
    await asyncio.wait([store._beating])


async def go_on(store: FlakyStore) -> None:
    store._beating = store.spawn(store._beat.run())


async def rounds(store: FlakyStore, count: int) -> None:
    """Wait for so many rounds of a store."""
    last = store._beat._count + count
    await until(lambda: store._beat._count >= last)


async def count_round(store: FlakyStore) -> None:
    """Make a round of a store as soon as the number of the last one has come back."""
    server = store._servers
    assert isinstance(server, Server)
    await until(lambda: server._sent == server._heard)
    await store._beat._count_round()


async def test_a_process_notes_what_it_reads_and_writes(redis: RedisServer) -> None:
    async with stores(redis.url, 1) as (store,):
        made = await store.create("/written", Retention())
        assert used(redis, store) == {b"/written"}
        written = await store.lease(made)
        log = await store.attach("/read", Retention())
        assert used(redis, store) == {b"/written"}
        assert store.process in processes(redis)
        with log.tail():
            await until(lambda: used(redis, store) == {b"/written", b"/read"})
            with written.log.tail():
                await written.release()
                await until(lambda: written.log.told)
                assert used(redis, store) == {b"/written", b"/read"}
        await until(lambda: not used(redis, store))


async def test_the_dead_are_buried_with_all_that_is_theirs(redis: RedisServer) -> None:
    async with stores(redis.url, 3, pace=PACE) as (dead, one, other):
        writer = await dead.lease(await dead.create(NAME, Retention()))
        write(writer, 1)
        await writer.flush()
        room = await dead.attach("/room", Retention())
        with room.tail(), (await attached(one, NAME)).tail() as tail:
            watching = await attached(other, "/room")
            await until(lambda: watching.control.elsewhere == 1)
            await stand_still(dead)
            async with asyncio.timeout(LIMIT):
                assert [entry.data async for entries in tail for entry in entries] == [1]
            assert tail.log.outcome == PRODUCER_LOST
            await until(lambda: not watching.control.elsewhere)
            await until(lambda: set(processes(redis)) == {one.process, other.process})
            assert used(redis, dead) == set()
            # The dead one hears of it, if it is only half dead.
            await until(lambda: writer.lost)
            with pytest.raises(LogClosed, match="error"):
                write(writer, 2)


async def test_streams_that_the_dead_made_and_never_wrote_end(redis: RedisServer) -> None:
    async with stores(redis.url, 3, pace=PACE) as (dead, leaving, other):
        made = [await store.create(f"{NAME}/{number}", Retention()) for number, store in enumerate((dead, leaving))]
        begun = await dead.create(f"{NAME}/begun", Retention())
        await begun.append(1)  # as somebody else may go on to do
        there = [await attached(other, log.name) for log in (*made, begun)]
        await stand_still(dead)
        await leaving.aclose()
        async with asyncio.timeout(LIMIT):
            assert [await log.wait_end() for log in there[:2]] == [PRODUCER_LOST, PRODUCER_LOST]
        await until(lambda: set(processes(redis)) == {other.process})
        await there[2].refresh()
        assert there[2].outcome is None


@pytest.mark.parametrize("end", ["closed", "dropped", "dropped elsewhere", "released"])
async def test_a_stream_that_is_made_and_not_written_is_left_off_at_its_end(redis: RedisServer, end: str) -> None:
    async with stores(redis.url, pace=PACE) as (store, other):
        made = await store.create(NAME, Retention())
        there = await attached(other, NAME)
        match end:
            case "closed":
                await there.close()
            case "dropped":
                await store.drop(made)
            case "dropped elsewhere":
                await other.drop(there)
            case "released":
                await (await store.lease(made)).release()
        await until(lambda: not used(redis, store))


async def test_who_makes_a_stream_during_its_burial_is_buried_when_it_dies(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (dead, other):
        await dead.create(NAME, Retention())
        await rounds(dead, 1)
        # The last step of a burial that read the names before.
        redis.ask("DEL", f"{{tailrace}}:used:{dead.process.decode()}")
        redis.ask("HDEL", "{tailrace}:processes", dead.process)
        await until(lambda: used(redis, dead) == {NAME.encode()})
        await stand_still(dead)
        log = await attached(other, NAME)
        await until(lambda: log.outcome == PRODUCER_LOST)


async def test_who_comes_back_from_the_dead_counts_again(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (dead, other):
        log = await dead.attach("/room", Retention())
        watching = await attached(other, "/room")
        with log.tail() as tail:
            for _ in range(2):
                await until(lambda: watching.control.elsewhere == 1)
                await stand_still(dead)
                await until(lambda: not watching.control.elsewhere)
                await go_on(dead)
            await rounds(dead, 6)
            await until(lambda: watching.control.elsewhere == 1)
            await until(lambda: set(processes(redis)) == {dead.process, other.process})
            assert used(redis, dead) == {b"/room"}
            await watching.append(1)
            assert await take(tail, 1) == [1]


async def test_who_leases_during_its_burial_is_buried_when_it_dies(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (dead, other):
        await dead.lease(await dead.create(NAME, Retention()))
        await rounds(dead, 1)
        # The last step of a burial that read the names before.
        redis.ask("DEL", f"{{tailrace}}:used:{dead.process.decode()}")
        redis.ask("HDEL", "{tailrace}:processes", dead.process)
        await until(lambda: used(redis, dead) == {NAME.encode()})
        await stand_still(dead)
        log = await attached(other, NAME)
        await until(lambda: log.outcome == PRODUCER_LOST)


async def test_who_pauses_for_less_is_not_buried(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (one, other):
        writer = await one.lease(await one.create(NAME, Retention()))
        await attached(other, NAME)
        for _ in range(3):
            await stand_still(one)
            await rounds(other, 2)
            await go_on(one)
            await rounds(one, 1)
        assert not writer.lost


async def test_a_server_that_stands_still_buries_nobody(own_redis: RedisServer) -> None:
    async with stores(own_redis.url) as (one, other):
        writer = await one.lease(await one.create(NAME, Retention()))
        there = await attached(other, NAME)
        with there.tail() as tail:
            write(writer, 1)
            assert await take(tail, 1) == [1]
            with own_redis.frozen():
                write(writer, 2)
                await asyncio.sleep(5 * QUICK.interval)
            write(writer, 3)
            assert await take(tail, 2) == [2, 3]
            await asyncio.gather(rounds(one, 4), rounds(other, 4))
            assert not writer.lost


async def test_a_server_whose_memory_is_full_still_tells_what_was_missed(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, pace=PACE) as (one, other):
        writer = await one.lease(await one.create(NAME, Retention()))
        there = await attached(other, NAME)
        with there.tail() as tail:
            await asyncio.gather(rounds(one, 2), rounds(other, 2))
            other.deaf = lambda channel: channel == there.channel
            write(writer, 1)
            await writer.flush()
            own_redis.ask("CONFIG", "SET", "maxmemory", 1)
            other.deaf = lambda _: False
            assert await take(tail, 1) == [1]
            await asyncio.sleep(5 * PACE.interval)  # longer than a process that is dead stays unburied
            own_redis.ask("CONFIG", "SET", "maxmemory", 0)
            write(writer, 2)
            assert await take(tail, 1) == [2]
            await asyncio.gather(rounds(one, 4), rounds(other, 4))
            assert not writer.lost


@pytest.mark.parametrize(("interval", "longest"), [(0.2, 0.2), (60.0, 2.0)])
async def test_no_pause_between_two_attempts_to_connect_is_longer_than_a_round(
    redis: RedisServer, interval: float, longest: float
) -> None:
    """Otherwise, others would count three rounds before this process is back."""
    async with stores(redis.url, 1, pace=replace(PACE, interval=interval)) as (store,):
        assert isinstance(server := store._open(), Server)
        assert [link._backoff.longest for link in (server.commands, server.news)] == [longest, longest]


async def test_a_deaf_subscription_is_replaced(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (one, other):
        here, there = [await store.attach("/room", Retention()) for store in (one, other)]
        with there.tail() as tail:
            await until(lambda: listening(other))
            before = {client["id"] for client in redis.clients()}
            other.deaf = lambda _: True
            await here.append(1)
            await until(lambda: not listening(other))
            other.deaf = lambda _: False
            assert await take(tail, 1) == [1]
            await here.append(2)
            assert await take(tail, 1) == [2]
            await until(lambda: listening(other))
            after = {client["id"] for client in redis.clients()}
            assert len(after - before) >= 2
            assert {client["name"] for client in redis.clients() if client["id"] in after - before} == {
                f"tailrace-{other.process.decode()}"
            }


async def test_a_process_that_hears_nothing_buries_nobody(redis: RedisServer) -> None:
    """Its connections may lead to a server on which nobody else counts. So it counts anew on the next ones."""
    async with stores(redis.url, pace=PACE) as (dead, deaf):
        for store in (deaf, dead):
            await store.attach("/room", Retention())
            await until(partial(listening, store))
            await stand_still(store)
        for _ in range(module.DEAD_AFTER - 1):
            await count_round(deaf)
        await until(partial(listening, deaf))
        deaf.deaf = lambda _: True
        await count_round(deaf)
        with pytest.raises(NotSent):
            await deaf._beat._count_round()
        deaf.deaf = lambda _: False
        for _ in range(module.DEAD_AFTER):
            await count_round(deaf)
        assert dead.process in processes(redis)
        await count_round(deaf)
        assert dead.process not in processes(redis)


async def test_a_process_that_closes_takes_itself_out(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (one, other):
        await one.lease(await one.create(NAME, Retention()))
        room = await one.attach("/room", Retention())
        there, watching = await attached(other, NAME), await attached(other, "/room")
        tail = room.tail()
        await until(lambda: watching.control.elsewhere == 1)
        await one.aclose()
        await until(lambda: there.outcome == PRODUCER_LOST)
        await until(lambda: not watching.control.elsewhere)
        assert one.process not in processes(redis)
        tail.close()


async def test_a_process_that_dies_before_its_first_round_is_buried(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (dead, other):
        dead._open()
        dead._beating.cancel()
        await dead.lease(await dead.create(NAME, Retention()))
        log = await attached(other, NAME)
        await until(lambda: log.outcome == PRODUCER_LOST)


async def test_a_process_that_dies_soon_after_redis_lost_its_data_is_buried(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (dead, other):
        await dead.attach("/before", Retention())
        await stand_still(dead)
        redis.ask("FLUSHALL")
        await dead.lease(await dead.create(NAME, Retention()))
        log = await attached(other, NAME)
        await until(lambda: log.outcome == PRODUCER_LOST)


async def test_a_stream_that_is_made_right_after_redis_lost_its_data_goes_on(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (one, other):
        for store in (one, other):
            await store.attach("/before", Retention())
            await rounds(store, 1)
        redis.ask("FLUSHALL")
        writer = await one.lease(await one.create(NAME, Retention()))
        log = await attached(other, NAME)
        await rounds(other, 2 * module.DEAD_AFTER)
        write(writer, 1)
        assert await read_all(log, 1) == [1]
        assert not writer.lost
        await stand_still(one)
        await until(lambda: log.outcome == PRODUCER_LOST)


async def test_the_dead_of_a_whole_server_are_buried_by_who_comes_next(redis: RedisServer) -> None:
    async with stores(redis.url, 1, pace=replace(SLOW, patience=1.0)) as (dead,):
        await dead.lease(await dead.create(NAME, Retention()))
        await until(lambda: dead.process in processes(redis))
        async with stores(redis.url, 1, pace=PACE) as (next_one,):
            log = await attached(next_one, NAME)
            await until(lambda: log.outcome == PRODUCER_LOST)
            assert await read_all(log, 0) == []


async def test_a_round_in_which_a_log_cannot_be_loaded_is_not_the_last(redis: RedisServer) -> None:
    async with stores(redis.url, pace=PACE) as (one, other):
        log = await one.attach(NAME, Retention())
        writer = await one.lease(log)
        await attached(other, NAME)
        one.refuse = log.stale = True
        await rounds(one, 1)
        one.refuse = False
        await rounds(one, 4)
        assert not writer.lost


async def test_many_streams_of_the_dead_end_at_once(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BURIED_AT_ONCE", 2)
    async with stores(redis.url, pace=PACE) as (dead, other):
        for number in range(5):
            await dead.lease(await dead.create(f"/stream-{number}", Retention()))
        logs = [await attached(other, f"/stream-{number}") for number in range(5)]
        await stand_still(dead)
        await until(lambda: all(log.outcome == PRODUCER_LOST for log in logs))


async def test_a_server_that_became_a_replica_is_connected_anew(own_redis: RedisServer) -> None:
    async with stores(own_redis.url, 1, pace=replace(PACE, patience=LIMIT)) as (store,):
        log = await store.attach(NAME, Retention())
        await rounds(store, 1)
        before = {client["id"] for client in own_redis.clients()}
        own_redis.ask("REPLICAOF", "127.0.0.1", "1")
        await until(lambda: not before & {client["id"] for client in own_redis.clients()})
        own_redis.ask("REPLICAOF", "NO", "ONE")
        assert list(await log.append(1)) == [1]
