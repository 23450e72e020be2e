"""What readers are told when their server is told to stop, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tailrace import Cursor, Farewell, Outcome, read_notice
from tailrace.wire.websocket import read_message
from tests.system.servers import (
    GRANIAN,
    HYPERCORN,
    HYPERCORN_ALONE,
    KINDS,
    PATIENCE,
    UVICORN,
    Kind,
    Reader,
    Running,
    running,
)

HEARING = [*(kind for kind in KINDS if kind is not HYPERCORN), HYPERCORN_ALONE]
"""Where an application can hear that its server is told to stop."""

# uvicorn ends itself by the signal that it caught, once it has cleaned up; of SIGINT nothing is left to do by then.
_UVICORN_STATUS = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}

ACCEPTED = ["text/event-stream", "application/x-ndjson"]


def expected_status(kind: Kind, number: signal.Signals) -> int:
    return _UVICORN_STATUS[number] if kind.name.startswith("uvicorn") else 0


def stop(server: Running, number: signal.Signals) -> None:
    if number is signal.SIGINT:
        # A terminal's Ctrl-C reaches every process in the group.
        os.killpg(server.process.pid, number)
    else:
        server.process.send_signal(number)


async def publish(client: httpx.AsyncClient) -> None:
    (await client.post("/room", json={"n": 1})).raise_for_status()


async def reader(stack: AsyncExitStack, client: httpx.AsyncClient, path: str, accept: str) -> Reader:
    """A reader that has had its first event."""
    response = await stack.enter_async_context(client.stream("GET", path, headers={"accept": accept}))
    reader = Reader.of(response)
    assert (await reader.next()).data == {"n": 1}
    return reader


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        *((kind, signal.SIGTERM) for kind in HEARING),
        # How a signal is heard depends on the event loop, not on what parses HTTP.
        *((kind, signal.SIGINT) for kind in HEARING if not kind.name.endswith("h11")),
    ],
    ids=str,
)
async def test_every_reader_is_told_how_it_ends(kind: Kind, number: signal.Signals) -> None:
    with running(kind, SHUTDOWN_GRACE="0.5") as server:
        async with server.client() as client, AsyncExitStack() as stack:
            await publish(client)
            shared, finishing, endless = [
                [await reader(stack, client, path, accept) for accept in ACCEPTED]
                for path in ("/room", "/finishing", "/endless")
            ]
            stop(server, number)

            # The log lives on in a store that survives; here it is the client that goes.
            for each in shared:
                (frame,) = await each.rest()
                farewell = read_notice(frame)
                assert isinstance(farewell, Farewell)
                assert (farewell.reason, frame.retry) == ("shutdown", farewell.retry)
                assert 100 <= farewell.retry <= 500
                assert frame.id is not None
                assert Cursor.parse(frame.id).offset == 1

            for each in finishing:
                last, end = await each.rest()
                assert last.data == {"n": 2}
                assert read_notice(end) == Outcome("done")

            for each in endless:
                (frame,) = await each.rest()
                assert read_notice(frame) == Outcome("cancelled", "shutdown", "the server shut down")

            assert await server.exit_status() == expected_status(kind, number)
        assert "Traceback" not in server.output()
        assert "rror" not in server.output()


@pytest.mark.parametrize("kind", [UVICORN, GRANIAN, HYPERCORN], ids=str)
async def test_a_server_without_streams_ends_at_once(kind: Kind) -> None:
    with running(kind, SHUTDOWN_GRACE=str(2 * PATIENCE)) as server:
        async with server.client() as client:
            assert (await client.get("/numbers")).status_code == 200
        stop(server, signal.SIGTERM)
        assert await server.exit_status() == expected_status(kind, signal.SIGTERM)
        assert "Traceback" not in server.output()


async def test_the_plain_lifespan_lets_readers_go() -> None:
    with running(UVICORN, "tests.system.plain_app:app") as server:
        async with server.client() as client, AsyncExitStack() as stack:
            await publish(client)
            room = await reader(stack, client, "/room", "text/event-stream")
            server.process.send_signal(signal.SIGTERM)
            (frame,) = await room.rest()
            assert isinstance(read_notice(frame), Farewell)
            assert await server.exit_status() == expected_status(UVICORN, signal.SIGTERM)
        assert "Traceback" not in server.output()


async def test_a_websocket_is_told_to_come_back() -> None:
    # uvicorn looks every 0.1 s whether it has to go, and closes its sockets then: now and then before they were told.
    told = [await farewell_of_a_websocket() for _ in range(3)]
    assert any(told)


async def farewell_of_a_websocket() -> bool:
    """Whether the socket was told before it was closed."""
    with running(UVICORN) as server:
        async with server.client() as client:
            await publish(client)
        async with connect(f"ws://127.0.0.1:{server.port}/room") as socket, asyncio.timeout(PATIENCE):
            assert read_message(str(await socket.recv())).data == {"n": 1}
            server.process.send_signal(signal.SIGTERM)
            messages = [read_message(message) async for message in leaving(socket)]
            assert socket.close_code == 1012
        assert await server.exit_status() == expected_status(UVICORN, signal.SIGTERM)
        assert "Traceback" not in server.output()
        return [type(read_notice(message)) for message in messages] == [Farewell]


async def leaving(socket: ClientConnection) -> AsyncIterator[str]:
    """What still comes until the socket is closed."""
    with suppress(ConnectionClosed):
        while True:
            yield str(await socket.recv())


async def test_a_second_interrupt_ends_uvicorn_without_waiting() -> None:
    with running(UVICORN, SHUTDOWN_GRACE=str(2 * PATIENCE)) as server:
        async with server.client() as client, AsyncExitStack() as stack:
            await publish(client)
            room = await reader(stack, client, "/room", "text/event-stream")
            await reader(stack, client, "/endless", "text/event-stream")
            stop(server, signal.SIGINT)
            await room.rest()
            stop(server, signal.SIGINT)
            await server.exit_status()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio's servers wait for their connections, without a bound")
async def test_a_worker_process_of_hypercorn_breaks_off_what_it_could_not_be_told_to_end() -> None:
    """Its parent tells the worker by an event of its own, and the worker tells the application only at the very end.

    With `--workers 0` the application runs in the process that is signalled, and hears it.
    """
    kind = Kind("hypercorn", f"{HYPERCORN.command} --graceful-timeout 1")
    with running(kind, SHUTDOWN_GRACE="0.5") as server:
        async with server.client() as client, AsyncExitStack() as stack:
            await publish(client)
            room = await reader(stack, client, "/room", "text/event-stream")
            endless = await reader(stack, client, "/endless", "text/event-stream")
            server.process.send_signal(signal.SIGTERM)
            for each in (room, endless):
                with pytest.raises(httpx.RemoteProtocolError):
                    await each.next()
            assert await server.exit_status() == 0
