"""The servers of a store, and the simplest form of them: one server and the two connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from .address import Address, Part
from .attempts import CONNECT
from .connection import Connection, Limits, NotSent, OnPush, Reply
from .link import Backoff, Call, Link, Outage, Script
from .sentinel import Sentinels, Watch

CHECKS = 4
"""The number of parts in which a server waits until it is away."""


class Servers(Protocol):
    """The way from keys and channels to the connections of this process. A lost connection is made again."""

    apart: bool
    """True if keys may be on different servers, so that commands for two keys may overtake each other."""

    def open(self) -> None:
        """Begin to connect."""

    async def aclose(self) -> None:
        """Close all connections."""

    @property
    def connected(self) -> bool:
        """True while there is a connection for commands, as far as this process knows."""

    def reaches(self, key: bytes) -> bool:
        """Tell whether there is a connection for commands about a key, as far as this process knows."""

    async def ready(self, key: str, within: float) -> None:
        """Wait until there is a connection for commands about a key. Raise NotSent after that many seconds."""

    def call(self, command: str, key: str, *rest: Part) -> asyncio.Future[Any]:
        """Send a command about a key now. Its future raises, and perhaps this call, Refused, Lost or NotSent."""

    def run(self, script: Script, keys: Sequence[str], *arguments: Part) -> Coroutine[Any, Any, Any]:
        """Run a script on keys of one hash tag, and return its reply. Raise Refused, Lost or NotSent."""

    def prepare(self, script: Script, keys: Sequence[str], *first: Part, more: int) -> Call:
        """Prepare a call of a script, to send it by `post` many times."""

    def post(self, call: Call, packed: bytes, reply: Reply) -> None:
        """Send what was packed of a call now, if there is a connection. Otherwise raise NotSent.

        The reply gets whatever the server answers, even a redirection or a missing script.
        """

    async def subscribe(self, channels: Collection[bytes]) -> None:
        """Subscribe channels, and wait for the confirmation. Raise Refused, Lost or NotSent."""

    def unsubscribe(self, channel: bytes) -> None:
        """Unsubscribe a channel, written before each later `subscribe`."""

    def is_lost(self, channel: bytes) -> bool:
        """Tell whether a channel is to be subscribed: it is not on the newest connection to its server."""

    def parts(self, channels: Collection[bytes]) -> Iterable[Collection[bytes]]:
        """Sort channels by server. Those of one that is down must not keep the others waiting."""

    def moved(self, channel: bytes) -> None:
        """Note that a server has taken a subscription away, because it no longer has the channel's slot."""

    def is_away(self, channel: bytes) -> bool:
        """Tell whether the server of a channel is out of reach, and has been for longer than a moment."""

    def hear(self, channel: bytes, data: bytes) -> bool:
        """Take a message if it is one of `echo`. Otherwise return False."""

    def echo(self) -> asyncio.Future[Any]:
        """Publish a number that has to come back on the subscribed connection."""

    def drop_deaf(self) -> None:
        """Drop the connections to servers from which the last number did not come back."""

    def drop(self, reason: str) -> None:
        """Drop all connections, because they lead to wrong servers. New ones may find the right ones."""


class Server:
    """One server and the two connections to it: `commands`, and `news` for what it publishes.

    A connection may lead to a server that is frozen, was demoted or is cut off from the others. A PING would not show
    this. So a number is published by the one connection and awaited on the other.

    The server is in reach while both connections are there and no number is on its way. If it is out of reach for
    half an interval, it is `away` until a number comes back: a new connection may be as deaf as the last one.
    """

    apart = False

    def __init__(
        self,
        target: Address | Sentinels,
        *,
        name: str,
        scripts: Sequence[Script],
        echo: str,
        on_push: OnPush,
        on_commands: Callable[[], object],
        on_news: Callable[[], object],
        on_reach: Callable[[], object],
        interval: float,
        limits: Limits,
        sharded: bool = False,
    ) -> None:
        """Make the connections of a server, which knows both by a name. `echo` is the channel of the number.

        The beat makes a round each `interval` seconds. The server calls `on_commands` after each connect for commands,
        and `on_news` after each connect for news, to subscribe the channels that were lost. Those of a cluster are
        `sharded`. It calls `on_reach` when it is away, and when it is back.
        """
        self.away = False
        outage = Outage()
        # Longer, others could take this process for dead only because it waits to connect to a Redis that is back.
        backoff = Backoff(longest=min(Backoff().longest, interval))
        self.commands = Link(
            target,
            name=name,
            scripts=scripts,
            on_connect=self._commands_connected,
            on_lost=self._look,
            outage=outage,
            limits=limits,
            backoff=backoff,
        )
        self.news = Link(
            target,
            name=name,
            on_push=on_push,
            on_connect=self._news_connected,
            on_lost=self._news_lost,
            outage=outage,
            limits=limits,
            backoff=backoff,
        )
        self._links: list[Link] = [self.commands, self.news]
        self._watch: Watch | None = None
        if isinstance(target, Sentinels):
            self._watch = target.watch(name, self._moved)
            self._links.append(self._watch)
        self._on_commands = on_commands
        self._on_news = on_news
        self._echo = echo.encode()
        self._number = 0
        self._listening = False
        self._sent = self._heard = b""
        self._on_reach = on_reach
        self._grace = interval / 2
        self._doubt: asyncio.TimerHandle | None = None
        self._sharded = sharded
        self._channels: dict[bytes, Connection | None] = {}  # the connection on which each was subscribed last

    def open(self) -> None:
        for link in self._links:
            link.open()
        self._look()

    async def aclose(self) -> None:
        await asyncio.gather(*(link.aclose() for link in self._links))
        self._trust()

    @property
    def connected(self) -> bool:
        return self.commands.connected

    def reaches(self, key: bytes) -> bool:
        return self.commands.connected

    async def ready(self, key: str, within: float) -> None:
        await self.commands.ready(within)

    def call(self, command: str, key: str, *rest: Part) -> asyncio.Future[Any]:
        return self.commands.call(command, key, *rest)

    def run(self, script: Script, keys: Sequence[str], *arguments: Part) -> Coroutine[Any, Any, Any]:
        run = self.commands.run if self.commands.connected else self._run_later
        return run(script, keys, *arguments)

    async def _run_later(self, script: Script, keys: Sequence[Part], *arguments: Part) -> Any:
        await self.commands.ready(CONNECT)
        return await self.commands.run(script, keys, *arguments)

    def prepare(self, script: Script, keys: Sequence[str], *first: Part, more: int) -> Call:
        return Call(script, keys, *first, more=more)

    def post(self, call: Call, packed: bytes, reply: Reply) -> None:
        self.commands.send(packed, reply)

    async def subscribe(self, channels: Collection[bytes]) -> None:
        await self.news.ready(CONNECT)
        connection = self.news.connection
        # Before the confirmation, because `moved` and `unsubscribe` may follow it at once.
        self._channels.update(dict.fromkeys(channels, connection))
        try:
            await self.news.subscribe(channels, sharded=self._sharded)
        except BaseException:  # a cancellation, too: nobody knows then whether the channels are subscribed
            for channel in channels:
                if self._channels.get(channel) is connection:
                    del self._channels[channel]
            raise

    def unsubscribe(self, channel: bytes) -> None:
        if not self.is_lost(channel):
            with suppress(NotSent):
                self.news.unsubscribe([channel], sharded=self._sharded)
        self._channels.pop(channel, None)

    def is_lost(self, channel: bytes) -> bool:
        connection = self._channels.get(channel)
        return connection is None or self.news.connection is not connection

    def parts(self, channels: Collection[bytes]) -> Iterable[Collection[bytes]]:
        return [channels]

    def moved(self, channel: bytes) -> None:
        self._channels.pop(channel, None)

    def drop(self, reason: str) -> None:
        self.commands.drop(reason)
        self.news.drop(reason)

    # Whether it is in reach

    def is_away(self, channel: bytes) -> bool:
        return self.away

    def _look(self, _: object = None) -> None:
        if self.commands.connected and self._listening and self._sent == self._heard:
            self._trust()
            if self.away and self._heard:
                self.away = False
                self._on_reach()
        elif self._doubt is None and not self.away:
            self._check_later(CHECKS)

    def _trust(self) -> None:
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    def _check_later(self, checks: int) -> None:
        # In parts: after the event loop hung, what waits in the sockets is read before the next part is over.
        self._doubt = asyncio.get_running_loop().call_later(self._grace / CHECKS, self._check, checks - 1)

    def _check(self, checks: int) -> None:
        if checks:
            self._check_later(checks)
        else:
            self._doubt = None
            self.away = True
            self._on_reach()

    # The number that comes back

    def hear(self, channel: bytes, data: bytes) -> bool:
        if channel != self._echo:
            return False
        self._heard = data
        self._look()
        return True

    def echo(self) -> asyncio.Future[Any]:
        if self._watch is not None:
            self._watch.ask()
        self._number += 1
        published = self.commands.call("PUBLISH", self._echo, self._number)
        if self._listening:
            self._sent = b"%d" % self._number
            self._look()
        return published

    def drop_deaf(self) -> None:
        if self._sent and self._sent != self._heard:
            self._listen(False)
            self.drop("what was published did not come back")

    def _listen(self, listening: bool) -> None:
        self._listening = listening
        self._sent = self._heard = b""
        self._look()

    # New connections

    def _commands_connected(self) -> None:
        self._moved(str(self.commands.address))
        self._look()
        self._on_commands()

    def _news_connected(self) -> None:
        self._listen(False)
        self._moved(str(self.news.address))
        with suppress(NotSent):
            self.news.subscribe([self._echo]).add_done_callback(self._subscribed)
        self._on_news()

    def _news_lost(self, _: object) -> None:
        self._listen(False)

    def _subscribed(self, confirmed: asyncio.Future[None]) -> None:
        if not confirmed.cancelled() and confirmed.exception() is None:
            self._listen(True)

    def _moved(self, address: str) -> None:
        """Drop connections to an address at which the server is no more, as after a failover."""
        for link in (self.commands, self.news):
            if link.connected and str(link.address) != address:
                link.drop(f"the master is at {address} by now")
