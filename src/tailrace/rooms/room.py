"""A room: a named log with many publishers, its members, and a bounded history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

from ..cursor import Cursor
from ..engine.engine import Engine
from ..errors import StreamError
from ..events import Event
from ..flow import Flow, LogStatistics, Retention
from ..log.base import Log, Tail
from .limits import Rates, RoomLimits, check_name
from .presence import RETENTION, Presence


@dataclass(frozen=True, slots=True)
class RoomStatistics:
    """A room's current numbers: its members in all processes, the connections to this one, and its log."""

    members: int
    connections: int
    log: LogStatistics


class Room:
    """A room, as this process knows it. Hold the object while you use the room."""

    def __init__(self, name: str, log: Log, members: Log, settings: RoomSettings) -> None:
        """Make a room of its log and the log of its members. `Rooms.get` does this."""
        self.name = name
        self.log = log
        self._settings = settings
        self._presence = Presence(members, self._announce, leave_delay=settings.leave_delay)
        self._rates = Rates(settings.limits.rate, settings.limits.burst)

    async def publish(self, *messages: Any, member: str | None = None) -> range:
        """Append messages, which are any JSON-able values, and return their offsets.

        Raise EventError for a message that is not JSON-able, and StoreUnavailable if the store does not answer.
        """
        time = _now()
        said = [Event({"member": member, "message": message, "time": time}, event="message") for message in messages]
        return await self.log.append(*said)

    def check_rate(self, sender: str, count: int) -> None:
        """Count messages of a sender. Raise StreamError if they are too many for now."""
        if wait := self._rates.take(sender, count):
            limits = self._settings.limits
            message = f"expected at most {limits.rate:g} messages per second, but got more: send them again later"
            raise StreamError(message, code="too_many_messages", status=429, retry_after=int(wait) + 1)

    async def join(self, after: Cursor | str | None = None, *, flow: Flow | None = None) -> Tail:
        """Return a reader of the messages after a cursor, or of the newest `history` messages and what follows.

        Raise CursorError for a malformed cursor, and LogReset if the room cannot continue there.
        """
        cursor = Cursor.parse(after) if isinstance(after, str) else after
        self.log.trim()
        newest = max(self.log.base, self.log.top - self.history)
        place = newest if cursor is None else await self.log.resolve(cursor)
        return self.log.tail(place, flow=flow or self._settings.flow)

    @property
    def history(self) -> int:
        """How many of the newest events a first join gets."""
        return self._settings.history

    async def members(self) -> list[str]:
        """Return the members in all processes, in alphabetical order."""
        return await self._presence.members()

    def check_space(self) -> None:
        """Raise StreamError if too many members are connected to this process."""
        limit = self._settings.limits.members
        if self.log.readers >= limit:
            message = f"expected fewer than {limit} readers of the room, but there are as many"
            raise StreamError(message, code="room_full", status=503)

    @asynccontextmanager
    async def present(self, member: str | None) -> AsyncIterator[None]:
        """Count somebody as a member while the block runs. None stays unseen."""
        if member is None:
            yield
            return
        await self._presence.enter(member)
        try:
            yield
        finally:
            await self._presence.leave(member)

    async def statistics(self) -> RoomStatistics:
        """Return the room's current numbers."""
        return RoomStatistics(len(await self.members()), self._presence.connections, self.log.statistics())

    async def _announce(self, member: str, joined: bool, count: int) -> None:
        event = {"member": member, "members": count, "time": _now()}
        await self.log.append(Event(event, event="join" if joined else "leave"))


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """What all rooms of a router have in common.

    - `history`: how many messages a first join gets.
    - `retention`: how much of a room's history is kept for those who come back.
    - `flow`: the policy for members that read slowly.
    - `leave_delay`: the seconds in which a member may come back without having left.
    """

    limits: RoomLimits
    history: int
    retention: Retention
    flow: Flow
    leave_delay: float


class Rooms:
    """The rooms that this process uses, by the names of their logs. Unused ones are forgotten."""

    def __init__(self, settings: RoomSettings) -> None:
        self.settings = settings
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._rooms)

    async def get(self, engine: Engine, path: str, name: str) -> Room:
        """Return the room whose log is named by a path. Raise StreamError for a name that no room may have."""
        check_name(name)
        if (room := self._rooms.get(path)) is not None and room.log.broken_off is None:
            return room
        if len(self._rooms) >= self.settings.limits.rooms:
            message = f"expected fewer than {self.settings.limits.rooms} rooms in use, but there are as many"
            raise StreamError(message, code="too_many_rooms", status=503)
        log = await engine.log(path, retention=self.settings.retention)
        members = await engine.log(f"{path}/members", retention=RETENTION)
        if (room := self._rooms.get(path)) is None or room.log is not log:
            room = self._rooms[path] = Room(name, log, members, self.settings)
        return room


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
