"""An HTTP/1.1 client that hides nothing: the bytes as they come, and whether they came to an end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from tailrace.wire.base import Frame, Wire
from tailrace.wire.sse import SSE

BOUND = 30
"""Seconds after which a test's wait has failed."""


class Exchange:
    """One request and its response, read no faster than asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.fields: list[tuple[str, str]] = []
        self.whole = False  # whether the body has come to its end, which a broken one does not

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)

    async def read_head(self) -> None:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.strip().split("\r\n")
        self.status = int(status.split()[1])
        for line in lines:
            name, _, value = line.partition(": ")
            self.fields.append((name.lower(), value))

    async def chunk(self) -> bytes:
        """The next chunk, empty where the body ends, whole or not."""
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        self.whole = size == 0
        return data[:-2]

    async def until(self, expected: bytes) -> bytes:
        """The body up to the chunk with which `expected` is there."""
        body = b""
        while expected not in body:
            chunk = await self.chunk()
            assert chunk, f"expected {expected!r}, but got {body!r}"
            body += chunk
        return body

    async def rest(self) -> bytes:
        """What is left of the body."""
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            body = await self.reader.readexactly(int(self.headers.get("content-length", 0)))
            self.whole = True
            return body
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    def leave(self) -> None:
        self.writer.close()


@asynccontextmanager
async def exchange(
    base: str,
    path: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    *,
    method: str = "GET",
    body: bytes = b"",
    head: bool = True,
    window: int | None = None,
) -> AsyncIterator[Exchange]:
    """Send a request and, with `head`, read the response up to its body. `window` is the size of the receive buffer."""
    address = urlsplit(base)
    assert address.hostname is not None
    connection = socket.socket()
    connection.setblocking(False)
    if window is not None:
        # Before connecting, because this is what the kernel then offers.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    await asyncio.get_running_loop().sock_connect(connection, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=max(window or 0, 1 << 16))
    fields = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    if body:
        fields.append(("Content-Length", str(len(body))))
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address.netloc}", *(f"{name}: {value}" for name, value in fields)]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    got = Exchange(reader, writer)
    try:
        async with asyncio.timeout(BOUND):
            if head:
                await got.read_head()
            yield got
    finally:
        writer.close()


async def fetch(base: str, path: str, headers: Any = (), **options: Any) -> tuple[Exchange, bytes]:
    """A response with its body, whole or not."""
    async with exchange(base, path, headers, **options) as got:
        return got, b"" if options.get("method") == "HEAD" else await got.rest()


def frames(body: bytes, wire: Wire | None = None) -> list[Frame]:
    """A body as the frames of its wire, by default SSE."""
    decoder = (wire or SSE()).decoder()
    return [*decoder.feed(body), *decoder.close()]


def values(body: bytes, wire: Wire | None = None) -> list[Any]:
    """What the frames carry: data, and for a notice its name."""
    return [frame.data if frame.event is None else frame.event for frame in frames(body, wire)]
