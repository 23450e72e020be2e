"""Producers of logs in memory, and what came of them."""

from __future__ import annotations

import asyncio
from typing import Any

from tailrace import Log, MemoryLog, Outcome, Producer
from tailrace.log.memory import MemoryWriter
from tailrace.log.writer import Writer

LIMIT = 30.0


def leased(log: MemoryLog) -> MemoryWriter:
    """Become the writer of a log that no store has."""
    log.set_control(fence=log.control.fence + 1, leased=True)
    return MemoryWriter(log, log.control.fence)


def produce(items: Any, *, log: MemoryLog | None = None, writer: Writer | None = None, **options: Any) -> Producer:
    """Make a producer that needs no reader."""
    writer = writer or leased(log or MemoryLog("test"))
    return Producer(writer, items, **{"on_disconnect": "detach", **options})


def kept(log: Log) -> list[Any]:
    assert isinstance(log, MemoryLog)
    return [entry.data for entry in log.read_nowait(log.base, 1 << 30)]


async def ended(producer: Producer) -> Outcome | None:
    """Return the outcome once the producer and its task are done."""
    async with asyncio.timeout(LIMIT):
        await producer.wait()
        await asyncio.wait([producer.task])
    return producer.log.outcome


async def arrived(log: Log, count: int) -> None:
    """Wait until a log has `count` entries, without reading it."""
    async with asyncio.timeout(LIMIT):
        while log.top < count:  # noqa: ASYNC110 - what wakes is a reader, and that would count as one
            await asyncio.sleep(0)
