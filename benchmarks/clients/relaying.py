"""One end of a relay through Redis: `python -m benchmarks.clients.relaying PEER ROLE URL …`.

A program says `ready` when it is, and prints its sample at the end. A publisher begins at a line on its input. Times
are those of the system's monotonic clock, so those of two programs can be compared.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import uvloop
from redis.exceptions import ConnectionError

from benchmarks.clients.buses import PEERS, Bus
from benchmarks.servers.reading import Reading

CHANNEL = "feed"
VERIFIED = 2
"""Batches that are received and compared before publishing is timed."""
AT_ONCE = 64
"""Events in flight in a flood."""
ABSENCE = 0.1
"""Seconds that a reader is away."""

Open = Callable[[str], Bus]
"""Makes an end of the peer on a channel."""


def readings(first: int, count: int) -> list[Reading]:
    return [Reading(id=id, name="sensor", value=3.25) for id in range(first, first + count)]


# Publishers


async def publish(open_bus: Open, batch: str, seconds: str) -> dict[str, Any]:
    """Publish batches of the same size one after another for some seconds."""
    size = int(batch)
    await verify(open_bus, size)
    async with open_bus(CHANNEL) as bus:
        events = readings(0, size)
        await bus.publish(events)
        await told_to_begin()
        count, cpu, start = 0, time.process_time(), time.perf_counter()
        until = start + float(seconds)
        while (now := time.perf_counter()) < until:
            await bus.publish(events)
            count += size
        return {"events": count, "seconds": now - start, "cpu": time.process_time() - cpu}


async def pace(open_bus: Open, count: str, interval: str) -> dict[str, Any]:
    """Publish events one at a time at a steady pace, and tell when each was begun."""
    async with open_bus(CHANNEL) as bus:
        await told_to_begin()
        sent: list[float] = []
        start = time.perf_counter()
        for number, reading in enumerate(readings(0, int(count))):
            await asyncio.sleep(start + number * float(interval) - time.perf_counter())
            sent.append(time.perf_counter())
            await bus.publish([reading])
        return {"sent": sent}


async def flood(open_bus: Open, count: str) -> dict[str, Any]:
    """Publish events as fast as they go, each by itself."""
    async with open_bus(CHANNEL) as bus:
        await told_to_begin()
        left = iter(readings(0, int(count)))

        async def publish_some() -> None:
            for reading in left:
                await bus.publish([reading])

        await asyncio.gather(*(publish_some() for _ in range(AT_ONCE)))
        return {}


async def verify(open_bus: Open, size: int) -> None:
    """Check that what is published is received: a fast publisher of wrong events must not win."""
    expected = readings(0, size * VERIFIED)
    async with open_bus("verified") as receiver, open_bus("verified") as publisher:
        got: list[Any] = []
        subscribed, complete = asyncio.Event(), asyncio.Event()

        def take(message: Any) -> None:
            got.extend(receiver.decode(message))
            if len(got) >= len(expected):
                complete.set()

        receiving = asyncio.create_task(receiver.receive(take, subscribed.set))
        try:
            await subscribed.wait()
            for start in range(0, len(expected), size):
                await publisher.publish(expected[start : start + size])
            await complete.wait()
        finally:
            await cancelled(receiving)
    if got != [reading.model_dump() for reading in expected]:
        raise SystemExit(f"expected the events 0 to {len(expected) - 1}, but got {len(got)}: {got[:3]}")


# The receiver


class Receiver:
    """Receives until there are enough messages or it is told to stop, and leaves for a moment when it is told to."""

    def __init__(self, bus: Bus, enough: int) -> None:
        self.arrived: list[tuple[float, Any]] = []
        self.subscribed = asyncio.Event()
        self._bus = bus
        self._enough = enough
        self._complete = asyncio.Event()

    def _take(self, message: Any) -> None:
        self.arrived.append((time.perf_counter(), message))
        if len(self.arrived) == self._enough:
            self._complete.set()

    async def _receive(self) -> None:
        while True:
            # redis-py connects again by itself, but it may give up while it is cancelled.
            with suppress(ConnectionError):
                await self._bus.receive(self._take, self.subscribed.set)

    async def run(self) -> None:
        obeying, complete = asyncio.create_task(self._obey()), asyncio.create_task(self._complete.wait())
        # A peer that fails ends the program, which prints the reason.
        await asyncio.wait([obeying, complete], return_when=asyncio.FIRST_COMPLETED)
        await cancelled(obeying)
        await cancelled(complete)

    async def _obey(self) -> None:
        lines = await standard_input()
        while True:
            receiving = asyncio.create_task(self._receive())
            told = asyncio.create_task(lines.readline())
            try:
                await asyncio.wait([receiving, told], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancelled(receiving)
                await cancelled(told)
            if told.cancelled() or told.result().strip() != b"away":
                return
            await asyncio.sleep(ABSENCE)


async def receive(open_bus: Open, count: str) -> dict[str, Any]:
    """Receive messages, and tell when each came and what was in it."""
    async with open_bus(CHANNEL) as bus:
        receiver = Receiver(bus, int(count))
        running = asyncio.create_task(receiver.run())
        await receiver.subscribed.wait()
        print("ready", flush=True)
        cpu = time.process_time()
        await running
        spent = time.process_time() - cpu
        pairs = [(moment, event) for moment, message in receiver.arrived for event in bus.decode(message)]
        return {"cpu": spent, "arrived": [moment for moment, _ in pairs], "events": [event for _, event in pairs]}


# A program

ROLES: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "publish": publish,
    "pace": pace,
    "flood": flood,
    "receive": receive,
}


async def standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def told_to_begin() -> None:
    lines = await standard_input()
    print("ready", flush=True)
    await lines.readline()


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end. Raise what it has raised."""
    while not task.done():  # once is not enough where redis-py 8 waits for a reply with a timeout
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
    if not task.cancelled():
        task.result()


def main() -> None:
    peer, role, url, *arguments = sys.argv[1:]
    sample = uvloop.run(ROLES[role](partial(PEERS[peer], url), *arguments))
    # A pipe takes a part of a long text, and an unbuffered `print` would drop the rest.
    with open(sys.stdout.fileno(), "w", closefd=False) as output:
        json.dump(sample, output)


if __name__ == "__main__":
    main()
