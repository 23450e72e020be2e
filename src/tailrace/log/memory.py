"""Logs in this process's memory."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import Final
from weakref import WeakValueDictionary

from ..cursor import new_epoch
from ..errors import LogClosed
from ..events import DONE, Entries, Outcome
from ..flow import Retention
from .base import BATCH_BYTES, Log, fitting
from .store import LogStore

_NO_BOUND: Final = 1 << 62


class MemoryLog(Log):
    """A log that keeps its entries in columns.

    Deleting from the front of a list moves the rest of the list. So trimming waits until the log exceeds its retention
    by an eighth, which makes a write O(1) on average.
    """

    __slots__ = ("_events", "_json", "_max_age", "_size", "_times", "_trim_count", "_trim_size")

    def __init__(self, name: str, retention: Retention | None = None, *, epoch: str | None = None) -> None:
        super().__init__(name, epoch or new_epoch(), retention or Retention())
        self._json: list[bytes] = []
        self._events: dict[int, str] = {}
        self._times: list[float] = []
        self._size = 0
        self._trim_count = _with_slack(self.retention.count)
        self._trim_size = _with_slack(self.retention.size)
        self._max_age = self.retention.age

    def write(self, event: str | None, json: bytes) -> None:
        if self.outcome is not None:
            raise LogClosed(self.name, self.outcome.state)
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

    async def flush(self) -> None:
        """Return immediately: this log is never more durable than memory."""

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        start = after - self.base
        if start < 0:
            raise self.reset("trimmed")
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

    async def close(self, outcome: Outcome = DONE) -> Outcome:
        return self.end(outcome)

    def size(self) -> tuple[int, int]:
        return len(self._json), self._size

    def trim(self) -> None:
        if self.full:
            self._trim_excess()
        if self._max_age is not None:
            self._trim_old(self._max_age, slack=0)

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


class MemoryStore(LogStore):
    """The store of `memory://`. Its logs last as long as the process."""

    def __init__(self) -> None:
        self._logs: dict[str, MemoryLog] = {}
        self._held: WeakValueDictionary[str, MemoryLog] = WeakValueDictionary()
        """All logs of the store, and released ones that the application still holds."""

    def open(self, name: str, retention: Retention) -> MemoryLog:
        if (log := self._held.get(name)) is None:
            return self.create(name, retention)
        self._logs[name] = log
        return log

    def create(self, name: str, retention: Retention) -> MemoryLog:
        if name in self._held:
            raise ValueError(f"expected no log named {name!r} yet, but there is one")
        log = self._logs[name] = self._held[name] = MemoryLog(name, retention)
        return log

    async def find(self, name: str) -> MemoryLog | None:
        return self._held.get(name)

    def drop(self, log: Log) -> None:
        if self._held.get(log.name) is log:
            self._logs.pop(log.name, None)
            del self._held[log.name]

    def release(self, log: Log) -> None:
        if self._held.get(log.name) is log:
            self._logs.pop(log.name, None)

    async def aclose(self) -> None:
        self._logs.clear()
        self._held.clear()
