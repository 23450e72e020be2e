"""Very many short connections, at little cost for who makes them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import cast

HOST = "127.0.0.1"

_HEADERS = "Host: {}\r\nAccept: {}\r\n"
_SOCKET = (
    "Host: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def request(path: str, accept: str = "text/event-stream") -> bytes:
    return f"GET {path} HTTP/1.1\r\n{_HEADERS.format(HOST, accept)}\r\n".encode()


def handshake(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\n{_SOCKET.format(HOST)}\r\n".encode()


STREAM = request("/numbers")
HELD = request("/held")
DOCUMENT = request("/numbers", "application/json")
MISSING = request("/nowhere")
UNACCEPTABLE = request("/numbers", "image/png")
SOCKET = handshake("/numbers")

# What a visitor who waits for the answer asks, how it begins and what is in it.
ANSWERED = {
    "stream": (STREAM, b"HTTP/1.1 200", b"event: done"),
    "document": (DOCUMENT, b"HTTP/1.1 200", b'{"data":[{"n":1},{"n":2},{"n":3}]}'),
    "missing": (MISSING, b"HTTP/1.1 404", b"Not Found"),
    "unacceptable": (UNACCEPTABLE, b"HTTP/1.1 406", b"not_acceptable"),
}


class Answers(asyncio.Protocol):
    """A connection on which one request follows the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of it.
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """The whole answer to a request."""
        assert self._transport is not None
        self._buffer = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._answer is not None and self._is_whole():
            self._answer.set_result(self._buffer)
            self._answer = None

    def _is_whole(self) -> bool:
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        _, found, length = head.partition(b"content-length: ")
        return len(body) == int(length.split(b"\r\n")[0]) if found else body.endswith(b"0\r\n\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None:
            self._answer.set_exception(error or EOFError("the server closed the connection"))
            self._answer = None

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class Glance(asyncio.Protocol):
    """A connection that is left as soon as something has come, or at once."""

    def __init__(self, request: bytes, until: bytes | None, leave: Callable[[asyncio.Transport], None]) -> None:
        self._request = request
        self._until = until
        self._leave = leave
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of it.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)
        if self._until is None:
            self._leave(self._transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._until is not None and self._until in self._seen and self._transport is not None:
            self._leave(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.gone.done():
            if error is None or self._until is None:
                self.gone.set_result(None)
            else:
                self.gone.set_exception(error)


def leave_politely(transport: asyncio.Transport) -> None:
    transport.close()


def leave_abruptly(transport: asyncio.Transport) -> None:
    transport.abort()


# Of a hundred visits. Those that wait for an answer share connections, as those of a client with a pool do.
SHARES = {"stream": 25, "document": 10, "missing": 14, "unacceptable": 10, "first byte": 16, "at once": 23, "socket": 2}


async def visit(port: int, count: int, *, concurrency: int = 200, per_connection: int = 10) -> Counter[str]:
    """Make `count` visits in random order; how many there were of each kind."""
    kinds = random.Random(count).choices(list(SHARES), list(SHARES.values()), k=count)
    visits = iter(kinds)
    loop = asyncio.get_running_loop()

    async def glance(request: bytes, until: bytes | None) -> None:
        leave = random.choice((leave_politely, leave_abruptly))
        _, glance = await loop.create_connection(lambda: Glance(request, until, leave), HOST, port)
        await glance.gone

    async def visitor() -> None:
        answers: Answers | None = None
        asked = 0
        for kind in visits:
            if kind == "first byte":
                await glance(HELD, b"H")
            elif kind == "at once":
                await glance(HELD, None)
            elif kind == "socket":
                await glance(SOCKET, b'"event":"done"')
            else:
                if answers is None:
                    _, answers = await loop.create_connection(Answers, HOST, port)
                request, start, content = ANSWERED[kind]
                answer = await answers.ask(request)
                assert answer.startswith(start), answer
                assert content in answer, answer
                asked += 1
                if asked % per_connection == 0:
                    answers.close()
                    answers = None
        if answers is not None:
            answers.close()

    async with asyncio.TaskGroup() as visitors:
        for _ in range(min(concurrency, count)):
            visitors.create_task(visitor())
    return Counter(kinds)
