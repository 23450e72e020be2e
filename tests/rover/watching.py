"""Watch a rover as clients do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tailrace import Frame
from tailrace.rover import Reading
from tailrace.rover.app import IMAGE_PATH
from tailrace.rover.telemetry import PATH
from tests.serving import http_client
from tests.system.servers import PATIENCE, Reader

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


@asynccontextmanager
async def watching(
    url: str, *, query: str = "", accept: str = SSE, last_event_id: str | None = None
) -> AsyncIterator[Reader]:
    """The telemetry of a server, as EventSource reads it unless `accept` says otherwise."""
    headers = {"accept": accept} | ({} if last_event_id is None else {"last-event-id": last_event_id})
    async with (
        http_client(url) as client,
        client.stream("GET", f"{PATH}{query}", headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Reader.of(response)


async def strong_tag(client: httpx.AsyncClient) -> str:
    """The image's ETag, which is weak for two seconds after the file has changed."""
    async with asyncio.timeout(PATIENCE):
        while (etag := (await client.head(IMAGE_PATH)).headers["etag"]).startswith("W/"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return str(etag)


async def take(reader: Reader, count: int) -> list[Frame]:
    return [await reader.next() for _ in range(count)]


def readings(frames: list[Frame]) -> list[Reading]:
    assert [frame.event for frame in frames] == [None] * len(frames)
    return [Reading.model_validate(frame.data) for frame in frames]


def assert_unbroken(found: list[Reading], tick: float) -> None:
    """Check that each reading is one tick after the one before."""
    times = [reading.time.timestamp() for reading in found]
    for before, after in itertools.pairwise(times):
        assert abs(after - before - tick) < 0.01, f"expected {tick} s between readings, but got {after - before}"
