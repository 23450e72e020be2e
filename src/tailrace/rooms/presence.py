"""The members of a room, as a log of joins and leaves that each process reads.

| entry | meaning |
|---|---|
| `{"process": p, "in": [m], "out": [n]}` | member m has come to process p, and n has left it |
| `{"gone": p}` | process p has ended, so its members are not connected to it any more |
| `{"all": {p: [m]}, "at": n}` | who was where after entry n, so that a late process need not read everything |

All processes read the same entries in the same order, so all agree on which entry made somebody a member of the room,
or no longer one. The writer of this entry announces it in the room. So each join and each leave is announced once,
although several processes may write that another one is gone.

Readers of the room count its members by these announcements, so they must come in the order of the entries, even if
several processes wrote them. Therefore, a writer first announces what earlier entries have changed, unless it knows
that this is done. An announcement has a key that is made of its entry's offset, so it is in the room once, although
several processes make it. Two more members of an entry keep this short: `announced` is the offset up to which its
writer knows that everything is announced, and `room` is where the room was then, as its epoch and its top. If the room
has trimmed anything after that, it may have forgotten the key, and the announcement might come twice. So it is left out
then.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from pydantic_core import from_json

from ..errors import LogClosed, LogReset, StoreUnavailable
from ..events import Event
from ..flow import Retention
from ..log.base import Log, Tail
from .lives import Lives

RETENTION = Retention(count=1_024, size=16 << 20)

SNAPSHOT_EVERY = 256
"""After how many entries a process writes a snapshot of the members. A process that comes later begins there."""

Change: TypeAlias = tuple[str, bool, int]
"""A member, True if it has joined or False if it has left, and the number of members then."""

logger = logging.getLogger("tailrace")


@dataclass(frozen=True, slots=True)
class News:
    """The changes that an entry has made, and the epoch and the top of the room when it was written."""

    changes: list[Change]
    epoch: str
    top: int


class Presence:
    """The members of a room. One that is connected several times, to any processes, counts once."""

    def __init__(self, log: Log, room: Log, lives: Lives, *, leave_delay: float) -> None:
        """Read the members from a log, and announce them in the log of their room.

        `leave_delay`: the seconds in which a member may come back unnoticed.
        """
        self.log = log
        self._room = room
        self._delay = leave_delay
        self._lives = lives
        self._reading = asyncio.Lock()
        self._announcing = asyncio.Lock()
        self._telling = asyncio.Lock()
        _keep_up_to_date(log, self)
        self._connections: Counter[str] = Counter()  # to this process
        self._told: set[str] = set()  # the members whose join this process has written
        self._here: dict[str, set[str]] = {}  # the members by process, up to `_read`
        self._count: Counter[str] = Counter()  # by how many processes each member is told to be here
        self._read = -1
        self._unannounced: dict[int, News] = {}  # what may have to be announced, by the offset of its entry
        self._announced = 0  # everything up to this entry is announced
        self._snapshot = 0
        self._visitors = 0  # the connections to this process, by all members
        self._following: tuple[Tail, asyncio.Task[None]] | None = None

    @property
    def connections(self) -> int:
        """How many connections to this process the members have."""
        return self._connections.total()

    async def members(self) -> list[str]:
        """Return the members in alphabetical order."""
        await self._catch_up()
        return sorted(self._count)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Keep up with the other processes while the block runs, so that somebody notices when one of them dies.

        Blocks that run at the same time share a task.
        """
        self._visitors += 1
        if self._lives.shared and (self._following is None or self._following[1].done()):
            tail = self.log.tail(self.log.top)
            self._following = tail, asyncio.create_task(self._follow(tail), name=f"tailrace presence {self.log.name}")
        try:
            yield
        finally:
            self._visitors -= 1
            if not self._visitors and self._following is not None:
                (tail, task), self._following = self._following, None
                tail.close()
                await task

    async def enter(self, member: str) -> None:
        """Note a new connection of a member."""
        self._connections[member] += 1
        if member not in self._told:
            self._told.add(member)
            await self._tell()

    async def leave(self, member: str) -> None:
        """Note the end of a connection. Return when the member has left the room, or has come back.

        If the server is about to stop, return at once: other processes tell of the leave when this one has ended.
        """
        self._connections[member] -= 1
        if self._connections[member]:
            return
        del self._connections[member]
        try:
            await self._lives.pause(self._delay)
        finally:  # also if the server ends meanwhile
            if member in self._told and member not in self._connections:
                self._told.discard(member)
                if not self._lives.hands_over:
                    await self._tell_leave(member)

    async def _tell_leave(self, member: str) -> None:
        try:
            await self._tell()
        except StoreUnavailable as error:
            # The next join or leave at this process tells of this one, too.
            logger.warning("%s: cannot announce yet that %s has left: %s", self.log.name, member, error)
        except LogClosed:
            pass  # the store has lost the room, and its readers know

    async def bury(self, process: str) -> None:
        """Note that a process has ended: another one, or this one as the others see it."""
        if self._told:
            # If it is this one, its members join under its new name before they leave under the old one.
            await self._tell()
        await self._catch_up()
        if process in self._here:
            await self._append({"gone": process})

    async def _tell(self) -> None:
        """Write which members have joined or left this process since the last write."""
        async with self._telling:  # one at a time, as each looks at what the one before has written
            process = await self._lives.own()
            await self._catch_up()
            here = self._here.get(process, set())
            change = {"in": sorted(self._told - here), "out": sorted(here - self._told)}
            if any(change.values()):
                await self._append({"process": process, **change})

    async def _append(self, entry: dict[str, Any]) -> None:
        place = {"announced": self._announced, "room": [self._room.epoch, self._room.top]}
        [offset] = await self.log.append({**entry, **place})
        await self._catch_up()
        await self._announce(offset)
        if offset - self._snapshot >= SNAPSHOT_EVERY:
            self._snapshot = offset
            here = {process: sorted(members) for process, members in self._here.items()}
            await self.log.append({"all": here, "at": self._read})

    async def _announce(self, last: int) -> None:
        """Announce what an entry of this process has changed, and before it what earlier ones have."""
        async with self._announcing:
            if last not in self._unannounced:
                return  # it has changed nothing, or another process has announced it
            if next(iter(self._unannounced)) < last:
                await self._room.catch_up()  # to know what it has trimmed
            while self._unannounced and (first := next(iter(self._unannounced))) <= last:
                news = self._unannounced[first]
                if self._room.epoch == news.epoch and self._room.base <= news.top:
                    await self._room.append(*map(_event_of, news.changes), key=f"presence {self.log.epoch} {first}")
                self._unannounced.pop(first, None)
            self._announced = max(self._announced, last)

    # Reading

    async def _follow(self, tail: Tail) -> None:
        """Read what is written until the tail is closed. After an error, the next visitor begins to follow again."""
        with tail, suppress(LogReset):  # a reset means that the store has lost the room
            try:
                await self._catch_up()
                async for _ in tail:
                    await self._catch_up()
            except StoreUnavailable as error:
                logger.warning("%s: the death of a process may be noticed late: %s", self.log.name, error)

    async def _catch_up(self) -> None:
        """Read what is new in the log."""
        async with self._reading:
            if self._read < self.log.base:
                await self._begin()
            while self._read < self.log.top:
                entries = await self.log.read(self._read, 1_024)
                for offset, json in zip(entries.offsets, entries.json, strict=True):
                    self._apply(offset, from_json(json))

    async def _begin(self) -> None:
        """Begin with the newest snapshot, or with the first entry if there is none."""
        self._here, self._count, self._unannounced, self._read = {}, Counter(), {}, self.log.base
        after = self.log.base
        while after < self.log.top:
            entries = await self.log.read(after, 1_024)
            for offset, json in zip(entries.offsets, entries.json, strict=True):
                if json.startswith(b'{"all"'):
                    self._take_snapshot(offset, from_json(json))
            after = entries.offsets[-1]

    def _take_snapshot(self, offset: int, entry: dict[str, Any]) -> None:
        self._here = {process: set(members) for process, members in entry["all"].items()}
        self._count = Counter(member for members in self._here.values() for member in members)
        for process in self._here:
            self._lives.watch(process)
        self._read, self._snapshot = entry["at"], offset

    def _apply(self, offset: int, entry: dict[str, Any]) -> None:
        self._read = offset
        if "all" in entry:
            self._snapshot = offset
            return
        if (gone := entry.get("gone")) is not None:
            changes = [*self._go(gone, sorted(self._here.get(gone, ())))]
        else:
            process = entry["process"]
            changes = [*self._come(process, entry["in"]), *self._go(process, entry["out"])]
        self._announced = max(self._announced, entry["announced"])
        while self._unannounced and (first := next(iter(self._unannounced))) <= self._announced:
            del self._unannounced[first]
        if changes:
            self._unannounced[offset] = News(changes, *entry["room"])

    def _come(self, process: str, members: Iterable[str]) -> Iterable[Change]:
        self._lives.watch(process)
        here = self._here.setdefault(process, set())
        for member in members:
            if member not in here:
                here.add(member)
                self._count[member] += 1
                if self._count[member] == 1:
                    yield member, True, len(self._count)
        if not here:
            del self._here[process]

    def _go(self, process: str, members: Iterable[str]) -> Iterable[Change]:
        here = self._here.get(process, set())
        for member in members:
            if member in here:
                here.discard(member)
                self._count[member] -= 1
                if not self._count[member]:
                    del self._count[member]
                    yield member, False, len(self._count)
        if not here:
            self._here.pop(process, None)


def now() -> str:
    """Return the time as ISO 8601, in UTC and with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event_of(change: Change) -> Event[dict[str, Any]]:
    member, joined, count = change
    return Event({"member": member, "members": count, "time": now()}, event="join" if joined else "leave")


def _keep_up_to_date(log: Log, reader: object) -> None:
    """Keep a log from being let go while an object lives that reads it now and then."""

    def listener(_: Log) -> None:
        """Do nothing: a log that somebody listens to is in use."""

    log.listen(listener)
    weakref.finalize(reader, log.unlisten, listener)
