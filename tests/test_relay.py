"""The relay with faults of tailrace.testing."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tailrace.testing import Fault, Relay, relayed
from tailrace.testing.relay import _address
from tests.raw import BOUND

ANSWER = b"0123456789"


@asynccontextmanager
async def answering() -> AsyncIterator[Relay]:
    """A relay to a server that answers each line, and says goodbye when the client ends."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readline():
                writer.write(ANSWER)
            writer.write(b"bye")
        except OSError:
            gone.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asyncio.timeout(BOUND), relayed(url) as relay:
        yield relay


@asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = int(relay.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_connections_are_waited_for() -> None:
    async with answering() as relay, asyncio.timeout(BOUND):
        waiting = asyncio.create_task(relay.wait_accepted(2))
        for _ in range(2):
            assert not waiting.done()
            async with connected(relay) as (reader, writer):
                writer.write(b"x\n")
                assert await reader.readexactly(len(ANSWER)) == ANSWER
        await waiting
        await relay.wait_accepted(1)


async def test_without_a_fault_all_passes() -> None:
    async with answering() as relay, connected(relay) as (reader, writer):
        writer.write(b"x\ny\n")
        writer.write_eof()
        assert await reader.read() == ANSWER * 2 + b"bye"
        assert (relay.accepted, relay.taken, relay.passed) == (1, 4, 23)


@pytest.mark.parametrize("how", ["close", "half_close"])
async def test_a_connection_ends_after_so_many_bytes(how: str) -> None:
    async with answering() as relay:
        relay.next(Fault(after=4, how=how))  # type: ignore[arg-type]
        async with connected(relay) as (reader, writer):
            writer.write(b"x\n")
            assert await reader.read() == b"0123"
        async with connected(relay) as (reader, writer):
            writer.write(b"x\n")
            assert await reader.readexactly(10) == ANSWER
        assert relay.accepted == 2


async def test_a_connection_is_reset() -> None:
    async with answering() as relay:
        relay.always(Fault(after=4, how="reset"))
        for _ in range(2):
            async with connected(relay) as (reader, writer):
                writer.write(b"x\n")
                with pytest.raises(ConnectionResetError):
                    await reader.readexactly(5)


async def test_a_stalled_connection_says_nothing_more_until_it_is_cut() -> None:
    async with answering() as relay:
        relay.next(Fault(after=4, how="stall"))
        async with connected(relay) as (reader, writer):
            writer.write(b"x\n")
            assert await reader.readexactly(4) == b"0123"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
            relay.cut("close")
            assert await reader.read() == b""


@pytest.mark.parametrize(("how", "answered"), [("close", b""), ("half_close", ANSWER * 2 + b"bye")])
async def test_a_connection_ends_after_so_many_bytes_of_the_client(how: str, answered: bytes) -> None:
    async with answering() as relay:
        relay.next(Fault(after=3, how=how, of="client"))  # type: ignore[arg-type]
        async with connected(relay) as (reader, writer):
            writer.write(b"x\nyy\n")
            answer = await reader.read()
            assert answer.startswith(answered)
            assert relay.taken == 3


async def test_the_bytes_of_a_client_come_in_pieces_and_late() -> None:
    async with answering() as relay:
        relay.next(Fault(piece=1, delay=0.05, of="client"))
        async with connected(relay) as (reader, writer):
            began = time.monotonic()
            writer.write(b"x\n")
            assert await reader.readexactly(10) == ANSWER
            assert time.monotonic() - began >= 0.1


async def test_all_connections_end_after_so_many_bytes() -> None:
    async with answering() as relay, connected(relay) as (one, to_one), connected(relay) as (other, to_other):
        to_one.write(b"x\n")
        assert await one.readexactly(10) == ANSWER
        relay.cut_after(14, "close")
        to_one.write(b"x\n")
        assert await one.readexactly(10) == ANSWER
        to_other.write(b"x\n")
        assert (await one.read(), await other.read()) == (b"", b"0123")
        async with connected(relay) as (reader, writer):
            writer.write(b"x\n")
            assert await reader.readexactly(10) == ANSWER
        relay.cut_after(0)
        async with connected(relay) as (reader, writer):
            writer.write(b"x\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_bytes_come_in_pieces_and_late() -> None:
    async with answering() as relay:
        relay.next(Fault(piece=5, delay=0.05))
        async with connected(relay) as (reader, writer):
            began = time.monotonic()
            writer.write(b"x\n")
            assert await reader.read(100) == b"01234"
            assert await reader.readexactly(5) == b"56789"
            assert time.monotonic() - began >= 0.1


async def test_connections_can_be_refused() -> None:
    async with answering() as relay:
        relay.refuse()
        async with connected(relay) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        relay.refuse(False)
        async with connected(relay) as (reader, writer):
            writer.write(b"x\n")
            assert await reader.readexactly(10) == ANSWER


async def test_a_server_that_is_not_there_is_a_reset() -> None:
    async with relayed("http://127.0.0.1:1") as relay, connected(relay) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_leaving_ends_what_is_open() -> None:
    async with answering() as relay, connected(relay) as (reader, writer):
        writer.write(b"x\n")
        assert await reader.readexactly(10) == ANSWER
        await relay.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()


@asynccontextmanager
async def resetting() -> AsyncIterator[str]:
    """The address of a server that reads a line from each connection and resets it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_reset_of_the_servers_is_passed_on() -> None:
    async with (
        resetting() as url,
        asyncio.timeout(BOUND),
        relayed(url) as relay,
        connected(relay) as (reader, writer),
    ):
        writer.write(b"x\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_reset_of_the_clients_is_passed_on() -> None:
    gone = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            gone.set_result(await reader.read())
        except OSError as error:
            gone.set_result(error)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asyncio.timeout(BOUND), relayed(url) as relay, connected(relay) as (_, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        assert isinstance(await gone, ConnectionResetError)


async def test_the_address_keeps_its_path() -> None:
    async with relayed("http://127.0.0.1:1/base?x=1") as relay:
        port = relay.url.split(":")[2].partition("/")[0]
        assert relay.url == f"http://127.0.0.1:{port}/base?x=1"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://h", ("h", 80)),
        ("https://h", ("h", 443)),
        ("wss://[::1]/x", ("::1", 443)),
        ("ws://h:8000", ("h", 8000)),
        ("redis://h/1", ("h", 6379)),
    ],
)
def test_a_scheme_says_the_port(target: str, expected: tuple[str, int]) -> None:
    assert _address(target) == expected


@pytest.mark.parametrize("target", ["ftp://h", "127.0.0.1:8000", "http://", "/x"])
async def test_what_is_no_address_is_told(target: str) -> None:
    with pytest.raises(ValueError, match=r"expected a URL with a host and one of http, .*, rediss, but got '"):
        async with relayed(target):
            pass


@pytest.mark.parametrize("how", ["reset", "half_close", "stall"])
def test_a_fault_that_never_happens_is_told(how: str) -> None:
    with pytest.raises(ValueError, match=f"expected `after`, the bytes that pass before the {how}, but got None"):
        Fault(how=how)  # type: ignore[arg-type]
