"""The writing end of a log."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

from ..errors import LogFenced
from ..events import Outcome
from .base import Log

logger = logging.getLogger("tailrace")

END_DELAY = 0.05
"""Seconds before a failed attempt to end a log is repeated. Each further delay is twice as long, at most 1 s."""

UNAVAILABLE = Outcome("error", "unavailable", "the end of the stream could not be stored")


class Writer(ABC):
    """The sole writing end of a log, for its producer. `LogStore.lease` makes it.

    It writes without waiting, and stores what is written as soon as the event loop is idle. Only its `fence` lets it
    write. When the log has another fence, or an end that this writer did not give, the writer has lost its log. Listen
    to the log to learn of it.
    """

    write: Callable[[str | None, bytes], None]
    """Append an event name and data as one line of JSON.

    Raise LogClosed after the end, and LogFenced once the lease is lost, even if this function was fetched before.
    """

    def __init__(self, log: Log, fence: int) -> None:
        self.log = log
        self.fence = fence

    @property
    @abstractmethod
    def top(self) -> int:
        """The offset of the item that was written last. `log.top` follows when the store has it."""

    @property
    def lost(self) -> bool:
        """True if this writer can write no more, because the log has ended or belongs to another writer."""
        log, control = self.log, self.log.control
        held = control.leased and control.fence == self.fence
        return log.outcome is not None or log.lost is not None or not held

    @abstractmethod
    async def flush(self) -> None:
        """Wait until the store has everything that was written. Raise StoreUnavailable if it does not answer."""

    @abstractmethod
    async def close(self, outcome: Outcome) -> Outcome:
        """Store what was written and the end, in one attempt. Return the log's outcome."""

    @abstractmethod
    async def release(self) -> None:
        """Give the lease back without an end. The writer writes no more."""

    def lag(self) -> int:
        """Return how many entries the fastest reader in this process has yet to read."""
        return self.top - self.log.furthest

    def has_room(self, high: int, *, without_readers: bool) -> bool:
        """Return True if the log is not full and the lag is below `high`, or if the writer has lost its log.

        If not, ask again after `Log.wait_change`. `without_readers`: whether the lag matters even while nobody reads.
        It does not if somebody reads elsewhere.
        """
        log = self.log
        log.trim()
        return self.lost or not (log.full or (self.lag() >= high and self._waits_for_readers(without_readers)))

    def _waits_for_readers(self, without_readers: bool) -> bool:
        # Nobody tells how far the readers elsewhere are, so a writer that waited for them would wait forever.
        return self.log.readers > 0 or (without_readers and not self.log.control.elsewhere)

    async def end(self, outcome: Outcome, *, patience: float) -> Outcome | None:
        """End the log, and repeat failed attempts for `patience` seconds. Then end it in this process alone.

        Return the log's outcome: an earlier one stays. Return None if the log belongs to another writer.
        """
        try:
            async with asyncio.timeout(patience):
                return await self._close_repeatedly(outcome)
        except TimeoutError:
            told = "log %s: the end as %r could not be stored within %g s"
            logger.error(told, self.log.name, outcome.state, patience, exc_info=self._failure)
        except LogFenced:
            return self.log.outcome
        finally:
            # Readers are told, whatever happened to the store or to this attempt.
            if not self.lost:
                self.log.end(UNAVAILABLE)
        return self.log.outcome

    _failure: Exception | None = None  # of the last attempt to end the log

    async def _close_repeatedly(self, outcome: Outcome) -> Outcome:
        delay = END_DELAY
        while True:
            try:
                return await self.close(outcome)
            except LogFenced:
                raise
            except Exception as error:  # a store may raise any error
                self._failure = error
            await asyncio.sleep(delay)
            delay = min(2 * delay, 1.0)
