"""A process's local copy of a stream in Redis, and how it stays up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol, Self, TypeVar

from ...errors import LogClosed, LogFenced, ResetReason, StoreUnavailable
from ...events import Outcome
from ...flow import Retention
from ..base import Listener, Log, Row
from .address import Part
from .connection import Reply
from .frames import (
    BATCH,
    Batch,
    Dropped,
    End,
    Facts,
    Frame,
    batch_of,
    decode_outcome,
    parse,
    split_batch,
)
from .held import Held
from .link import Call, Script
from .loaded import Loaded
from .scripts import LOAD, Keys

T = TypeVar("T")

LOADED_BYTES = 256 << 10
"""How many bytes of the newest batches a mirror loads at once."""

EARLY_BYTES = 1 << 20
"""How many bytes of frames a mirror keeps that arrive after a gap. If there are more, it drops them and loads again."""

OVERTAKEN = 0.05
"""Seconds to wait for the batches of others that came between, before they are loaded."""


class Home(Protocol):
    """The parts of a store that a mirror uses."""

    process: bytes
    """The name of this process. It has no space."""

    patience: float
    """For how many seconds a failed call is repeated."""

    tags: Iterator[bytes]
    """The names of new batches."""

    async def run(self, name: str, keys: Keys, script: Script, *arguments: Part) -> list[Any]:
        """Run a script on a log's keys. Raise StoreUnavailable."""

    def prepare(self, script: Script, keys: Keys, *first: Part, more: int) -> Call:
        """Prepare a call of a script, to send it by `post` many times."""

    def post(self, call: Call, packed: bytes, reply: Reply) -> None:
        """Send what was packed of a call now. Raise NotSent if there is no connection.

        Unlike `run`, this takes neither a task nor a future, and leaves it to the reply to repeat a call that fails.
        """

    async def fetch(self, log: Mirror, after: int, size: int) -> list[Batch]:
        """Return batches from the one that holds the next entry, within `size` bytes if there are several.

        Raise StoreUnavailable.
        """

    def open(self) -> None:
        """Use the store again if it was closed."""

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in the background until it is done or the store is closed. It may be closed already."""

    def used(self, log: Mirror) -> None:
        """Note that a log is read or written here, or is no longer."""

    def loaded(self, log: Mirror) -> None:
        """Note that a degraded log has loaded what the store has."""

    def written(self, log: Mirror) -> None:
        """Renew a log's expiry if it is time to, because somebody uses it."""

    def keep_ms(self, log: Mirror, *, ended: bool) -> int:
        """Return for how many milliseconds from now to keep a log, or 0 for always."""


class Leased(Protocol):
    """The parts of a writer that the mirror in its process uses."""

    fence: int

    async def append(self, rows: Sequence[Row]) -> range:
        """Write rows and wait until they are stored. Return their offsets."""

    def lose(self) -> None:
        """Write no more, because the lease is lost."""

    @property
    def behind(self) -> bool:
        """True while the writer should wait, because too much is not stored or not read."""


class Mirror(Log):
    """A mirror: the newest batches of a stream and all facts about it, kept up to date by its channel.

    Frames may come twice, late or not at all, and an append's reply may overtake those of others. So a batch is taken
    only if it is the next one, by its offset and by the tag of the batch before. On anything else the mirror loads what
    the store has. Loading also shows when the store has lost what this mirror has: then the mirror is `lost`.
    """

    __slots__ = (
        "_again", "_awaited", "_early", "_early_size", "_held", "_home", "_load", "_version",
        "channel", "channels", "claim", "floor", "fresh", "hears", "keepers", "keys", "leasing", "maker", "stale",
        "told", "touched", "wire_epoch", "writer",
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
        self.channels = keys.meta.encode(), self.channel
        self.hears = 0  # how many of the channels are subscribed
        self.wire_epoch = meta[b"epoch"]
        self.keepers: tuple[Listener, ...] = ()  # listeners that keep it without using it
        self.stale = False  # True if it may have missed something
        self.writer: Leased | None = None  # the writer in this process
        self.told = False  # True if the store knows of readers in this process
        self.claim: tuple[str, str] | None = None  # the claim before and a new one that the store does not know yet
        self.touched = 0.0  # when this process last renewed the expiry, or 0 if it should
        self.leasing = False  # True while this process asks for the lease
        self.maker = meta[b"maker"]
        self.fresh = True  # True if it had news since the last beat
        self.floor = 0
        self._home = home
        self._held = Held(0)
        self._version = -1
        self._early: list[Frame] = []
        self._early_size = 0
        self._load: asyncio.Task[None] | None = None
        self._again = False  # True if what is loading may be older than what made the mirror suspicious
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []

    @classmethod
    def load(cls, home: Home, name: str, keys: Keys, answer: list[Any]) -> Self:
        """Make a mirror from what LOAD answered."""
        loaded = Loaded(answer)
        log = cls(home, name, keys, loaded.meta)
        log._adopt(loaded)
        return log

    # Asking the store

    async def run(self, script: Script, *arguments: Part) -> list[Any]:
        """Run a script on this incarnation. Return its answer without the first word, or raise what it refuses."""
        return self._granted(await self._home.run(self.name, self.keys, script, self.wire_epoch, *arguments))

    def _granted(self, answer: list[Any]) -> list[Any]:
        """Return the answer of a script without the first word, or raise what it refuses."""
        word, *rest = answer
        if word != b"ok":
            _REFUSALS[word](self, *rest)
        return rest

    def _closed(self, outcome: bytes) -> NoReturn:
        if self.outcome is None:
            self.suspect()
        raise LogClosed(self.name, decode_outcome(outcome).state)

    def _fenced(self, fence: bytes) -> NoReturn:
        raise LogFenced(self.name, int(fence))

    def _gone(self) -> NoReturn:
        self.lose("epoch_changed")
        raise LogClosed(self.name, "epoch_changed")

    def _diverged(self, top: bytes, tag: bytes) -> NoReturn:
        self.lose("diverged")
        raise LogClosed(self.name, "diverged")

    def trim(self) -> None:
        """Check again whether the writer should wait. Entries are trimmed by appends, in Redis."""
        if self.full:
            self.full = self.writer is not None and self.writer.behind

    @property
    def used(self) -> bool:
        """True if this process reads or writes the stream, or waits for what happens to it."""
        if self.readers or self.writer is not None:
            return True
        return any(listener not in self.keepers for listener in self._listeners)

    @property
    def needs(self) -> int:
        """How many of its channels this process must hear, in their order.

        It hears what happens to a log that it uses or has made, and the batches as well, unless it writes them itself.
        """
        if self.writer is not None:
            return 1
        return 2 if self.used else int(self.unbegun)

    @property
    def attached(self) -> bool:
        """True if this process hears what happens to the log."""
        return self.hears > 0

    @property
    def hears_all(self) -> bool:
        """True if all batches come to this process by themselves."""
        return self.hears > 1 or self.writer is not None

    @property
    def unbegun(self) -> bool:
        """True if this process has made the stream, and has yet to write it. If it dies, the stream must end."""
        begun = self.control.fence or self.top or self.outcome is not None or self.lost is not None
        return not begun and self.maker == self._home.process != b""

    @property
    def involved(self) -> bool:
        """True if others must act on the stream when this process dies: it reads, writes or has made it."""
        return self.readers > 0 or self.writer is not None or self.leasing or self.unbegun

    def claim_seat(self, seat: str, before: str) -> None:
        self.claim = before, seat
        self._home.used(self)

    def listen(self, listener: Listener) -> None:
        super().listen(listener)
        if self.needs > self.hears:
            self._home.used(self)  # it must hear of what this listener waits for

    def bytes_after(self, offset: int) -> int:
        """Return about how many bytes of JSON are behind an offset, as far as they are held."""
        return self._held.bytes_after(offset)

    def is_at(self, epoch: bytes | None, top: bytes, tag: bytes, version: bytes, outcome: bytes) -> bool:
        """Tell whether the store has nothing else than this mirror."""
        if (epoch, tag) != (self.wire_epoch, self._held.tag) or (int(top), int(version)) != (self.top, self._version):
            return False
        return not outcome or self.outcome is not None

    # Mirroring

    def hear(self, data: bytes) -> None:
        """Take what was published."""
        if data[0] != BATCH:
            self.receive(parse(data))
            return
        _, epoch, top, n, tag, prev, _, rest = fields = split_batch(data)
        if epoch == self.wire_epoch and self.lost is None:
            if n == b"1":
                # Most frames are the next entry, without a name, of a stream that was not trimmed.
                lines = rest.split(b"\n")
                if len(lines) == 2 and lines[0].isdigit() and self._take_entry(top, prev, tag, lines[1]):
                    return
            # A load, or the reply to this process's own append, has said it already. To read it again takes longer.
            if (at := int(top)) <= self.top and self._held.tag_at(at) in (None, tag):
                return
        self.receive(batch_of(fields))

    def receive(self, frame: Frame) -> None:
        """Take what a frame or an append's reply says."""
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
        if self.outcome is None and not facts.leased and any(type(frame) is End for frame in self._early):
            # Nobody holds the lease because the log has ended, which a writer must not take for a loss of its lease.
            self._early.append(facts)
        elif facts.version > self._version:
            self._version = facts.version
            self.set_control(
                fence=facts.fence,
                leased=facts.leased and self.outcome is None,
                stopping=facts.stopping,
                elsewhere=len(facts.readers - {self._home.process}),
                seat=facts.seat.decode(),
            )

    def _receive_dropped(self, _: Dropped) -> None:
        self.lose("epoch_changed")

    def _take(self, batch: Batch) -> None:
        self._held.add(batch)
        self.top = batch.top
        if batch.trimmed is not None:
            self._trimmed(*batch.trimmed)
        self._arrived()

    def _take_entry(self, top: bytes, prev: bytes, tag: bytes, json: bytes) -> bool:
        """Take a batch of one entry without a name if it is the next one. A Batch of it would take twice as long."""
        held = self._held
        if prev != held.tag or int(top) != held.top + 1:
            return False
        held.add_entry(tag, json)
        self.top = held.top
        self._arrived()
        return True

    def _go_on_with(self, batch: Batch) -> None:
        """Take a batch even if too much before it is missing here, or trimmed. Readers fetch what is between."""
        if not self._held.follows(batch):
            self._held = Held.before(batch)
        self._take(batch)

    def _trimmed(self, base: int, floor: int) -> None:
        if base > self.base:
            self.base, self.floor = base, floor

    def _arrived(self) -> None:
        """Tell everybody who waits for entries."""
        self.fresh = True
        if self._sleepers:  # most frames of a flood find all readers awake
            self.wake_readers()
        if self._awaited:
            for offset, waiter in self._awaited:
                if offset <= self.top and not waiter.done():
                    waiter.set_result(None)

    async def reach(self, offset: int) -> None:
        """Wait until the mirror has an offset that the store has. It is not reached if the store does not answer."""
        if self.top < offset and self.hears_all and self.lost is None:
            waiter = (offset, asyncio.get_running_loop().create_future())
            self._awaited.append(waiter)
            try:
                await asyncio.wait([waiter[1]], timeout=OVERTAKEN)
            finally:
                self._awaited.remove(waiter)
        if self.top < offset:
            with suppress(StoreUnavailable):
                await self.refresh()

    def doubt(self) -> None:
        """Note that something may be missing here, even after what is loading now."""
        self.stale = self._again = True

    def suspect(self) -> None:
        """Load what the store has, because something may be missing or wrong here."""
        self.doubt()
        if self._load is None or self._load.done():
            self._load = self._home.spawn(self._reload())

    def _defer(self, frame: Frame, size: int) -> None:
        """Keep a frame that came after a gap until the gap is loaded."""
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
            self._home.open()
            self._load = self._home.spawn(self._reload())
        assert self._load is not None
        await asyncio.shield(self._load)

    async def _reload(self) -> None:
        self._again = True
        while self._again and self.lost is None:
            self.stale, self._again = True, False
            self._early, self._early_size = [], 0  # the answer has what they say, or the store has lost it
            top, tag = self.top, self._held.tag
            answer = await self._home.run(self.name, self.keys, LOAD, self.wire_epoch, top, LOADED_BYTES)
            self.stale = self._again
            if self.lost is None:
                self._adopt_answer(answer, top, tag)
            for frame in tuple(self._early):
                self.receive(frame)  # is deferred again if there is another gap
        if self.degraded:
            self._home.loaded(self)

    def _adopt_answer(self, answer: list[Any], top: int, tag: bytes) -> None:
        """Take what LOAD answered to a mirror that stood at `top`, with the batch of a tag."""
        if answer[0] != b"ok":
            self.lose("epoch_changed")
            return
        loaded = Loaded(answer)
        if loaded.continues(top, tag):
            self._adopt(loaded)
        else:
            self.lose("diverged")

    def _adopt(self, loaded: Loaded) -> None:
        for batch in loaded.batches_after(self.top):  # many may have been heard since the question
            self._go_on_with(batch)
        if loaded.top > self.top:  # its entries are lost, but not what they were
            self._held = Held(loaded.top, loaded.tag, loaded.cum)
            self.top = loaded.top
            self._trimmed(loaded.top, loaded.cum)
            self._arrived()
        meta = loaded.meta
        self._trimmed(int(meta[b"base"]), int(meta[b"floor"]))
        if meta[b"out"]:  # first, because it is why nobody holds the lease
            self._receive_end(End(self.wire_epoch, loaded.top, loaded.tag, decode_outcome(meta[b"out"])))
        self._receive_facts(loaded.facts)

    def end(self, outcome: Outcome) -> Outcome:
        if self.outcome is None and (self.readers or self.unbegun):
            self._home.used(self)  # an ended log expires sooner, and its readers need it still
        return super().end(outcome)

    def lose(self, reason: ResetReason) -> None:
        if self.unbegun:
            self._home.used(self)  # no longer
        super().lose(reason)

    def count_readers(self, change: int) -> None:
        super().count_readers(change)
        if self.readers == max(change, 0):
            self._home.used(self)


_REFUSALS: dict[bytes, Callable[..., NoReturn]] = {
    b"closed": Mirror._closed,
    b"fenced": Mirror._fenced,
    b"gone": Mirror._gone,
    b"diverged": Mirror._diverged,
}

_RECEIVE: dict[type[Frame], Callable[[Mirror, Any], None]] = {
    Batch: Mirror._receive_batch,
    End: Mirror._receive_end,
    Facts: Mirror._receive_facts,
    Dropped: Mirror._receive_dropped,
}
