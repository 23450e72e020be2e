"""A connection to Redis that is made again whenever it is lost."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .address import Address, Part, Target
from .connection import LIMITS, Connection, Limits, NotSent, OnPush, Refused, Reply, Unreachable, connect, template

logger = logging.getLogger("tailrace.log.redis")


def _ignore(*_: object) -> None:
    """Do nothing."""


class Script:
    """A Lua script, which servers keep and run by its digest."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode()

    @cached_property
    def sharded(self) -> Script:
        """The script for a cluster. It publishes to the server that owns the slot of the channel."""
        return Script(self.source.replace("call('PUBLISH'", "call('SPUBLISH'"))


class Call:
    """A call of a script whose first arguments stay the same. They are packed once, the others by `pack`."""

    __slots__ = ("_template", "key", "script")

    def __init__(self, script: Script, keys: Sequence[str], *first: Part, more: int) -> None:
        """Prepare a call to which `more` arguments will be added."""
        self.script = script
        self.key = keys[0].encode()
        self._template = template("EVALSHA", script.digest, len(keys), *keys, *first, more=more)

    def pack(self, *last: object) -> bytes:
        """Return the whole command. `last` has the length of each further argument, and the argument."""
        return self._template % last


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a connection is made again.

    At once after one that held for `longest` seconds. Otherwise for `first` seconds, twice as long each time, and never
    more than `longest`; up to half of it less at random, so that the processes of a failed server do not come together.
    """

    first: float = 0.05
    longest: float = 2.0

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after a number of failures in a row."""
        if failures == 0:
            return 0.0
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)


class Outage:
    """Logs that links to one server are lost: each reason once, and then that all are connected."""

    def __init__(self) -> None:
        self._lost: set[Link] = set()
        self._told: set[str] = set()

    def begin(self, link: Link, reason: str) -> None:
        """Note why a link is lost, or why it cannot be connected."""
        self._lost.add(link)
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("%s", reason)

    def end(self, link: Link) -> None:
        """Note that a link is connected."""
        self._lost.discard(link)
        if self._told and not self._lost:
            self._told.clear()
            logger.info("connected to Redis at %s", link.address)


class Link:
    """Keeps one connection to a server from `open` to `aclose`, and makes it again whenever it is lost.

    It asks its target for the server's address before each connect.

    Links to one server share an `outage`, so that the log has it once.

    It repeats no command, except a script that the server has forgotten and so did not run. Subscriptions are not
    renewed: `on_connect` is called after each connect, before those who wait for it, so that the owner can subscribe
    again and fetch what it missed. `on_lost` is called with the reason when a connection has ended before `aclose`. In
    both, the owner's calls may raise NotSent.
    """

    def __init__(
        self,
        target: Target,
        *,
        name: str = "",
        scripts: Sequence[Script] = (),
        on_push: OnPush = _ignore,
        on_connect: Callable[[], object] = _ignore,
        on_lost: Callable[[str], object] = _ignore,
        outage: Outage | None = None,
        limits: Limits = LIMITS,
        backoff: Backoff = Backoff(),
    ) -> None:
        self.target = target
        self.address: Address | None = None  # of the newest connection
        self.name = name
        self._scripts = tuple(scripts)
        self._on_push = on_push
        self._on_connect = on_connect
        self._on_lost = on_lost
        self._outage = outage or Outage()
        self._limits = limits
        self._backoff = backoff
        self._connection: Connection | None = None
        self._reason: str | NotSent = "it is not open"  # why there is no connection
        self._news = asyncio.Event()  # a connection, or the end of this link
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """True while there is a connection, as far as this process knows."""
        return self._connection is not None and self._connection.usable

    @property
    def connection(self) -> Connection | None:
        """The connection that there is now."""
        return self._connection

    def open(self) -> None:
        """Begin to connect. `ready` waits for it."""
        self._reason = "it is still connecting"
        self._keeper = asyncio.create_task(self._keep(), name=f"tailrace link {self.target}")

    async def aclose(self) -> None:
        """Close the connection for good, and wait until it is closed. Commands that wait for a reply raise Lost."""
        keeper, self._keeper = self._keeper, None
        self._reason = "it is closed"
        self._news.set()
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
            keeper.cancelled() or keeper.result()

    async def ready(self, within: float) -> None:
        """Wait until there is a connection. Raise NotSent after that many seconds, or when the link is closed."""
        if self.connected:  # a timeout would cost more than what follows
            return
        try:
            async with asyncio.timeout(within):
                while not self.connected:
                    if self._keeper is None:
                        raise self._not_sent()
                    self._news.clear()  # it may still tell of the connection that has just ended
                    await self._news.wait()
        except TimeoutError:
            raise self._not_sent() from None

    def call(self, *parts: Part) -> asyncio.Future[Any]:
        """Send a command now. See `Connection.call`."""
        return self._current().call(*parts)

    def send(self, packed: bytes, reply: Reply) -> None:
        """Send a command that is packed already. See `Connection.send`."""
        self._current().send(packed, reply)

    async def run(self, script: Script, keys: Sequence[Part], *arguments: Part) -> Any:
        """Run a script and return its reply. Raise Refused, Lost or NotSent."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await self.call("EVALSHA", script.digest, *rest)
        except Refused as refused:
            if refused.code != "NOSCRIPT":
                raise
        # The server has forgotten the script and ran nothing. EVAL makes it known again.
        return await self.call("EVAL", script.source, *rest)

    def subscribe(self, channels: Collection[bytes], *, sharded: bool = False) -> asyncio.Future[None]:
        """Subscribe channels on this connection only. See `Connection.subscribe`."""
        return self._current().subscribe(channels, sharded=sharded)

    def unsubscribe(self, channels: Collection[bytes], *, sharded: bool = False) -> asyncio.Future[None]:
        """Unsubscribe channels. See `Connection.unsubscribe`."""
        return self._current().unsubscribe(channels, sharded=sharded)

    def drop(self, reason: str) -> None:
        """End a connection that its owner no longer trusts, and connect again."""
        if self._connection is not None:
            self._connection.close(reason)

    def _current(self) -> Connection:
        if self._connection is None:
            raise self._not_sent()
        return self._connection

    def _not_sent(self) -> NotSent:
        if isinstance(self._reason, NotSent):
            return NotSent(str(self._reason))
        return NotSent(f"expected a connection to {self.target}, but {self._reason}")

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self._connect()
            except (Unreachable, Refused) as error:
                failures += 1
                full = isinstance(error, NotSent)
                self._reason = NotSent(error if full else f"expected a connection to {self.target}, but got: {error}")
                self._outage.begin(self, f"cannot connect to Redis: {self._reason}")
            else:
                lived = await self._use(connection)
                failures = 0 if lived >= self._backoff.longest else failures + 1
            await asyncio.sleep(self._backoff.delay(failures))

    async def _connect(self) -> Connection:
        """Make a connection whose server knows the scripts."""
        address = await self.target.locate()
        connection = await connect(address, name=self.name, on_push=self._on_push, limits=self._limits)
        try:
            if self._scripts and connection.mode == b"sentinel":
                told = f"expected {address} to hold data, but it is a Sentinel, whose URL begins with redis+sentinel://"
                raise NotSent(told)
            await asyncio.gather(*(connection.call("SCRIPT", "LOAD", script.source) for script in self._scripts))
        except BaseException:  # a cancellation, too: the caller never gets the connection, so it cannot close it
            connection.close()
            raise
        self.address = address
        return connection

    async def _use(self, connection: Connection) -> float:
        """Let everybody use a connection until it ends. Return how many seconds it held."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        self._connection = connection
        self._outage.end(self)
        # An exception of the owner's is reported by the event loop, and does not stop this link.
        loop.call_soon(self._on_connect)
        self._news.set()
        try:
            reason = self._reason = await connection.wait_closed()
        finally:
            self._connection = None
            connection.close()
            await connection.wait_closed()
        self._outage.begin(self, f"lost the connection to Redis at {self.address}: {reason}")
        loop.call_soon(self._on_lost, reason)
        return loop.time() - since
