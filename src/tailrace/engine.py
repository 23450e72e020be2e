"""A process's logs, their producers and readers, and the shutdown of all three."""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from pydantic_core import to_json

from .cursor import STREAM_ID_PATTERN, new_stream_id
from .events import Encode, Farewell, Outcome, encode_event
from .flow import Flow, Retention
from .iterators import Items, Threads
from .log.base import Log
from .log.memory import MemoryStore
from .log.store import Keeper, LogStore
from .producer import Describe, OnDisconnect, Producer, describe_error
from .pulse import Pulse

logger = logging.getLogger("tailrace")

STORES: dict[str, Callable[[str], LogStore]] = {"memory": lambda url: MemoryStore()}
"""Functions that make a store from a URL, by URL scheme."""

LAST_WORDS = 1.0
"""Seconds after the shutdown's grace for telling readers how their streams ended."""

SHUTDOWN = Outcome("cancelled", "shutdown", "the server shut down")

_STREAM_ID = re.compile(STREAM_ID_PATTERN, re.ASCII)


class Reader(Protocol):
    """A connection that reads one of the engine's logs."""

    def leave(self) -> None:
        """Decide whether to send a farewell, because the server is about to stop."""

    def abandon(self) -> None:
        """End the connection now, whatever the client still lacks, because the grace is over."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """An engine's current numbers."""

    readers: int
    producers: int
    stuck: int
    threads: int
    kept: int
    kept_size: int
    draining: bool


class Engine:
    """Holds logs by name, the producers that write them, and the connections that read them.

    Use one engine per event loop. A memory engine needs no setup. `aclose` ends everything that still runs.
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
        keep_idle: float | None = 3_600.0,
        threads: int = 200,
        shutdown_grace: float = 10.0,
        reconnect: tuple[float, float] = (0.5, 3.0),
    ) -> None:
        """Make an engine. Times are in seconds.

        - `retention`: the default retention of logs.
        - `heartbeat`: how often to ping an idle connection.
        - `send_timeout`: how long a connection may accept no bytes before it is closed.
        - `keep`: how long an ended log can be replayed after its end, or after its last reader left.
        - `keep_count`, `keep_size`: how many ended logs without readers to keep, and how many bytes of them.
        - `keep_idle`: how long to keep an open log that is not read, written or held. None keeps it forever.
        - `threads`: how many sync generators may run at once. Further requests get 503.
        - `shutdown_grace`: how long producers may continue once the server is asked to stop.
        - `reconnect`: the range of the random delay after which dismissed readers come back.
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
        self.warned = False  # True after the warning of several workers
        self._keeper = Keeper(
            self.store, self.pulse, keep=keep, count=keep_count, size=keep_size, idle=keep_idle, busy=self.producer
        )
        self._threads = Threads(threads)
        self._reconnect = reconnect
        self._secret = secrets.token_bytes(32)
        self._readers: dict[Reader, None] = {}
        self._no_readers = asyncio.Event()
        self._no_readers.set()
        self._producers: dict[str, Producer] = {}
        self._stuck: set[asyncio.Task[None]] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None

    # Logs

    def log(self, name: str, *, retention: Retention | None = None) -> Log:
        """Return the log with a name. Make one if there is none.

        The engine forgets a log `keep` seconds after its end. It also forgets an open log after `keep_idle` seconds
        without use, unless your application holds it. The next call then makes a new log.
        """
        log = self.store.open(name, retention or self.retention)
        self._keeper.watch(log)
        return log

    def new_stream(
        self,
        path: str = "",
        *,
        stream_id: str | None = None,
        retention: Retention | None = None,
        fingerprint: bytes = b"",
    ) -> Log:
        """Make a log for one request's stream. Its name is the path, a slash and an id.

        The id is unguessable. You may give your own, such as a stored one, in the same form: 22 characters of URL-safe
        base64. Raise ValueError if it has another form, or if the log exists. The log keeps `fingerprint`.
        """
        if stream_id is None:
            stream_id = new_stream_id()
        elif _STREAM_ID.fullmatch(stream_id) is None:
            raise ValueError(f"expected a stream id of the form {STREAM_ID_PATTERN}, but got {stream_id!r:.80}")
        name = f"{path}/{stream_id}"
        if name in self._producers:
            raise ValueError(f"expected no producer of log {name!r}, but one is still running")
        log = self.store.create(name, retention or self.retention)
        log.passing = True
        log.fingerprint = fingerprint
        self._keeper.watch(log)
        return log

    def derive_id(self, *parts: str) -> str:
        """Return the stream id for some texts. It is unguessable, because it depends on the engine's secret."""
        digest = hmac.digest(self._secret, to_json(parts), "sha256")
        return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()

    async def find(self, name: str) -> Log | None:
        """Return the log with a name, or None if there is none or it was forgotten."""
        return await self.store.find(name)

    async def find_stream(self, path: str, stream_id: str) -> Log | None:
        """Return the stream that `new_stream` made at a path, or None. Never return a named log of the application."""
        log = await self.store.find(f"{path}/{stream_id}")
        return log if log is not None and log.passing else None

    def forget(self, log: Log) -> None:
        """Forget a log immediately, because no client can ask for it again."""
        self._keeper.forget(log)

    # Producers

    def produce(
        self,
        log: Log,
        items: Items,
        *,
        encode: Encode = encode_event,
        describe: Describe = describe_error,
        flow: Flow | None = None,
        on_disconnect: OnDisconnect = "detach",
        grace: float = 10.0,
        patience: float = 5.0,
        reports: bool = True,
    ) -> Producer:
        """Run a generator and write its items to a log. Raise ValueError if the log already has a producer.

        - `encode`: a function from an item to its event name and its data as one line of JSON.
        - `describe`: a function from an exception to the outcome that clients see.
        - `flow`: `Flow.block` makes the generator wait for its readers. This is the default unless it is detached.
        - `on_disconnect`: `detach` lets the generator run without readers; `cancel` stops it.
        - `grace`: seconds without readers before `cancel` stops the generator.
        - `patience`: seconds that a cancelled generator may take to end, and that the store may take to store the end.
        - `reports`: whether to log an error that the outcome hides. Pass False if the request raises the error itself.
        """
        if log.name in self._producers:
            raise ValueError(f"expected log {log.name!r} to have no producer, but one is running")
        producer = Producer(
            log,
            items,
            encode=encode,
            describe=describe,
            flow=flow,
            on_disconnect=on_disconnect,
            grace=grace,
            patience=patience,
            reports=reports,
            threads=self._threads,
            on_finish=self._finished,
        )
        self._producers[log.name] = producer
        if self._last_words is not None:
            producer.stop(SHUTDOWN)
        return producer

    def producer(self, log: Log) -> Producer | None:
        """Return the running producer of a log in this process, or None."""
        return self._producers.get(log.name)

    async def stop(self, log: Log) -> Outcome | None:
        """Stop the log's producer in this process and wait for it. Return the outcome, or None if the log is open."""
        if (producer := self._producers.get(log.name)) is not None:
            producer.stop()
            await producer.wait()
        return log.outcome

    def _finished(self, producer: Producer) -> None:
        del self._producers[producer.log.name]
        if producer.stuck:
            self._stuck.add(producer.task)
            producer.task.add_done_callback(self._stuck.discard)

    # Readers

    def join(self, reader: Reader) -> None:
        """Register a connection, to notify it when the server stops."""
        self._readers[reader] = None
        self._no_readers.clear()

    def part(self, reader: Reader) -> None:
        """Remove a connection that has ended."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._no_readers.set()

    def farewell(self, reason: Literal["shutdown", "slow"]) -> Farewell:
        """Return a farewell with a random delay, so that the readers do not all come back at once."""
        return Farewell(reason, round(random.uniform(*self._reconnect) * 1000))

    def leaving(self, log: Log) -> bool:
        """Tell whether readers of a log should leave now: the server stops, and the log can continue elsewhere."""
        return self.draining and (self.store.survives_restart or not log.passing)

    # The end

    def drain(self, *, grace: float | None = None) -> None:
        """Send readers away and give producers a grace, by default `shutdown_grace` seconds.

        A later call can only shorten the grace. `grace=0` stops the producers now and tells their readers. You may call
        this from a signal handler that runs in the event loop.
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
        """Drain, wait for producers and readers, and forget all logs. You can use the engine again afterwards."""
        self.drain()
        for producer in tuple(self._producers.values()):
            await producer.wait()
        # The readers in `leave` end by themselves. The others are abandoned when the grace is over.
        await self._no_readers.wait()
        for timer in (self._grace, self._last_words):
            if timer is not None:
                timer.cancel()
        self._grace = self._last_words = None
        for task in tuple(self._stuck):
            logger.error("%s is left running", task.get_name())
        self._keeper.clear()
        self.pulse.stop()
        await self.store.aclose()
        self.draining = False

    def _give_grace(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._last_words is not None:
            return  # the grace is over
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
        """Return the engine's current numbers."""
        return EngineStatistics(
            readers=len(self._readers),
            producers=len(self._producers),
            stuck=len(self._stuck),
            threads=self._threads.taken,
            kept=len(self._keeper),
            kept_size=self._keeper.size,
            draining=self.draining,
        )
