"""A count of the memory that the sessions of a process take, and each session's share of it."""

from __future__ import annotations

from typing import Self

from ..log.base import Log
from ..pulse import Pulse


class Kept:
    """The bytes of JSON that all sessions of a process keep, in both directions, and their bound."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self.shares = 0

    @property
    def full(self) -> bool:
        """True if no more sessions may open."""
        return self.size >= self.most


class Share:
    """The part of one session, while it is entered. The pulse brings it up to date."""

    def __init__(self, kept: Kept, pulse: Pulse, *logs: Log) -> None:
        self._kept = kept
        self._pulse = pulse
        self._logs = logs
        self._size = 0

    def __enter__(self) -> Self:
        self._kept.shares += 1
        self._slot = self._pulse.join(self)
        self.beat()
        return self

    def __exit__(self, *_: object) -> None:
        self._slot.discard(self)
        self._kept.shares -= 1
        self._logs = ()
        self.beat()

    def has_room_for(self, size: int) -> bool:
        """Tell whether the session may keep more: if all sessions keep too much, only up to an equal share."""
        self.beat()
        kept = self._kept
        return kept.size + size <= kept.most or self._size + size <= kept.most // kept.shares

    def beat(self) -> None:
        """Note what the session keeps now."""
        size = sum(log.size()[1] for log in self._logs)
        self._kept.size += size - self._size
        self._size = size
