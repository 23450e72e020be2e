"""The inbox of a session: a log to which any process appends packets, and which the session's own process reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..flow import Retention
from ..log.base import Log
from ..packet import SocketPacket

TAKEN = "taken"
"""The event name of entries that tell other processes up to which offset the hooks have taken the packets."""


@dataclass(frozen=True, slots=True)
class PacketLimits:
    """Bounds for what clients send.

    - `packet`, `body`: the most bytes of one packet, and of a request's body, which may hold several.
    - `pending`, `pending_bytes`: the most packets of a session that wait for the read hook, and their bytes. A client
      that sends more gets 429. A body may hold `pending` packets.
    - `sessions`: the most sessions that one process keeps open.
    - `seconds`: how long a request's body may take to arrive.
    """

    packet: int = 256 << 10
    body: int = 1 << 20
    pending: int = 1_024
    pending_bytes: int = 1 << 20
    sessions: int = 10_000
    seconds: float = 30.0

    @property
    def retention(self) -> Retention:
        """What an inbox keeps: what may wait, and as much again, because several processes may append at once."""
        return Retention(count=3 * self.pending, size=self.pending_bytes + 3 * self.body)


@dataclass(frozen=True, slots=True)
class Rules:
    """The packets that a router takes from clients: their model, their types and their limits."""

    model: type[SocketPacket]
    types: frozenset[str]
    limits: PacketLimits


class Inbox:
    """The reading end of an inbox, in the process whose hooks take the packets."""

    def __init__(self, log: Log, rules: Rules, *, reports: bool) -> None:
        """Read a log from its beginning. `reports`: whether other processes need to know what was taken."""
        self.log = log
        self.tail = log.tail(0)
        self.taken = 0  # the offset of the last packet that the hooks are done with
        self._model = rules.model
        self._interval = max(rules.limits.pending // 4, 1) if reports else None
        self._reported = 0

    @property
    def pending(self) -> int:
        """How many packets the hooks have yet to take."""
        return self.log.top - self.taken

    def decode(self, json: bytes) -> SocketPacket:
        """Read a packet of the log. It was valid when it came in."""
        return self._model.decode(json)

    async def report(self) -> None:
        """Tell other processes how many packets were taken, if that is news enough."""
        if self._interval is not None and self.taken - self._reported >= self._interval:
            self._reported = self.taken
            await self.log.add([(TAKEN, b"%d" % self.taken)])


def is_full(log: Log, taken: int | None, limits: PacketLimits) -> bool:
    """Tell whether too many packets wait in an inbox. In another process than its own, `taken` is None."""
    taken = _reported(log, limits) if taken is None else taken
    pending = log.top - taken
    if pending >= limits.pending:
        return True
    fitting = log.read_nowait(max(taken, log.base), limits.pending, limits.pending_bytes) if pending > 1 else None
    return fitting is not None and len(fitting) < pending


def ends_with(log: Log, lines: Sequence[bytes], rules: Rules) -> bool:
    """Tell whether an inbox ends with these packets, and all of them have ids."""
    # There may be reports among them, of which there are few.
    last = log.read_nowait(max(log.top - 2 * len(lines) - 2, log.base), log.top)
    if last is None or not all(rules.model.decode(line).id for line in lines):
        return False
    kept = [json for offset, json in zip(last.offsets, last.json, strict=True) if offset not in last.events]
    return kept[-len(lines) :] == list(lines)


def _reported(log: Log, limits: PacketLimits) -> int:
    """Return the offset up to which the session's own process has reported packets as taken."""
    after = max(log.base, log.top - limits.pending)
    newest = log.read_nowait(after, limits.pending)
    offset = max(newest.events, default=0) if newest is not None else 0
    return int(newest.json[newest.offsets.index(offset)]) if newest is not None and offset else after
