"""The timeouts and retries of a client, and the kinds of lost connections."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from ..wire.base import MAX_FRAME_BYTES

OnReset = Literal["raise", "restart"]

LossKind = Literal[
    "unsent", "broken", "silent", "unavailable", "farewell", "replaced", "reset", "stalled", "overdue", "misled"
]
"""The kind of a lost connection:

- `unsent`: no part of the request reached the server
- `broken`: the connection ended too early
- `silent`: the server sent nothing for too long
- `unavailable`: the server answered that it cannot serve the request now
- `farewell`: the server asked the client to come back later
- `replaced`: another client reads the stream now, which has one reader at a time
- `reset`: the server cannot continue from the client's cursor
- `stalled`: no new event came for too long
- `overdue`: the total timeout is over
- `misled`: a redirection leads nowhere
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """The reason why a connection is lost. Its `str` is one sentence. `detail` is another library's message."""

    kind: LossKind
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


OnReconnect: TypeAlias = Callable[[int, float, Loss], None]
"""A function to call with the attempt (1, 2, …), the seconds until it, and the reason for it."""

OnDegraded: TypeAlias = Callable[[bool], None]
"""A function to call with True when the server cannot reach its store, and with False when it can again."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts in seconds.

    - `connect`: until a connection is made.
    - `head`: until the head of a response is complete. The body of a response that is not a stream gets as long again.
    - `idle`: without any bytes from the server. Its pings count.
    - `event`: without a new event. Pings and repeated events do not count. None means no bound.
    - `total`: for the whole stream, or for one request of ChatClient with all its repetitions. None means no bound.
    """

    connect: float = 10.0
    head: float = 120.0
    idle: float = 45.0
    # OpenAI's and Anthropic's clients also wait ten minutes for a model that is thinking.
    event: float | None = 600.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The retry budget of a client between two new events: `limit` failures in a row, within `seconds`.

    Before each attempt, the client waits a random time up to `base` seconds, doubled with each failure up to `cap`. A
    server may ask for up to `longest` seconds: a longer SSE `retry` is cut to that, and after a longer `Retry-After` or
    farewell the client gives up.
    """

    limit: int = 8
    base: float = 0.5
    cap: float = 30.0
    longest: float = 60.0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The first request of a stream. `key` is its idempotency key; `after` is the id of the event to begin after.

    With `gives_result`, the stream's result becomes its last event. With `takeover`, each request after the client's
    first connection takes the place of that connection, which the server may still keep.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    key: str | None = None
    after: str | None = None
    retry: Retry = field(default_factory=Retry)
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_reset: OnReset = "raise"
    on_reconnect: OnReconnect | None = None
    on_degraded: OnDegraded | None = None
    allow_gaps: bool = False
    gives_result: bool = False
    takeover: bool = False
    max_bytes: int = MAX_FRAME_BYTES

    @property
    def is_socket(self) -> bool:
        return urlsplit(self.url).scheme in ("ws", "wss")

    @property
    def is_safe(self) -> bool:
        """True if repeating the request cannot start anything a second time."""
        return self.method in _SAFE or self.key is not None


_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Overdue(Exception):
    """The time for an operation is over. Raised inside the client only."""


class Deadline:
    """A deadline `total` seconds from now, or never if that is None."""

    def __init__(self, total: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._at = None if total is None else clock() + total
        self.is_never = total is None

    @property
    def left(self) -> float | None:
        """The seconds left, at least 0, or None without an end."""
        return None if self._at is None else max(0.0, self._at - self._clock())

    def at_most(self, seconds: float) -> Deadline:
        """Return an equal deadline, or one that many seconds from now if that is sooner."""
        left = self.left
        return Deadline(seconds if left is None else min(left, seconds), clock=self._clock)

    def within(self, seconds: float) -> float:
        """Return `seconds`, or the seconds left if those are fewer. Raise Overdue if no time is left."""
        if (left := self.left) is None:
            return seconds
        if left == 0:
            raise Overdue(f"the total timeout of {self._total:g} s is over")
        return min(seconds, left)


NEVER = Deadline(None)


class Spent(Exception):
    """The retry budget is used up. Raised inside the client only. If the server caused it, the text tells so."""


class Backoff:
    """Exponential backoff with full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/."""

    def __init__(self, retry: Retry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self._floor = 0.0
        self._retry = retry
        self._clock = clock
        self._since = clock()

    def succeed(self) -> None:
        self.failures = 0
        self._since = self._clock()

    def heed(self, milliseconds: int) -> None:
        """Wait at least as long as the server asks before each attempt, but no longer than `longest`."""
        self._floor = min(seconds_of(milliseconds), self._retry.longest)

    def fail(self, told: float | None = None, *, at_least: float = 0.0) -> float:
        """Count a failure and return the seconds to wait: `told` by the server, or a random time from `at_least` on.

        Raise Spent if the budget is used up, or if the server asks for more time than the caller allows.
        """
        self.failures += 1
        retry = self._retry
        if self.failures > retry.limit:
            raise Spent
        wanted = at_least if told is None else told
        if wanted > retry.longest:
            raise Spent(
                f"the server asks for a pause of {wanted:.0f} s, but Retry(longest={retry.longest:g}) allows less"
            )
        # 2.0**n would overflow if a limit allowed more than a thousand failures.
        bound = min(retry.cap, retry.base * 2.0 ** min(self.failures - 1, 60))
        delay = max(at_least, max(0.0, self._floor) + random.uniform(0, bound)) if told is None else max(0.0, told)
        if retry.seconds is not None and self._clock() + delay > self._since + retry.seconds:
            raise Spent
        return delay


def seconds_of(milliseconds: int) -> float:
    """Return milliseconds as seconds, bounded to numbers that a float can hold."""
    return max(-_MANY, min(milliseconds, _MANY)) / 1000


_MANY = 1 << 62


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header with a number or a date, or None if it has neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # Dates are in GMT, whether or not they name it (RFC 9110, section 5.6.7).
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
