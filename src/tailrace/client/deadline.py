"""The end of a total timeout."""

from __future__ import annotations

import time
from collections.abc import Callable


class Overdue(Exception):
    """The total timeout is over; raised inside the client only."""


class Deadline:
    """`total` seconds from now; None is never."""

    def __init__(self, total: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._at = None if total is None else clock() + total
        self.is_never = total is None

    @property
    def left(self) -> float | None:
        """Seconds, at least 0; None is without end."""
        return None if self._at is None else max(0.0, self._at - self._clock())

    def within(self, seconds: float) -> float:
        """That many seconds, or what is left; Overdue if nothing is."""
        if (left := self.left) is None:
            return seconds
        if left == 0:
            raise Overdue(f"the total timeout of {self._total:g} s is over")
        return min(seconds, left)
