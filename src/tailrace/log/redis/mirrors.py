"""A process's mirrors: found or made by name, fed by one subscribed connection, and dropped when nobody uses them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from ...errors import StoreUnavailable
from ..base import Log
from ..keeper import Keeper
from .attempts import answering, delays
from .connection import Refused, Unreachable
from .log import RedisLog
from .mirror import LOADED_BYTES, Home, Mirror
from .scripts import LOAD, Keys
from .server import Servers

logger = logging.getLogger("tailrace.log.redis")

CHUNK = 256
"""How many mirrors are refreshed at once."""


class Mirrors:
    """The mirrors of a process, by the name of their log and by the channels that they hear.

    A mirror is loaded when it is asked for, and hears its channels once it is used. Then it subscribes first and loads
    again, so that it misses nothing in between. It is detached some time after its last use. If an application still
    holds it then, the next use attaches it again: there is never a second one.
    """

    def __init__(self, home: Home, prefix: str, keeper: Keeper) -> None:
        self._home = home
        self._prefix = prefix
        self._keeper = keeper
        self._known: WeakValueDictionary[str, RedisLog] = WeakValueDictionary()
        self.hearing: dict[bytes, Mirror] = {}
        self._making: dict[str, asyncio.Task[RedisLog | None]] = {}
        self._unheard: set[bytes] = set()  # channels that are yet to be subscribed, or subscribed again
        self.servers: Servers

    def __iter__(self) -> Iterator[Mirror]:
        """Iterate over those that hear a channel."""
        return iter(dict.fromkeys(self.hearing.values()))

    @property
    def held(self) -> list[RedisLog]:
        """All mirrors that somebody holds, attached or not, except those that are lost."""
        return [log for log in self._known.values() if log.lost is None]

    def known(self, name: str) -> RedisLog | None:
        """Return the mirror that this process has of a name, which may be lost."""
        return self._known.get(name)

    async def find(self, name: str) -> RedisLog | None:
        """Return the mirror of a log, or None if there is no such log. Raise StoreUnavailable."""
        log = self._known.get(name)
        if log is not None and log.lost is None:
            if log.attached and self._suffices(log):
                return log
            self._watch(log)
            # Shielded: others rely on it, too, even if the caller does not wait for it.
            await asyncio.shield(self._home.spawn(log.refresh()))
            if log.lost is None:
                return log
        if (making := self._making.get(name)) is None:
            making = self._making[name] = self._home.spawn(self._load(name))
            making.add_done_callback(lambda _: self._making.pop(name))
        return await asyncio.shield(making)

    def make(self, name: str, keys: Keys, answer: list[Any]) -> RedisLog:
        """Make the mirror of a log from what LOAD or CREATE answered, unless there is one of this incarnation."""
        log = RedisLog.load(self._home, name, keys, answer)
        if (known := self._known.get(name)) is not None and known.lost is None:
            if known.epoch == log.epoch:
                return known
            known.lose("epoch_changed")  # so that it no longer hears the channels
        self._known[name] = log
        log.keepers = self._changed, self._keeper.changed
        log.listen(self._changed)
        self._watch(log)
        return log

    async def attach(self, log: Mirror) -> None:
        """Hear the channels that a mirror needs, and bring it up to date."""
        lacking = log.channels[log.hears : log.needs]
        if lacking:
            self._watch(log)
            log.hears = log.needs
            self.hearing.update(dict.fromkeys(lacking, log))
            if self.servers.is_away(log.channel):
                log.set_degraded(True)
            try:
                await self._subscribe(log.name, lacking)
            finally:
                if any(map(self.servers.is_lost, lacking)):  # perhaps again, and `renew` has left them out until now
                    self.renew()
        await log.refresh()

    def detach(self, log: Log) -> None:
        """Let go of a mirror that nobody uses."""
        assert isinstance(log, Mirror)
        for channel in log.channels[: log.hears]:
            del self.hearing[channel]
            self.servers.unsubscribe(channel)
        log.hears = 0

    def clear(self) -> None:
        """Let go of all mirrors."""
        for log in self:
            log.hears, log.told = 0, False
        self.hearing.clear()
        self._unheard.clear()

    def push(self, channel: bytes, data: bytes) -> bool:
        """Take a frame. Return False if no mirror listens to the channel."""
        if (log := self.hearing.get(channel)) is None:
            return False
        log.hear(data)
        return True

    def renew(self) -> None:
        """Subscribe lost channels again in the background, then load what was missed."""
        channels = self.hearing.keys() - self._unheard
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
                needed = lost & self.hearing.keys()
                self._unheard -= lost - needed
                if not (lost := needed):
                    return
                await asyncio.sleep(delay)
        finally:
            self._unheard -= lost

    async def _catch_up(self, channels: Iterable[bytes]) -> None:
        """Load what was missed on channels that are subscribed again."""
        # Not before: a load that came before the confirmation has missed what came between.
        stale: dict[Mirror, None] = {}
        for channel in channels:
            if (log := self.hearing.get(channel)) is not None:
                log.doubt()
                stale[log] = None
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
        if not (log.stale or self._unheard.intersection(log.channels) or self.servers.is_away(log.channel)):
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
                elif log.fresh:
                    pass  # what the store has is on its way, as after this process was frozen
                elif isinstance(place, BaseException) or not log.is_at(*place):
                    log.suspect()
        if failed is not None:
            raise failed

    def _place(self, log: Mirror) -> asyncio.Future[Any]:
        return self.servers.call("HMGET", log.keys.meta, "epoch", "top", "tag", "version", "out")

    def _suffices(self, log: Mirror) -> bool:
        """Tell whether there is nothing to ask about a log, because this process hears of all changes or cannot ask."""
        heard = log.hears >= log.needs and (log.readers > 0 or log.writer is not None)
        if not self.servers.reaches(log.channel):
            return heard or log.degraded
        return heard and not (log.degraded or log.stale or any(map(self.servers.is_lost, log.channels[: log.hears])))

    async def _load(self, name: str) -> RedisLog | None:
        keys = Keys.of(self._prefix, name)
        answer = await self._home.run(name, keys, LOAD, b"", 0, LOADED_BYTES)
        return self.make(name, keys, answer) if answer[0] == b"ok" else None

    def _watch(self, log: Mirror) -> None:
        """Keep a mirror for a while, because somebody asked for it."""
        self._keeper.watch(log)
        if log.outcome is not None:  # perhaps nobody will read it, and so nobody leave it
            self._keeper.changed(log)

    async def _subscribe(self, name: str, channels: Sequence[bytes]) -> None:
        self._unheard.update(channels)
        try:
            with answering(name):
                await self.servers.subscribe(channels)
        finally:
            self._unheard.difference_update(channels)
        for channel in channels:
            if channel not in self.hearing:  # its log was let go of meanwhile
                self.servers.unsubscribe(channel)

    def _changed(self, log: Log) -> None:
        if log.lost is not None:
            self._keeper.forget(log)  # which detaches it


async def _in_chunks(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make all calls, even if some fail because one of several servers is down. Then raise one of their errors."""
    failed: BaseException | None = None
    for start in range(0, len(calls), CHUNK):
        results = await asyncio.gather(*(call() for call in calls[start : start + CHUNK]), return_exceptions=True)
        failed = next((result for result in results if isinstance(result, BaseException)), failed)
    if failed is not None:
        raise failed
