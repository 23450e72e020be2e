"""The keeper that forgets a process's logs in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ..pulse import Member, Pulse
from .base import Log
from .store import Keeping


class _Kept(NamedTuple):
    """An ended log without readers: when to forget it, and the bytes of its JSON."""

    until: float
    size: int


class _Watched(NamedTuple):
    """An open log: when to check it again, and its `top` at the last check."""

    due: float
    top: int


def _is_used(log: Log, top: int) -> bool:
    """Tell whether a log is read or can be written, or was written since its `top` was this one."""
    return log.readers > 0 or log.control.leased or log.top > top


class Keeper:
    """Forgets logs in time, so that a process can make new ones without growing.

    It keeps an ended log for `keep` seconds after the end or after the last reader left, whichever is later. While a
    log has readers, it is kept at any age, so that a reader whose connection breaks can come back. If there are too
    many ended logs without readers, the one that was left longest ago goes first; the one that was left last stays.

    An open log is released after `idle` seconds without use: nobody attached to it, read it or wrote it.
    """

    def __init__(
        self,
        keeping: Keeping,
        pulse: Pulse,
        *,
        drop: Callable[[Log], object],
        release: Callable[[Log], object],
        is_used: Callable[[Log, int], bool] = _is_used,
    ) -> None:
        """Make a keeper. It calls `drop` with a log to forget, and `release` with an idle one.

        `is_used` is called with an open log and its `top` some time ago, and tells whether to keep it.
        """
        self._keeping = keeping
        self._pulse = pulse
        self._drop = drop
        self._release = release
        self._is_used = is_used
        # Both are in the order of their times, so `beat` only checks the first ones.
        self._kept: dict[Log, _Kept] = {}
        self._watched: dict[Log, _Watched] = {}
        self._expiring: dict[Log, asyncio.TimerHandle] = {}
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
        """Note that a reader of the log joined or left, that the log ended, or that its control changed."""
        if log.lost is not None:
            return  # another listener, told of it before this one, may have forgotten the log already
        self._cancel_expiry(log)
        if log.outcome is None:
            if log in self._watched and not log.readers:
                self._renew(log)
            self._join_pulse()
            return
        self._watched.pop(log, None)
        self._take_out(log)
        if not log.readers:
            kept = self._kept[log] = _Kept(time.monotonic() + self._keeping.keep, log.size()[1])
            self.size += kept.size
            self._join_pulse()
            self._forget_ended()

    def expire(self, log: Log, seconds: float) -> None:
        """Forget a log in `seconds`, unless it is used by then."""
        self._cancel_expiry(log)
        loop = asyncio.get_running_loop()
        self._expiring[log] = loop.call_later(seconds, self._forget_expired, log, log.top)

    def forget(self, log: Log) -> None:
        """Forget a log now."""
        log.unlisten(self.changed)
        self._watched.pop(log, None)
        self._cancel_expiry(log)
        self._take_out(log)
        self._drop(log)

    def clear(self) -> None:
        """Stop looking after any log."""
        for log in (*self._kept, *self._watched):
            log.unlisten(self.changed)
        for timer in self._expiring.values():
            timer.cancel()
        self._kept.clear()
        self._watched.clear()
        self._expiring.clear()
        self.size = 0
        self._slot.discard(self)

    def beat(self) -> None:
        """Forget the logs that are due."""
        self._forget_ended()
        self._release_idle()
        if not (self._kept or self._watched):
            self._slot.discard(self)

    def _renew(self, log: Log) -> None:
        if self._keeping.idle is not None:
            self._watched.pop(log, None)
            self._watched[log] = _Watched(time.monotonic() + self._keeping.idle, log.top)
            self._join_pulse()

    def _take_out(self, log: Log) -> None:
        if (kept := self._kept.pop(log, None)) is not None:
            self.size -= kept.size

    def _cancel_expiry(self, log: Log) -> None:
        if (timer := self._expiring.pop(log, None)) is not None:
            timer.cancel()

    def _forget_expired(self, log: Log, top: int) -> None:
        """Forget a log, unless it is used, or was written since its expiry was set."""
        del self._expiring[log]
        if not self._is_used(log, top):
            self.forget(log)

    def _forget_ended(self) -> None:
        now = time.monotonic()
        while self._kept:
            log, kept = next(iter(self._kept.items()))
            crowded = len(self._kept) > self._keeping.count or self.size > self._keeping.size
            if kept.until > now and not (crowded and len(self._kept) > 1):
                break
            self.forget(log)

    def _release_idle(self) -> None:
        now = time.monotonic()
        while self._watched:
            log, watched = next(iter(self._watched.items()))
            if watched.due > now:
                break
            del self._watched[log]
            if self._is_used(log, watched.top):
                self._renew(log)
            else:
                self._release(log)

    def _join_pulse(self) -> None:
        if self not in self._slot and (self._kept or self._watched):
            # A log may be made before an event loop runs. Then its first reader joins the pulse here.
            with suppress(RuntimeError):
                self._slot = self._pulse.join(self)
