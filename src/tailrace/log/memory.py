"""Logs in this process's memory."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from secrets import token_bytes
from typing import Final
from weakref import WeakValueDictionary

from ..cursor import new_epoch
from ..errors import LogClosed, LogExists, LogFenced
from ..events import DONE, Entries, Outcome
from ..flow import Retention
from ..pulse import Pulse
from .base import BATCH_BYTES, Log, Row, fitting
from .keeper import Keeper
from .store import Keeping, LogStore
from .writer import Writer

_NO_BOUND: Final = 1 << 62


class MemoryLog(Log):
    """A log that keeps its entries in columns. It is the stream itself, not only a view of it.

    Deleting from the front of a list moves the rest of the list. So trimming waits until the log exceeds its retention
    by an eighth, which makes a write O(1) on average.
    """

    __slots__ = ("_events", "_json", "_keys", "_max_age", "_size", "_times", "_trim_count", "_trim_size")

    def __init__(self, name: str, retention: Retention | None = None, *, epoch: str | None = None) -> None:
        super().__init__(name, epoch or new_epoch(), retention or Retention())
        self._json: list[bytes] = []
        self._events: dict[int, str] = {}
        self._times: list[float] = []
        self._keys: dict[str, range] = {}  # the offsets of keyed appends, the oldest first
        self._size = 0
        self._trim_count = _with_slack(self.retention.count)
        self._trim_size = _with_slack(self.retention.size)
        self._max_age = self.retention.age

    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        if key is not None and self.lost is None and (known := self._keys.get(key)) is not None:
            return known
        self.check_open()
        self._check_fence(fence)
        first = self.top + 1
        for event, json in rows:
            self.write(event, json)
        offsets = range(first, self.top + 1)
        if key is not None and offsets:
            self._remember(key, offsets)
        return offsets

    async def close(self, outcome: Outcome = DONE, *, fence: int | None = None) -> Outcome:
        if self.outcome is None and fence is not None:
            self._check_fence(fence)
        return self.end(outcome)

    async def stop(self) -> None:
        control = self.control
        if self.outcome is None and (control.leased or (self.passing and control.fence == 0)):
            self.set_control(stopping=True)

    def claim_seat(self, seat: str, before: str) -> None:
        if self.control.seat == before:
            self.set_control(seat=seat)

    def write(self, event: str | None, json: bytes) -> None:
        """Append one entry, without checking the writer. Raise LogClosed after the end."""
        if self.outcome is not None or self.lost is not None:
            self.check_open()
        self.top += 1
        kept = self._json
        kept.append(json)
        self._size += len(json)
        if event is not None:
            self._events[self.top] = event
        if self._size > self._trim_size or len(kept) > self._trim_count:
            self._trim_excess()
        if self._max_age is not None:
            self._times.append(time.monotonic())
            self._trim_old(self._max_age, slack=len(self._json) // 8)
        if self._sleepers:
            self.wake_readers()

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        start = after - self.base
        if start < 0:
            raise self.reset(self.broken_off or "trimmed")
        if (larger := self._size > size) and limit > 1:
            # Estimate by the average size: slicing many entries too many costs more than encoding those that fit.
            limit = min(limit, max(size * len(self._json) // self._size, 1))
        json = self._json[start : start + limit]
        if larger and len(json) > 1 and sum(map(len, json)) > size:
            json = json[: fitting(json, size)]
        offsets = range(after + 1, after + 1 + len(json))
        if not self._events:
            return Entries(offsets, json)
        return Entries(offsets, json, {offset: self._events[offset] for offset in offsets if offset in self._events})

    def size(self) -> tuple[int, int]:
        return len(self._json), self._size

    def trim(self) -> None:
        if self.full:
            self._trim_excess()
        if self._max_age is not None:
            self._trim_old(self._max_age, slack=0)

    def check_open(self) -> None:
        """Raise LogClosed if the log has ended or is lost."""
        if (closed := self.lost if self.outcome is None else self.outcome.state) is not None:
            raise LogClosed(self.name, closed)

    def _remember(self, key: str, offsets: range) -> None:
        """Note the offsets of a key, and forget those whose entries are all trimmed."""
        self._keys[key] = offsets
        while self._keys[oldest := next(iter(self._keys))][-1] <= self.base:
            del self._keys[oldest]

    def _check_fence(self, fence: int | None) -> None:
        control = self.control
        if fence != (control.fence if control.leased else None):
            raise LogFenced(self.name, control.fence)

    def _trim_excess(self) -> None:
        retention = self.retention
        last = len(self._json) - 1
        if self.held:
            last = min(last, max(self.furthest - self.base, 0))
        excess = min(max(len(self._json) - (retention.count or _NO_BOUND), 0), last)
        size = self._size - sum(map(len, self._json[:excess]))
        while size > (retention.size or _NO_BOUND) and excess < last:
            size -= len(self._json[excess])
            excess += 1
        self._trim(excess, size)
        over = self._size > self._trim_size or len(self._json) > self._trim_count
        self.full = over and self.held and self.furthest < self.top

    def _trim_old(self, max_age: float, slack: int) -> None:
        expired = bisect_left(self._times, time.monotonic() - max_age)
        if expired > slack:
            count = min(expired, len(self._json) - 1)
            self._trim(count, self._size - sum(map(len, self._json[:count])))

    def _trim(self, count: int, size: int) -> None:
        """Drop `count` entries. Those that remain have `size` bytes."""
        self._size = size
        del self._json[:count], self._times[:count]
        if self._events:
            for offset in range(self.base + 1, self.base + 1 + count):
                self._events.pop(offset, None)
        self.base += count


def _with_slack(bound: int | None) -> int:
    return _NO_BOUND if bound is None else bound + bound // 8


class MemoryWriter(Writer):
    """Writes into the log directly, so there is nothing to flush."""

    log: MemoryLog

    def __init__(self, log: MemoryLog, fence: int) -> None:
        super().__init__(log, fence)
        self.write = log.write

    @property
    def top(self) -> int:
        return self.log.top

    async def flush(self) -> None:
        """Return immediately: this log is never more durable than memory."""

    async def close(self, outcome: Outcome) -> Outcome:
        return await self.log.close(outcome, fence=self.fence)

    async def release(self) -> None:
        self.write = self._refuse
        if not self.lost:
            self.log.set_control(leased=False)

    def _refuse(self, event: str | None, json: bytes) -> None:
        raise LogFenced(self.log.name, self.log.control.fence)


class MemoryStore(LogStore):
    """The store of `memory://`. Its logs last as long as the process."""

    log_type: type[MemoryLog] = MemoryLog

    def __init__(self, keeping: Keeping | None = None, pulse: Pulse | None = None) -> None:
        """Make a store. `pulse` is how often to look for logs to forget, by default every 15 s."""
        self._logs: dict[str, MemoryLog] = {}
        self._held: WeakValueDictionary[str, MemoryLog] = WeakValueDictionary()
        """All logs of the store, and released ones that the application still holds."""
        self._secret = token_bytes(32)
        self._keeper = Keeper(keeping or Keeping(), pulse or Pulse(15.0), drop=self._drop, release=self._release)

    async def find(self, name: str) -> MemoryLog | None:
        return self._held.get(name)

    async def attach(self, name: str, retention: Retention) -> MemoryLog:
        log = self._held.get(name) or self.log_type(name, retention)
        self._logs[name] = self._held[name] = log
        self._keeper.watch(log)
        return log

    async def create(
        self, name: str, retention: Retention, *, epoch: str | None = None, fingerprint: bytes = b""
    ) -> MemoryLog:
        if name in self._held:
            raise LogExists(name)
        log = self._logs[name] = self._held[name] = self.log_type(name, retention, epoch=epoch)
        log.passing = True
        log.fingerprint = fingerprint
        self._keeper.watch(log)
        return log

    async def lease(self, log: Log) -> MemoryWriter:
        assert isinstance(log, MemoryLog), f"expected a log of this store, but got {log!r}"
        log.check_open()
        if log.control.leased:
            raise LogFenced(log.name, log.control.fence)
        fence = log.control.fence + 1
        # A stop was for the writer before, unless there was none.
        log.set_control(fence=fence, leased=True, stopping=log.control.stopping and fence == 1)
        return MemoryWriter(log, fence)

    async def expire(self, log: Log, seconds: float) -> None:
        self._keeper.expire(log, seconds)

    async def drop(self, log: Log) -> None:
        self._keeper.forget(log)

    async def secret(self) -> bytes:
        return self._secret

    async def aclose(self) -> None:
        self._keeper.clear()
        self._logs.clear()
        self._held.clear()

    @property
    def kept(self) -> tuple[int, int]:
        return len(self._keeper), self._keeper.size

    def _drop(self, log: Log) -> None:
        if self._held.get(log.name) is log:
            self._logs.pop(log.name, None)
            del self._held[log.name]
            log.lose("epoch_changed")

    def _release(self, log: Log) -> None:
        if self._held.get(log.name) is log:
            self._logs.pop(log.name, None)
