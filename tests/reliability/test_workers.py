"""Workers that are killed, cut off, stopped or visited by everybody at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from tailrace import Retention
from tests.log.redis.redis_server import RedisServer
from tests.system.servers import Running

from .clock import Clock
from .network import Network, network
from .oracle import Item, Published
from .scene import ROOM, Scene, scene
from .workers import workers

fault = pytest.mark.fault


async def attend(played: Scene, *served: Running) -> Published:
    """Let the first worker write a stream, and clients at all workers read it and the room. Return the stream."""
    starter = played.visitor(served, "/items", items := Published("", sole=True))
    await played.until(lambda: starter.count, "a stream")
    items.name = starter.path
    for worker in served:
        played.visitor([worker, *served], ROOM, played.room)
        played.visitor([worker, served[-1]], items.name, items)
    for engine in played.engines:
        played.client([partial(engine.find, items.name)], items)
    await played.until(lambda: all(client.count for client in played.clients), "items for every client")
    return items


@fault(
    "A worker is killed (SIGKILL)",
    noticed="a counter that stands still for three rounds",
    reader="its own clients lose their connection, and go on at another worker; of streams that the worker wrote, "
    "everything that was stored, then `error` with the code `producer_lost`",
    writer="–",
)
async def test_a_worker_is_killed(server: RedisServer, clock: Clock) -> None:
    async with workers(server.url, server.url) as (first, second), scene(clock, server.url) as played:
        items = await attend(played, first, second)
        with clock.fault(by="producer_lost"):
            first.process.kill()
        await played.repaired()
        await played.finish()
        played.judge(server)
        assert {client.ended for client in played.clients if client.published is items} == {"producer_lost"}
        assert (played.resets, played.ends, played.refused) == (set(), {"done", "producer_lost"}, [])


@fault(
    "A worker is cut off from Redis: its packets vanish",
    noticed="in the worker, a published number that does not come back; elsewhere, a counter that stands still for "
    "three rounds",
    reader="at the worker: `degraded`, then what is new, late; elsewhere, as when the worker is killed",
    writer="the producers of the worker are cancelled once it is back: their streams have ended",
)
async def test_packets_of_a_worker_vanish(server: RedisServer, clock: Clock) -> None:
    async with cut_off(server, clock) as (way, everybody_knows):
        way.hold()
        await everybody_knows()
        way.let_go()


@fault(
    "A worker is cut off from Redis: its connections are refused",
    noticed="in the worker, the connections' end; elsewhere, a counter that stands still for three rounds",
    reader="as when its packets vanish",
    writer="as when its packets vanish",
)
async def test_connections_of_a_worker_are_refused(server: RedisServer, clock: Clock) -> None:
    async with cut_off(server, clock) as (way, everybody_knows):
        way.refuse()
        way.cut()
        await everybody_knows()
        way.refuse(False)


@asynccontextmanager
async def cut_off(server: RedisServer, clock: Clock) -> AsyncIterator[tuple[Network, Callable[[], Awaitable[None]]]]:
    """The way of a worker to Redis, which the block breaks and mends. Check what everybody sees.

    The block waits, by the function, until readers at the worker and readers elsewhere have been told.
    """
    async with (
        network(server.url) as (way, url),
        workers(url, server.url) as (first, second),
        scene(clock, server.url) as played,
    ):
        items = await attend(played, first, second)

        async def everybody_knows() -> None:
            await clock.noticed()
            lost = [client for client in played.clients if client.published is items]
            await played.until(lambda: any(client.ended for client in lost), "readers elsewhere to be told")

        with clock.fault(by="degraded"):
            yield way, everybody_knows
        await played.repaired()
        async with first.client() as client:
            while (await client.get("/producers")).json():
                await played.news()
        await played.finish()
        played.judge(server)
        assert {client.ended for client in played.clients if client.published is items} == {"producer_lost"}
        assert (played.resets, played.ends, played.refused) == (set(), {"done", "producer_lost"}, [])


@fault(
    "Two workers publish to one log at once",
    noticed="–",
    reader="all items, once and everywhere in one order",
    writer="the offsets of its items",
)
async def test_two_workers_publish_at_once(server: RedisServer, clock: Clock) -> None:
    async with workers(server.url, server.url) as served, scene(clock, server.url, quiet=True) as played:
        for worker in served:
            played.visitor([worker, *served], ROOM, played.room)

        async def publish(worker: Running, publisher: str) -> None:
            written = [Item(publisher, number) for number in range(1, COUNT + 1)]
            for item in written:
                played.room.begin(item)
            async with worker.client() as client:
                answer = await client.post(ROOM, params={"publisher": publisher, "count": COUNT})
            epoch, offsets = answer.json()
            for item, offset in zip(written, offsets, strict=True):
                played.room.store(item, epoch, offset)

        with clock.fault():
            names = [(worker, f"{number} at {worker.port}") for worker in served for number in range(3)]
            await asyncio.gather(*(publish(*each) for each in names))
        total = len(played.room.begun)
        await played.until(lambda: all(client.count == total for client in played.clients), "all items for everybody")
        clock.repaired()
        await played.finish()
        played.judge(server)
        assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


COUNT = 100
"""How many items each of several publishers publishes."""


@fault(
    "Redis cuts a worker that does not read (`client-output-buffer-limit pubsub`)",
    noticed="the connection's end, once the worker reads again",
    reader="nothing; late",
    writer="nothing",
)
async def test_a_worker_that_does_not_read_is_cut(server: RedisServer, clock: Clock) -> None:
    server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
    everything, padding = Retention(None, None), "x" * (128 << 10)

    async with (
        workers(server.url) as (worker,),
        scene(clock, server.url, quiet=True, retention=everything, padding=padding) as played,
    ):
        played.visitor([worker], ROOM, played.room)
        await played.until(lambda: all(client.count for client in played.clients), "an item for each client")
        connections = len(server.clients())
        with clock.fault():
            worker.process.send_signal(signal.SIGSTOP)
            os.waitpid(worker.process.pid, os.WUNTRACED)
            while len(server.clients()) == connections:
                await played.publish()
            worker.process.send_signal(signal.SIGCONT)
        await played.publish()
        await played.repaired()
        await played.finish()
        played.judge(server)
        assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


@fault(
    "500 clients come to another worker at once, because theirs is killed",
    noticed="the connections' end",
    reader="nothing; late",
    writer="–",
)
async def test_500_clients_come_to_another_worker(server: RedisServer, clock: Clock) -> None:
    async with workers(server.url, server.url) as served, scene(clock, server.url, quiet=True) as played:

        def commands() -> int:
            """How many scripts and subscriptions Redis has been asked for."""
            counts = server.ask("INFO", "commandstats")
            return sum(counts.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "subscribe"))

        async def publish(rooms: Sequence[Published]) -> None:
            for room in rooms:
                await played.publish(room)

        async def storm(name: str, clients: int, logs: int, *, kill: bool = False) -> int:
            """Let clients of some logs leave the first worker for the second. Return the number of commands."""
            rooms = [played.open_room(f"/rooms/{name}-{number}") for number in range(logs)]
            visitors = [played.visitor(served, rooms[each % logs].name, rooms[each % logs]) for each in range(clients)]
            await publish(rooms)
            await played.until(lambda: all(visitor.count for visitor in visitors), "an item for each client")
            before = commands()
            with clock.fault():
                if kill:
                    served[0].process.kill()
                else:
                    for visitor in visitors:
                        visitor.leave()
            await publish(rooms)
            await played.until(lambda: all(visitor.count == 2 for visitor in visitors), "two items for each client")
            return commands() - before

        few = await storm("few", 50, 10)
        more = await storm("more", 100, 50)
        sudden = await storm("sudden", 500, 10, kill=True)
        clock.repaired()
        # They grow with the logs, and not with the clients.
        assert 10 * LEAST <= few <= 10 * MOST
        assert 50 * LEAST <= more <= 50 * MOST
        assert 10 * LEAST <= sudden <= 10 * MOST
        await played.finish()
        played.judge(server)
        assert (played.resets, played.ends, played.refused) == (set(), {"done"}, [])


LEAST, MOST = 4, 15
"""Bounds of the commands for each log whose clients come to another worker. It subscribes, loads, and says that it has
readers; the item is appended. Until the first client reads, each one has the log loaded once more, or shares that."""
