"""A process's view of a stream in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NoReturn, Protocol, TypeVar

from ...cursor import Cursor
from ...errors import LogClosed, LogFenced, StoreUnavailable
from ...events import DONE, Entries, Outcome
from ...flow import Retention
from ..base import BATCH_BYTES, Log, Row
from .address import Part
from .columns import Columns
from .connection import Refused, Unreachable
from .frames import (
    NO_TAG,
    Batch,
    Dropped,
    End,
    Facts,
    Frame,
    Rows,
    decode_outcome,
    encode_outcome,
    parse_batch,
)
from .link import Script
from .scripts import APPEND, END, LOAD, STOP, Keys

T = TypeVar("T")

HELD_BYTES = 1 << 20
"""How many bytes of JSON a mirror holds. What is older is fetched for each reader that asks for it."""

LOADED_BYTES = 256 << 10
"""Up to how many bytes a mirror loads what it lacks. Beyond them it goes on from the newest batch."""

EARLY_BYTES = 1 << 20
"""How many bytes of frames a mirror keeps that came behind a gap. Beyond them it loads once more instead."""

OVERTAKEN = 0.05
"""Seconds to wait for the batches of others that came between, before they are loaded."""

CONNECT = 1.0
"""Seconds that a call waits for a connection before it counts as a failed attempt."""

RETRY_DELAY = 0.02
"""Seconds before a failed attempt is repeated. Each further delay is twice as long, up to `LONGEST_DELAY`."""
LONGEST_DELAY = 0.5


class Home(Protocol):
    """What a mirror needs of its store."""

    process: bytes
    """The name of this process. It has no space."""

    patience: float
    """For how many seconds a failed call is repeated."""

    async def run(self, name: str, keys: Keys, script: Script, *arguments: Part) -> list[Any]:
        """Run a script on a log's keys. Raise StoreUnavailable."""

    async def fetch(self, log: RedisLog, after: int, count: int) -> list[Batch]:
        """Return the batches from the one that holds the next entry, at most `count`. Raise StoreUnavailable."""

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in the background until it is done or the store is closed."""

    def used(self, log: RedisLog) -> None:
        """Note that a log is read or written here, or is no longer."""

    def written(self, log: RedisLog) -> None:
        """Renew a log's expiry if it is time to, because somebody uses it."""

    def keep_ms(self, log: RedisLog, *, ended: bool) -> int:
        """Return for how many milliseconds from now to keep a log, or 0 for always."""


class Leased(Protocol):
    """What a mirror needs of the writer in its process."""

    fence: int

    async def append(self, rows: Sequence[Row]) -> range:
        """Write rows and wait until they are stored. Return their offsets."""

    @property
    def behind(self) -> bool:
        """True while the writer should wait, because too much is not stored or not read."""


class RedisLog(Log):
    """A mirror: the newest batches of a stream and all facts about it, kept up to date by its channel.

    Frames may come twice, late or not at all, and an append's reply may overtake those of others. So a batch is taken
    only if it is the next one, by its offset and by the tag of the batch before. On anything else the mirror loads what
    the store has. That shows as well when the store has lost what this mirror has: then the mirror is `lost`.
    """

    __slots__ = (
        "_again", "_awaited", "_early", "_early_size", "_fetches", "_held", "_home", "_load", "_version",
        "attached", "channel", "floor", "fresh", "keys", "leasing", "stale", "told", "touched", "wire_epoch", "writer",
    )  # fmt: skip

    def __init__(self, home: Home, name: str, keys: Keys, meta: Mapping[bytes, bytes]) -> None:
        """Make the mirror of a stream from its meta, without entries."""
        count, size, age = int(meta[b"count"]), int(meta[b"size"]), int(meta[b"age"])
        retention = Retention(count or None, size or None, age / 1000 or None)
        super().__init__(name, meta[b"epoch"].decode(), retention)
        self.created = int(meta[b"made"])
        self.passing = meta[b"passing"] == b"1"
        self.fingerprint = meta[b"print"]
        self.keys = keys
        self.channel = keys.log.encode()
        self.wire_epoch = meta[b"epoch"]
        self.attached = False  # True while its channel is subscribed
        self.stale = False  # True if it may have missed something
        self.writer: Leased | None = None  # the writer in this process
        self.told = False  # True if the store knows of readers in this process
        self.touched = 0.0  # when this process last renewed the expiry, or 0 if it should
        self.leasing = False  # True while this process asks for the lease
        self.fresh = True  # True if it had news since the last beat
        self.floor = 0
        self._home = home
        self._held = Columns(0)
        self._version = -1
        self._early: list[Frame] = []
        self._early_size = 0
        self._load: asyncio.Task[None] | None = None
        self._again = False  # True if what is loading may be older than what made the mirror suspicious
        self._fetches: dict[tuple[int, int], asyncio.Task[list[Batch]]] = {}
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []

    @classmethod
    def load(cls, home: Home, name: str, keys: Keys, answer: list[Any]) -> RedisLog:
        """Make a mirror from what LOAD answered."""
        log = cls(home, name, keys, _pairs(answer[1]))
        log.adopt(answer)
        return log

    # Writing

    async def add(self, rows: Sequence[Row], *, fence: int | None = None) -> range:
        if not rows:
            return range(self.top + 1, self.top + 1)
        if self.writer is not None and fence == self.writer.fence:
            return await self.writer.append(rows)  # so that it knows which batch comes before its next one
        columns, before = Rows.of(rows), self.top
        known: int | None = None

        async def attempt() -> Batch:
            nonlocal known
            try:
                return await self.store(columns, fence=fence, known=known)
            except StoreUnavailable:
                known = before  # it may have succeeded: the next attempt looks for it behind this offset
                raise

        batch = await repeatedly(attempt, self._home.patience)
        self._home.written(self)
        await self.reach(batch.top)
        return range(batch.start + 1, batch.top + 1)

    async def store(self, rows: Rows, *, fence: int | None, known: int | None = None, expected: bytes = b"") -> Batch:
        """Append a batch in one attempt, and take it into the mirror if it is the next one.

        `known` is an offset before an earlier attempt, if there was one. `expected` is the tag of the batch before, if
        it is known. Raise as `append` does, and LogClosed if this incarnation is lost.
        """
        tag, json, names = rows
        fenced, searched = _or_empty(fence), _or_empty(known)
        answer = await self.run(APPEND, fenced, expected, searched, tag, len(json), rows.size, rows.body)
        top, prev, base, floor, cum = answer
        batch = Batch(self.wire_epoch, int(top), tag, prev, int(base), int(floor), int(cum), json, names)
        if self._held.follows(batch):
            self.receive(batch)
        return batch

    async def close(self, outcome: Outcome = DONE, *, fence: int | None = None) -> Outcome:
        if self.outcome is not None:
            return self.outcome
        return await repeatedly(lambda: self.store_end(outcome, fence=fence), self._home.patience)

    async def store_end(self, outcome: Outcome, *, fence: int | None, expected: bytes = b"") -> Outcome:
        """End the log in one attempt."""
        keep = self._home.keep_ms(self, ended=True)
        try:
            top, tag = await self.run(END, _or_empty(fence), expected, encode_outcome(outcome), keep)
        except LogClosed:
            if self.lost is not None:
                raise
            await self.refresh()
        else:
            self.receive(End(self.wire_epoch, int(top), tag, outcome))
            await self.reach(int(top))
        return self.outcome or outcome

    async def stop(self) -> None:
        with suppress(LogClosed):
            await repeatedly(lambda: self.run(STOP), self._home.patience)
            self.set_control(stopping=self.outcome is None)

    async def run(self, script: Script, *arguments: Part) -> list[Any]:
        """Run a script on this incarnation. Return its answer without the first word, or raise what it refuses."""
        word, *answer = await self._home.run(self.name, self.keys, script, self.wire_epoch, *arguments)
        if word != b"ok":
            _REFUSALS[word](self, *answer)
        return answer

    def _closed(self, outcome: bytes) -> NoReturn:
        raise LogClosed(self.name, decode_outcome(outcome).state)

    def _fenced(self, fence: bytes) -> NoReturn:
        raise LogFenced(self.name, int(fence))

    def _gone(self) -> NoReturn:
        self.lose("epoch_changed")
        raise LogClosed(self.name, "epoch_changed")

    def _diverged(self, top: bytes, tag: bytes) -> NoReturn:
        self.lose("diverged")
        raise LogClosed(self.name, "diverged")

    # Reading

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries | None:
        if after < self.base:
            raise self.reset(self.lost or "trimmed")
        if after < self._held.base:
            return None
        return self._held.slice(after, limit, size)

    async def read(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        while (entries := self.read_nowait(after, limit, size)) is None:
            count = size * self._held.batches // max(self._held.size, 1) + 1
            batches = await self._fetch(after, max(min(count, 256), 1))
            ours = not batches or batches[0].epoch == self.wire_epoch
            if batches and ours and batches[0].start <= after:
                return Columns.of(batches).slice(after, min(limit, self.top - after), size)
            await repeatedly(self.refresh, self._home.patience)
            if self.lost is not None:
                raise self.reset(self.lost)
            if ours:  # trimmed since, or only the entries are lost
                self.base = max(self.base, batches[0].start if batches else self._held.base)
        return entries

    def cursor(self, offset: int) -> Cursor:
        return self._tagged(super().cursor(offset))

    def end_cursor(self) -> Cursor:
        return self._tagged(super().end_cursor())

    async def resolve(self, cursor: Cursor) -> int:
        if cursor.epoch != self.epoch or cursor.offset > self.top:
            # The news of what the cursor is about may not have come yet.
            await repeatedly(self.refresh, self._home.patience)
        if self.lost is not None:
            raise self.reset(self.lost)
        if cursor.offset > self.top and cursor.tag and cursor.epoch == self.epoch:
            raise self.reset("diverged")  # once there was such an entry
        return await super().resolve(cursor)

    async def has_tag(self, offset: int, tag: str) -> bool:
        if not tag:
            return True
        found = self._held.tag_at(offset)
        if found is None:
            found = await self._fetch_tag(offset)
        return found == tag.encode()

    def size(self) -> tuple[int, int]:
        return self.top - self.base, self._held.cum - self.floor

    def _tagged(self, cursor: Cursor) -> Cursor:
        tag = self._held.tag_at(cursor.offset)
        return cursor if tag is None or tag == NO_TAG else replace(cursor, tag=tag.decode())

    async def _fetch(self, after: int, count: int) -> list[Batch]:
        """Fetch batches, once for all readers that ask for the same ones meanwhile."""
        if (fetch := self._fetches.get((after, count))) is None:
            fetching = repeatedly(lambda: self._home.fetch(self, after, count), self._home.patience)
            fetch = self._fetches[after, count] = self._home.spawn(fetching)
            fetch.add_done_callback(lambda _: self._fetches.pop((after, count)))
        return await asyncio.shield(fetch)

    async def _fetch_tag(self, offset: int) -> bytes | None:
        """Return the tag of the batch that holds an offset. At the base, the first kept batch knows it."""
        batches = await self._fetch(offset - 1, 1)
        if not batches:
            return None
        return batches[0].tag if batches[0].start < offset else batches[0].prev

    def trim(self) -> None:
        """See again whether the writer should wait. Entries are trimmed by appends, in Redis."""
        if self.full:
            self.full = self.writer is not None and self.writer.behind

    def bytes_after(self, offset: int) -> int:
        """Return about how many bytes of JSON are behind an offset, as far as they are held."""
        return self._held.bytes_after(offset)

    def is_at(self, epoch: bytes | None, top: bytes, tag: bytes, version: bytes, outcome: bytes) -> bool:
        """Tell whether the store has nothing else than this mirror."""
        if (epoch, tag) != (self.wire_epoch, self._held.tag) or (int(top), int(version)) != (self.top, self._version):
            return False
        return not outcome or self.outcome is not None

    # Mirroring

    def receive(self, frame: Frame) -> None:
        """Take what was published, or what an append's reply says."""
        if self.lost is None:
            if frame.epoch != self.wire_epoch:
                self.suspect()
            else:
                _RECEIVE[type(frame)](self, frame)

    def _receive_batch(self, batch: Batch) -> None:
        held = self._held
        if held.follows(batch):
            self._take(batch)
        elif batch.top > held.top:
            self._defer(batch, sum(map(len, batch.json)))
        elif held.tag_at(batch.top) not in (None, batch.tag):
            self.suspect()

    def _receive_end(self, end: End) -> None:
        if end.top > self.top:
            self._defer(end, 0)
        elif (end.top, end.tag) == (self.top, self._held.tag):
            self.end(end.outcome)
        else:
            self.suspect()

    def _receive_facts(self, facts: Facts) -> None:
        if facts.version > self._version:
            self._version = facts.version
            self.set_control(
                fence=facts.fence,
                leased=facts.leased and self.outcome is None,
                stopping=facts.stopping,
                elsewhere=len(facts.readers - {self._home.process}),
            )

    def _receive_dropped(self, _: Dropped) -> None:
        self.lose("epoch_changed")

    def _take(self, batch: Batch) -> None:
        self._held.add(batch)
        self._held.keep(HELD_BYTES)
        self.top = batch.top
        self._trimmed(batch.base, batch.floor)
        self._arrived()

    def _trimmed(self, base: int, floor: int) -> None:
        if base > self.base:
            self.base, self.floor = base, floor

    def _arrived(self) -> None:
        """Tell everybody who waits for entries."""
        self.fresh = True
        self.wake_readers()
        if self._awaited:
            for offset, waiter in self._awaited:
                if offset <= self.top and not waiter.done():
                    waiter.set_result(None)

    async def reach(self, offset: int) -> None:
        """Wait until the mirror has an offset that the store has. It is not reached if the store does not answer."""
        if self.top < offset and self.attached and self.lost is None:
            waiter = (offset, asyncio.get_running_loop().create_future())
            self._awaited.append(waiter)
            try:
                async with asyncio.timeout(OVERTAKEN):
                    await waiter[1]
            except TimeoutError:
                pass
            finally:
                self._awaited.remove(waiter)
        if self.top < offset:
            with suppress(StoreUnavailable):
                await self.refresh()

    def suspect(self) -> None:
        """Load what the store has, because something may be missing or wrong here."""
        self.stale = self._again = True
        if self._load is None or self._load.done():
            self._load = self._home.spawn(self._reload())

    def _defer(self, frame: Frame, size: int) -> None:
        """Keep a frame that came behind a gap until the gap is loaded."""
        self._early_size += size
        if self._early_size > EARLY_BYTES:
            self._early.clear()
        self._early.append(frame)
        self.suspect()

    async def refresh(self) -> None:
        """Learn what the store has now. Those who ask meanwhile share the answer. Raise StoreUnavailable."""
        begun = self._load
        if begun is not None and not begun.done():
            await asyncio.wait([begun])  # the store may have answered it before this call
        if self._load is begun:
            self._load = self._home.spawn(self._reload())
        assert self._load is not None
        await asyncio.shield(self._load)

    async def _reload(self) -> None:
        self._again = True
        while self._again and self.lost is None:
            self.stale, self._again = True, False
            top, tag = self.top, self._held.tag
            known = self.wire_epoch, top, self._held.cum
            answer = await self._home.run(self.name, self.keys, LOAD, *known, LOADED_BYTES)
            self.stale = self._again
            if self.lost is None:
                self.adopt(answer, top, tag)
            early, self._early, self._early_size = self._early, [], 0
            for frame in early:
                self.receive(frame)  # is deferred again if there is another gap

    def adopt(self, answer: list[Any], top: int = 0, tag: bytes = NO_TAG) -> None:
        """Take what LOAD answered to a mirror that stood at `top`, with the batch of a tag."""
        if answer[0] != b"ok":
            self.lose("epoch_changed")
            return
        meta, at, news = _pairs(answer[1]), batches_of(answer[2]), batches_of(answer[3])
        if not _continues(meta, at, news, top, tag):
            self.lose("diverged")
            return
        for batch in news:
            if batch.top > self.top:
                if not self._held.follows(batch):
                    # Too much is missing, or trimmed: go on from here. Readers fetch what is between.
                    self._held = Columns(batch.start, batch.prev, batch.cum - sum(map(len, batch.json)))
                self._take(batch)
        if (last := int(meta[b"top"])) > self.top:  # its entries are lost, but not what they were
            self._held = Columns(last, meta[b"tag"], int(meta[b"cum"]))
            self.top = last
            self._trimmed(last, self._held.cum)
            self._arrived()
        self._trimmed(int(meta[b"base"]), int(meta[b"floor"]))
        self._receive_facts(_facts(meta))
        if meta[b"out"]:
            self._receive_end(End(self.wire_epoch, last, meta[b"tag"], decode_outcome(meta[b"out"])))

    def end(self, outcome: Outcome) -> Outcome:
        if self.outcome is None and self.readers:
            self._home.used(self)  # an ended log expires sooner, and its readers need it still
        return super().end(outcome)

    def count_readers(self, change: int) -> None:
        super().count_readers(change)
        if self.readers == max(change, 0):
            self._home.used(self)


_REFUSALS: dict[bytes, Callable[..., NoReturn]] = {
    b"closed": RedisLog._closed,
    b"fenced": RedisLog._fenced,
    b"gone": RedisLog._gone,
    b"diverged": RedisLog._diverged,
}

_RECEIVE: dict[type[Frame], Callable[[RedisLog, Any], None]] = {
    Batch: RedisLog._receive_batch,
    End: RedisLog._receive_end,
    Facts: RedisLog._receive_facts,
    Dropped: RedisLog._receive_dropped,
}


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Raise StoreUnavailable where a connection says why there is no answer about a log."""
    try:
        yield
    except (Unreachable, Refused) as error:
        raise StoreUnavailable(name, str(error)) from error


async def repeatedly(attempt: Callable[[], Coroutine[Any, Any, T]], patience: float) -> T:
    """Repeat an attempt that the store does not answer, for `patience` seconds. Then raise StoreUnavailable."""
    loop = asyncio.get_running_loop()
    until, delay = loop.time() + patience, RETRY_DELAY
    while True:
        try:
            return await attempt()
        except StoreUnavailable:
            if loop.time() + delay > until:
                raise
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


def _or_empty(number: int | None) -> Part:
    return b"" if number is None else number


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def batches_of(entries: list[list[Any]]) -> list[Batch]:
    """Read entries of a Redis Stream."""
    return [parse_batch(fields[1]) for _, fields in entries]


def _facts(meta: Mapping[bytes, bytes]) -> Facts:
    leased, stopping = bool(meta[b"owner"]), meta[b"stop"] == b"1"
    readers = frozenset(meta[b"readers"].split())
    return Facts(meta[b"epoch"], int(meta[b"version"]), int(meta[b"fence"]), leased, stopping, readers)


def _continues(meta: Mapping[bytes, bytes], at: list[Batch], news: list[Batch], top: int, tag: bytes) -> bool:
    """Tell whether a stream still has what a mirror has: up to `top`, where the batch with a tag ended."""
    last = int(meta[b"top"])
    if last <= top:
        return (last, meta[b"tag"]) == (top, tag)
    if at:
        return at[0].tag == tag
    if news and news[0].start == top:
        return news[0].prev == tag
    # The batch was trimmed, or its entries are lost. Otherwise it would be there.
    return not news or news[0].start > top
