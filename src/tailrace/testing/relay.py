"""A TCP relay between a client and its server, whose faults a test chooses."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

Cut = Literal["close", "reset"]
How = Literal[Cut, "half_close", "stall"]

# SO_LINGER, on, for no time: closing then sends a reset in place of what is left.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection.

    Once `after` bytes of the server's have passed (None: never), the relay does as `how` says:

    - `close`: ends both directions;
    - `reset`: the same by a TCP reset, as when a machine goes away;
    - `half_close`: ends only what goes to the client, which can still send;
    - `stall`: passes nothing more on, and leaves the connection open.

    Until then it passes the server's bytes on in pieces of `piece` bytes (None: as they come), each `delay` seconds
    after the one before.
    """

    after: int | None = None
    how: How = "close"
    piece: int | None = None
    delay: float = 0.0


_NONE = Fault()


class Relay:
    """Passes bytes on between its `url` and a server.

    `accepted` counts the connections, `passed` the server's bytes of the newest one that have gone to the client.
    """

    def __init__(self, target: str) -> None:
        self.url = ""
        self.accepted = 0
        self.passed = 0
        self._target = urlsplit(target)
        self._faults: deque[Fault] = deque()
        self._always = _NONE
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._refusing = False
        self._last: tuple[int, Cut] | None = None
        """How many bytes pass before all connections end, and how those end."""

    def next(self, *faults: Fault) -> None:
        """The faults of the next connections, one each. Those that follow have none."""
        self._faults = deque(faults)

    def always(self, fault: Fault) -> None:
        """The fault of every connection that `next` has none for."""
        self._always = fault

    def refuse(self, refusing: bool = True) -> None:
        """End new connections at once, before any byte of them reaches the server; or do so no longer."""
        self._refusing = refusing

    def cut(self, how: Cut = "reset") -> None:
        """End all connections now."""
        self._last = None
        for link in self._links:
            link.end(how)

    def cut_after(self, count: int, how: Cut = "reset") -> None:
        """End all connections, whenever they began, once so many more bytes of the server's have passed.

        They are counted together; with 0 not even the next one passes.
        """
        self._last = count, how

    def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write what the server has sent, as far as it may pass."""
        if self._last is not None:
            left, how = self._last
            data = data[:left]
            self._last = left - len(data), how
        writer.write(data)
        self.passed += len(data)
        if self._last is not None and self._last[0] == 0:
            self.cut(self._last[1])

    async def close(self) -> None:
        """End all connections, and wait until they are."""
        self.cut()
        await asyncio.gather(*self._links.values())

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Deal with one connection, as asyncio.start_server hands it over."""
        self.accepted += 1
        self.passed = 0
        task = asyncio.current_task()
        assert task is not None
        fault = self._faults.popleft() if self._faults else self._always
        link = _Link(self, fault, reader, writer)
        self._links[link] = task
        try:
            if self._refusing:
                link.end("reset")
            else:
                await link.run(self._target.hostname or "127.0.0.1", self._target.port or 80)
        finally:
            del self._links[link]


class _Link:
    """A client's connection and the one to the server that belongs to it."""

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
            self._pass_requests(self._reader, to_server), self._pass_responses(from_server, to_client)
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
                with suppress(OSError):  # closed already
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()
        self._ended.set()

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def _pass_responses(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._fault.after
        with suppress(OSError):
            while left != 0 and (data := await reader.read(self._fault.piece or 1 << 16)):
                data = data[:left]
                left = None if left is None else left - len(data)
                if self._fault.delay:
                    await asyncio.sleep(self._fault.delay)
                self._relay.pass_on(data, writer)
                await writer.drain()
            if left == 0:
                await self._strike(writer)
            else:
                writer.write_eof()

    async def _strike(self, writer: asyncio.StreamWriter) -> None:
        how = self._fault.how
        if how == "half_close":
            writer.write_eof()
        if how in ("half_close", "stall"):
            await self._ended.wait()
        else:
            self.end(how)


@asynccontextmanager
async def relayed(target: str) -> AsyncIterator[Relay]:
    """A relay to the server at an `http://` or `ws://` address, on a free port of this machine."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.connect, "127.0.0.1", 0)
    relay.url = f"{relay._target.scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
        await server.wait_closed()
