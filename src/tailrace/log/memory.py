"""Logs in this process's memory."""

from __future__ import annotations

import time
from typing import Final

from ..cursor import new_epoch
from ..errors import LogClosed
from ..events import DONE, Entry, Outcome
from ..flow import Retention
from .base import Log
from .store import LogStore

_NO_BOUND: Final = 1 << 62


class MemoryLog(Log):
    """Entries in a list. Trimmed ones stay in front until they are an eighth of it: to cut there is linear."""

    def __init__(self, name: str, retention: Retention | None = None, *, epoch: str | None = None) -> None:
        super().__init__(name, epoch or new_epoch(), retention or Retention())
        self._entries: list[Entry] = []
        self._gone = 0
        self._size = 0
        self._max_count = self.retention.count or _NO_BOUND
        self._max_size = self.retention.size or _NO_BOUND
        self._max_age = self.retention.age

    async def write(self, event: str | None, json: bytes) -> int:
        if self.outcome is not None:
            raise LogClosed(self.name, self.outcome.state)
        self.top = offset = self.top + 1
        self._entries.append(Entry(offset, event, json))
        self._size += len(json)
        if self._max_age is not None:
            self._entries[-1].appended_at = time.monotonic()
            self._trim_old()
        if self._size > self._max_size or offset - self.base > self._max_count:
            self._trim_excess()
        if self._sleepers:
            self.wake_readers()
        return offset

    async def read(self, after: int, limit: int) -> list[Entry]:
        if self._max_age is not None:
            self._trim_old()
        start = after - self.base
        if start < 0:
            raise self.reset("trimmed")
        start += self._gone
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
        while self.top - self.base > 1 and (self._size > self._max_size or self.top - self.base > self._max_count):
            self._trim_one()

    def _trim_old(self) -> None:
        oldest = time.monotonic() - (self._max_age or 0.0)
        while self.top - self.base > 1 and self._entries[self._gone].appended_at < oldest:
            self._trim_one()

    def _trim_one(self) -> None:
        self._size -= len(self._entries[self._gone].json)
        self._gone += 1
        self.base += 1
        if self._gone * 8 > len(self._entries):
            del self._entries[: self._gone]
            self._gone = 0


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
