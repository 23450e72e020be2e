"""Measures how soon a fault is noticed, and how soon its consequences are repaired."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from .oracle import LIMIT, Changes

LOGGER = logging.getLogger("tailrace.log.redis")


class Sample(NamedTuple):
    """One occurrence of a fault. Times are in seconds: from its beginning, and from its end."""

    noticed: float | None
    repaired: float


@dataclass
class Clock:
    """The times of one fault. Whoever notices it first calls `notice`."""

    changes: Changes = field(default_factory=Changes)
    samples: list[Sample] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    begun: float = 0.0
    over: float = 0.0
    _noticed: float | None = None
    _by: str = ""

    @contextmanager
    def fault(self, by: str = "") -> Iterator[None]:
        """Begin a fault, which is over with the block. `by` is what a notice of this fault contains."""
        self.begun, self._noticed, self._by = time.monotonic(), None, by
        self.notices.clear()
        yield
        self.over = time.monotonic()

    def notice(self, what: str) -> None:
        """Note that a client, a publisher or a process has noticed something."""
        if self.begun and self._noticed is None and self._by in what:
            self._noticed = time.monotonic()
        self.notices.append(what)
        self.changes.tell()

    async def noticed(self) -> None:
        """Wait until somebody has noticed the present fault."""
        await self.changes.until(lambda: self._noticed is not None, f"somebody to notice {self._by or 'the fault'}")

    def repaired(self) -> None:
        """Note that everybody has everything again."""
        now = time.monotonic()
        noticed = None if self._noticed is None else self._noticed - self.begun
        self.samples.append(Sample(noticed, now - self.over))
        assert noticed is None or noticed < LIMIT, f"expected the fault to be noticed within {LIMIT} s"
        assert now - self.over < LIMIT, f"expected the repair within {LIMIT} s"


class Told(logging.Handler):
    """Notes what the store logs: a connection is lost, or a process is gone."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock

    def emit(self, record: logging.LogRecord) -> None:
        self._clock.notice(record.getMessage())


@contextmanager
def listening(clock: Clock) -> Iterator[None]:
    """Let a clock hear what the stores of this process log."""
    handler = Told(clock)
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
