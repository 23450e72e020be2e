"""The contract of a log and its readers. `tailrace.testing.LogContract` checks every implementation."""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeAlias, TypedDict, Unpack

from ..cursor import Cursor, stream_token
from ..errors import LogReset, ResetReason, SlowReader
from ..events import DONE, Entries, Outcome, encode_event
from ..flow import Flow, LogStatistics, Retention
from ..stepping import Sleepers
from ..wire.base import Encoder, Wire
from ..wire.sharing import Message, Shared, Spell

BATCH_ENTRIES = 1024
BATCH_BYTES = 128 << 10
"""The most bytes of JSON in a batch of several entries. It bounds what a slow reader takes from its history at once."""

NOTHING = Entries((), ())

DEFAULT_FLOW = Flow.log()

Listener: TypeAlias = Callable[["Log"], None]


Row: TypeAlias = tuple[str | None, bytes]
"""An event name and data as one line of JSON."""


@dataclass(frozen=True, slots=True)
class Control:
    """The facts about a stream that a store shares with all processes, in addition to the entries.

    `fence` is the number of the newest lease, and `leased` tells whether its writer still holds it. `stopping` is True
    once somebody asked the writer to stop. `elsewhere` counts the other processes that have readers. `seat` is the
    newest claim to read the stream alone, or empty.
    """

    fence: int = 0
    leased: bool = False
    stopping: bool = False
    elsewhere: int = 0
    seat: str = ""


class _Facts(TypedDict, total=False):
    """The members of Control."""

    fence: int
    leased: bool
    stopping: bool
    elsewhere: int
    seat: str


class Log(ABC):
    """An append-only sequence of events with exactly one end, as this process knows it.

    Offsets count from 1: `top` is that of the newest entry, and `base` that of the last trimmed one. Reading never
    waits for a store, except for history that only the store still has. A log belongs to one event loop, and is one
    incarnation of its name: a store makes another object for the next one.
    """

    # Measured: without slots, a write takes a tenth longer. CPython 3.11 reads attributes fast only while instances
    # share the keys of their dicts. With the 30 attributes of a MemoryLog, they do not.
    __slots__ = (
        "__weakref__", "_listeners", "_room", "_shared", "_sleepers",
        "base", "conflated", "control", "created", "degraded", "dropped", "epoch", "fingerprint", "full", "furthest",
        "held", "lost", "name", "outcome", "passing", "readers", "resets", "retention", "stream", "top",
    )  # fmt: skip

    def __init__(self, name: str, epoch: str, retention: Retention) -> None:
        self.name = name
        self.epoch = epoch
        self.stream = stream_token(name)
        self.retention = retention
        self.created = int(time.time())
        self.base = 0
        self.top = 0
        self.outcome: Outcome | None = None
        self.lost: ResetReason | None = None  # why the store no longer continues this incarnation, if it does not
        self.control = Control()
        self.degraded = False  # True while this process cannot reach the store, so that what it has may be behind
        self.passing = False  # True for the stream of one request, made by `Engine.new_stream`
        self.fingerprint = b""  # a digest of the request that started the stream, if it had an idempotency key
        self.readers = 0
        self.dropped = 0
        self.conflated = 0
        self.resets = 0
        self.furthest = 0  # the position of the fastest reader
        # Set by a producer that blocks. Trimming by count and size then stops at `furthest`, so the log can fill up.
        self.held = False
        self.full = False  # True while the writer should wait, because nothing more fits
        self._listeners: tuple[Listener, ...] = ()
        self._shared = Shared()
        self._sleepers = Sleepers()
        self._room: asyncio.Future[None] | None = None

    # Writing

    async def append(self, *items: Any, fence: int | None = None, key: str | None = None) -> range:
        """Append Events or bare data, all of them or none. Return their offsets.

        A log that has a writer takes only what comes with the writer's `fence`.

        `key` names an append that may come again, in any process. A repeat appends nothing and returns the offsets
        of the first, even after the end. The key is known while the entries are kept. A writer needs no key.

        Raise EventError for data that is not JSON-able, LogClosed after the end, LogFenced if the log belongs to
        another writer, and StoreUnavailable if the store does not answer. Then the items may have been appended:
        repeat the call with its key to find out.
        """
        if fence is not None and key is not None:
            raise ValueError(f"expected a fence or a key, but got both: {fence} and {key!r:.80}")
        return await self.add([encode_event(item) for item in items], fence=fence, key=key)

    @abstractmethod
    async def add(self, rows: Sequence[Row], *, fence: int | None = None, key: str | None = None) -> range:
        """Do as `append` does with data that is encoded already."""

    @abstractmethod
    async def close(self, outcome: Outcome = DONE, *, fence: int | None = None) -> Outcome:
        """End the log and return its outcome. If it has ended already, its outcome does not change.

        Anybody may end a log. With a `fence`, raise LogFenced if the log belongs to another writer.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Ask the log's writer to stop, in whichever process it is.

        A stream that has had no writer yet keeps the request for its first one.
        """

    @abstractmethod
    def claim_seat(self, seat: str, before: str) -> None:
        """Claim to read the log alone, in place of the claim `before`. An empty one means that there was none.

        If several claims replace the same one, even in different processes, the first to reach the store succeeds. So
        look at `control.seat`: as long as it is `before`, nothing is decided. The claim may wait for the store, and is
        given up if this process has no reader any more.
        """

    def end(self, outcome: Outcome) -> Outcome:
        """End the log in this process and tell its readers, without the store. An earlier outcome does not change.

        A log that is lost does not end, because its readers must go on elsewhere.
        """
        if self.outcome is None and self.lost is None:
            self.outcome = outcome
            self.control = replace(self.control, leased=False)
            self.wake_readers()
            self.make_room()
            self._tell_listeners()
        return self.outcome or outcome

    def lose(self, reason: ResetReason) -> None:
        """Give up this incarnation, because the store continues with another or has forgotten it.

        Each reader gets a reset. But readers of a log that has ended may finish with what this process has.
        """
        if self.lost is None:
            self.lost = reason
            self.degraded = False  # nothing more will come, so nothing is late
            if self.outcome is None:
                self.base = self.top = self.top + 1  # beyond every reader, so that each one looks
                self.wake_readers()
                self.make_room()
            self._tell_listeners()

    @property
    def broken_off(self) -> ResetReason | None:
        """Why no reader can continue here: the log was lost before its end. None if readers can continue."""
        return self.lost if self.outcome is None else None

    # Reading

    @abstractmethod
    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries | None:
        """Return the entries after an offset: at most `limit`, and at most `size` bytes of JSON unless it is one entry.

        Return None if they must be fetched from a store. Raise LogReset if some of them were trimmed.
        """

    async def read(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        """Do as `read_nowait` does, but fetch entries if necessary. Never wait for entries that are not written yet."""
        entries = self.read_nowait(after, limit, size)
        assert entries is not None, "a log that fetches overrides read"
        return entries

    def tail(self, after: int | None = None, *, flow: Flow | None = None) -> Tail:
        """Return a reader of all entries after an offset, by default of all that are kept.

        For a cursor, give the offset that `resolve` returns.
        """
        if after is None:
            self.trim()
            after = self.base
        return Tail(self, after, flow or DEFAULT_FLOW)

    def cursor(self, offset: int) -> Cursor:
        """Return the cursor of a reader that has all entries up to an offset."""
        return Cursor(self.stream, self.epoch, offset)

    def end_cursor(self) -> Cursor:
        """Return the cursor of a reader that has all entries and the outcome."""
        return Cursor(self.stream, self.epoch, self.top, ended=True)

    async def resolve(self, cursor: Cursor) -> int:
        """Return the offset to read after. Raise LogReset if this log cannot continue there."""
        if (reason := self.broken_off) is not None:
            raise self.reset(reason)
        if (cursor.stream, cursor.epoch) != (self.stream, self.epoch):
            raise self.reset("epoch_changed")
        if cursor.offset > self.top:
            raise self.reset("ahead")
        self.trim()
        if cursor.offset < self.base:
            raise self.reset("trimmed")
        if not await self.has_tag(cursor.offset, cursor.tag):
            raise self.reset("diverged")
        return cursor.offset

    async def has_tag(self, offset: int, tag: str) -> bool:
        """Tell whether a cursor with a tag belongs to the entry that is at its offset now. Without a tag, it does.

        Raise LogReset if the store no longer has that entry.
        """
        return not tag

    def reset(self, reason: ResetReason) -> LogReset:
        """Return the error for a cursor that cannot be continued. Its `resume` leads to the oldest kept entry."""
        self.resets += 1
        # What a store continues with has nothing to do with the offsets of an incarnation that is lost.
        return LogReset(self.name, reason, str(self.cursor(self.base if self.broken_off is None else 0)))

    def trim(self) -> None:  # noqa: B027 - a log may trim itself
        """Drop entries that have become too old, or are no longer held. Writes trim too, but a quiet log has none."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Return the number of kept entries and the bytes of their JSON."""

    def statistics(self) -> LogStatistics:
        """Return the log's current numbers."""
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

    def set_control(self, **facts: Unpack[_Facts]) -> None:
        """Note what the store says, and tell the listeners if it is news."""
        if (control := replace(self.control, **facts)) != self.control:
            self.control = control
            self.make_room()
            self._tell_listeners()

    def set_degraded(self, degraded: bool) -> None:
        """Note whether the store is out of reach. If it is news, wake the readers and tell the listeners."""
        if degraded != self.degraded:
            self.degraded = degraded
            self._sleepers.rouse_all()
            self._tell_listeners()

    def listen(self, listener: Listener) -> None:
        """Call `listener` when a reader joins or leaves, when the log ends or is lost, and when its facts change.

        The facts are `control` and `degraded`. It must not raise.
        """
        if listener not in self._listeners:
            self._listeners = (*self._listeners, listener)

    async def wait_end(self) -> Outcome | None:
        """Wait until the log ends and return its outcome. Return None if this incarnation is lost."""
        ended = asyncio.get_running_loop().create_future()

        def listener(log: Log) -> None:
            if (log.outcome or log.lost) is not None and not ended.done():
                ended.set_result(None)

        self.listen(listener)
        try:
            listener(self)
            await ended
        finally:
            self.unlisten(listener)
        return self.outcome

    async def catch_up(self) -> None:  # noqa: B027 - a log may know everything at once
        """Learn what the store has at this moment, instead of waiting for its news.

        Afterwards, the log has the entries, the outcome and the facts of this moment, or it is `lost`. Raise
        StoreUnavailable if the store does not answer.
        """

    def unlisten(self, listener: Listener) -> None:
        """Undo `listen`."""
        self._listeners = tuple(each for each in self._listeners if each != listener)

    def wake_readers(self) -> None:
        """Wake every waiting reader. Call it once for any number of new entries."""
        self._sleepers.wake_all()

    async def wait_change(self) -> None:
        """Wait until a reader reads, joins or leaves, `control` changes, or the log ends. For the sole writer."""
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None

    def make_room(self) -> None:
        """Wake the writer that waits for room."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def count_readers(self, change: int) -> None:
        """Note that readers joined or left."""
        self.readers += change
        self.make_room()
        if not self.readers:
            self._shared.clear()
        self._tell_listeners()

    def encoder(self, wire: Wire) -> Encoder:
        """Return the wire's encoder for this log. Readers share the encoder, and so its output."""
        if (encoder := self._shared.encoders.get(wire)) is None:
            encoder = self._shared.keep_encoder(wire, wire.encoder(self.stream, self.epoch, self.created))
        return encoder

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener(self)


def fitting(json: Sequence[bytes], size: int) -> int:
    """Return how many entries fit into `size` bytes, at least one if there is one."""
    for count, total in enumerate(accumulate(map(len, json))):
        if total > size:
            return max(count, 1)
    return len(json)


class Tail:
    """Reads a log, first its history and then new entries, in batches, without a gap or a duplicate.

        with log.tail() as tail:
            async for entries in tail:
                ...

    The iteration raises LogReset if entries were trimmed before it read them, and SlowReader if the reader falls too
    far behind under the policy `disconnect`.
    """

    __slots__ = (
        "_behind_from",
        "_closed",
        "_conflates",
        "_flow",
        "_prepare",
        "_tag",
        "dropped",
        "log",
        "news",
        "position",
    )

    def __init__(self, log: Log, after: int, flow: Flow) -> None:
        self.log = log
        # A reader that joins a log that was broken off must look, too.
        self.position = after if log.broken_off is None else min(after, log.top - 1)
        self.dropped = 0  # entries skipped since the last take_dropped
        self._tag = ""  # the tag of the entry at `position`, if the log has tags and the entry was read here
        self._flow = flow
        self._prepare = _PREPARE.get(flow.policy)
        self._conflates = flow.policy == "latest"
        # A reader that starts at the top is not behind, so a blocking producer must not wait for it.
        log.furthest = max(log.furthest, min(after, log.top))
        # Entries from before the reader joined do not count as being behind.
        self._behind_from = log.top
        self._closed = False
        self.news = log._sleepers.sleeper()  # await it, where nothing is new, as `wait` does
        log.count_readers(1)

    @property
    def ended(self) -> bool:
        """True if the log has ended and this reader has read all entries."""
        return self.log.outcome is not None and self.position >= self.log.top

    def read_nowait(self) -> Entries | None:
        """Return the next batch, empty if nothing is new. Return None if it must be fetched from a store."""
        log = self.log
        if log.top == self.position:
            return NOTHING
        if log.lost is not None and log.outcome is None:
            raise log.reset(log.lost)
        if self._prepare is not None:
            self._prepare(self)
        after = self.position
        # Do not share a conflated batch: it depends on this reader's position.
        sharing = log.readers > 1 and (not self._conflates or log.top - after == 1)
        if sharing and (shared := log._shared.batches.get(after)) is not None and shared[0] == log.top:
            return self._take(shared[1])
        # Measured: to unpack the default bounds, too, would take a fifth of the time of this method.
        entries = log.read_nowait(after, *self._bounds()) if self._conflates else log.read_nowait(after, BATCH_ENTRIES)
        if entries is None:
            return None
        if sharing:
            log._shared.keep_batch(after, log.top, entries)
        return self._take(entries)

    def take_encoded(self, encoder: Encoder, spell: Spell) -> Message | None:
        """Do as `read_nowait`, the encoder and `spell` do, if another reader has done so for the same entries.

        Return the message, or None in any other case.
        """
        log = self.log
        news = log._shared.news
        if news is None:
            return None
        before, last, whose, spelled, tag, message = news
        if before != self.position or last != log.top or whose is not encoder or spelled is not spell or self._prepare:
            return None
        self.position, self._tag = last, tag
        return message

    def share_encoded(self, entries: Entries, encoder: Encoder, spell: Spell, message: Message) -> None:
        """Let other readers send the message that this one has made of the newest entries."""
        if self.position == self.log.top and self._prepare is None:
            self.log._shared.news = entries.offsets[0] - 1, self.position, encoder, spell, self._tag, message

    async def read(self) -> Entries:
        """Return the next batch, empty if nothing is new."""
        entries = self.read_nowait()
        return self._take(await self.log.read(self.position, *self._bounds())) if entries is None else entries

    async def wait(self) -> None:
        """Wait for entries, the end or a `wake`. Raise RuntimeError if another task waits already."""
        if self.news.asleep:
            raise RuntimeError(f"expected one task to read log {self.log.name!r} by this tail, but another one waits")
        if self.log.top <= self.position and self.log.outcome is None:
            await self.news

    def wake(self) -> None:
        """Wake the reader even if nothing is new."""
        self.news.wake()

    def cursor(self) -> Cursor:
        """Return the cursor of what was read."""
        cursor = self.log.cursor(self.position)
        return replace(cursor, tag=self._tag) if self._tag else cursor

    def take_dropped(self) -> int:
        """Return how many entries were skipped since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def close(self) -> None:
        """Leave the log. This ends the iteration, in whatever task it is. Further calls do nothing."""
        if not self._closed:
            self._closed = True
            self.wake()
            self.log.count_readers(-1)

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> Entries:
        while not self._closed:
            if entries := await self.read():
                return entries
            if self.ended:
                self.close()
            else:
                await self.wait()
        raise StopAsyncIteration

    def _bounds(self) -> tuple[int, int]:
        # Finding the newest entry of each key takes a look at all entries.
        return (self.log.top - self.position, sys.maxsize) if self._conflates else (BATCH_ENTRIES, BATCH_BYTES)

    def _take(self, entries: Entries) -> Entries:
        if not entries.json:
            return entries
        if self._conflates and len(entries) > 1:
            entries = self._newest(entries)
        self.position = position = entries.offsets[-1]
        if entries.tags is not None:
            self._tag = entries.tags[-1].decode()
        log = self.log
        if position > log.furthest:
            log.furthest = position
            if log._room is not None:
                log.make_room()
        return entries

    def _newest(self, entries: Entries) -> Entries:
        """Keep the newest entry of each key, as many as fit into a batch. The next batch starts after them."""
        newest = {self._flow.key(entry): index for index, entry in enumerate(entries)}
        kept = entries.pick(sorted(newest.values()))
        kept = kept[: fitting(kept.json, BATCH_BYTES)]
        self.log.conflated += kept.offsets[-1] - self.position - len(kept)
        return kept

    def _skip_to(self, offset: int) -> None:
        if offset > self.position:
            self.dropped += offset - self.position
            self.log.dropped += offset - self.position
            self.position, self._tag = offset, ""

    def _drop(self) -> None:
        if self.log.top - max(self.position, self._behind_from) > self._flow.high:
            self._skip_to(self.log.top - self._flow.high)
        self._skip_to(self.log.base)

    def _skip_trimmed(self) -> None:
        if (base := self.log.base) > self.position:
            self.log.conflated += base - self.position
            self.position, self._tag = base, ""

    def _disconnect(self) -> None:
        behind = self.log.top - max(self.position, self._behind_from)
        if behind > self._flow.high:
            raise SlowReader(self.log.name, behind, self._flow.high)


_PREPARE: dict[str, Callable[[Tail], None]] = {
    "drop": Tail._drop,
    "latest": Tail._skip_trimmed,
    "disconnect": Tail._disconnect,
}
"""The step before each read, by flow policy. `block` and `log` need none."""
