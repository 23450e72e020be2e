"""One timer for everything that has to look up now and then."""

from __future__ import annotations

import asyncio
from typing import Protocol

SLOTS = 8


class Member(Protocol):
    def beat(self) -> None:
        """Called once an interval; must not block."""


class Pulse:
    """Calls each member's `beat` once every `interval` seconds, an eighth of the members at a time.

    The timer runs only while there are members.
    """

    def __init__(self, interval: float) -> None:
        if interval <= 0:
            raise ValueError(f"expected an interval above 0 seconds, but got {interval}")
        self.interval = interval
        self._slots: list[set[Member]] = [set() for _ in range(SLOTS)]
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def join(self, member: Member) -> set[Member]:
        """Add a member to the slot with the fewest; discard it from the returned slot to leave."""
        slot = min(self._slots, key=len)
        slot.add(member)
        if self._timer is None:
            self._schedule()
        return slot

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.interval / SLOTS, self._beat)

    def _beat(self) -> None:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % SLOTS
        try:
            for member in tuple(slot):
                member.beat()
        finally:
            # Only now, so that a member that joins during the beat does not start a second timer.
            self._timer = None
            if any(self._slots):
                self._schedule()
