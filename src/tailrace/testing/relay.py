"""A TCP relay between a client and its server, with faults that a test chooses."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

Cut = Literal["close", "reset"]
How = Literal[Cut, "half_close", "stall"]
Side = Literal["server", "client"]

# SO_LINGER with a timeout of 0 makes a close discard unsent bytes and send a reset (socket(7)).
_RESET = struct.pack("ii", 1, 0)

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443, "redis": 6379, "rediss": 6379}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one connection, on the way of the bytes `of` the server or of the client.

    Once `after` of these bytes have passed (None: never), the relay does one of these:

    - `close`: it ends both directions;
    - `reset`: it ends both directions by a TCP reset, as when a machine fails;
    - `half_close`: it ends the direction of these bytes, but not the other one;
    - `stall`: it passes nothing more in this direction, and leaves the connection open.

    Until then it passes the bytes in pieces of `piece` bytes (None: as they come), each after `delay` seconds. Raise
    ValueError if `how` is not `close` but `after` is None.
    """

    after: int | None = None
    how: How = "close"
    piece: int | None = None
    delay: float = 0.0
    of: Side = "server"

    def __post_init__(self) -> None:
        if self.after is None and self.how != "close":
            raise ValueError(f"expected `after`, the bytes that pass before the {self.how}, but got None")


_NONE = Fault()


class Relay:
    """Passes bytes between its `url` and a server.

    `accepted` counts the connections. `passed` counts the bytes that the newest one has passed to the client, and
    `taken` those that it has passed to the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self.url = ""
        self.accepted = 0
        self.passed = 0
        self.taken = 0
        self._host = host
        self._port = port
        self._faults: deque[Fault] = deque()
        self._always = _NONE
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._refusing = False
        self._last: tuple[int, Cut] | None = None
        """The bytes that still pass before all connections end, and the way they end."""
        self._news = asyncio.Condition()

    def next(self, *faults: Fault) -> None:
        """Set the faults of the next connections, one each. Later connections get the fault of `always`, or none."""
        self._faults = deque(faults)

    def always(self, fault: Fault) -> None:
        """Set the fault of all connections to which `next` gives none."""
        self._always = fault

    def refuse(self, refusing: bool = True) -> None:
        """End new connections immediately, before a byte reaches the server. Pass False to accept them again."""
        self._refusing = refusing

    def cut(self, how: Cut = "reset") -> None:
        """End all connections now."""
        self._last = None
        for link in self._links:
            link.end(how)

    def cut_after(self, count: int, how: Cut = "reset") -> None:
        """End all connections once they have passed `count` more bytes from the server, counted together."""
        self._last = count, how

    def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write the server's bytes, as many as may still pass."""
        if self._last is not None:
            left, how = self._last
            data = data[:left]
            self._last = left - len(data), how
        writer.write(data)
        self.passed += len(data)
        if self._last is not None and self._last[0] == 0:
            self.cut(self._last[1])

    def take(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write the client's bytes."""
        writer.write(data)
        self.taken += len(data)

    async def wait_accepted(self, count: int) -> None:
        """Wait until the relay has accepted `count` connections since it began."""
        async with self._news:
            await self._news.wait_for(lambda: self.accepted >= count)

    async def close(self) -> None:
        """End all connections, and wait until they have ended."""
        self.cut()
        await asyncio.gather(*self._links.values())

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection, as `asyncio.start_server` calls it."""
        self.accepted += 1
        self.passed = self.taken = 0
        async with self._news:
            self._news.notify_all()
        task = asyncio.current_task()
        assert task is not None
        fault = self._faults.popleft() if self._faults else self._always
        link = _Link(self, fault, reader, writer)
        self._links[link] = task
        try:
            if self._refusing:
                link.end("reset")
            else:
                await link.run(self._host, self._port)
        finally:
            del self._links[link]


class _Link:
    """A client's connection, and the relay's own connection to the server for it."""

    def __init__(self, relay: Relay, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relay = relay
        self._fault = fault
        self._reader = reader
        self._writers = [writer]
        self._ended = asyncio.Event()

    async def run(self, host: str, port: int) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(host, port)
        except OSError:
            self.end("reset")
            return
        to_client = self._writers[0]
        self._writers.append(to_server)
        passing = asyncio.gather(
            self._pass("client", self._reader, to_server), self._pass("server", from_server, to_client)
        )
        ended = asyncio.ensure_future(self._ended.wait())
        both: list[asyncio.Future[Any]] = [ended, passing]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in both:
                future.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self.end("close")

    def end(self, how: How) -> None:
        for writer in self._writers:
            if how == "reset":
                with suppress(OSError):  # it is closed already
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()
        self._ended.set()

    async def _pass(self, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the bytes of one side, with the fault if it is on their way."""
        fault = self._fault if self._fault.of == side else _NONE
        write = self._relay.take if side == "client" else self._relay.pass_on
        left = fault.after
        try:
            while left != 0 and (data := await reader.read(fault.piece or 1 << 16)):
                data = data[:left]
                left = None if left is None else left - len(data)
                if fault.delay:
                    await asyncio.sleep(fault.delay)
                write(data, writer)
                await writer.drain()
            if left == 0:
                await self._strike(fault.how, writer)
            else:
                writer.write_eof()
        except OSError:
            self.end("reset")

    async def _strike(self, how: How, writer: asyncio.StreamWriter) -> None:
        if how == "half_close":
            writer.write_eof()
        if how in ("half_close", "stall"):
            await self._ended.wait()
        else:
            self.end(how)


def _address(target: str) -> tuple[str, int]:
    """Return the host and port of a URL. Raise ValueError if a relay cannot connect to it."""
    parts = urlsplit(target)
    default = _PORTS.get(parts.scheme)
    if default is None or not parts.hostname:
        raise ValueError(f"expected a URL with a host and one of {', '.join(_PORTS)}, but got {target[:80]!r}")
    return parts.hostname, parts.port or default


@asynccontextmanager
async def relayed(target: str, *, port: int = 0) -> AsyncIterator[Relay]:
    """Run a relay to a server, by default on a free port.

    The target is an address by `http://`, `https://`, `ws://`, `wss://`, `redis://` or `rediss://`. The relay's `url`
    has its scheme, path and query. A relay passes encrypted bytes as they are.
    """
    relay = Relay(*_address(target))
    server = await asyncio.start_server(relay.connect, "127.0.0.1", port)
    here = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    relay.url = urlunsplit(urlsplit(target)._replace(netloc=here))
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
        await server.wait_closed()
