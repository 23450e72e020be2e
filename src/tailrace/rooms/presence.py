"""Who is in a room: a log of members who come and go, which each process reads for itself.

Each process writes an entry when a member's first connection to it comes, and another one some time after the last has
gone. All processes read the same entries in the same order, so all agree on which entry made somebody a member of the
room. The process that wrote this entry announces it in the room. So each join and each leave is announced once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from secrets import token_urlsafe
from typing import Any, TypeAlias

from pydantic_core import from_json

from ..flow import Retention
from ..log.base import Log

RETENTION = Retention(count=1_024, size=16 << 20)

SNAPSHOT_EVERY = 256
"""After how many entries somebody writes who is in the room. A process that comes later begins there."""

Announce: TypeAlias = Callable[[str, bool, int], Awaitable[object]]
"""A function to call with a member, whether it has joined or left, and the number of members then."""


class Presence:
    """The members of a room. One that is connected several times, to any processes, counts once."""

    def __init__(self, log: Log, announce: Announce, *, leave_delay: float) -> None:
        """Read the members from a log. `leave_delay`: the seconds in which a member may come back unnoticed."""
        self._log = log
        self._announce = announce
        self._delay = leave_delay
        self._process = token_urlsafe(6)
        self._connections: Counter[str] = Counter()  # to this process
        self._told: set[str] = set()  # the members whose coming this process has written
        self._here: dict[str, set[str]] = {}  # the members by process, up to `_read`
        self._count: Counter[str] = Counter()  # by how many processes each member is told to be here
        self._read = -1
        self._changes: dict[int, list[tuple[str, bool, int]]] = {}  # by entries of this process
        self._snapshot = 0

    @property
    def connections(self) -> int:
        """How many connections to this process the members have."""
        return self._connections.total()

    async def members(self) -> list[str]:
        """Return the members in alphabetical order."""
        await self._catch_up()
        return sorted(self._count)

    async def enter(self, member: str) -> None:
        """Note a new connection of a member."""
        self._connections[member] += 1
        if member not in self._told:
            self._told.add(member)
            await self._write({"in": [member]})

    async def leave(self, member: str) -> None:
        """Note the end of a connection. Return when the member has left the room, or has come back."""
        self._drop(member)
        if member not in self._connections:
            try:
                await asyncio.sleep(self._delay)
            finally:  # also if the server ends meanwhile
                if member in self._told and member not in self._connections:
                    self._told.discard(member)
                    await self._write({"out": [member]})

    def _drop(self, member: str) -> None:
        self._connections[member] -= 1
        if not self._connections[member]:
            del self._connections[member]

    async def _write(self, change: dict[str, Any]) -> None:
        await self._catch_up()
        [offset] = await self._log.append({"process": self._process, **change})
        await self._catch_up()
        for change_ in self._changes.pop(offset, ()):
            await self._announce(*change_)
        if offset - self._snapshot >= SNAPSHOT_EVERY:
            self._snapshot = offset
            here = {process: sorted(members) for process, members in self._here.items()}
            await self._log.append({"all": here, "at": self._read})

    # Reading

    async def _catch_up(self) -> None:
        """Read what is new in the log."""
        if self._read < self._log.base:
            await self._begin()
        while self._read < self._log.top:
            entries = await self._log.read(self._read, 1_024)
            for offset, json in zip(entries.offsets, entries.json, strict=True):
                self._apply(offset, from_json(json))

    async def _begin(self) -> None:
        """Begin with the newest snapshot, or with the first entry if there is none."""
        self._here, self._count, self._read = {}, Counter(), self._log.base
        after = self._log.base
        while after < self._log.top:
            entries = await self._log.read(after, 1_024)
            for offset, json in zip(entries.offsets, entries.json, strict=True):
                if json.startswith(b'{"all"'):
                    self._take_snapshot(offset, from_json(json))
            after = entries.offsets[-1]

    def _take_snapshot(self, offset: int, entry: dict[str, Any]) -> None:
        self._here = {process: set(members) for process, members in entry["all"].items()}
        self._count = Counter(member for members in self._here.values() for member in members)
        self._read, self._snapshot = entry["at"], offset

    def _apply(self, offset: int, entry: dict[str, Any]) -> None:
        self._read = offset
        if "all" in entry:
            self._snapshot = offset
            return
        process = entry["process"]
        changes = [*self._come(process, entry.get("in", ())), *self._go(process, entry.get("out", ()))]
        if process == self._process:
            self._changes[offset] = changes

    def _come(self, process: str, members: Iterable[str]) -> Iterable[tuple[str, bool, int]]:
        for member in members:
            self._here.setdefault(process, set()).add(member)
            self._count[member] += 1
            if self._count[member] == 1:
                yield member, True, len(self._count)

    def _go(self, process: str, members: Iterable[str]) -> Iterable[tuple[str, bool, int]]:
        here = self._here.get(process, set())
        for member in members:
            here.discard(member)
            self._count[member] -= 1
            if self._count[member] <= 0:
                del self._count[member]
                yield member, False, len(self._count)
        if not here:
            self._here.pop(process, None)
