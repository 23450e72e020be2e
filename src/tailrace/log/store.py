"""The contract of a store, and the keeper that forgets logs in time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ..flow import Retention
from ..pulse import Member, Pulse
from .base import Log


class LogStore(ABC):
    """Keeps logs by name. Each URL scheme has its own store."""

    survives_restart: bool = False
    """True if another process can continue a cursor."""

    @abstractmethod
    def open(self, name: str, retention: Retention) -> Log:
        """Return the log with a name. Make one if there is none."""

    @abstractmethod
    def create(self, name: str, retention: Retention) -> Log:
        """Make a log. Raise ValueError if the name is taken."""

    @abstractmethod
    async def find(self, name: str) -> Log | None:
        """Return the log with a name, or None."""

    @abstractmethod
    def drop(self, log: Log) -> None:
        """Forget a log and its entries. Do nothing if another log has its name by now."""

    @abstractmethod
    def release(self, log: Log) -> None:
        """Forget a log as soon as the application no longer holds it. Until then, its name still finds it."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release the store's resources."""


class _Kept(NamedTuple):
    """An ended log without readers: when to forget it, and the bytes of its JSON."""

    until: float
    size: int


class _Watched(NamedTuple):
    """An open log: when to check it again, and its `top` at the last check."""

    due: float
    top: int


class Keeper:
    """Forgets logs in time, so that a process can make new ones without growing.

    It keeps an ended log for `keep` seconds after the end or after the last reader left, whichever is later. While a
    log has readers, it is kept at any age, so that a reader whose connection breaks can come back. `count` and `size`
    bound the ended logs without readers. The log that was left longest ago goes first; the one that was left last
    stays.

    An open log is released after `idle` seconds without use: no lookup, no reader, no write and no producer.
    """

    def __init__(
        self,
        store: LogStore,
        pulse: Pulse,
        *,
        keep: float,
        count: int,
        size: int,
        idle: float | None,
        busy: Callable[[Log], object],
    ) -> None:
        """Make a keeper. `busy` tells whether a log has a producer. `idle=None` keeps open logs forever."""
        self._store = store
        self._pulse = pulse
        self._keep = keep
        self._max_count = count
        self._max_size = size
        self._idle = idle
        self._busy = busy
        # Both are in the order of their times, so `beat` only checks the first ones.
        self._kept: dict[Log, _Kept] = {}
        self._watched: dict[Log, _Watched] = {}
        self._slot: set[Member] = set()
        self.size = 0
        """The bytes of JSON in the ended logs without readers."""

    def __len__(self) -> int:
        """Return the number of kept logs that have ended and have no readers."""
        return len(self._kept)

    def watch(self, log: Log) -> None:
        """Look after a log from now on. For an open log, the call counts as a use."""
        log.listen(self.changed)
        if log.outcome is None:
            self._renew(log)

    def changed(self, log: Log) -> None:
        """Note that a reader of the log joined or left, or that the log ended."""
        if log.outcome is None:
            if log in self._watched and not log.readers:
                self._renew(log)
            self._join_pulse()
            return
        self._watched.pop(log, None)
        self._take_out(log)
        if not log.readers:
            kept = self._kept[log] = _Kept(time.monotonic() + self._keep, log.size()[1])
            self.size += kept.size
            self._join_pulse()
            self._forget_ended()

    def forget(self, log: Log) -> None:
        """Forget a log immediately."""
        log.unlisten(self.changed)
        self._watched.pop(log, None)
        self._take_out(log)
        self._store.drop(log)

    def clear(self) -> None:
        """Stop looking after any log."""
        for log in (*self._kept, *self._watched):
            log.unlisten(self.changed)
        self._kept.clear()
        self._watched.clear()
        self.size = 0
        self._slot.discard(self)

    def beat(self) -> None:
        """Forget the logs that are due."""
        self._forget_ended()
        self._release_idle()
        if not (self._kept or self._watched):
            self._slot.discard(self)

    def _renew(self, log: Log) -> None:
        if self._idle is not None:
            self._watched.pop(log, None)
            self._watched[log] = _Watched(time.monotonic() + self._idle, log.top)
            self._join_pulse()

    def _take_out(self, log: Log) -> None:
        if (kept := self._kept.pop(log, None)) is not None:
            self.size -= kept.size

    def _forget_ended(self) -> None:
        now = time.monotonic()
        while self._kept:
            log, kept = next(iter(self._kept.items()))
            crowded = len(self._kept) > self._max_count or self.size > self._max_size
            if kept.until > now and not (crowded and len(self._kept) > 1):
                break
            self.forget(log)

    def _release_idle(self) -> None:
        now = time.monotonic()
        while self._watched:
            log, watched = next(iter(self._watched.items()))
            if self._idle is None or watched.due > now:
                break
            del self._watched[log]
            if log.readers or self._busy(log) or log.top > watched.top:
                self._renew(log)
            else:
                self._store.release(log)

    def _join_pulse(self) -> None:
        if self not in self._slot and (self._kept or self._watched):
            # A log may be opened before an event loop runs. Then its first reader joins the pulse here.
            with suppress(RuntimeError):
                self._slot = self._pulse.join(self)
