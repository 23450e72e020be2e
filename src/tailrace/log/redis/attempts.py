"""Attempts at what a Redis may not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ...errors import StoreUnavailable
from .connection import Refused, Unreachable

T = TypeVar("T")

CONNECT = 1.0
"""Seconds that a call waits for a connection before it counts as a failed attempt."""

RETRY_DELAY = 0.02
"""Seconds before a failed attempt is repeated. Each further delay is twice as long, up to `LONGEST_DELAY`."""
LONGEST_DELAY = 0.5


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Raise StoreUnavailable where a connection says why there is no answer about a log."""
    try:
        yield
    except (Unreachable, Refused) as error:
        raise unanswered(name, error) from error


def unanswered(name: str, error: Unreachable | Refused) -> StoreUnavailable:
    """Return the error for a call about a log that was not answered."""
    reason = str(error)
    if isinstance(error, Refused) and error.code == "MOVED":  # a cluster would have been asked elsewhere
        reason = f"expected one server, but it is in a cluster, whose URL begins with redis+cluster://: {reason}"
    return StoreUnavailable(name, reason)


def delays() -> Iterator[float]:
    """Yield the seconds to wait after each failed attempt."""
    delay = RETRY_DELAY
    while True:
        yield delay
        delay = min(2 * delay, LONGEST_DELAY)


async def repeatedly(attempt: Callable[[], Coroutine[Any, Any, T]], patience: float) -> T:
    """Repeat an attempt that the store does not answer, for `patience` seconds. Then raise StoreUnavailable."""
    loop = asyncio.get_running_loop()
    until, waits = loop.time() + patience, delays()
    while True:
        try:
            return await attempt()
        except StoreUnavailable:
            if loop.time() + (delay := next(waits)) > until:
                raise
        await asyncio.sleep(delay)
