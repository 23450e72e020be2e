"""The writing end of a stream in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from ...errors import LogClosed, LogFenced, StoreUnavailable
from ...events import Outcome
from ..base import Log, Row, fitting
from ..writer import UNAVAILABLE, Writer
from .attempts import LONGEST_DELAY, RETRY_DELAY, repeatedly
from .frames import Rows, new_tag
from .log import RedisLog
from .mirror import Home
from .scripts import RELEASE

FULL = 1 << 20
"""The most bytes that a writer may hold unstored. Above it, the log is full."""

LARGEST = 256 << 10
"""The most bytes of JSON in a batch of several entries."""

PATIENCE = 30.0
"""For how many seconds a writer repeats what the store does not take. Then it ends the log in this process."""

ENTRIES_LOST = Outcome("error", "entries_lost", "the store lost a part of the stream")


class RedisWriter(Writer):
    """Sends one batch at a time. Meanwhile, new items gather for the next one, so batches grow under load.

    Each batch says which one it expects before it. So a writer never continues behind a gap: if the store has lost what
    it had acknowledged, the log is lost here, and ends as `entries_lost` there.
    """

    log: RedisLog

    def __init__(self, log: RedisLog, fence: int, home: Home, *, top: int, tag: bytes) -> None:
        """Continue behind the batch that ends at `top` and has a tag."""
        super().__init__(log, fence)
        self._home = home
        self._top = self._stored = top
        self._tag = tag
        self._json: list[bytes] = []
        self._names: list[bytes] = []
        self._named = False
        self._unstored = 0
        self._wake: asyncio.Future[None] | None = None
        self._flushing: list[asyncio.Future[None]] = []
        self._released = False
        self._refuses = False
        log.writer = self
        log.listen(self._changed)
        self._changed(log)
        home.spawn(self._send())

    @property
    def top(self) -> int:
        return self._top

    @property
    def lost(self) -> bool:
        return self._released or super().lost

    @property
    def behind(self) -> bool:
        if self._unstored > FULL:
            return True
        log, retention = self.log, self.log.retention
        if not log.held or log.furthest >= self._top:
            return False
        # What a reader has not read yet must not be trimmed.
        unread = log.bytes_after(log.furthest) + self._unstored
        return self.lag() >= (retention.count or self._top) or unread >= (retention.size or unread + 1)

    def write(self, event: str | None, json: bytes) -> None:
        if self._refuses:
            raise self._refusal()
        self._json.append(json)
        self._names.append(b"" if event is None else event.encode())
        self._named = self._named or event is not None
        self._top += 1
        self._unstored += len(json)
        log = self.log
        if (self._unstored > FULL or log.held) and not log.full:
            log.full = self.behind
        self._go_on()

    async def flush(self) -> None:
        top = self._top
        while self._stored < top:
            if self.lost:
                raise self._refusal()
            progress = asyncio.get_running_loop().create_future()
            self._flushing.append(progress)
            await progress

    async def append(self, rows: Sequence[Row]) -> range:
        """Write rows and wait until they are stored. Return their offsets."""
        first = self._top + 1
        for event, json in rows:
            self.write(event, json)
        await repeatedly(self.flush, self._home.patience)
        return range(first, first + len(rows))

    async def close(self, outcome: Outcome) -> Outcome:
        try:
            await self.flush()
            if self.log.outcome is None:
                return await self.log.store_end(outcome, fence=self.fence, expected=self._tag)
        except LogClosed:
            pass
        if self.log.outcome is None:
            raise LogFenced(self.log.name, self.log.control.fence)
        return self.log.outcome

    async def release(self) -> None:
        if not self.lost:
            await self.flush()
        if not self.lost:
            with suppress(LogClosed, LogFenced):
                await self.log.run(RELEASE, self.fence)
            self._released = True
            self.log.set_control(leased=False)
            self._changed(self.log)

    # Sending

    def _go_on(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _send(self) -> None:
        """Store what is written, until the log is lost or has ended."""
        loop = asyncio.get_running_loop()
        while not self.lost:
            if self._json:
                await self._store(self._next())
            else:
                # A write wakes this task in the next turn of the loop, with all that was written in this one.
                self._wake = loop.create_future()
                await self._wake

    def _next(self) -> Rows:
        """Take the next batch out of what is written."""
        count = len(self._json)
        if self._unstored > LARGEST:
            count = fitting(self._json, LARGEST)
        rows = Rows(new_tag(), self._json[:count], self._names[:count] if self._named else None)
        del self._json[:count], self._names[:count]
        self._named = self._named and any(self._names)
        return rows

    async def _store(self, rows: Rows) -> None:
        """Store a batch, and repeat attempts that fail. Always use its tag, by which the store knows it."""
        loop = asyncio.get_running_loop()
        until, delay, known = loop.time() + PATIENCE, RETRY_DELAY, None
        while not self.lost:
            try:
                await self.log.store(rows, fence=self.fence, known=known, expected=self._tag)
            except StoreUnavailable as error:
                known = self._stored
                self._settle(error)
                if loop.time() > until:
                    self.log.end(UNAVAILABLE)
            except (LogClosed, LogFenced):
                await self._give_up()
                return
            else:
                self._tag, self._stored = rows.tag, self._stored + len(rows.json)
                self._unstored -= rows.size
                self._settle()
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _give_up(self) -> None:
        """Find out who ended or leased the log. The writer has lost it even if the store does not answer."""
        with suppress(StoreUnavailable):
            await self.log.refresh()
        self._released = True
        if self.log.control.fence == self.fence:
            self.log.set_control(leased=False)  # so that the producer hears of it
        self._changed(self.log)

    def _settle(self, error: Exception | None = None) -> None:
        """Tell those who wait for a flush what has become of a batch."""
        flushing, self._flushing = self._flushing, []
        for progress in flushing:
            if not progress.done():
                progress.set_exception(error) if error is not None else progress.set_result(None)
        log = self.log
        if log.full and not self.behind:
            log.full = False
            log.make_room()

    # Losing the log

    def _changed(self, log: Log) -> None:
        if self.lost and not self._refuses:
            self._refuses = True
            log.unlisten(self._changed)
            log.full = False
            self._settle()
            self._go_on()
            log.make_room()
            outcome = ENTRIES_LOST if log.lost == "diverged" else log.outcome
            if outcome in (ENTRIES_LOST, UNAVAILABLE):  # only this process knows
                self._home.spawn(self._end_there(outcome))
            else:
                self._part()

    async def _end_there(self, outcome: Outcome) -> None:
        """End the stream in the store as well, however long it takes, so that nobody waits for the rest of it.

        Until then it counts as written here. So if this process dies first, it is buried with it.
        """
        delay = RETRY_DELAY
        while not await self._ended_there(outcome):
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
        self._part()

    async def _ended_there(self, outcome: Outcome) -> bool:
        try:
            await self.log.store_end(outcome, fence=self.fence)
        except StoreUnavailable:
            return False
        except (LogClosed, LogFenced):
            pass  # somebody else has decided
        return True

    def _part(self) -> None:
        self.log.writer = None
        self._home.used(self.log)

    def _refusal(self) -> LogClosed | LogFenced:
        log = self.log
        if log.outcome is not None:
            return LogClosed(log.name, log.outcome.state)
        if log.lost is not None:
            return LogClosed(log.name, log.lost)
        return LogFenced(log.name, log.control.fence)
