"""Engine: what an application uses of the logs of its process."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, Unpack

from pydantic_core import to_json

from ..cursor import ONLY_EPOCH, STREAM_ID_PATTERN, new_stream_id
from ..errors import LogExists
from ..events import Outcome
from ..flow import Retention
from ..iterators import Items
from ..log.base import Log
from ..log.memory import MemoryStore
from ..log.store import Keeping, LogStore
from ..producer import Producer
from ..pulse import Pulse
from .producers import ProducerOptions, Producers
from .readers import Readers
from .shutdown import Shutdown

OpenStore: TypeAlias = Callable[[str, Keeping, Pulse], LogStore]


def _open_memory(_: str, keeping: Keeping, pulse: Pulse) -> LogStore:
    return MemoryStore(keeping, pulse)


def _open_redis(url: str, keeping: Keeping, pulse: Pulse) -> LogStore:
    try:
        from ..log.redis.store import RedisStore
    except ModuleNotFoundError as error:
        needs = f"a redis:// URL needs the extra redis, but there is no {error.name}: pip install 'tailrace[redis]'"
        raise ModuleNotFoundError(needs, name=error.name) from error
    return RedisStore(url, keeping, pulse)


STORES: dict[str, OpenStore] = {
    "memory": _open_memory,
    "redis": _open_redis,
    "rediss": _open_redis,
    "unix": _open_redis,
    "redis+cluster": _open_redis,
    "redis+sentinel": _open_redis,
    "rediss+cluster": _open_redis,
    "rediss+sentinel": _open_redis,
}
"""Functions that make a store from a URL, by URL scheme. Nothing is connected before the store is used."""


def _open_store(url: str, keeping: Keeping, pulse: Pulse) -> LogStore:
    scheme, mark, _ = url.partition("://")  # urlsplit refuses several hosts of which one is an IPv6 address
    if not mark or scheme.lower() not in STORES:
        known = " or ".join(f"{scheme}://" for scheme in sorted(STORES))
        got = repr(scheme + mark) if mark else "no scheme"  # the rest may contain passwords
        raise ValueError(f"expected a URL that begins with {known}, but got {got}")
    return STORES[scheme.lower()](url, keeping, pulse)


_STREAM_ID = re.compile(STREAM_ID_PATTERN, re.ASCII)


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
    """A process's logs by name, the producers that write them, and the connections that read them.

    Use one engine per event loop. `aclose` ends everything that still runs.
    """

    def __init__(
        self,
        url: str | LogStore = "memory://",
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

        - `url`: where the logs live. A store of your own has its own Keeping.
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
        self.retention = retention or Retention()
        self.pulse = Pulse(heartbeat)
        self.send_timeout = send_timeout
        self.warned = False  # True after the warning of several workers
        keeping = Keeping(keep, keep_count, keep_size, keep_idle)
        self.store = url if isinstance(url, LogStore) else _open_store(url, keeping, self.pulse)
        self.readers = Readers(reconnect)
        self.producers = Producers(self.store, threads)
        self._shutdown = Shutdown(self.readers, self.producers, shutdown_grace)

    # Logs

    async def log(self, name: str, *, retention: Retention | None = None) -> Log:
        """Return the log with a name. Make one if there is none.

        The log is forgotten `keep` seconds after its end. An open log is forgotten after `keep_idle` seconds without
        use, unless your application holds it. The next call then makes a new log.
        """
        return await self.store.attach(name, retention or self.retention)

    async def new_stream(
        self,
        path: str = "",
        *,
        stream_id: str | None = None,
        retention: Retention | None = None,
        fingerprint: bytes = b"",
    ) -> Log:
        """Make a log for one request's stream. Its name is the path, a slash and an id.

        The id is unguessable. You may give your own, such as a stored one, in the same form: 22 characters of URL-safe
        base64. Raise ValueError if it has another form, and LogExists if there is a log or a running producer of that
        name. The log keeps `fingerprint`.
        """
        epoch = None
        if stream_id is None:
            stream_id, epoch = new_stream_id(), ONLY_EPOCH
        elif _STREAM_ID.fullmatch(stream_id) is None:
            raise ValueError(f"expected a stream id of the form {STREAM_ID_PATTERN}, but got {stream_id!r:.80}")
        name = f"{path}/{stream_id}"
        if self.producers.find(name) is not None:
            raise LogExists(name)
        return await self.store.create(name, retention or self.retention, epoch=epoch, fingerprint=fingerprint)

    async def derive_id(self, *parts: str) -> str:
        """Return the stream id for some texts. It is unguessable, because it depends on the store's secret."""
        digest = hmac.digest(await self.store.secret(), to_json(parts), "sha256")
        return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()

    async def find(self, name: str) -> Log | None:
        """Return the log with a name, or None if there is none or it was forgotten."""
        return await self.store.find(name)

    async def find_stream(self, path: str, stream_id: str) -> Log | None:
        """Return the stream that `new_stream` made at a path, or None. Never return a named log of the application."""
        log = await self.store.find(f"{path}/{stream_id}")
        return log if log is not None and log.passing else None

    async def forget(self, log: Log, *, within: float | None = None) -> None:
        """Forget a log now. If it is still open, its producer is stopped and its readers get a reset.

        With `within`, forget it after that many seconds, unless it is used in the meantime.
        """
        await (self.store.drop(log) if within is None else self.store.expire(log, within))

    # Producers

    async def produce(self, log: Log, items: Items, **options: Unpack[ProducerOptions]) -> Producer:
        """Run a generator and write its items to a log. `ProducerOptions` describes the options.

        Without readers, the generator continues, unless you pass `on_disconnect="cancel"`. Raise LogFenced if the log
        has a producer, and LogClosed if it has ended.
        """
        options.setdefault("on_disconnect", "detach")
        return await self.producers.start(log, items, **options)

    def producer(self, log: Log) -> Producer | None:
        """Return the running producer of a log in this process, or None."""
        return self.producers.find(log.name)

    async def stop(self, log: Log) -> Outcome | None:
        """Stop the log's producer, in whichever process it is. Return the outcome, or None if the log is still open."""
        return await self.producers.stop(log)

    # The end

    @property
    def shutdown_grace(self) -> float:
        """How many seconds producers may continue once the server is asked to stop."""
        return self._shutdown.grace

    @property
    def draining(self) -> bool:
        """True once the server was asked to stop."""
        return self._shutdown.begun

    def leaving(self, log: Log) -> bool:
        """Tell whether readers of a log should leave now: the server stops, and the log can continue elsewhere.

        A producer here that needs readers would lose them, and stop before its grace is over.
        """
        if not (self.draining and (self.store.shared or not log.passing)):
            return False
        producer = self.producers.find(log.name)
        return producer is None or producer.detached

    def drain(self, *, grace: float | None = None) -> None:
        """Send readers away and give producers a grace, by default `shutdown_grace` seconds.

        A later call can only shorten the grace. `grace=0` stops the producers now and tells their readers. You may call
        this from a signal handler that runs in the event loop.
        """
        self._shutdown.begin(grace)

    async def aclose(self) -> None:
        """Drain, wait for producers and readers, and forget all logs. You can use the engine again afterwards."""
        self.drain()
        await self._shutdown.finish()
        self.pulse.stop()
        await self.store.aclose()
        self._shutdown.begun = False

    def statistics(self) -> EngineStatistics:
        """Return the engine's current numbers."""
        kept, kept_size = self.store.kept
        return EngineStatistics(
            readers=len(self.readers),
            producers=len(self.producers),
            stuck=self.producers.stuck,
            threads=self.producers.threads.taken,
            kept=kept,
            kept_size=kept_size,
            draining=self.draining,
        )
