"""A room: a named log with many publishers, its members, and a bounded history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from ..cursor import Cursor
from ..engine.engine import Engine
from ..errors import LogClosed, StreamError
from ..events import Event
from ..flow import Flow, LogStatistics, Retention
from ..log.base import Log, Tail
from .limits import Rates, RoomLimits, check_name, check_path
from .lives import Lives
from .presence import RETENTION, Presence, now


@dataclass(frozen=True, slots=True)
class RoomStatistics:
    """A room's current numbers: its members in all processes, the connections to this one, and its log."""

    members: int
    connections: int
    log: LogStatistics


class Room:
    """A room, as this process knows it. Hold the object while you use the room."""

    def __init__(self, name: str, log: Log, members: Log, lives: Lives, settings: RoomSettings) -> None:
        """Make a room of its log and the log of its members. `Rooms.get` does this."""
        self.name = name
        self.log = log
        self.users = 0
        """How many requests use the room now."""
        self._settings = settings
        self._presence = Presence(members, log, lives, leave_delay=settings.leave_delay)

    async def publish(
        self, *messages: Any, member: str | None = None, event: str = "message", key: str | None = None
    ) -> range:
        """Append messages, which are any JSON-able values, and return their offsets.

        - `event`: the name of their events, if they are no usual messages.
        - `key`: a name for the call. A repeat with the same key publishes nothing, in any process.

        Raise EventError for a message that is not JSON-able, and StoreUnavailable if the store does not answer. Then
        the messages may be in the room: repeat the call with its key.
        """
        time = now()
        said = [Event({"member": member, "message": message, "time": time}, event=event) for message in messages]
        return await self.log.append(*said, key=key)

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
        if not self._settings.presence:
            yield
            return
        async with self._presence.followed():
            if member is None:
                yield
                return
            try:
                await self._presence.enter(member)
                yield
            finally:
                await self._presence.leave(member)

    async def bury(self, process: str) -> None:
        """Remove the connections of a process that has ended. Members without another connection leave the room."""
        await self._presence.bury(process)

    async def statistics(self) -> RoomStatistics:
        """Return the room's current numbers."""
        return RoomStatistics(len(await self.members()), self._presence.connections, self.log.statistics())

    @property
    def broken_off(self) -> bool:
        """True if the store has lost the room."""
        return any(log.broken_off is not None for log in self.logs)

    @property
    def logs(self) -> tuple[Log, Log]:
        """The log of what was said, and that of the members."""
        return self.log, self._presence.log


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """The settings that all rooms of a router share.

    - `history`: how many messages a first join gets.
    - `retention`: how much of a room's history is kept for those who come back.
    - `flow`: the policy for members that read slowly.
    - `leave_delay`: the seconds in which a member may come back without having left.
    - `presence`: whether there are members.
    """

    limits: RoomLimits
    history: int
    retention: Retention
    flow: Flow
    leave_delay: float
    presence: bool


class Rooms:
    """The rooms that this process uses, by the names of their logs. Unused ones are forgotten."""

    def __init__(self, name: str, settings: RoomSettings) -> None:
        """`name` tells these rooms from those of other routers."""
        self.settings = settings
        self._name = name
        self._lives = self._make_lives(None)
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()
        self._recent: dict[str, None] = {}  # the paths of rooms in an embedded store, those used longest ago first
        limits = settings.limits
        self._rates = Rates(limits.rate, limits.burst)
        self._room_rates = Rates(limits.room_rate, limits.room_burst)
        self._new_rooms = Rates(limits.rooms / 3_600, limits.rooms)

    def __len__(self) -> int:
        return len(self._rooms)

    async def get(self, engine: Engine, path: str, name: str) -> Room:
        """Return the room whose log is named by a path. Call `leave` when you do not use it any more.

        Raise StreamError for a name or a path that no room may have.
        """
        check_name(name)
        check_path(path)
        if (room := self._rooms.get(path)) is None or room.broken_off:
            room = await self._open(engine, path, name)
        room.users += 1
        await self._remember(engine, path)
        return room

    async def leave(self, engine: Engine, room: Room) -> None:
        """Note that a user of the room is done. Forget the room if it is empty and has no history.

        Other processes may use the logs of a store that they share. It forgets them itself when they are idle.
        """
        room.users -= 1
        if room.users or engine.store.shared:
            return
        log, members = room.logs
        # In an embedded store nothing is awaited here, so nobody comes in between. And nobody is a member any more.
        await engine.forget(members)
        if not log.top:
            self._recent.pop(log.name, None)
            await engine.forget(log)

    def check_rate(self, room: Room, sender: str, count: int) -> None:
        """Count messages of a sender in a room. Raise StreamError if they are too many for now."""
        limits = self.settings.limits
        for rates, key, rate in (
            (self._rates, sender, limits.rate),
            (self._room_rates, room.log.name, limits.room_rate),
        ):
            if wait := rates.take(key, count):
                message = f"expected at most {rate:g} messages per second, but got more: send them again later"
                raise StreamError(message, code="too_many_messages", status=429, retry_after=int(wait) + 1)

    async def _open(self, engine: Engine, path: str, name: str) -> Room:
        await self._check_rooms(engine, path)
        log = await engine.log(path, retention=self.settings.retention)
        members = await engine.log(_members_of(path), retention=RETENTION)
        if (room := self._rooms.get(path)) is None or room.logs != (log, members):
            room = self._rooms[path] = Room(name, log, members, self._lives_at(engine), self.settings)
        return room

    async def _check_rooms(self, engine: Engine, path: str) -> None:
        """Raise StreamError if too many rooms are in use, or too many were made recently in a store that keeps them."""
        limit = self.settings.limits.rooms
        if len(self._rooms) >= limit:
            message = f"expected fewer than {limit} rooms in use, but there are as many"
            raise StreamError(message, code="too_many_rooms", status=503)
        if engine.store.shared and await engine.find(path) is None and (wait := self._new_rooms.take("", 1)):
            message = f"expected at most {limit} new rooms an hour, but there are more"
            raise StreamError(message, code="too_many_rooms", status=503, retry_after=int(wait) + 1)

    async def _remember(self, engine: Engine, path: str) -> None:
        """Note that a room was used. Forget those that were not for longest, if they are too many."""
        if engine.store.shared:
            return  # others may use them, and the store has a memory of its own
        self._recent.pop(path, None)
        self._recent[path] = None
        while len(self._recent) > self.settings.limits.rooms:
            oldest = next(iter(self._recent))
            del self._recent[oldest]
            if oldest not in self._rooms:
                for name in (oldest, _members_of(oldest)):
                    if (log := await engine.find(name)) is not None:
                        await engine.forget(log)

    def _lives_at(self, engine: Engine) -> Lives:
        if self._lives.engine is not engine:
            self._lives = self._make_lives(engine)
        return self._lives

    def _make_lives(self, engine: Engine | None) -> Lives:
        return Lives(engine, self._name, self._bury, delay=self.settings.leave_delay)

    async def _bury(self, process: str) -> None:
        for room in tuple(self._rooms.values()):
            with suppress(LogClosed):  # the store has lost this room
                await room.bury(process)


def _members_of(path: str) -> str:
    return f"{path} members"  # no room's name has a space
