"""Two server processes over one Redis: what one of them began, the other resumes, stops and outlives."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic_core import from_json

from tailrace import Farewell, Frame, Outcome, read_notice
from tests.log.redis.redis_server import redis_server
from tests.system.servers import UVICORN, Reader, Running, running

APP = "tests.system.shared_app:app"
NDJSON = {"accept": "application/x-ndjson"}

BURIED = 20.0
"""Seconds after which the readers of a dead process know: three rounds of a second, on a busy machine."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with redis_server() as redis:
        yield redis.url


@pytest.fixture
def first(url: str) -> Iterator[Running]:
    with running(UVICORN, APP, REDIS_URL=url) as server:
        yield server


@pytest.fixture(scope="module")
def second(url: str) -> Iterator[Running]:
    with running(UVICORN, APP, REDIS_URL=url) as server:
        yield server


@asynccontextmanager
async def reading(client: httpx.AsyncClient, url: str, **headers: str) -> AsyncIterator[Reader]:
    async with client.stream("GET", url, headers={**NDJSON, **headers}) as response:
        assert response.status_code == 200, response.status_code
        yield Reader.of(response)


async def take(reader: Reader, count: int) -> list[Frame]:
    return [await reader.next() for _ in range(count)]


def stream_of(reader: Reader) -> str:
    """Return the address below which the stream is resumed."""
    address: str = reader.response.links["stop"]["url"]
    return address.removesuffix("/stop")


async def begin(client: httpx.AsyncClient) -> tuple[str, str]:
    """Start a stream, read three numbers, and leave. Return its address and the cursor."""
    async with reading(client, "/numbers") as reader:
        frames = await take(reader, 3)
        assert [frame.data for frame in frames] == [1, 2, 3]
        return stream_of(reader), str(frames[-1].id)


async def test_a_stream_is_resumed_and_stopped_from_another_process(first: Running, second: Running) -> None:
    async with first.client() as one, second.client() as other:
        address, cursor = await begin(one)
        async with reading(other, f"{address}?after={cursor}") as there, reading(one, address) as here:
            numbers = [frame.data for frame in await take(there, 20)]
            assert numbers == list(range(4, 24))
            stopped = (await other.post(f"{address}/stop")).json()
            assert stopped["state"] == "cancelled"
            rest = {}
            for reader in (there, here):
                *frames, end = await reader.rest()
                assert read_notice(end) == Outcome("cancelled", "stopped", "the stream was stopped")
                rest[reader] = [frame.data for frame in frames]
            top = rest[here][-1]
            assert rest[here] == list(range(1, top + 1))
            assert rest[there] == list(range(24, top + 1))
        assert (await one.get("/statistics")).json()["producers"] == 0
        replayed = await other.get(address)
        assert len(replayed.json()["data"]) == top


async def test_equal_requests_to_two_processes_start_one_stream(first: Running, second: Running) -> None:
    key = {"idempotency-key": "once"}
    async with (
        first.client() as one,
        second.client() as other,
        reading(one, "/numbers", **key) as here,
        reading(other, "/numbers", **key) as there,
    ):
        assert stream_of(here).rpartition("/")[2] == stream_of(there).rpartition("/")[2]
        for reader in (here, there):
            assert [frame.data for frame in await take(reader, 3)] == [1, 2, 3]
        await one.post(f"{stream_of(there)}/stop")


async def test_readers_of_a_process_that_stops_go_on_at_another(first: Running, second: Running) -> None:
    async with first.client() as one, second.client() as other:
        async with reading(one, "/numbers") as here:
            address = stream_of(here)
            await take(here, 3)
            first.process.terminate()
            numbers: list[Any] = []
            notice = None
            while notice is None:
                frame = await here.next()
                notice = read_notice(frame)
                if notice is None:
                    numbers.append(frame.data)
            assert isinstance(notice, Farewell)
        async with reading(other, f"{address}?after={frame.id}") as there:
            *frames, end = await there.rest()
        assert read_notice(end) == Outcome("cancelled", "shutdown", "the server shut down")
        numbers += [frame.data for frame in frames]
        assert numbers == list(range(4, 4 + len(numbers)))
        assert await first.exit_status() == -signal.SIGTERM


async def test_readers_are_told_when_the_producers_process_is_killed(first: Running, second: Running) -> None:
    async with first.client() as one, second.client() as other:
        address, cursor = await begin(one)
        async with reading(other, f"{address}?after={cursor}") as there:
            await take(there, 10)
            first.process.kill()
            killed = time.monotonic()
            numbers, notice = [], None
            while notice is None:
                frame = await there.next()
                notice = read_notice(frame)
                numbers.append(frame.data)
            assert notice == Outcome("error", "producer_lost", "the process that produced the stream is gone")
            assert time.monotonic() - killed < BURIED
            assert numbers[:-1] == list(range(14, 13 + len(numbers)))
            with pytest.raises(httpx.RemoteProtocolError):  # as after every error
                await there.next()


async def test_readers_are_told_when_a_process_is_killed_before_it_produces(first: Running, second: Running) -> None:
    async with first.client() as one, second.client() as other:
        address = (await one.post("/numbers/made")).json()
        async with reading(other, address) as there:
            first.process.kill()
            killed = time.monotonic()
            notice = read_notice(await there.next())
            assert notice == Outcome("error", "producer_lost", "the process that produced the stream is gone")
            assert time.monotonic() - killed < BURIED


def packet(payload: Any) -> dict[str, Any]:
    return {"packet_type": "DATA", "payload": payload}


async def packets_of(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The packets as they come, but DEGRADED: a busy machine may keep Redis waiting."""
    async for line in response.aiter_lines():
        if line and (packet := from_json(line))["packet_type"] != "DEGRADED":
            yield packet


async def payloads(packets: AsyncIterator[dict[str, Any]], count: int) -> list[Any]:
    """What the next packets hold."""
    got = [await anext(packets) for _ in range(count)]
    assert all("payload" in packet for packet in got), f"expected packets with a payload, but got {got}"
    return [packet["payload"] for packet in got]


@asynccontextmanager
async def resuming(client: httpx.AsyncClient, address: str, begun: dict[str, Any]) -> AsyncIterator[httpx.Response]:
    """Read on after a packet. The first process may not know yet that its reader has left, so this takes the place."""
    params = {"after": begun["cursor"], "takeover": "true"}
    async with client.stream("GET", address, params=params) as response:
        assert response.status_code == 200, response.status_code
        yield response


async def test_packets_of_a_session_come_in_at_any_process(first: Running, second: Running) -> None:
    async with first.client() as one, second.client() as other:
        async with one.stream("POST", "/packets", json=packet(0)) as response:
            address, packets = response.headers["content-location"], packets_of(response)
            begun = await anext(packets)
            assert begun["payload"] == 0
            for number in range(1, 20):
                sent = await (one if number % 2 else other).post(address, json=packet(number))
                assert sent.status_code == 202
            assert await payloads(packets, 19) == list(range(1, 20))
        async with resuming(other, address, begun) as there:
            packets = packets_of(there)
            assert await payloads(packets, 19) == list(range(1, 20))
            await other.post(address, json=packet("bye"))
            assert (await anext(packets))["packet_type"] == "RESULT"
        for client in (one, other):
            assert (await client.post(address, json=packet(1))).status_code == 410


async def test_a_session_ends_from_another_process(first: Running, second: Running) -> None:
    async with first.client() as one, second.client() as other, one.stream("POST", "/packets", json=packet(0)) as here:
        packets = packets_of(here)
        assert (await anext(packets))["payload"] == 0
        ended = (await other.delete(here.headers["content-location"])).json()
        assert ended["state"] == "cancelled"
        assert (await anext(packets))["packet_type"] == "CANCELLED"


async def test_a_session_whose_process_is_killed(first: Running, second: Running) -> None:
    async with first.client() as one, second.client() as other:
        async with one.stream("POST", "/packets", json=packet(0)) as here:
            address = here.headers["content-location"]
            begun = await anext(packets_of(here))
            assert begun["payload"] == 0
        async with resuming(other, address, begun) as there:
            packets = packets_of(there)
            first.process.kill()
            assert (await anext(packets))["payload"]["code"] == "producer_lost"
        assert (await other.post(address, json=packet(1))).status_code == 410
