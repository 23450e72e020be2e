"""A load client of readers that come back with the cursor of the last event that they got."""

import heapq
import re
import select
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from types import TracebackType

from benchmarks.client import BUFFER, CONNECT_TIMEOUT, RAMP, Publisher, Undelivered
from benchmarks.process import Address, Server
from benchmarks.verify import EVENT_STREAM

HEAD_END = b"\r\n\r\n"
EVENT_END = b"\n\n"
EVENT = re.compile(rb'id: (\S+)\ndata: \{"id":(\d+),')
RETRY = re.compile(rb"\nretry: (\d+)\n")
"""Only the event that sends a reader away has this field."""


class Reader:
    """One reader: its connection, the cursor of its last event, and the number of the event that has to come next."""

    __slots__ = ("answered", "cursor", "next", "path", "requested", "rest", "retry", "sock")

    def __init__(self, path: str) -> None:
        self.path = path
        self.cursor = ""
        self.next = 0
        self.retry = 0.0
        self.answered = False

    def connect(self, address: Address) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(address)  # an error shows when the request is sent
        self.requested = self.answered = False
        self.rest = b""

    def request(self) -> None:
        cursor = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        head = f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {EVENT_STREAM}\r\n"
        self.sock.send(f"{head}{cursor}\r\n".encode())
        self.requested = True

    def receive(self) -> bytes | None:
        """Return the whole events that have come, or None if the connection has ended."""
        try:
            received = self.sock.recv(BUFFER)
        except ConnectionResetError:
            received = b""
        if not received:
            return None
        data = self.rest + received
        if not self.answered:
            if HEAD_END not in data:
                self.rest = data
                return b""
            if not data.startswith(b"HTTP/1.1 200 "):
                raise Undelivered(f"expected a 200 response, but got {data[:200]!r}")
            self.answered = True
        end = data.rfind(EVENT_END) + 1
        self.rest = data[end:]
        return data[:end]

    def take(self, cursor: bytes, number: int) -> None:
        if number != self.next:
            raise Undelivered(f"expected event {self.next} of {self.path} after {self.cursor!r}, but got {number}")
        self.cursor = cursor.decode()
        self.next = number + 1


class Crowd:
    """Many readers of Server-Sent Events on one epoll; use as a context manager.

    A reader whose connection ends connects again: at once, or after the delay that the server asked for. It checks that
    its events are those from 0 on, each once, over all its connections.
    """

    def __init__(self, address: Address) -> None:
        self.address: Address | None = address
        """Where readers connect. While it is None, those whose connection ends stay away."""
        self.arrivals: list[float] = []
        """When each reader had all events that are expected."""
        self._expected = 0
        self._readers: list[Reader] = []
        self._connected: dict[int, Reader] = {}
        self._due: list[tuple[float, int, Reader]] = []
        self._epoll = select.epoll()

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for reader in self._connected.values():
            reader.sock.close()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._readers)

    def join(self, paths: Iterable[str]) -> None:
        """Add a reader of each path. They connect in ramps, each answered before the next."""
        paths = iter(paths)
        while ramp := [Reader(path) for path in islice(paths, RAMP)]:
            self._readers += ramp
            self._due += [(0.0, number, reader) for number, reader in enumerate(ramp)]
            self._run(partial(_all_answered, ramp), CONNECT_TIMEOUT, "response heads")

    def expect(self, events: int) -> None:
        """Expect so many events in all on each stream. Call it before the last of them are published."""
        self._expected = events
        self.arrivals = []

    def read_for(self, seconds: float) -> None:
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self._step(left)

    def wait_left(self, timeout: float) -> None:
        """Read until every connection has ended."""
        self._run(lambda: not self._connected, timeout, "the end of all connections")

    def wait(self, timeout: float) -> None:
        """Read until every reader has all events that are expected."""
        self._run(lambda: len(self.arrivals) == len(self), timeout, f"{self._expected} events for each of {len(self)}")

    def _run(self, until: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.perf_counter() + timeout
        while not until():
            left = deadline - time.perf_counter()
            if left <= 0:
                least = min(reader.next for reader in self._readers)
                raise Undelivered(
                    f"expected {what} within {timeout:.0f} s, but {len(self.arrivals)} have them, one has {least}, "
                    f"and {len(self._due)} are away"
                )
            self._step(left)

    def _step(self, timeout: float) -> None:
        if self.address is not None and self._due:
            now = time.perf_counter()
            while self._due and self._due[0][0] <= now:
                self._connect(heapq.heappop(self._due)[-1], self.address)
            if self._due:
                timeout = min(timeout, self._due[0][0] - now)
        for fd, _ in self._epoll.poll(timeout):
            reader = self._connected[fd]
            if reader.requested:
                self._receive(reader)
            else:
                reader.request()
                self._epoll.modify(fd, select.EPOLLIN)

    def _connect(self, reader: Reader, address: Address) -> None:
        reader.connect(address)
        self._connected[reader.sock.fileno()] = reader
        self._epoll.register(reader.sock, select.EPOLLOUT)

    def _receive(self, reader: Reader) -> None:
        events = reader.receive()
        if events is None:
            self._leave(reader)
            return
        for event in EVENT.finditer(events):
            reader.take(event[1], int(event[2]))
            if reader.next == self._expected:
                self.arrivals.append(time.perf_counter())
        if (told := RETRY.search(events)) is not None:
            reader.retry = int(told[1]) / 1000

    def _leave(self, reader: Reader) -> None:
        fd = reader.sock.fileno()
        del self._connected[fd]
        self._epoll.unregister(fd)
        reader.sock.close()
        heapq.heappush(self._due, (time.perf_counter() + reader.retry, fd, reader))
        reader.retry = 0.0


def publish(server: Server, crowd: Crowd, streams: int, *, first: int, count: int) -> None:
    """Publish so many events to each of the streams of `feeds_app`, which the crowd expects from now on."""
    crowd.expect(first + count)
    publisher = Publisher(server.address)  # a new one, since the server closes idle connections
    publisher.post(f"/publish?feeds={streams}&first={first}&count={count}")
    publisher.close()


def _all_answered(readers: Iterable[Reader]) -> bool:
    return all(reader.answered for reader in readers)
