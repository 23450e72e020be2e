"""Logs in this process's memory."""

from __future__ import annotations

import time
from bisect import bisect_left
from operator import attrgetter
from typing import Final

from ..cursor import new_epoch
from ..errors import LogClosed
from ..events import DONE, Entry, Outcome
from ..flow import Retention
from .base import Log
from .store import LogStore

_NO_BOUND: Final = 1 << 62


class MemoryLog(Log):
    """Entries in a list.

    Cutting a list in front is linear, so that trimming waits until an eighth more than the retention has come together.
    """

    def __init__(self, name: str, retention: Retention | None = None, *, epoch: str | None = None) -> None:
        super().__init__(name, epoch or new_epoch(), retention or Retention())
        self._entries: list[Entry] = []
        self._size = 0
        self._trim_count = _with_slack(self.retention.count)
        self._trim_size = _with_slack(self.retention.size)
        self._max_age = self.retention.age

    async def write(self, event: str | None, json: bytes) -> int:
        if self.outcome is not None:
            raise LogClosed(self.name, self.outcome.state)
        self.top = offset = self.top + 1
        entry = Entry(offset, event, json)
        self._entries.append(entry)
        self._size += len(json)
        if self._size > self._trim_size or offset - self.base > self._trim_count:
            self._trim_excess()
        if self._max_age is not None:
            entry.appended_at = time.monotonic()
            self._trim_old()
        if self._sleepers:
            self.wake_readers()
        return offset

    async def read(self, after: int, limit: int) -> list[Entry]:
        if self._max_age is not None:
            self._trim_old()
        start = after - self.base
        if start < 0:
            raise self.reset("trimmed")
        return self._entries[start : start + limit]

    async def close(self, outcome: Outcome = DONE) -> Outcome:
        if self.outcome is None:
            self.outcome = outcome
            self.wake_readers()
            self.make_room()
        return self.outcome

    def size(self) -> tuple[int, int]:
        return self.top - self.base, self._size

    def _trim_excess(self) -> None:
        max_size = self.retention.size or _NO_BOUND
        excess = max(self.top - self.base - (self.retention.count or _NO_BOUND), 0)
        size = self._size - sum(len(entry.json) for entry in self._entries[:excess])
        while size > max_size and excess < len(self._entries) - 1:
            size -= len(self._entries[excess].json)
            excess += 1
        self._trim(excess)

    def _trim_old(self) -> None:
        oldest = time.monotonic() - (self._max_age or 0.0)
        if self._entries and self._entries[0].appended_at < oldest:
            self._trim(min(bisect_left(self._entries, oldest, key=_appended_at), len(self._entries) - 1))

    def _trim(self, count: int) -> None:
        self._size -= sum(len(entry.json) for entry in self._entries[:count])
        self.base += count
        del self._entries[:count]


_appended_at = attrgetter("appended_at")


def _with_slack(bound: int | None) -> int:
    return _NO_BOUND if bound is None else bound + bound // 8


class MemoryStore(LogStore):
    """`memory://`: gone with the process."""

    def __init__(self) -> None:
        self._logs: dict[str, MemoryLog] = {}

    def open(self, name: str, retention: Retention) -> MemoryLog:
        if (log := self._logs.get(name)) is None:
            log = self._logs[name] = MemoryLog(name, retention)
        return log

    async def find(self, name: str) -> MemoryLog | None:
        return self._logs.get(name)

    def drop(self, name: str) -> None:
        self._logs.pop(name, None)

    async def aclose(self) -> None:
        self._logs.clear()
