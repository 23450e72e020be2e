"""The same application on every server, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tailrace import Outcome, Reset, read_notice
from tailrace.wire.websocket import read_message
from tests.system.lives import life, release
from tests.system.servers import KINDS, PATIENCE, Reader, Running, running

SSE = {"accept": "text/event-stream"}
NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param, HEARTBEAT="0.4", GRACE="0.2") as instance:
        yield instance


@pytest_asyncio.fixture
async def client(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


async def nobody_is_left(client: httpx.AsyncClient) -> None:
    """Wait until the engine has neither readers nor producers, for which there is no event to wait."""
    async with asyncio.timeout(PATIENCE):
        while True:
            statistics = (await client.get("/statistics")).json()
            if statistics["readers"] == statistics["producers"] == 0:
                assert statistics["stuck"] == 0
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("headers", [SSE, NDJSON], ids=["sse", "ndjson"])
async def test_events_come_with_their_cursors_and_then_the_end(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    async with client.stream("GET", "/numbers", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-cache, no-transform"
        frames = await Reader.of(response).rest()
    assert [frame.data for frame in frames[:-1]] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert read_notice(frames[-1]) == Outcome("done")
    start = response.headers["tailrace-cursor"].removesuffix("0")
    assert [frame.id for frame in frames] == [f"{start}1", f"{start}2", f"{start}3", f"{start}3.end"]


async def test_a_document_has_all_events(client: httpx.AsyncClient) -> None:
    response = await client.get("/numbers")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"data": [{"n": 1}, {"n": 2}, {"n": 3}]}


async def test_text_is_nothing_but_the_text(client: httpx.AsyncClient) -> None:
    response = await client.get("/words", headers={"accept": "text/plain"})
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == "über Wasser läuft"


async def test_an_event_comes_as_soon_as_it_is_there(client: httpx.AsyncClient, name: str) -> None:
    url = f"/numbers?name={name}&held=true&count=2"
    async with client.stream("GET", url, headers=NDJSON) as response:
        reader = Reader.of(response)
        for n in (1, 2):
            await release(client, name)
            assert (await reader.next()).data == {"n": n}
        assert read_notice(*await reader.rest()) == Outcome("done")


async def test_the_headers_come_before_an_event_that_takes_long(
    server: Running, client: httpx.AsyncClient, name: str, request: pytest.FixtureRequest
) -> None:
    # Text has no pings either.
    url, headers = f"/numbers?name={name}&held=true&count=1", {"accept": "text/plain"}
    async with asyncio.timeout(PATIENCE), client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200
        await release(client, name)
        assert await response.aread() == b'{"n":1}\n'


@pytest.mark.parametrize("headers", [SSE, NDJSON], ids=["sse", "ndjson"])
async def test_a_reader_that_comes_back_goes_on_where_it_left(
    client: httpx.AsyncClient, name: str, headers: dict[str, str]
) -> None:
    await release(client, name, 2)
    async with client.stream("GET", f"/detached?name={name}&count=4", headers=headers) as response:
        reader = Reader.of(response)
        assert (await reader.next()).data == {"n": 1}
        second = await reader.next()
        assert second.data == {"n": 2}
    address = response.headers["content-location"]
    await release(client, name, 2)
    assert second.id is not None
    async with client.stream("GET", address, headers={**headers, "last-event-id": second.id}) as response:
        frames = await Reader.of(response).rest()
    assert [frame.data for frame in frames[:-1]] == [{"n": 3}, {"n": 4}]
    assert read_notice(frames[-1]) == Outcome("done")
    assert (await life(client, name, closed=1))["started"] == 1
    assert (await client.get(address, params={"after": frames[-1].id}, headers=headers)).status_code == 204


async def test_a_cursor_of_no_stream_is_reset(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/numbers?after=gone.away.2", headers=NDJSON) as response:
        (frame,) = await Reader.of(response).rest()
    assert read_notice(frame) == Reset("epoch_changed")


async def test_a_stop_ends_the_generator_and_tells_the_reader(client: httpx.AsyncClient, name: str) -> None:
    await release(client, name)
    async with client.stream("GET", f"/numbers?name={name}&held=true", headers=SSE) as response:
        reader = Reader.of(response)
        await reader.next()
        stopped = await client.post(response.links["stop"]["url"])
        assert stopped.json()["state"] == "cancelled"
        assert read_notice(*await reader.rest()) == Outcome("cancelled", "stopped", "the stream was stopped")
    assert (await life(client, name, closed=1))["cancelled"] == 1


async def test_a_failure_before_the_first_event_is_a_status(client: httpx.AsyncClient) -> None:
    response = await client.get("/numbers?fail_at=1", headers=SSE)
    assert response.status_code == 409
    assert response.json() == {"detail": "the pump broke", "code": "pump"}
    assert (await client.get("/forbidden", headers=SSE)).status_code == 403
    assert (await client.get("/numbers?crash_at=1", headers=SSE)).status_code == 500


async def test_a_failure_in_a_document_is_a_status_with_what_was_there(client: httpx.AsyncClient) -> None:
    response = await client.get("/numbers?fail_at=3")
    assert response.status_code == 409
    assert response.json() == {"detail": "the pump broke", "code": "pump", "data": [{"n": 1}, {"n": 2}]}


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("fail_at", Outcome("error", "pump", "the pump broke")),
        ("crash_at", Outcome("error", "internal_error", "Internal Server Error")),
    ],
)
@pytest.mark.parametrize("headers", [SSE, NDJSON], ids=["sse", "ndjson"])
async def test_a_later_failure_is_said_and_the_body_breaks_off(
    client: httpx.AsyncClient, headers: dict[str, str], how: str, outcome: Outcome
) -> None:
    async with client.stream("GET", f"/numbers?{how}=3", headers=headers) as response:
        reader = Reader.of(response)
        assert [(await reader.next()).data for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert read_notice(await reader.next()) == outcome
        with pytest.raises(httpx.RemoteProtocolError):
            await reader.next()


async def test_text_that_breaks_off_has_no_end(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/numbers?fail_at=3", headers={"accept": "text/plain"}) as response:
        with pytest.raises(httpx.RemoteProtocolError):
            await response.aread()


async def test_a_client_that_leaves_ends_the_generator_after_its_grace(client: httpx.AsyncClient, name: str) -> None:
    await release(client, name)
    async with client.stream("GET", f"/numbers?name={name}&held=true", headers=SSE) as response:
        await Reader.of(response).next()
    assert await life(client, name, closed=1) == {
        "started": 1, "finished": 0, "cancelled": 1, "closed": 1, "requests": 1, "said": 0,
    }  # fmt: skip
    await nobody_is_left(client)


async def test_a_client_that_leaves_before_the_first_event_ends_the_generator(
    client: httpx.AsyncClient, name: str
) -> None:
    async with client.stream("GET", f"/numbers?name={name}&held=true", headers=SSE):
        pass
    assert (await life(client, name, closed=1))["cancelled"] == 1
    await nobody_is_left(client)


async def test_a_generator_that_never_waits_is_closed_when_its_client_leaves(
    client: httpx.AsyncClient, name: str
) -> None:
    async with client.stream("GET", f"/suspended?name={name}", headers=NDJSON) as response:
        await Reader.of(response).next()
    assert (await life(client, name, closed=1))["started"] == 1
    await nobody_is_left(client)


@pytest.mark.parametrize(("headers", "ping"), [(SSE, b": ping\n"), (NDJSON, b"\n")], ids=["sse", "ndjson"])
async def test_an_idle_stream_is_pinged(
    client: httpx.AsyncClient, name: str, headers: dict[str, str], ping: bytes
) -> None:
    async with client.stream("GET", f"/numbers?name={name}&held=true&count=1", headers=headers) as response:
        chunks = response.aiter_raw()
        async with asyncio.timeout(PATIENCE):
            assert [await anext(chunks) for _ in range(2)] == [ping, ping]
            await release(client, name)
            rest = b"".join([chunk async for chunk in chunks])
    assert b'{"n":1}' in rest


async def test_head_has_the_headers_and_starts_nothing(client: httpx.AsyncClient, name: str) -> None:
    response = await client.head(f"/numbers?name={name}", headers=SSE)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (await life(client, name))["started"] == 0


async def test_options_names_the_methods(client: httpx.AsyncClient) -> None:
    assert (await client.options("/numbers")).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_what_nothing_satisfies_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.get("/numbers", headers={"accept": "image/png"})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


# WebSocket


async def receive(socket: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        return read_message(await socket.recv())


def opened(server: Running, path: str, **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{server.port}{path}", close_timeout=1, **options)


async def test_a_websocket_has_the_same_frames(server: Running) -> None:
    async with opened(server, "/numbers") as socket:
        frames = [await receive(socket) for _ in range(4)]
    assert [frame.data for frame in frames[:-1]] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert read_notice(frames[-1]) == Outcome("done")
    assert frames[-1].id.endswith(".3.end")


async def test_a_websocket_resumes(server: Running, client: httpx.AsyncClient, name: str) -> None:
    await release(client, name, 2)
    async with opened(server, f"/detached?name={name}&count=4") as socket:
        frames = [await receive(socket) for _ in range(2)]
    await release(client, name, 2)
    async with opened(server, f"/detached?after={frames[-1].id}") as socket:
        assert [(await receive(socket)).data for _ in range(3)] == [{"n": 3}, {"n": 4}, {}]


async def test_a_websocket_stops_its_stream(server: Running, client: httpx.AsyncClient, name: str) -> None:
    async with opened(server, f"/numbers?name={name}&held=true") as socket:
        await socket.send('{"event": "stop"}')
        assert read_notice(await receive(socket)) == Outcome("cancelled", "stopped", "the stream was stopped")
    assert (await life(client, name, closed=1))["cancelled"] == 1


async def test_a_websocket_client_may_send(server: Running, name: str) -> None:
    async with opened(server, f"/echo/{name}") as socket:
        for number in range(100):
            await socket.send(f"{number}")
        await socket.send("no json")
        frames = [await receive(socket) for _ in range(101)]
        refusals = [frame for frame in frames if frame.event == "refused"]
        assert [frame.data for frame in refusals] == [{"code": "http_400", "status": 400, "message": "no JSON"}]
        assert [frame.data for frame in frames if frame not in refusals] == list(range(100))
        await socket.send("null")
        assert read_notice(await receive(socket)) == Outcome("done")


async def test_what_a_websocket_client_said_before_it_left_is_posted(
    server: Running, client: httpx.AsyncClient, name: str
) -> None:
    async with opened(server, f"/echo/{name}") as socket:
        for number in range(100):
            await socket.send(f"{number}")
    await life(client, name, said=100)


async def test_a_websocket_says_a_failure(server: Running) -> None:
    async with opened(server, "/numbers?fail_at=2") as socket:
        assert (await receive(socket)).data == {"n": 1}
        assert read_notice(await receive(socket)) == Outcome("error", "pump", "the pump broke")


@pytest.mark.parametrize(("path", "code"), [("/numbers", 1000), ("/numbers?fail_at=2", 1011)], ids=["end", "failure"])
async def test_a_websocket_is_closed_with_the_code_of_its_end(
    server: Running, path: str, code: int, request: pytest.FixtureRequest
) -> None:
    async with opened(server, path) as socket:
        for _ in range(10):
            try:
                async with asyncio.timeout(PATIENCE):
                    await socket.recv()
            except ConnectionClosed:
                break
        assert socket.close_code == code


async def test_a_websocket_is_refused_with_a_status(server: Running) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await opened(server, "/numbers?fail_at=1")
    assert refusal.value.response.status_code == 409


async def test_a_websocket_client_that_leaves_ends_the_generator(
    server: Running, client: httpx.AsyncClient, name: str
) -> None:
    await release(client, name)
    async with opened(server, f"/numbers?name={name}&held=true") as socket:
        await receive(socket)
    assert (await life(client, name, closed=1))["cancelled"] == 1
    await nobody_is_left(client)


async def test_a_page_of_elsewhere_cannot_open_a_websocket(server: Running) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await opened(server, "/numbers", origin="http://elsewhere.example")
    assert refusal.value.response.status_code == 403


def test_nothing_unexpected_was_said(server: Running) -> None:
    # Only the crash on purpose is the server's to report.
    said = server.output()
    assert said.count("Traceback") == said.count("RuntimeError: crashed on purpose"), said
