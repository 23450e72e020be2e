"""The inbox of a session: a log to which any process appends packets, and which the session's own process reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import LogClosed, StoreUnavailable
from ..flow import Retention
from ..log.base import Log, Row
from ..packet import SocketPacket
from .kept import Share

TAKEN = "taken"
"""The event name of entries that tell other processes up to which offset the hooks have taken the packets."""

MAX_READ = 64 << 10
"""The most bytes of the waiting packets that stay as they were read. As objects, they may take many times as much."""


@dataclass(frozen=True, slots=True)
class PacketLimits:
    """Bounds for what clients send.

    - `packet`, `body`: the most bytes of one packet, and of a request's body, which may hold several.
    - `pending`, `pending_bytes`: the most packets of a session that wait for the read hook, and their bytes. A client
      that sends more gets 429. A body may hold `pending` packets.
    - `sessions`: the most sessions that one process keeps open.
    - `kept_bytes`: the most bytes of packets that they keep together, both ways. Beyond it, none opens, and those that
      keep more than an equal share get 503.
    - `seconds`: how long a request's body may take to arrive.
    """

    packet: int = 256 << 10
    body: int = 1 << 20
    pending: int = 1_024
    pending_bytes: int = 1 << 20
    sessions: int = 10_000
    kept_bytes: int = 1 << 30
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("packet", "body", "pending", "pending_bytes", "sessions", "kept_bytes", "seconds"):
            if (value := getattr(self, name)) <= 0:
                raise ValueError(f"expected {name} to be above 0, but got {value}")
        if self.packet > self.body:
            raise ValueError(f"expected a body to have room for a packet of {self.packet} bytes, but got {self.body}")

    @property
    def window(self) -> int:
        """How many ids a session remembers: several times as many as there are packets that a client may repeat."""
        return max(1_024, 4 * self.pending)

    def retention(self, *, shared: bool) -> Retention:
        """Return what an inbox keeps, so that no packet is trimmed while it waits.

        Each process may admit one last body when there is just room. `shared`: whether several processes do so.
        """
        bodies = 16 if shared else 1
        return Retention(count=(2 + bodies) * self.pending, size=self.pending_bytes + (1 + bodies) * self.body)


@dataclass(frozen=True, slots=True)
class Rules:
    """The packets that a router takes from clients: their model, their types and their limits."""

    model: type[SocketPacket]
    types: frozenset[str]
    limits: PacketLimits


@dataclass(frozen=True, slots=True)
class Parcel:
    """The packets of one request: the lines that the inbox keeps and, if they are few, what was read from them."""

    lines: Sequence[bytes]
    packets: Sequence[SocketPacket]

    @property
    def rows(self) -> list[Row]:
        """The packets as entries of a log."""
        return [(None, line) for line in self.lines]

    @property
    def digest(self) -> bytes:
        """16 bytes that tell the packets from others."""
        return hashlib.sha256(b"\n".join(self.lines)).digest()[:16]


class Inbox:
    """The reading end of an inbox, in the process whose hooks take the packets."""

    def __init__(self, log: Log, rules: Rules, share: Share, *, reports: bool) -> None:
        """Read a log from its beginning.

        `share` counts what the session keeps. `reports`: whether other processes need to know what was taken.
        """
        self.log = log
        self.tail = log.tail(0)
        self.share = share
        self.taken = 0  # the offset of the last packet that the hooks are done with
        self._model = rules.model
        self._next = 1  # the offset that `take` gets next
        self._read: dict[int, SocketPacket] = {}  # waiting packets as they were read when they came, by offset
        self._size = 0  # their bytes in the log
        self._interval = report_interval(rules.limits) if reports else None
        self._unreported = 0

    @property
    def pending(self) -> int:
        """How many packets the hooks have yet to take. In several processes, the reports among them count, too."""
        return self.log.top - self.taken

    async def add(self, parcel: Parcel, *, key: str | None = None) -> None:
        """Append packets. Unless too many wait, they are not read again when it is their turn."""
        offsets = await self.log.add(parcel.rows, key=key)
        self.share.beat()
        size = sum(map(len, parcel.lines))
        # The log may give packets to the hooks, or know the key, before this returns.
        if self._size + size <= MAX_READ and self._next <= offsets.start and offsets.start not in self._read:
            self._read.update(zip(offsets, parcel.packets, strict=True))
            self._size += size

    def take(self, offset: int, json: bytes) -> SocketPacket:
        """Return the packet at an offset, for the hooks. The offsets rise."""
        self._next = offset + 1
        if (packet := self._read.pop(offset, None)) is None:
            return self.decode(json)
        self._size -= len(json)
        return packet

    def decode(self, json: bytes) -> SocketPacket:
        """Read a packet of the log. It was valid when it came in."""
        return self._model.decode(json)

    async def report(self, packets: int) -> None:
        """Note that the hooks have taken some packets, and tell other processes if necessary."""
        self._unreported += packets
        if self._interval is not None and self._unreported >= self._interval:
            try:
                await self.log.add([(TAKEN, b"%d" % self.taken)])
            except (StoreUnavailable, LogClosed):
                return  # the next report tells it, too
            self._unreported = 0


def report_interval(limits: PacketLimits) -> int:
    """Return after how many packets an inbox reports."""
    return max(limits.pending // 4, 1)


def is_full(log: Log, taken: int | None, adding: int, limits: PacketLimits) -> bool:
    """Tell whether too many packets wait in an inbox.

    `taken` is the offset of the last packet that the hooks are done with. It is None in other processes, which know it
    from the reports. `adding` is the number of packets that this process is about to append.
    """
    taken = _reported(log, limits) if taken is None else taken
    entries = log.top - taken
    if entries + adding < limits.pending and entries <= 1:
        return False
    most = limits.pending + limits.pending // report_interval(limits) + 1  # with the reports among them
    waiting = log.read_nowait(max(taken, log.base), most, limits.pending_bytes)
    if waiting is None:  # only the store has them
        return entries + adding >= limits.pending
    return len(waiting) < min(entries, most) or len(waiting) - len(waiting.events) + adding >= limits.pending


def _reported(log: Log, limits: PacketLimits) -> int:
    """Return the offset up to which the session's own process has reported packets as taken."""
    newest = 2 * (limits.pending + report_interval(limits))  # if these have no report, the hooks are far behind
    after = max(log.base, log.top - newest)
    entries = log.read_nowait(after, newest)
    offset = max(entries.events, default=0) if entries is not None else 0
    return int(entries.json[entries.offsets.index(offset)]) if entries is not None and offset else after
