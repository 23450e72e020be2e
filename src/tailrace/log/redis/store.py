"""The store of `redis://`: streams that many processes share."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ...cursor import new_epoch
from ...errors import LogClosed, LogExists, LogFenced, StoreUnavailable
from ...flow import Retention
from ...pulse import Pulse
from ..base import Log
from ..keeper import Keeper
from ..store import Keeping, LogStore
from .address import Part
from .attempts import CONNECT, answering, repeatedly, unanswered
from .beat import Beat
from .cluster import Cluster, seeds_of
from .connection import LIMITS, Limits, NotSent, Refused, Reply, Unreachable
from .frames import Batch, Facts, random_tags
from .link import Call, Script
from .loaded import batches_of
from .log import RedisLog
from .mirror import Mirror
from .mirrors import Mirrors
from .scripts import CLAIM, CREATE, DROP, LEASE, PAGE, READERS, SCRIPTS, TOUCH, Keys
from .sentinel import target_of
from .server import Server, Servers
from .writer import RedisWriter

logger = logging.getLogger("tailrace.log.redis")

T = TypeVar("T")

EXPIRY_ROUNDS = 5
"""The least expiry of a log that is in use, in rounds of the beat."""

FENCE_STEP = 1 << 20
"""The most by which the fence of a lease is greater than that of the one before."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon a store notices things. Times are in seconds.

    - `interval`: between two rounds of the beat. A dead process is found after three, a lost message after two. A
      server that is out of reach for half an interval makes its logs `degraded`.
    - `linger`: for how long the mirror of a log stays up to date after its last use.
    - `patience`: for how long a call is repeated while Redis does not answer.
    """

    interval: float = 1.0
    linger: float = 10.0
    patience: float = 5.0


class RedisStore(LogStore):
    """Streams in Redis. Each process has a mirror of those that it uses, and two connections for all of them.

    Nothing is connected before the first use. Redis forgets what nobody uses: each process that uses a log renews its
    expiry. `Keeping.count` and `Keeping.size` bound the mirrors that a process keeps without readers.
    """

    shared = True

    def __init__(
        self,
        url: str,
        keeping: Keeping | None = None,
        pulse: Pulse | None = None,
        *,
        prefix: str = "tailrace",
        pace: Pace = Pace(),
        limits: Limits = LIMITS,
    ) -> None:
        """Make a store. `pulse` is how often to look for mirrors to let go of, by default every 15 s.

        All keys and channels begin with `prefix`, and with the number of the database if it is not 0: channels are
        common to all databases of a server.
        """
        database = 0
        if "+cluster://" in url:
            self._servers_of: Callable[..., Servers] = partial(Cluster, seeds_of(url))
        else:
            self._servers_of = partial(Server, target := target_of(url))
            database = target.database
        self._prefix = f"{prefix}:{database}" if database else prefix
        self._keeping = keeping or Keeping()
        self._least_ms = round(EXPIRY_ROUNDS * pace.interval * 1000)
        self._pace = pace
        self._limits = limits
        self.patience = pace.patience
        self.process = b""
        self.tags = random_tags()
        held = Keeping(pace.linger, self._keeping.count, self._keeping.size, pace.linger)
        self._keeper = Keeper(
            held, pulse or Pulse(15.0), drop=self._let_go, release=self._let_go, is_used=_is_used_here
        )
        self._mirrors = Mirrors(self, self._prefix, self._keeper)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._telling: dict[Mirror, bool] = {}  # True if there is more to tell of a log
        self._servers: Servers | None = None

    # Logs

    async def find(self, name: str) -> RedisLog | None:
        self._open()
        return await repeatedly(lambda: self._mirrors.find(name), self.patience)

    async def attach(self, name: str, retention: Retention) -> RedisLog:
        while (log := await self.find(name) or await self._create(name, retention, new_epoch())) is None:
            pass  # another process has made it in between
        self.written(log)
        return log

    async def create(
        self, name: str, retention: Retention, *, epoch: str | None = None, fingerprint: bytes = b""
    ) -> RedisLog:
        log = await self._create(name, retention, epoch or new_epoch(), passing=True, fingerprint=fingerprint)
        if log is None:
            self._leave_off(name)
            raise LogExists(name)
        return log

    async def lease(self, log: Log) -> RedisWriter:
        assert isinstance(log, RedisLog), f"expected a log of this store, but got {log!r}"
        if log.outcome is not None:
            raise LogClosed(log.name, log.outcome.state)
        if log.leasing or log.writer is not None:
            raise LogFenced(log.name, log.control.fence)
        log.leasing = True
        try:
            return await repeatedly(lambda: self._lease(log), self.patience)
        finally:
            log.leasing = False
            if not log.involved:
                self._leave_off(log.name)

    async def expire(self, log: Log, seconds: float) -> None:
        assert isinstance(log, RedisLog), f"expected a log of this store, but got {log!r}"
        await self._touch(log, max(round(seconds * 1000), self._least_ms if _in_use(log) else 1))
        log.touched = 0.0  # so that the next use renews it

    async def drop(self, log: Log) -> None:
        assert isinstance(log, RedisLog), f"expected a log of this store, but got {log!r}"
        with suppress(LogClosed):
            await repeatedly(lambda: log.run(DROP), self.patience)
        log.lose("epoch_changed")

    async def secret(self) -> bytes:
        secret: bytes = await repeatedly(self._secret, self.patience)
        return secret

    @property
    def kept(self) -> tuple[int, int]:
        return len(self._keeper), self._keeper.size

    async def aclose(self) -> None:
        if (servers := self._servers) is None:
            return
        self._beating.cancel()
        if servers.connected:
            with suppress(Unreachable, Refused):
                await self._beat.leave()
        # In one step: from the first wait on, somebody may use the store again.
        self._servers = None
        self._telling = {}
        for log in self._mirrors.held:
            if log.writer is not None:
                log.writer.lose()
                log.writer = None
        self._keeper.clear()
        self._mirrors.clear()
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await servers.aclose()
        left = [task for task in self._tasks if task.cancelling()]  # tasks that the end of a connection has started
        await asyncio.gather(*left, return_exceptions=True)

    async def _create(
        self, name: str, retention: Retention, epoch: str, *, passing: bool = False, fingerprint: bytes = b""
    ) -> RedisLog | None:
        """Make a stream. Return None if there is one already."""
        self._open()
        keys, repeated = Keys.of(self._prefix, name), False
        bounds = retention.count or 0, retention.size or 0, round((retention.age or 0) * 1000)
        maker = self.process if passing else b""

        async def attempt() -> RedisLog | None:
            nonlocal repeated
            again, repeated = repeated, True
            if maker:
                await self._use(name, keys)
            made = int(time.time())
            arguments = (epoch, int(passing), fingerprint, maker, made, *bounds, self._keep_ms(ended=False))
            answer = await self.run(name, keys, CREATE, *arguments)
            if answer[0] == b"ok":
                return self._mirrors.make(name, keys, answer)
            # An earlier attempt of this very call may have made it.
            return await self._mirrors.find(name) if again and answer[1] == epoch.encode() else None

        return await repeatedly(attempt, self.patience)

    async def _secret(self) -> bytes:
        # Not kept here: when Redis loses its data, all processes must agree on a new one.
        key = f"{self._prefix}:secret"
        with answering(key):
            servers = self._open()
            await servers.ready(key, CONNECT)
            setting = servers.call("SET", key, secrets.token_bytes(32), "NX")
            _, found = await asyncio.gather(setting, servers.call("GET", key))
        return bytes(found)

    async def _lease(self, log: RedisLog) -> RedisWriter:
        if not log.unbegun:
            await self._use(log.name, log.keys)
        answer = await log.run(LEASE, self.process, 1 + secrets.randbelow(FENCE_STEP))
        fence, version, top, tag, stop, seat, readers = answer
        await log.reach(int(top))
        leased = Facts(log.wire_epoch, int(version), int(fence), True, stop == b"1", seat, frozenset(readers.split()))
        log.receive(leased)
        return RedisWriter(log, int(fence), self, top=int(top), tag=tag)

    async def _use(self, name: str, keys: Keys) -> None:
        """Note that this process is about to make or lease a stream, right before the command that does so.

        If the process dies in between, others look for a stream that is not there. In the other order, nobody would end
        it.
        """
        with answering(name):
            await self._open().ready(keys.log, CONNECT)
        await self._beat.use(name)

    # What mirrors need: Home

    async def run(self, name: str, keys: Keys, script: Script, *arguments: Part) -> list[Any]:
        servers = self._servers or self._open()
        try:
            answer: list[Any] = await servers.run(script, keys.all, *arguments)
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.code == "READONLY":
                servers.drop("it is a replica by now")  # its name may lead to the new master
            raise unanswered(name, error) from error
        return answer

    def prepare(self, script: Script, keys: Keys, *first: Part, more: int) -> Call:
        return self._open().prepare(script, keys.all, *first, more=more)

    def post(self, call: Call, packed: bytes, reply: Reply) -> None:
        if self._servers is None:
            raise NotSent("expected an open store, but it is closed")
        self._servers.post(call, packed, reply)

    async def fetch(self, log: Mirror, after: int, size: int) -> list[Batch]:
        return batches_of(await self.run(log.name, log.keys, PAGE, after, size))

    def open(self) -> None:
        self._open()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        if self._servers is None:  # what is left of a closed store would open it again
            task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def used(self, log: Mirror) -> None:
        if log in self._telling:
            self._telling[log] = True
        elif self._servers is not None:
            self._telling[log] = True
            self.spawn(self._tell_all(log))

    def written(self, log: Mirror) -> None:
        if self._is_due(log):
            log.touched = time.monotonic()
            ended = log.outcome is not None
            self.spawn(self._touch(log, self.keep_ms(log, ended=ended), is_open=not ended))

    def loaded(self, log: Mirror) -> None:
        self._mirrors.loaded(log)

    def keep_ms(self, log: Mirror, *, ended: bool) -> int:
        keep = self._keep_ms(ended=ended)
        # A log in use must not expire before the next rounds renew it.
        return max(keep, self._least_ms) if keep and _in_use(log) else keep

    # Connections

    def _open(self) -> Servers:
        if self._servers is not None:
            return self._servers
        self.process = secrets.token_urlsafe(6).encode()
        self.tags = random_tags()  # otherwise those of a process that was forked since would be the same
        process = self.process.decode()
        servers = self._servers = self._mirrors.servers = self._servers_of(
            name=f"tailrace-{process}",
            scripts=SCRIPTS,
            echo=f"{self._prefix}:to:{process}",
            on_push=self._pushed,
            on_commands=self._commands_connected,
            on_news=self._mirrors.renew,
            on_reach=self._reach_changed,
            interval=self._pace.interval,
            limits=self._limits,
        )
        self._beat = Beat(
            servers,
            self._prefix,
            self.process,
            interval=self._pace.interval,
            keep_ms=self._keep_ms(ended=True),
            tend=self._tend,
            buried=self._buried,
        )
        servers.open()
        self._beating = self.spawn(self._beat.run())
        return servers

    def _commands_connected(self) -> None:
        self.spawn(self._mirrors.refresh_stale())
        for log in self._mirrors:
            if log.told != (log.readers > 0):
                self.used(log)

    def _reach_changed(self) -> None:
        if self._servers is not None:
            self._mirrors.look_at_servers()
            self.spawn(self._mirrors.refresh_stale())

    def _pushed(self, push: list[Any]) -> None:
        kind, channel, data = push
        if kind == b"message" or kind == b"smessage":
            # Measured: each call on the way of a message takes a thirtieth of what the message costs.
            if (log := self._mirrors.hearing.get(channel)) is not None:
                log.hear(data)
            elif self._servers is not None:
                self._servers.hear(channel, data)
        elif kind == b"sunsubscribe" and self._servers is not None:
            self._servers.moved(channel)

    # In each round

    async def _tend(self) -> None:
        for log in self._mirrors.held:
            # An application holds it, and may use it again.
            held = log.touched and not log.attached and log.outcome is None
            if log.readers or log.writer is not None or held:
                self.written(log)
            if log.told != (log.readers > 0) or log.needs > log.hears or log.claim is not None:
                self.used(log)
        # Last, because it fails if one of several servers is down. At once, because the one waits for that server.
        both = self._mirrors.refresh_stale(), self._mirrors.probe()
        for failure in await asyncio.gather(*both, return_exceptions=True):  # neither outlives the round
            if failure is not None:
                raise failure

    def _is_due(self, log: Mirror) -> bool:
        """Tell whether the expiry of a log should be renewed: a third of it is over, or unknown."""
        if log.lost is not None or self._servers is None:
            return False
        keep = self.keep_ms(log, ended=log.outcome is not None)
        return not log.touched or (keep > 0 and time.monotonic() - log.touched > keep / 3000)

    async def _touch(self, log: Mirror, keep_ms: int, *, is_open: bool = False) -> None:
        """Renew the expiry of a log, but not that of an open one if it has ended."""
        with suppress(LogClosed):
            await repeatedly(lambda: log.run(TOUCH, keep_ms, int(is_open)), self.patience)

    def _keep_ms(self, *, ended: bool) -> int:
        seconds = self._keeping.keep if ended else self._keeping.idle
        return 0 if seconds is None else max(round(seconds * 1000), 1)

    def _buried(self) -> None:
        """Come back after others took this process for dead: they ended its streams and removed its readers."""
        for log in self._mirrors.held:
            log.told = False
            log.suspect()
            if log.writer is not None or log.unbegun:  # since: the burial has perhaps taken its name away
                self.spawn(self._beat.use(log.name))

    async def _tell_all(self, log: Mirror) -> None:
        """Tell the store the facts of a log one after the other, so that it ends up with the last one."""
        telling = self._telling  # a store that is used again after its end has another one
        try:
            while telling[log]:
                telling[log] = False
                await self._tell(log)
        finally:
            del telling[log]

    async def _tell(self, log: Mirror) -> None:
        """Tell the store whether this process has readers of a log, or writes it, and renew the expiry."""
        has_readers = log.readers > 0
        with suppress(LogClosed, StoreUnavailable, Unreachable):
            # The channels of a lost one are those of the next incarnation by now.
            if log.needs > log.hears and log.lost is None:
                await self._mirrors.attach(log)
            if log.lost is None and log.involved:
                await self._beat.use(log.name)
            if log.lost is None and (has_readers or log.told):
                log.touched = time.monotonic()
                keep_ms = self.keep_ms(log, ended=log.outcome is not None)
                await log.run(READERS, self.process, int(has_readers), keep_ms)
                log.told = has_readers
            if not log.readers:
                log.claim = None  # nobody needs it any more
            if (claim := log.claim) is not None and log.lost is None:
                await log.run(CLAIM, *claim)
                if log.claim is claim:
                    log.claim = None
            if not log.involved:
                self._leave_off(log.name)

    def _leave_off(self, name: str) -> None:
        """Note that this process no longer uses a log, unless it uses the next one of that name."""
        log = self._mirrors.known(name)
        if log is None or log.lost is not None or not log.involved:
            with suppress(Unreachable):  # the name stays, which does no harm
                self._beat.leave_off(name)

    def _let_go(self, log: Log) -> None:
        self._mirrors.detach(log)

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (StoreUnavailable, Unreachable, LogClosed, LogFenced)):
            logger.error("%s failed", task.get_coro(), exc_info=error)


def _is_used_here(log: Log, _: int) -> bool:
    """Tell whether to keep a mirror up to date. Writes and leases of other processes do not count."""
    assert isinstance(log, Mirror)
    return log.needs > 0 or log.told


def _in_use(log: Mirror) -> bool:
    """Tell whether any process reads or writes a log."""
    return log.readers > 0 or log.control.leased or log.control.elsewhere > 0
