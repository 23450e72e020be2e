"""The writing end of a stream in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ...errors import LogClosed, LogFenced, StoreUnavailable
from ...events import Outcome
from ..base import Log, Row, fitting
from ..writer import UNAVAILABLE, Writer
from .attempts import LONGEST_DELAY, RETRY_DELAY, repeatedly
from .connection import NotSent, Unreachable
from .frames import Rows
from .log import RedisLog
from .mirror import Home
from .scripts import RELEASE

FULL = 1 << 20
"""The most bytes that a writer may hold unstored. Above it, the log is full."""

LARGEST = 256 << 10
"""The most bytes of JSON in a batch of several entries."""

PATIENCE = 30.0
"""For how many seconds a writer repeats what the store does not accept. Then it ends the log in this process."""

ENTRIES_LOST = Outcome("error", "entries_lost", "the store lost a part of the stream")


class Sent(Rows):
    """A batch on its way. It takes the store's answer for its writer, as a future would for a task."""

    __slots__ = ("_writer",)

    def __init__(self, writer: RedisWriter, tag: bytes, json: list[bytes], names: list[bytes] | None) -> None:
        super().__init__(tag, json, names)
        self._writer = writer

    def done(self) -> bool:
        return False

    def set_result(self, result: list[Any]) -> None:
        self._writer.answered(self, result)

    def set_exception(self, error: Exception) -> None:
        self._writer.failed(self, error)


class RedisWriter(Writer):
    """Sends one batch at a time. Meanwhile, new items gather for the next one, so batches grow under load.

    Each batch says which one it expects before it. So a writer never continues after a gap: if the store has lost what
    it had acknowledged, the log is lost here, and ends as `entries_lost` there. It ends so as well if all that was lost
    is the lease, because without it nobody would end it.
    """

    log: RedisLog

    def __init__(self, log: RedisLog, fence: int, home: Home, *, top: int, tag: bytes) -> None:
        """Continue after the batch that ends at `top` and has a tag."""
        super().__init__(log, fence)
        self._home = home
        self._loop = asyncio.get_running_loop()
        self._fence = b"%d" % fence
        self._top = self._stored = top
        self._tag = tag
        self._json: list[bytes] = []
        self._names: list[bytes] = []  # of the first items, up to the last one with a name
        self._unstored = 0
        self._sending = False  # True from when a batch is due until the store has it, and nothing more is written
        self._flushing: list[asyncio.Future[None]] = []
        self._released = False
        self._refuses = False
        self._forgotten = False  # True if the store knows of no lease at all, because it has lost this one
        log.writer = self
        log.listen(self._changed)
        self._changed(log)

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
        if event is not None:
            self._names += [b""] * (len(self._json) - 1 - len(self._names))
            self._names.append(event.encode())
        self._top += 1
        self._unstored += len(json)
        log = self.log
        if (self._unstored > FULL or log.held) and not log.full:
            log.full = self.behind
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)  # with all that is written in this turn of the loop

    async def flush(self) -> None:
        top = self._top
        while self._stored < top:
            if self.lost:
                raise self._refusal()
            progress = self._loop.create_future()
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

    def _send(self) -> None:
        """Send the next batch."""
        if self._refuses:
            return
        rows = self._next()
        try:
            self.log.post(rows, rows, fence=self._fence, expected=self._tag)
        except Unreachable as error:
            self.failed(rows, error)

    def _next(self) -> Sent:
        """Take the next batch out of what is written."""
        json, names = self._json, self._names
        count = len(json) if self._unstored <= LARGEST else fitting(json, LARGEST)
        self._json, self._names = json[count:], names[count:]
        del json[count:], names[count:]
        if names:
            names += [b""] * (count - len(names))
        return Sent(self, next(self._home.tags), json, names or None)

    def answered(self, rows: Rows, answer: list[Any]) -> None:
        """Take the store's answer to a batch."""
        try:
            self.log.stored(rows, answer)
        except (LogClosed, LogFenced) as error:
            self._home.spawn(self._give_up(error))
        else:
            self._acknowledge(rows)

    def failed(self, rows: Rows, error: Exception) -> None:
        """Repeat a batch that the store has not answered, or not taken."""
        known = None if isinstance(error, NotSent) else self._stored
        self._home.spawn(self._store(rows, known))

    def _acknowledge(self, rows: Rows) -> None:
        """Note that the store has a batch, and go on with the next one."""
        self._tag = rows.tag
        self._stored += len(rows.json)
        self._unstored -= rows.size
        self._settle()
        if self._json:
            self._loop.call_soon(self._send)
        else:
            self._sending = False

    async def _store(self, rows: Rows, known: int | None) -> None:
        """Store a batch, and repeat attempts that fail. Always use its tag, by which the store knows it.

        `known` is an offset before earlier attempts, if there may have been some.
        """
        loop = self._loop
        until, delay = loop.time() + PATIENCE, RETRY_DELAY
        while not self.lost:
            try:
                await self.log.store(rows, fence=self.fence, known=known, expected=self._tag)
            except StoreUnavailable as error:
                known = self._stored
                self._settle(error)
                if loop.time() > until:
                    self.log.end(UNAVAILABLE)
            except (LogClosed, LogFenced) as error:
                await self._give_up(error)
                return
            else:
                self._acknowledge(rows)
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _give_up(self, refusal: LogClosed | LogFenced) -> None:
        """Find out who ended or leased the log. The writer has lost it even if the store does not answer."""
        self._forgotten = isinstance(refusal, LogFenced) and not refusal.fence
        with suppress(StoreUnavailable):
            await self.log.refresh()
        self.lose()

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

    def lose(self) -> None:
        """Write no more, because the lease is lost."""
        self._released = True
        if self.log.control.fence == self.fence:
            self.log.set_control(leased=False)  # so that the producer hears of it
        self._changed(self.log)

    def _changed(self, log: Log) -> None:
        if self.lost and not self._refuses:
            self._refuses = True
            log.unlisten(self._changed)
            log.full = False
            self._settle()
            log.make_room()
            outcome = ENTRIES_LOST if log.lost == "diverged" or self._forgotten else log.outcome
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
