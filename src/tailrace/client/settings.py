"""How long a client waits, and how often it tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

LONGEST_DELAY = 3600.0

OnReset = Literal["raise", "restart"]
OnReconnect = Callable[[int, float, str], None]
"""Called with the attempt (1, 2, …), the seconds until it, and why it is needed."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. `idle` is how long the server may say nothing, pings included.

    `total` bounds the whole of a reading, or of a request of ChatClient with all its repetitions. Only on plain HTTP
    without asyncio it is noticed as late as the next bytes of a body, at most `idle` later, or as the end of a head.
    """

    connect: float = 10.0
    idle: float = 45.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """What a client spends between two new events: at most `limit` failures in a row, and at most `seconds`.

    Before each attempt it waits a random time up to `base` seconds, doubled with each failure up to `cap`, or what
    the server asks for. One that asks for more than LONGEST_DELAY seconds, an hour, is given up at once.
    """

    limit: int = 8
    base: float = 0.5
    cap: float = 30.0
    seconds: float | None = None
