"""The client of the packet scenarios: packets out, echoes in, over a WebSocket or over two HTTP connections.

While the clock runs, it only counts echoes. It keeps the bytes, then decodes and compares them.
"""

import json
import re
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from benchmarks.client import CONNECT_TIMEOUT, Undelivered, receive_some, upgrade
from benchmarks.process import Address

PATH = "/stream"
PAYLOAD = "%08d of the packets that one client sends, sixty bytes long."
PACKET = b'{"packet_type":"%b","payload":"%b","id":"%d"}'
MARKER = b'"payload":"'
"""Every echo has this once, and nothing else does: the payload of no other packet is a string."""


def packet(number: int, kind: bytes = b"DATA") -> bytes:
    return PACKET % (kind, (PAYLOAD % number).encode(), number)


class Incoming:
    """A connection, what has come on it after the head of the response, and how many echoes are in that."""

    def __init__(self, address: Address) -> None:
        self.sock = connect(address)
        self.pieces: list[bytes] = []
        self.echoes = 0
        # A marker may be split between two reads.
        self._tail = b""

    def read_head(self, status: bytes) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            received += receive_some(self.sock)
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 " + status):
            raise Undelivered(f"expected status {status.decode()}, but got {received[:400]!r}")
        self._take(rest)
        return head

    def read(self) -> None:
        self._take(receive_some(self.sock))

    def _take(self, piece: bytes) -> None:
        self.pieces.append(piece)
        seen = self._tail + piece
        self._tail = seen[1 - len(MARKER) :]
        self.echoes += seen.count(MARKER)


class Link(ABC):
    """The client's side of one exchange; use as a context manager."""

    ready = True
    """Whether packets can be sent now."""

    def __init__(self, address: Address) -> None:
        self.incoming = Incoming(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.incoming.sock.close()

    @abstractmethod
    def open(self, first: bytes) -> float:
        """Send the first packet and wait for its echo. Return how many seconds that took on the open connection."""

    @abstractmethod
    def send(self, packets: Sequence[bytes]) -> None: ...

    @abstractmethod
    def receive(self) -> None:
        """Wait until something comes."""

    @abstractmethod
    def decode(self, received: bytes) -> Iterator[bytes]:
        """The packets in what has come."""

    def exchange(self, packets: Sequence[bytes], window: int) -> float:
        """Send packets, at most `window` of them in flight, until all are echoed. Return how many seconds that took."""
        start = time.perf_counter()
        incoming, before, sent = self.incoming, self.incoming.echoes, 0
        while (echoed := incoming.echoes - before) < len(packets) or not self.ready:
            end = min(echoed + window, len(packets))
            if self.ready and sent < end:
                self.send(packets[sent:end])
                sent = end
            self.receive()
        return time.perf_counter() - start

    def check(self, count: int) -> None:
        """Check that the packets 0 to count - 1 were echoed in order, and that no other packet has come."""
        got = [json.loads(text)["payload"] for text in self.decode(b"".join(self.incoming.pieces))]
        if got != [PAYLOAD % number for number in range(count)]:
            raise Undelivered(f"expected the echoes of {count} packets in order, but got {len(got)}: {got[-3:]}")


class SocketLink(Link):
    """A WebSocket whose messages are the packets."""

    def __init__(self, address: Address, path: str = PATH) -> None:
        super().__init__(address)
        self._path = path

    def open(self, first: bytes) -> float:
        start = time.perf_counter()
        self.incoming.sock.sendall(upgrade(self._path))
        self.incoming.read_head(b"101")
        self.exchange([first], 1)
        return time.perf_counter() - start

    def send(self, packets: Sequence[bytes]) -> None:
        self.incoming.sock.sendall(b"".join(map(frame, packets)))

    def receive(self) -> None:
        self.incoming.read()

    def decode(self, received: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(received):
            kind, size = received[start : start + 2]
            start += 2
            if size == 126:
                (size,) = struct.unpack_from("!H", received, start)
                start += 2
            if kind == 0x81:  # a whole text; the server also sends pings
                yield received[start : start + size]
            start += size


def frame(text: bytes) -> bytes:
    """A text message of a client (RFC 6455, section 5.2). Its mask of zeros costs the server as much as any other."""
    size = len(text)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
    return head + b"\0\0\0\0" + text


class PostLink(Link):
    """A streamed response, and a kept connection for POSTs.

    One POST is sent at a time, each with all packets that may be sent by then.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._outgoing = connect(address)
        self._answer = b""
        self._poll = select.epoll()
        for sock in (self.incoming.sock, self._outgoing):
            self._poll.register(sock, select.EPOLLIN)

    def close(self) -> None:
        super().close()
        self._outgoing.close()
        self._poll.close()

    def open(self, first: bytes) -> float:
        start = time.perf_counter()
        self.incoming.sock.sendall(post(PATH, b"application/json", first))
        head = self.incoming.read_head(b"200")
        while not self.incoming.echoes:
            self.incoming.read()
        elapsed = time.perf_counter() - start
        self._address = location(head)
        return elapsed

    def send(self, packets: Sequence[bytes]) -> None:
        self.ready = False
        self._outgoing.sendall(post(self._address, b"application/x-ndjson", b"\n".join(packets)))

    def receive(self) -> None:
        if not (arrived := self._poll.poll(CONNECT_TIMEOUT)):
            raise Undelivered(f"expected an echo within {CONNECT_TIMEOUT:.0f} s, but got {self.incoming.echoes}")
        for fd, _ in arrived:
            if fd == self._outgoing.fileno():
                self._read_answer()
            else:
                self.incoming.read()

    def _read_answer(self) -> None:
        self._answer += receive_some(self._outgoing)
        if self._answer.endswith(b"}"):
            if not self._answer.startswith(b"HTTP/1.1 202 "):
                raise Undelivered(f"expected packets to be accepted, but got {self._answer[:400]!r}")
            self._answer, self.ready = b"", True

    def decode(self, received: bytes) -> Iterator[bytes]:
        return filter(None, b"".join(chunks(received)).split(b"\n"))


def location(head: bytes) -> str:
    found = re.search(rb"^content-location: (\S+)", head, re.MULTILINE | re.IGNORECASE)
    if found is None:
        raise Undelivered(f"expected the address of the session, but got {head!r}")
    return found[1].decode()


def post(path: str, media_type: bytes, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
    return head + b"Content-Type: " + media_type + b"\r\n\r\n" + body


def chunks(body: bytes) -> Iterator[bytes]:
    """The chunks of a body (RFC 9112, section 7.1)."""
    start = 0
    while start < len(body):
        line, _, _ = body[start : start + 20].partition(b"\r\n")
        size = int(line, 16)
        start += len(line) + 2
        yield body[start : start + size]
        start += size + 2


def connect(address: Address) -> socket.socket:
    sock = socket.create_connection(address, timeout=CONNECT_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
