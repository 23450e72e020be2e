"""Clients that people already have: curl, httpx-sse, websockets, the standard library."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
import pytest
import pytest_asyncio
from httpx_sse import ServerSentEvent, aconnect_sse
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from tailrace import Outcome, read_notice
from tailrace.wire.websocket import read_message
from tests.system.lives import life, release
from tests.system.servers import PATIENCE, Running


@pytest_asyncio.fixture
async def control(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


# curl


def curl(server: Running, path: str, *options: str) -> list[str]:
    return ["curl", "-sN", "--max-time", str(int(PATIENCE)), *options, f"{server.url}{path}"]


async def test_curl_prints_events_as_they_come(server: Running, control: httpx.AsyncClient, name: str) -> None:
    command = curl(server, f"/numbers?name={name}&held=true&count=2&stream=true", "-H", "accept: application/x-ndjson")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        for n in (1, 2):
            await release(control, name)
            assert json.loads(await process.stdout.readline())["data"] == {"n": n}
        assert json.loads(await process.stdout.readline())["event"] == "done"
        assert await process.stdout.read() == b""
        assert await process.wait() == 0


async def test_curl_says_that_a_body_broke_off(server: Running) -> None:
    done = subprocess.run(curl(server, "/numbers?fail_at=3&stream=true"), capture_output=True, timeout=PATIENCE)
    assert done.returncode == 18  # partial file
    assert done.stdout.splitlines()[-3:-1] == [b"event: error", b'data: {"code":"pump","message":"the pump broke"}']


async def test_curl_resumes(server: Running, control: httpx.AsyncClient, name: str) -> None:
    await release(control, name, 3)
    first = subprocess.run(
        curl(server, f"/detached?name={name}&stream=true"), capture_output=True, timeout=PATIENCE, text=True
    )
    (second,) = [line for line in first.stdout.splitlines() if line.startswith("id: ") and line.endswith(".2")]
    again = subprocess.run(
        curl(server, "/detached?stream=true", "-H", f"last-event-id:{second.removeprefix('id:')}"),
        capture_output=True, timeout=PATIENCE, text=True,
    )  # fmt: skip
    assert [line for line in again.stdout.splitlines() if line.startswith("data: ")] == ['data: {"n":3}', "data: {}"]
    assert (await life(control, name))["started"] == 1


# httpx-sse


async def sse(control: httpx.AsyncClient, path: str, last_event_id: str = "") -> AsyncGenerator[ServerSentEvent]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    async with aconnect_sse(control, "GET", path, headers=headers) as source:
        source.response.raise_for_status()
        async for event in source.aiter_sse():
            yield event


async def test_httpx_sse_resumes_by_the_last_id(control: httpx.AsyncClient, name: str) -> None:
    await release(control, name, 2)
    path = f"/detached?name={name}&count=4"
    before = sse(control, path)
    first, second = await anext(before), await anext(before)
    await before.aclose()
    assert [event.json() for event in (first, second)] == [{"n": 1}, {"n": 2}]
    await release(control, name, 2)
    after = [event async for event in sse(control, path, second.id)]
    assert [(event.event, event.json()) for event in after] == [
        ("message", {"n": 3}),
        ("message", {"n": 4}),
        ("done", {}),
    ]
    assert (await life(control, name))["started"] == 1
    async with aconnect_sse(control, "GET", path, headers={"last-event-id": after[-1].id}) as source:
        assert source.response.status_code == 204


async def test_httpx_sse_reads_names_and_errors(control: httpx.AsyncClient) -> None:
    source = sse(control, "/mishap")
    seen = [await anext(source), await anext(source)]
    assert [(event.event, event.json()) for event in seen] == [
        ("reading", {"n": 1}),
        ("error", {"code": "pump", "message": "the pump broke"}),
    ]
    with pytest.raises(httpx.RemoteProtocolError):
        await anext(source)


# websockets and the standard library, without asyncio


def test_the_websockets_client_reads_stops_and_resumes(server: Running) -> None:
    address = f"ws://127.0.0.1:{server.port}"
    with connect(f"{address}/detached?name=sync") as socket:
        socket.send('{"event": "stop"}')
        end = read_message(str(socket.recv(PATIENCE)))
        assert read_notice(end) == Outcome("cancelled", "stopped", "the stream was stopped")
        with pytest.raises(ConnectionClosedOK):
            socket.recv(PATIENCE)
    assert end.id is not None
    with connect(f"{address}/detached?after={end.id.removesuffix('.end')}") as socket:
        assert read_message(str(socket.recv(PATIENCE))) == end


def test_the_standard_library_reads_streams_on_one_connection(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        for _ in range(2):
            connection.request("GET", "/numbers", headers={"accept": "application/x-ndjson"})
            response = connection.getresponse()
            assert [json.loads(line)["data"] for line in response] == [{"n": 1}, {"n": 2}, {"n": 3}, {}]
            # Still there: a stream's end leaves the connection to the next request.
            assert connection.sock is not None
    finally:
        connection.close()


def test_the_standard_library_notices_a_body_that_breaks_off(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/numbers?fail_at=3", headers={"accept": "application/x-ndjson"})
        with pytest.raises(http.client.IncompleteRead) as broken:
            connection.getresponse().read()
        assert json.loads(broken.value.partial.splitlines()[-1])["event"] == "error"
    finally:
        connection.close()
