"""One timer for all objects that have periodic work."""

from __future__ import annotations

import asyncio
from typing import Protocol

SLOTS = 8


class Member(Protocol):
    """An object that a pulse calls."""

    def beat(self) -> None:
        """Do the work that is due. The pulse calls this once an interval. It must not block."""


class Pulse:
    """Calls each member's `beat` once every `interval` seconds, an eighth of the members at a time.

    One timer per connection would cost more than the connection's events. The timer runs only while there are members.
    """

    def __init__(self, interval: float) -> None:
        if interval <= 0:
            raise ValueError(f"expected an interval above 0 seconds, but got {interval}")
        self.interval = interval
        self._slots: list[set[Member]] = [set() for _ in range(SLOTS)]
        self._next = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def join(self, member: Member) -> set[Member]:
        """Add a member to the emptiest slot, and return the slot. Call the slot's `discard` to leave.

        Raise RuntimeError if no event loop runs.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # An earlier loop has ended, with its timer and the tasks of its members.
            self._loop, self._timer = loop, None
            for slot in self._slots:
                slot.clear()
        slot = min(self._slots, key=len)
        slot.add(member)
        if self._timer is None:
            self._schedule(loop)
        return slot

    def stop(self) -> None:
        """Stop the timer. The next member to join starts it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.interval / SLOTS, self._beat)

    def _beat(self) -> None:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % SLOTS
        try:
            for member in tuple(slot):
                member.beat()
        finally:
            # Keep the timer set until all members have run: a member that joins meanwhile would start a second one.
            self._timer = None
            if any(self._slots):
                self._schedule(asyncio.get_running_loop())
