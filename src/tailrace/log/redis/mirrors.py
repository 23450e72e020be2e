"""A process's mirrors: found or made by name, fed by one subscribed connection, and dropped when nobody uses them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from ...errors import StoreUnavailable
from ..base import Log
from ..keeper import Keeper
from .attempts import answering, delays
from .connection import Refused, Unreachable
from .frames import parse
from .log import RedisLog
from .mirror import EARLY_BYTES, LOADED_BYTES, Home, Mirror
from .scripts import LOAD, Keys
from .server import Servers

logger = logging.getLogger("tailrace.log.redis")

CHUNK = 256
"""How many mirrors are refreshed at once."""


@dataclass(slots=True)
class _Early:
    """Frames that came while their mirror was loaded."""

    frames: list[bytes]
    size: int = 0
    incomplete: bool = False

    def take(self, frame: bytes) -> None:
        self.size += len(frame)
        if self.size > EARLY_BYTES:
            self.incomplete = True
        else:
            self.frames.append(frame)


class Mirrors:
    """The mirrors of a process, by the name of their log and by their channel.

    A mirror subscribes first and then loads, so that it misses nothing in between. It is detached some time after its
    last use. If an application still holds it then, the next use attaches it again: there is never a second one.
    """

    def __init__(self, home: Home, prefix: str, keeper: Keeper) -> None:
        self._home = home
        self._prefix = prefix
        self._keeper = keeper
        self._known: WeakValueDictionary[str, RedisLog] = WeakValueDictionary()
        self._attached: dict[bytes, Mirror] = {}
        self._attaching: dict[str, asyncio.Task[RedisLog | None]] = {}
        self._arriving: dict[bytes, _Early] = {}
        self._unheard: set[bytes] = set()  # channels that are yet to be subscribed, or subscribed again
        self.servers: Servers

    def __iter__(self) -> Iterator[Mirror]:
        """Iterate over those that are attached."""
        return iter(tuple(self._attached.values()))

    @property
    def held(self) -> list[RedisLog]:
        """All mirrors that somebody holds, attached or not, except those that are lost."""
        return [log for log in self._known.values() if log.lost is None]

    async def find(self, name: str) -> RedisLog | None:
        """Return the mirror of a log, or None if there is no such log. Raise StoreUnavailable."""
        log = self._known.get(name)
        if log is not None and log.lost is None:
            if log.attached and (log.readers or log.writer is not None or log.degraded):
                # Neither can it expire, nor can others have made a new one without this process hearing it. While the
                # store is out of reach, this is all that there is.
                return log
            # Shielded: others rely on it, too, even if the caller does not wait for it.
            await asyncio.shield(self._home.spawn(self.attach(log)))
            if log.lost is None:
                return log
        if (attaching := self._attaching.get(name)) is None:
            attaching = self._attaching[name] = self._home.spawn(self._make(name))
            attaching.add_done_callback(lambda _: self._attaching.pop(name))
        return await asyncio.shield(attaching)

    async def attach(self, log: Mirror) -> None:
        """Bring a mirror up to date, and keep it so."""
        if not log.attached:
            self._enlist(log)
            try:
                await self._subscribe(log.name, log.channel)
            except StoreUnavailable:
                self.renew()
                raise
        else:
            self._watch(log)
        await log.refresh()

    def detach(self, log: Log) -> None:
        """Let go of a mirror that nobody uses."""
        assert isinstance(log, Mirror)
        if log.attached:
            log.attached = False
            log.unlisten(self._changed)
            del self._attached[log.channel]
            self.servers.unsubscribe(log.channel)

    def clear(self) -> None:
        """Let go of all mirrors."""
        for log in self:
            log.attached = log.told = False
            log.unlisten(self._changed)
        self._attached.clear()
        self._unheard.clear()

    def push(self, channel: bytes, data: bytes) -> bool:
        """Take a frame. Return False if no mirror listens to the channel."""
        if (log := self._attached.get(channel)) is not None:
            log.hear(data)
        elif (early := self._arriving.get(channel)) is not None:
            early.take(data)
        else:
            return False
        return True

    def renew(self) -> None:
        """Subscribe lost channels again in the background, then load what was missed."""
        channels = {*self._attached, *self._arriving} - self._unheard
        lost = [channel for channel in channels if self.servers.is_lost(channel)]
        if lost:
            for part in self.servers.parts(lost):
                self._unheard.update(part)
                self._home.spawn(self._renew(set(part)))

    async def _renew(self, lost: set[bytes]) -> None:
        """Try to subscribe channels until all of them are, or nobody needs them any more."""
        reason = ""
        try:
            for delay in delays():
                try:
                    await self.servers.subscribe(lost)
                except (Unreachable, Refused) as error:
                    if isinstance(error, Refused) and reason != str(error):  # a lost connection has told its reason
                        logger.warning("cannot subscribe to streams: %s", error)
                    reason = str(error)
                heard = {channel for channel in lost if not self.servers.is_lost(channel)}
                lost -= heard
                self._unheard -= heard
                await self._catch_up(heard)
                needed = lost & {*self._attached, *self._arriving}
                self._unheard -= lost - needed
                if not (lost := needed):
                    return
                await asyncio.sleep(delay)
        finally:
            self._unheard -= lost

    async def _catch_up(self, channels: Iterable[bytes]) -> None:
        """Load what was missed on channels that are subscribed again."""
        # Not before: a load that came before the confirmation has missed what came between.
        stale: list[Mirror] = []
        for channel in channels:
            if (log := self._attached.get(channel)) is not None:
                log.doubt()
                stale.append(log)
            elif (early := self._arriving.get(channel)) is not None:
                early.incomplete = True
            else:
                self.servers.unsubscribe(channel)  # it was let go of meanwhile
        with suppress(StoreUnavailable):  # they stay stale
            await _in_chunks([log.refresh for log in stale])

    def look_at_servers(self) -> None:
        """Note which logs are degraded, because their server is away, and which are no longer."""
        for log in self:
            if self.servers.is_away(log.channel):
                log.set_degraded(True)
            else:
                self.loaded(log)

    def loaded(self, log: Mirror) -> None:
        """Note that a log is up to date, if its server is in reach, and it has loaded since it was subscribed."""
        if not (log.stale or log.channel in self._unheard or self.servers.is_away(log.channel)):
            log.set_degraded(False)

    async def refresh_stale(self) -> None:
        """Refresh the mirrors that may have missed something, not all at once."""
        # The others have their turn when there is a connection: waiting for it would keep these from theirs.
        await _in_chunks([log.refresh for log in self if log.stale and self.servers.reaches(log.channel)])

    async def probe(self) -> None:
        """Compare the mirrors that had no news since the last probe with the store: the last news may be lost."""
        quiet = [log for log in self if not (log.fresh or log.stale) and self.servers.reaches(log.channel)]
        for log in self:
            log.fresh = False
        failed: Unreachable | None = None
        for start in range(0, len(quiet), CHUNK):
            chunk = quiet[start : start + CHUNK]
            # Futures of commands, and no tasks, which would cost three times as much.
            places = await asyncio.gather(*map(self._place, chunk), return_exceptions=True)
            for log, place in zip(chunk, places, strict=True):
                if isinstance(place, Unreachable):
                    failed = place
                elif isinstance(place, BaseException) or not log.is_at(*place):
                    log.suspect()
        if failed is not None:
            raise failed

    def _place(self, log: Mirror) -> asyncio.Future[Any]:
        return self.servers.call("HMGET", log.keys.meta, "epoch", "top", "tag", "version", "out")

    async def _make(self, name: str) -> RedisLog | None:
        keys = Keys.of(self._prefix, name)
        channel = keys.log.encode()
        early, log = _Early([]), None
        self._arriving[channel] = early
        try:
            await self._subscribe(name, channel)
            answer = await self._home.run(name, keys, LOAD, b"", 0, LOADED_BYTES)
            if answer[0] == b"ok":
                log = self._known[name] = RedisLog.load(self._home, name, keys, answer)
        finally:
            del self._arriving[channel]
            if log is None:
                self.servers.unsubscribe(channel)
        if log is not None:
            self._enlist(log)
            for data in early.frames:
                log.receive(parse(data))
            if early.incomplete:
                log.suspect()
        return log

    def _enlist(self, log: Mirror) -> None:
        log.attached, log.keepers = True, (self._changed, self._keeper.changed)
        self._attached[log.channel] = log
        if self.servers.is_away(log.channel):
            log.set_degraded(True)
        log.listen(self._changed)
        self._watch(log)

    def _watch(self, log: Mirror) -> None:
        """Keep a mirror for a while, as it is asked for."""
        self._keeper.watch(log)
        if log.outcome is not None:  # perhaps nobody will read it, and so nobody leave it
            self._keeper.changed(log)

    async def _subscribe(self, name: str, channel: bytes) -> None:
        self._unheard.add(channel)
        try:
            with answering(name):
                await self.servers.subscribe([channel])
        finally:
            self._unheard.discard(channel)

    def _changed(self, log: Log) -> None:
        if log.lost is not None:
            self._keeper.forget(log)  # which detaches it


async def _in_chunks(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make all calls, also if some fail because one of several servers is down. Then raise one of their errors."""
    failed: BaseException | None = None
    for start in range(0, len(calls), CHUNK):
        results = await asyncio.gather(*(call() for call in calls[start : start + CHUNK]), return_exceptions=True)
        failed = next((result for result in results if isinstance(result, BaseException)), failed)
    if failed is not None:
        raise failed
