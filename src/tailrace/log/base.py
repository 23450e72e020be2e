"""The contract of a log and of its readers. `tailrace.testing.LogContract` checks it on every implementation."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from ..cursor import Cursor, stream_token
from ..errors import LogReset, ResetReason, SlowReader
from ..events import DONE, Entries, Outcome, encode_event
from ..flow import Flow, LogStatistics, Retention
from ..wire.base import Encoder, Wire

BATCH_BYTES = 128 << 10
"""About how much JSON a batch holds at most: a slow reader should not be handed the whole history at once."""

BATCH_ENTRIES = 1024
FEW_ENTRIES = 32
SHARED_BATCHES = 8

NOTHING = Entries((), ())


class Log(ABC):
    """An append-only sequence of events with exactly one end.

    Offsets count from 1; `top` is the newest, `base` the last one trimmed away. It belongs to one event loop.
    """

    def __init__(self, name: str, epoch: str, retention: Retention) -> None:
        self.name = name
        self.epoch = epoch
        self.stream = stream_token(name)
        self.retention = retention
        self.created = int(time.time())
        self.base = 0
        self.top = 0
        self.outcome: Outcome | None = None
        self.readers = 0
        self.on_readers: Callable[[], None] | None = None
        self.dropped = 0
        self.conflated = 0
        self.resets = 0
        self.furthest = 0  # how far the fastest reader is
        # For a producer that blocks, trimming by count and size stops at `furthest`; then the log may become full.
        self.held = False
        self.full = False
        # Batches for readers that keep up with each other, by the offset before them, with the top at that time.
        self.shared: dict[int, tuple[int, Entries]] = {}
        self._sleepers: set[asyncio.Future[None]] = set()
        self._room: asyncio.Future[None] | None = None
        self._encoders: dict[Wire, Encoder] = {}

    # Writing

    @abstractmethod
    def write(self, event: str | None, json: bytes) -> None:
        """Append data that is encoded already, for the log's sole writer: without waiting, made durable by `flush`.

        LogClosed after the end.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Until everything written is as durable as the log is."""

    async def append(self, item: Any) -> int:
        """Append an Event or bare data; its offset. EventError if it is not JSON-able, LogClosed after the end."""
        return await self.extend((item,))

    async def extend(self, items: Iterable[Any]) -> int:
        """Append all items or, if one cannot be encoded, none; the offset of the last."""
        for event, json in [encode_event(item) for item in items]:
            self.write(event, json)
        offset = self.top
        await self.flush()
        return offset

    @abstractmethod
    async def close(self, outcome: Outcome = DONE) -> Outcome:
        """End the log; the outcome that it has, which is an earlier one if it had ended before."""

    def lag(self) -> int:
        """How many entries the fastest reader has not read yet."""
        return self.top - self.furthest

    async def wait_room(self, high: int, *, without_readers: bool) -> None:
        """Wait until the lag is below `high` and the log not full, or the log has ended; for its sole writer.

        `without_readers` says whether to wait while there are none.
        """
        self.trim()
        while (self.full or self.lag() >= high) and self.outcome is None and (self.readers or without_readers):
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None
            self.trim()

    # Reading

    @abstractmethod
    def read_nowait(self, after: int, limit: int) -> Entries | None:
        """Up to `limit` entries after an offset; None if they have to be fetched. LogReset if some are trimmed away."""

    async def read(self, after: int, limit: int) -> Entries:
        """The same, fetched if need be, but never waiting for what is not written yet."""
        entries = self.read_nowait(after, limit)
        assert entries is not None, "a log that fetches has a read of its own"
        return entries

    def tail(self, after: Cursor | int | None = None, *, flow: Flow | None = None) -> Tail:
        """A reader of history, then live; by default of all that is kept. LogReset if a cursor cannot be continued."""
        if after is None:
            self.trim()
            after = self.base
        return Tail(self, self.resolve(after) if isinstance(after, Cursor) else after, flow or Flow.log())

    def encoder(self, wire: Wire) -> Encoder:
        """The wire's encoder for this log, the same for all its readers."""
        if (encoder := self._encoders.get(wire)) is None:
            encoder = self._encoders[wire] = wire.encoder(self.stream, self.epoch, self.created)
        return encoder

    def cursor(self, offset: int) -> Cursor:
        return Cursor(self.stream, self.epoch, offset)

    def end_cursor(self) -> Cursor:
        """For a reader who has every entry and the end."""
        return Cursor(self.stream, self.epoch, self.top, ended=True)

    def resolve(self, cursor: Cursor) -> int:
        """The offset to read after. LogReset if this log cannot continue there."""
        if (cursor.stream, cursor.epoch) != (self.stream, self.epoch):
            raise self.reset("epoch_changed")
        if cursor.offset > self.top:
            raise self.reset("ahead")
        if cursor.offset < self.base:
            raise self.reset("trimmed")
        return cursor.offset

    def reset(self, reason: ResetReason) -> LogReset:
        """The error for a cursor that cannot be continued; reading can go on with what is kept."""
        self.resets += 1
        return LogReset(self.name, reason, str(self.cursor(self.base)))

    def trim(self) -> None:  # noqa: B027 - a log that trims itself has nothing to add
        """Let go of what is too old by now, or was held. A write does so too, but there may be none for long."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """How many entries are kept, and their bytes of JSON."""

    def statistics(self) -> LogStatistics:
        entries, size = self.size()
        return LogStatistics(
            name=self.name,
            state="open" if self.outcome is None else self.outcome.state,
            base=self.base,
            top=self.top,
            entries=entries,
            size=size,
            readers=self.readers,
            dropped=self.dropped,
            conflated=self.conflated,
            resets=self.resets,
        )

    # Between writer and readers

    def wake_readers(self) -> None:
        """Wake every waiting reader, once for all that is new."""
        if self._sleepers:
            # Setting a result only schedules what waits for it: nobody joins or leaves meanwhile.
            for sleeper in self._sleepers:
                if not sleeper.done():
                    sleeper.set_result(None)
            self._sleepers.clear()

    def share(self, after: int, entries: Entries) -> None:
        """Keep a batch for the next readers that come to the same place; it is encoded once for all of them."""
        if len(self.shared) == SHARED_BATCHES:
            del self.shared[next(iter(self.shared))]
        self.shared[after] = self.top, entries

    def let_go(self) -> None:
        """Nobody reads any more: what was kept for the next reader of the same batch is not needed."""
        self.shared.clear()
        self._encoders.clear()

    def make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


class Tail:
    """A reader of a log: history first, then live, with no gap and no duplicate, in batches of all that is there.

        with log.tail() as tail:
            async for entries in tail:
                ...

    LogReset and SlowReader come out of the iteration, as the flow policy says.
    """

    __slots__ = (
        "_behind_from",
        "_closed",
        "_conflates",
        "_flow",
        "_loop",
        "_prepare",
        "_waiter",
        "dropped",
        "log",
        "position",
    )

    def __init__(self, log: Log, after: int, flow: Flow) -> None:
        self.log = log
        self.position = after
        self.dropped = 0  # entries passed over since the owner last took the number
        self._flow = flow
        self._prepare = _PREPARE.get(flow.policy)
        self._conflates = flow.policy == "latest"
        # Who starts at the top has nothing to read: a producer that waits for it would wait for ever.
        log.furthest = max(log.furthest, min(after, log.top))
        # History that was there before the reader came does not count as being slow.
        self._behind_from = log.top
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._count(1)

    @property
    def ended(self) -> bool:
        """Whether everything is read and the log has its outcome."""
        return self.log.outcome is not None and self.position >= self.log.top

    def read_nowait(self) -> Entries | None:
        """What there is to read now, perhaps nothing; None if it has to be fetched."""
        log = self.log
        if log.top == self.position:
            return NOTHING
        if self._prepare is not None:
            self._prepare(self)
        after = self.position
        if log.readers > 1 and (shared := log.shared.get(after)) is not None and shared[0] == log.top:
            return self._take(shared[1])
        behind = log.top - after
        entries = log.read_nowait(after, behind if behind <= FEW_ENTRIES else self._limit(behind))
        if entries is None:
            return None
        if log.readers > 1 and not self._conflates:
            log.share(after, entries)
        return self._take(entries)

    async def read(self) -> Entries:
        """What there is to read now, perhaps nothing."""
        entries = self.read_nowait()
        if entries is None:
            entries = self._take(await self.log.read(self.position, self._limit(self.log.top - self.position)))
        return entries

    def arrival(self) -> asyncio.Future[None]:
        """Done as soon as there may be something new: entries, the end, or a `wake`."""
        log = self.log
        self._waiter = waiter = self._loop.create_future()
        if log.top > self.position or log.outcome is not None:
            waiter.set_result(None)
        else:
            log._sleepers.add(waiter)
        return waiter

    async def wait(self) -> None:
        """Wait for the next arrival."""
        try:
            await self.arrival()
        finally:
            self._forget_waiter()

    def wake(self) -> None:
        """Let the reader look up although nothing is new."""
        if (waiter := self._waiter) is not None and not waiter.done():
            self.log._sleepers.discard(waiter)
            waiter.set_result(None)

    def take_dropped(self) -> int:
        """How many entries were passed over since this was last asked."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def close(self) -> None:
        """Leave the log. Idempotent."""
        if not self._closed:
            self._closed = True
            self._forget_waiter()
            self._count(-1)

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> Entries:
        while True:
            if entries := await self.read():
                return entries
            if self.ended:
                self.close()
                raise StopAsyncIteration
            await self.wait()

    def _count(self, change: int) -> None:
        log = self.log
        log.readers += change
        log.make_room()
        if not log.readers:
            log.let_go()
        if log.on_readers is not None:
            log.on_readers()

    def _forget_waiter(self) -> None:
        if self._waiter is not None:
            self.log._sleepers.discard(self._waiter)
            self._waiter = None

    def _take(self, entries: Entries) -> Entries:
        if not entries.json:
            return entries
        self.position = position = entries.offsets[-1]
        log = self.log
        if position > log.furthest:
            log.furthest = position
            if log._room is not None:
                log.make_room()
        return self._newest(entries) if self._conflates else entries

    def _limit(self, behind: int) -> int:
        """How many entries to take at once: of a long history, about BATCH_BYTES of its average entries."""
        if self._conflates:
            return behind
        entries, size = self.log.size()
        return min(BATCH_ENTRIES, max(1, BATCH_BYTES * entries // max(size, 1)))

    def _pass_over(self, offset: int) -> None:
        if offset > self.position:
            self.dropped += offset - self.position
            self.log.dropped += offset - self.position
            self.position = offset

    def _drop(self) -> None:
        if self.log.top - max(self.position, self._behind_from) > self._flow.high:
            self._pass_over(self.log.top - self._flow.high)
        self._pass_over(self.log.base)

    def _skip_trimmed(self) -> None:
        self.log.conflated += max(self.log.base - self.position, 0)
        self.position = max(self.position, self.log.base)

    def _disconnect(self) -> None:
        behind = self.log.top - max(self.position, self._behind_from)
        if behind > self._flow.high:
            raise SlowReader(self.log.name, behind, self._flow.high)

    def _newest(self, entries: Entries) -> Entries:
        if len(entries) == 1:
            return entries
        newest = {self._flow.key(entry): entry for entry in entries}
        self.log.conflated += len(entries) - len(newest)
        return Entries.of(sorted(newest.values(), key=lambda entry: entry.offset))


_PREPARE: dict[str, Callable[[Tail], None]] = {
    "drop": Tail._drop,
    "latest": Tail._skip_trimmed,
    "disconnect": Tail._disconnect,
}
"""What a reader does before it reads on, by flow policy; the others just read on."""
