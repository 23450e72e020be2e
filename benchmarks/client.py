"""The load client: thousands of raw sockets on one epoll, counting events without decoding them."""

import http.client
import json
import resource
import select
import socket
import time
from array import array
from collections.abc import Callable
from types import TracebackType

from benchmarks.process import Address

# Every event carries this once, and nothing else on any wire does (heartbeats, ids and ends do not).
MARKER = b'"sensor"'
EVENT = b'{"id":%d,"name":"sensor","value":3.25}'
LAST_CHUNK = b"0\r\n\r\n"
BUFFER = 256 * 1024
RAMP = 200
CONNECT_TIMEOUT = 30.0


class Undelivered(Exception):
    """A peer did not send what it owed; its numbers would be worthless."""


class Stream:
    """One connection, and what has arrived on it."""

    __slots__ = ("answered", "arrived", "ended", "events", "sock", "tail")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answered = False
        self.ended = False
        self.events = 0
        self.arrived = 0.0
        self.tail = b""


class Swarm:
    """Many streams read by one loop; use as a context manager."""

    def __init__(self, address: Address, *, marker: bytes = MARKER, record_gaps: bool = False) -> None:
        """`marker` is what every event carries once, and nothing else."""
        self.address = address
        self.marker = marker
        self.events = 0
        self.answered = 0
        self.ended = 0
        self.gaps = array("d")
        self._record_gaps = record_gaps
        self._streams: dict[int, Stream] = {}
        self._epoll = select.epoll()
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)

    def __enter__(self) -> "Swarm":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for stream in self._streams.values():
            stream.sock.close()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._streams)

    def connect(self, count: int, request: bytes) -> None:
        """Open streams in ramps, each answered before the next, so that no listen queue overflows."""
        while count > 0:
            ramp = min(count, RAMP)
            self.open(ramp, request)
            self.wait(lambda: self.answered == len(self), CONNECT_TIMEOUT, "response heads")
            count -= ramp

    def open(self, count: int, request: bytes) -> None:
        for _ in range(count):
            sock = socket.create_connection(self.address, timeout=CONNECT_TIMEOUT)
            sock.sendall(request)
            sock.setblocking(False)
            self._streams[sock.fileno()] = Stream(sock)
            self._epoll.register(sock, select.EPOLLIN)

    def send(self, data: bytes) -> None:
        """Send the same on every stream."""
        for stream in self._streams.values():
            stream.sock.sendall(data)

    def wait(self, until: Callable[[], bool], timeout: float, what: str) -> None:
        """Read until the condition holds; raise if it does not in time."""
        deadline = time.perf_counter() + timeout
        while not until():
            left = deadline - time.perf_counter()
            if left <= 0:
                raise Undelivered(f"expected {what} within {timeout:.0f} s, but got {self}")
            self._read(left)

    def read_for(self, seconds: float) -> None:
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self._read(left)

    def wait_events(self, count: int, timeout: float) -> None:
        """Read until every stream has brought exactly `count` events in all."""
        self.wait(lambda: self.events >= count * len(self), timeout, f"{count} events a stream")
        self.check_events(count)

    def wait_ends(self, count: int, timeout: float) -> None:
        """Read until every stream has ended cleanly after exactly `count` events."""
        self.wait(lambda: self.ended == len(self), timeout, f"{count} events a stream and a clean end")
        self.check_events(count)

    def check_events(self, count: int) -> None:
        wrong = [stream.events for stream in self._streams.values() if stream.events != count]
        if wrong:
            raise Undelivered(f"expected {count} events on each stream, but got {wrong[:5]} on {len(wrong)} of them")

    def __str__(self) -> str:
        return f"{len(self)} streams, {self.answered} answered, {self.ended} ended, {self.events} events"

    def _read(self, timeout: float) -> None:
        for fd, _ in self._epoll.poll(timeout):
            self._receive(self._streams[fd])

    def _receive(self, stream: Stream) -> None:
        # A marker may be torn between two reads: the end of the last one is put in front of this one.
        buffer, kept = self._buffer, len(stream.tail)
        buffer[:kept] = stream.tail
        received = stream.sock.recv_into(self._view[kept:])
        size = kept + received
        if received == 0:
            self._end(stream)
            return
        if not stream.answered:
            self._answer(stream, bytes(buffer[:size]))
        stream.tail = bytes(buffer[max(0, size - len(self.marker) + 1) : size])
        found = buffer.count(self.marker, 0, size)
        if found:
            stream.events += found
            self.events += found
            if self._record_gaps:
                self._record_gap(stream)

    def _answer(self, stream: Stream, head: bytes) -> None:
        if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 101 ")):
            raise Undelivered(f"expected a 200 response or a WebSocket, but got {head[:200]!r}")
        stream.answered = True
        self.answered += 1

    def _end(self, stream: Stream) -> None:
        if not stream.tail.endswith(LAST_CHUNK):
            raise Undelivered(f"expected a clean end, but the connection broke after {stream.events} events")
        stream.ended = True
        self.ended += 1
        self._epoll.unregister(stream.sock)

    def _record_gap(self, stream: Stream) -> None:
        now = time.perf_counter()
        if stream.arrived:
            self.gaps.append(now - stream.arrived)
        stream.arrived = now


class Publisher:
    """Publishes numbered events by POST on one kept connection."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=CONNECT_TIMEOUT)
        self._connection.connect()
        self.published = 0

    def publish(self) -> None:
        self.begin()
        self.finish()

    def begin(self) -> None:
        """Publish, but do not wait for the answer. `finish` does."""
        self._connection.request("POST", "/publish", EVENT % self.published, {"Content-Type": "application/json"})
        self.published += 1

    def finish(self) -> None:
        """Wait for the answer to `begin`."""
        self._check("/publish")

    def post(self, path: str, body: bytes = b"") -> None:
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        self._check(path)

    def _check(self, path: str) -> None:
        response = self._connection.getresponse()
        response.read()
        if not 200 <= response.status < 300:
            raise Undelivered(f"expected {path} to be accepted, but got status {response.status}")

    def close(self) -> None:
        self._connection.close()


def get(path: str, accept: str) -> bytes:
    """A GET request whose response ends with its connection, so that its end can be seen."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode()


def upgrade(path: str) -> bytes:
    """A request for a WebSocket without extensions. Frames from the server are not masked, so events can be counted."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def text_frame(text: str) -> bytes:
    """A WebSocket frame with a short text, masked as a client's must be, by zeros (RFC 6455, section 5.3)."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode()


def post(path: str, accept: str, body: object) -> bytes:
    """The same as a POST request of a JSON body."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def time_to_first_event(address: Address, request: bytes) -> float:
    """Seconds from a request on a new connection to its first event; reads the stream to its end."""
    with socket.create_connection(address, timeout=CONNECT_TIMEOUT) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.perf_counter()
        sock.sendall(request)
        received = b""
        while MARKER not in received:
            received += receive_some(sock)
        elapsed = time.perf_counter() - start
        while not received.endswith(LAST_CHUNK):
            received += receive_some(sock)
    return elapsed


def receive_some(sock: socket.socket) -> bytes:
    data = sock.recv(BUFFER)
    if not data:
        raise Undelivered("expected an event, but the connection was closed")
    return data


def raise_file_limit(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise SystemExit(f"the load needs {wanted} open files, but the hard limit is {hard}")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
