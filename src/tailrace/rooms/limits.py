"""The bounds of rooms, and of what their members send."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from ..errors import StreamError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

MAX_PATH = 512
"""The most characters of a room's address."""

KEPT = 10_000
"""How many senders' rates are remembered at most. The idle ones are forgotten first."""


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """Bounds for rooms and their members.

    - `message`, `body`: the most bytes of one message, and of a request's body, which may hold several.
    - `rate`, `burst`: how many messages a member may publish per second for long, and at once, in all rooms. A member
      that publishes more gets 429. An anonymous one is known by its address.
    - `room_rate`, `room_burst`: how many messages all members of a room may publish.
    - `members`: the most connections to a room in one process.
    - `rooms`: the most rooms that are in use in one process. An embedded store also keeps at most as many, and forgets
      those that were used longest ago. In a shared store, a process makes at most as many at once, and per hour for
      long.
    - `seconds`: how long a request's body may take to arrive.
    """

    message: int = 16 << 10
    body: int = 256 << 10
    rate: float = 20.0
    burst: int = 100
    room_rate: float = 1_000.0
    room_burst: int = 5_000
    members: int = 10_000
    rooms: int = 10_000
    seconds: float = 30.0


def check_name(name: str) -> None:
    """Raise StreamError unless a room may have this name."""
    if _NAME.fullmatch(name) is None:
        message = f"expected a room's name of up to 64 letters, digits, '.', '_' and '-', but got {name[:80]!r}"
        raise StreamError(message, code="bad_room_name", status=422)


def check_path(path: str) -> None:
    """Raise StreamError if a room's address is too long. Its parameters before the room's name may be anything."""
    if len(path) > MAX_PATH:
        message = f"expected an address of at most {MAX_PATH} characters, but got {len(path)}: {path[:80]!r}"
        raise StreamError(message, code="bad_room_name", status=422)


class Rates:
    """Bounds how often each sender may send: `burst` at once, and `rate` per second for long.

    For each sender, it keeps the time at which all that was sent would have been sent at the rate (the generic cell
    rate algorithm).
    """

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate
        self._ahead = burst / rate
        self._clock = clock
        self._due: dict[str, float] = {}

    def take(self, sender: str, count: int) -> float:
        """Take `count` messages of a sender. Return 0, or the seconds to wait if they are too many, and take none."""
        now = self._clock()
        self._forget_idle(now)
        due = max(self._due.pop(sender, now), now)
        wait = due + count * self._interval - now - self._ahead
        # A burst that exceeds the bound by itself passes when nothing else is due, as otherwise it never could.
        if wait > 1e-9 and due > now:
            self._due[sender] = due
            return wait
        self._due[sender] = due + count * self._interval
        if len(self._due) > KEPT:
            del self._due[next(iter(self._due))]
        return 0.0

    def _forget_idle(self, now: float) -> None:
        """Forget the senders that sent longest ago, if nothing of theirs is due. Each call adds one at most."""
        for sender in tuple(islice(self._due, 2)):
            if self._due[sender] <= now:
                del self._due[sender]
