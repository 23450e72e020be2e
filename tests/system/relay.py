"""A TCP relay in front of a server, which a test can cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    """Passes bytes on, in both directions, until its connections are cut; new ones are passed on again."""

    def __init__(self, target: int) -> None:
        self.url = ""
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._left: int | None = None

    def cut_after(self, count: int) -> None:
        """Cut all connections once so many more bytes have come from the server."""
        self._left = count

    def cut(self) -> None:
        self._left = None
        for writer in self._writers:
            writer.transport.abort()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, there_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on(reader, there_writer, counted=False))
                tasks.create_task(self._pass_on(there_reader, writer, counted=True))
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if counted and self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                writer.write(data)
                await writer.drain()
                if self._left == 0:
                    self.cut()
            writer.close()


@asynccontextmanager
async def relayed(port: int) -> AsyncIterator[Relay]:
    """A relay to a port of this machine."""
    relay = Relay(port)
    server = await asyncio.start_server(relay.connect, "127.0.0.1", 0)
    relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        relay.cut()
        await server.wait_closed()
