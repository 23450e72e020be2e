"""How long to wait before the next attempt, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .settings import LONGEST_DELAY, Retry


class Spent(Exception):
    """There is nothing more to try; raised inside the client only. Its text says why, if the server wants it so."""


class Backoff:
    """Exponential with full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/."""

    def __init__(self, retry: Retry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self.floor = 0.0
        """Seconds that the server wants to be left alone before any attempt."""
        self._retry = retry
        self._clock = clock
        self._since = clock()

    def succeed(self) -> None:
        self.failures = 0
        self._since = self._clock()

    def fail(self, told: float | None = None, *, at_least: float = 0.0) -> float:
        """The seconds to wait after one more failure: what the server has `told`, or random ones, `at_least` so many.

        Spent if there is nothing more to try, or only after longer than LONGEST_DELAY.
        """
        self.failures += 1
        retry = self._retry
        if self.failures > retry.limit:
            raise Spent
        # 2.0**n overflows where a limit allows more than a thousand failures.
        bound = min(retry.cap, retry.base * 2.0 ** min(self.failures - 1, 60))
        wanted = max(self.floor, at_least) if told is None else told
        if wanted > LONGEST_DELAY:
            raise Spent(f"; the server wants to be left alone for {wanted:.0f} s")
        delay = max(at_least, max(0.0, self.floor) + random.uniform(0, bound)) if told is None else max(0.0, told)
        if retry.seconds is not None and self._clock() + delay > self._since + retry.seconds:
            raise Spent
        return delay


def seconds_of(milliseconds: int) -> float:
    """The same as seconds, or about so many where a float cannot hold them."""
    return max(-_MANY, min(milliseconds, _MANY)) / 1000


_MANY = 1 << 62


def read_retry_after(value: str | None) -> float | None:
    """Seconds out of a Retry-After header, which has them or a date; None where it has neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # RFC 9110, section 5.6.7: dates are in GMT, whether or not they say so.
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
