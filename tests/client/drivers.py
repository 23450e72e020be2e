"""Both drivers behind one name, so that one table of cases is for both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tailrace import Frame, Outcome
from tailrace.client import ClientError, Retry, tail
from tests.raw import BOUND

AT_ONCE = Retry(base=0.0)


@dataclass
class Got:
    """What a reading has come to."""

    events: list[Frame] = field(default_factory=list)
    outcome: Outcome | None = None
    cursor: str | None = None
    address: str | None = None
    error: ClientError | None = None

    @property
    def data(self) -> list[Any]:
        return [event.data for event in self.events]


Read = Callable[..., Awaitable[Got]]
"""Reads a stream to its end; `stop_after` so many events it is stopped."""


def _options(options: dict[str, Any]) -> dict[str, Any]:
    return {"retry": AT_ONCE, **options}


async def read_async(url: str, *, stop_after: int | None = None, **options: Any) -> Got:
    got = Got()
    try:
        async with asyncio.timeout(BOUND), tail(url, **_options(options)) as events:
            try:
                async for event in events:
                    got.events.append(event)
                    if len(got.events) == stop_after:
                        await events.stop()
            finally:
                got.outcome, got.cursor, got.address = events.outcome, events.cursor, events.address
    except ClientError as error:
        got.error = error
    return got


def read_sync(url: str, *, stop_after: int | None = None, **options: Any) -> Got:
    got = Got()
    try:
        with tail(url, **_options(options)) as events:
            try:
                for event in events:
                    got.events.append(event)
                    if len(got.events) == stop_after:
                        events.stop()
            finally:
                got.outcome, got.cursor, got.address = events.outcome, events.cursor, events.address
    except ClientError as error:
        got.error = error
    return got


async def read_in_thread(url: str, **options: Any) -> Got:
    return await asyncio.wait_for(asyncio.to_thread(read_sync, url, **options), BOUND)


@dataclass
class Driver:
    name: str
    read: Read


DRIVERS = [Driver("async", read_async), Driver("sync", read_in_thread)]

JAVASCRIPT = "javascript"
"""The name of the driver that Node runs. It is for the tests of what both languages do."""

everywhere = pytest.mark.parametrize(
    "driver", [*DRIVERS, JAVASCRIPT], indirect=True, ids=[*[driver.name for driver in DRIVERS], JAVASCRIPT]
)
