"""Where logs live, and how long they stay there."""

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
    """Keeps logs by name. Each URL scheme has one."""

    survives_restart: bool = False
    """Whether another process can continue a cursor."""

    @abstractmethod
    def open(self, name: str, retention: Retention) -> Log:
        """Return the log of a name, and make it if there is none."""

    @abstractmethod
    def create(self, name: str, retention: Retention) -> Log:
        """Make a log. Raise ValueError if the name is taken."""

    @abstractmethod
    async def find(self, name: str) -> Log | None:
        """Return the log of a name, or None."""

    @abstractmethod
    def drop(self, log: Log) -> None:
        """Forget a log and its entries. Do nothing if its name belongs to another log by now."""

    @abstractmethod
    def release(self, log: Log) -> None:
        """Forget a log as soon as the application no longer holds it. Until then it is found by its name."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release what the store holds."""


class _Kept(NamedTuple):
    """An ended log that nobody reads: when to forget it, and its bytes of JSON."""

    until: float
    size: int


class _Watched(NamedTuple):
    """An open log: when to look at it again, and its newest entry at the last look."""

    due: float
    top: int


class Keeper:
    """Forgets logs in time, so that a process that makes new ones for ever does not grow.

    An ended log is kept for `keep` seconds, counted from its end or from the moment its last reader left, whichever
    is later. While somebody reads it, it is kept whatever its age, so that a reader whose connection breaks can come
    back. `count` and `size` bound the ended logs that nobody reads: the one that was left longest ago goes first, and
    the one that was left last always stays.

    An open log is released when nobody has asked for it, read it, written it or produced into it for `idle` seconds.
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
        """`busy` tells whether a log has a producer. `idle=None` keeps open logs for ever."""
        self._store = store
        self._pulse = pulse
        self._keep = keep
        self._max_count = count
        self._max_size = size
        self._idle = idle
        self._busy = busy
        # Both in the order of their times, so that a look at the first ones is enough.
        self._kept: dict[Log, _Kept] = {}
        self._watched: dict[Log, _Watched] = {}
        self._slot: set[Member] = set()
        self.size = 0
        """Bytes of JSON in the ended logs that nobody reads."""

    def __len__(self) -> int:
        """Return how many ended logs are kept that nobody reads."""
        return len(self._kept)

    def watch(self, log: Log) -> None:
        """Look after a log from now on. Asking for an open log is a use of it."""
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
        """Forget a log now."""
        log.unlisten(self.changed)
        self._watched.pop(log, None)
        self._take_out(log)
        self._store.drop(log)

    def clear(self) -> None:
        """Look after no log any more."""
        for log in (*self._kept, *self._watched):
            log.unlisten(self.changed)
        self._kept.clear()
        self._watched.clear()
        self.size = 0
        self._slot.discard(self)

    def beat(self) -> None:
        """Forget what is due."""
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
            # A log may be opened before there is a loop. Then its first reader gets here.
            with suppress(RuntimeError):
                self._slot = self._pulse.join(self)
