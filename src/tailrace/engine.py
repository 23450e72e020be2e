"""Where an application's logs live, and who runs and ends their producers."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from .cursor import STREAM_ID_PATTERN, new_stream_id
from .events import Farewell, Outcome
from .flow import Retention
from .log.base import Log
from .log.memory import MemoryStore
from .log.store import LogStore
from .producer import Items, OnDisconnect, Producer
from .pulse import Member, Pulse

logger = logging.getLogger("tailrace")

STORES: dict[str, Callable[[str], LogStore]] = {"memory": lambda url: MemoryStore()}
"""What makes a store, by URL scheme."""

LAST_WORDS = 1.0
"""Seconds after the grace in which readers are told how their streams ended."""

SHUTDOWN = Outcome("cancelled", "shutdown", "the server shut down")


_STREAM_ID = re.compile(STREAM_ID_PATTERN, re.ASCII)


class Reader(Protocol):
    """A connection that reads one of the engine's logs."""

    def leave(self) -> None:
        """The server leaves; look whether to say farewell."""

    def abandon(self) -> None:
        """The grace is over: part now, whatever the client still lacks."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """An engine at one moment."""

    readers: int
    producers: int
    stuck: int
    kept: int
    kept_size: int
    draining: bool


class _Kept(NamedTuple):
    until: float
    size: int


class Engine:
    """Logs by name, the producers that write them, and one timer for all of it.

    One engine for one event loop. The memory engine needs no setting up; `aclose` ends what still runs.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        retention: Retention | None = None,
        heartbeat: float = 15.0,
        send_timeout: float = 300.0,
        keep: float = 300.0,
        keep_count: int = 1_000,
        keep_size: int = 64 << 20,
        shutdown_grace: float = 10.0,
        reconnect: tuple[float, float] = (0.5, 3.0),
    ) -> None:
        """All times in seconds.

        - `retention`: of logs that are made without their own.
        - `heartbeat`: an idle connection is pinged this often.
        - `send_timeout`: a connection that accepts no byte for so long is closed.
        - `keep`, `keep_count`, `keep_size`: how long, how many and how many bytes of ended streams can be replayed.
        - `shutdown_grace`: how long producers may go on once the server is told to stop.
        - `reconnect`: readers that are sent away come back after a random time in this range.
        """
        scheme = urlsplit(url).scheme
        if scheme not in STORES:
            raise ValueError(f"expected an engine URL of scheme {' or '.join(sorted(STORES))}, but got {url!r}")
        self.store = STORES[scheme](url)
        self.retention = retention or Retention()
        self.pulse = Pulse(heartbeat)
        self.send_timeout = send_timeout
        self.shutdown_grace = shutdown_grace
        self.draining = False
        self._keep = keep
        self._keep_count = keep_count
        self._keep_size = keep_size
        self._reconnect = reconnect
        self._readers: dict[Reader, None] = {}
        self._no_readers = asyncio.Event()
        self._no_readers.set()
        self._producers: dict[str, Producer] = {}
        self._passing: set[str] = set()
        self._kept: dict[str, _Kept] = {}
        self._kept_size = 0
        self._slot: set[Member] | None = None
        self._stuck: set[asyncio.Task[None]] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None

    # Logs

    def log(self, name: str, *, retention: Retention | None = None) -> Log:
        """The log of a name, made at the first call. It lives as long as the engine's store."""
        return self.store.open(name, retention or self.retention)

    def new_stream(self, path: str = "", *, stream_id: str | None = None, retention: Retention | None = None) -> Log:
        """A new log with an id as its name's last segment; forgotten some time after its producer ended.

        The id is unguessable, unless the application brings its own, which has to look the same: 22 characters of
        URL-safe base64. ValueError if it does not, or if the log is there already.
        """
        if stream_id is None:
            stream_id = new_stream_id()
        elif _STREAM_ID.fullmatch(stream_id) is None:
            raise ValueError(f"expected a stream id of the form {STREAM_ID_PATTERN}, but got {stream_id!r:.80}")
        name = f"{path}/{stream_id}"
        if name in self._producers:
            raise ValueError(f"expected no producer of log {name!r}, but one is still running")
        log = self.store.create(name, retention or self.retention)
        self._passing.add(name)
        return log

    async def find(self, name: str) -> Log | None:
        """The log of a name, if it is there (still)."""
        return await self.store.find(name)

    # Producers

    def produce(self, log: Log, items: Items, *, on_disconnect: OnDisconnect = "detach", **options: Any) -> Producer:
        """Run a generator into a log; `options` are those of Producer."""
        if log.name in self._producers:
            raise ValueError(f"expected log {log.name!r} to have no producer, but one is running")
        producer = Producer(log, items, on_disconnect=on_disconnect, on_finish=self._finished, **options)
        self._producers[log.name] = producer
        if self._last_words is not None:
            producer.stop(SHUTDOWN)
        return producer

    def producer(self, log: Log) -> Producer | None:
        """The running producer of a log in this process."""
        return self._producers.get(log.name)

    async def stop(self, log: Log) -> Outcome | None:
        """Cancel what writes a log in this process and wait for it; the log's outcome, None if it is still open."""
        if (producer := self._producers.get(log.name)) is not None:
            producer.stop()
            await producer.wait()
        return log.outcome

    def forget(self, log: Log) -> None:
        """Forget a stream that nobody can ask for again."""
        self._passing.discard(log.name)
        if (kept := self._kept.pop(log.name, None)) is not None:
            self._kept_size -= kept.size
        self.store.drop(log.name)

    def _keep_for_replay(self, log: Log) -> None:
        _, size = log.size()
        self._kept[log.name] = _Kept(asyncio.get_running_loop().time() + self._keep, size)
        self._kept_size += size
        if self._slot is None:
            self._slot = self.pulse.join(self)
        self.beat()

    def beat(self) -> None:
        """Forget the ended streams that are too old or too many."""
        now = asyncio.get_running_loop().time()
        while self._kept:
            name, kept = next(iter(self._kept.items()))
            too_many = len(self._kept) > self._keep_count or self._kept_size > self._keep_size
            if not (too_many or kept.until <= now):
                break
            del self._kept[name]
            self._kept_size -= kept.size
            self.store.drop(name)
        self._rest()

    def _rest(self) -> None:
        if not self._kept and self._slot is not None:
            self._slot.discard(self)
            self._slot = None

    def _finished(self, producer: Producer) -> None:
        log = producer.log
        del self._producers[log.name]
        if log.name in self._passing:
            self._passing.remove(log.name)
            self._keep_for_replay(log)
        if producer.stuck:
            self._stuck.add(producer.task)
            producer.task.add_done_callback(self._stuck.discard)

    # Readers

    def join(self, reader: Reader) -> None:
        """A connection comes; it will be told when the server leaves."""
        self._readers[reader] = None
        self._no_readers.clear()

    def part(self, reader: Reader) -> None:
        """A connection goes."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._no_readers.set()

    def farewell(self, reason: Literal["shutdown", "slow"]) -> Farewell:
        """A farewell with a reconnect delay of its own, so that not all come back at once."""
        return Farewell(reason, round(random.uniform(*self._reconnect) * 1000))

    def leaving(self, log: Log) -> bool:
        """Whether readers of a log should go now: the server leaves, and what they wait for does not end with it."""
        return self.draining and (self.store.survives_restart or log.name not in self._passing)

    # The end

    def drain(self, *, grace: float | None = None) -> None:
        """Send readers away and give producers their grace, by default `shutdown_grace` seconds.

        A later call can shorten what is left of it, never lengthen it: `grace=0` ends producers now, and their readers
        are told. Safe to call from a signal's callback in the loop.
        """
        if not self.draining:
            self.draining = True
            for producer in tuple(self._producers.values()):
                producer.hurry()
            for reader in tuple(self._readers):
                reader.leave()
            self._give_grace(self.shutdown_grace if grace is None else grace)
        elif grace is not None:
            self._give_grace(grace)

    async def aclose(self) -> None:
        """Drain, wait for producers and readers, and let go of the logs. The engine can be used again afterwards."""
        self.drain()
        for producer in tuple(self._producers.values()):
            await producer.wait()
        # Those that are told to leave do; the others are abandoned when the grace is over.
        await self._no_readers.wait()
        for timer in (self._grace, self._last_words):
            if timer is not None:
                timer.cancel()
        self._grace = self._last_words = None
        for task in tuple(self._stuck):
            logger.error("%s is left running", task.get_name())
        self.pulse.stop()
        self._passing.clear()
        self._kept.clear()
        self._kept_size = 0
        self._slot = None
        await self.store.aclose()
        self.draining = False

    def _give_grace(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._last_words is not None:
            return  # it is over
        if self._grace is not None:
            if self._grace.when() <= loop.time() + seconds:
                return
            self._grace.cancel()
        if seconds > 0:
            self._grace = loop.call_later(seconds, self._end_grace)
        else:
            self._end_grace()

    def _end_grace(self) -> None:
        self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS, self._abandon_readers)
        for producer in tuple(self._producers.values()):
            producer.stop(SHUTDOWN)

    def _abandon_readers(self) -> None:
        for reader in tuple(self._readers):
            reader.abandon()

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            readers=len(self._readers),
            producers=len(self._producers),
            stuck=len(self._stuck),
            kept=len(self._kept),
            kept_size=self._kept_size,
            draining=self.draining,
        )
