"""A Redis Cluster: many servers, each of which has some of 16,384 slots, and each key in one slot."""

from __future__ import annotations

import asyncio
import logging
import random
from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from .address import Address, Group, Part
from .attempts import CONNECT
from .connection import Limits, NotSent, OnPush, Refused, Reply, Unreachable, connect
from .link import Call, Script
from .server import Server

logger = logging.getLogger("tailrace.log.redis")

T = TypeVar("T")

Range = tuple[int, int, Address]
"""Slots of one server: the first slot, the slot after the last, and the server's address."""

SLOTS = 16384
HOPS = 5
"""How many times a command is sent on to another server before it fails."""

LOOK_PAUSE = 0.1
"""The least number of seconds between two questions for the map of slots."""


def slot_of(key: bytes) -> int:
    """Return the slot of a key or channel: that of its hash tag, if it has one that is not empty."""
    start = key.find(b"{") + 1
    if start:
        stop = key.find(b"}", start)
        if stop > start:
            key = key[start:stop]
    return crc_hqx(key, 0) % SLOTS


def seeds_of(url: str) -> list[Address]:
    """Read a URL such as `redis+cluster://user:password@host,host2:6380`, with some servers of a cluster."""
    group = Group(url, "cluster", 6379)
    if group.path not in ("", "0"):
        raise ValueError(f"expected database 0, the only one of a cluster, but got {group.path!r}")
    return group.addresses()


class Cluster:
    """The servers of a cluster that this process uses, and the way from a key to its server.

    The map of slots is asked for when it is first needed, and again whenever a server sends a command elsewhere, takes
    a subscription away or cannot be reached. A channel is subscribed on the server that has its slot.
    """

    apart = True

    def __init__(
        self,
        seeds: Sequence[Address],
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
    ) -> None:
        """Make the way to a cluster, some of whose servers are known. See `Server` for the other parameters."""
        self._seeds = tuple(seeds)
        self._name, self._scripts, self._echo = name, [script.sharded for script in scripts], echo
        self._on_push, self._on_commands, self._on_news = on_push, on_commands, on_news
        self._on_reach, self._interval, self._limits = on_reach, interval, limits
        self._slots: list[Server | None] = [None] * SLOTS
        self._servers: dict[str, Server] = {}
        self._echoes: dict[bytes, Server] = {}
        self._reason = "nobody was asked"
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0  # when the last look ended
        self._tasks: set[asyncio.Task[Any]] = set()

    def __str__(self) -> str:
        return f"the cluster of {', '.join(map(str, self._seeds))}"

    def open(self) -> None:
        self._look_again()

    async def aclose(self) -> None:
        servers, self._servers = self._servers, {}
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, *(server.aclose() for server in servers.values()), return_exceptions=True)

    @property
    def connected(self) -> bool:
        return any(server.connected for server in self._servers.values())

    def reaches(self, key: bytes) -> bool:
        server = self._slots[slot_of(key)]
        return server is not None and server.connected

    async def ready(self, key: str, within: float) -> None:
        # Routed, so that a server which is gone is looked for elsewhere: perhaps no command ever tries it.
        await self._routed(key.encode(), lambda server, _: server.commands.ready(within), within)

    # Commands

    def call(self, command: str, key: str, *rest: Part) -> asyncio.Future[Any]:
        async def send(server: Server, asking: bool) -> Any:
            await server.commands.ready(CONNECT)
            if asking:
                server.commands.call("ASKING")
            return await server.commands.call(command, key, *rest)

        return self._spawn(self._routed(key.encode(), send))

    async def run(self, script: Script, keys: Sequence[str], *arguments: Part) -> Any:
        sharded = script.sharded

        async def send(server: Server, asking: bool) -> Any:
            await server.commands.ready(CONNECT)
            if asking:
                server.commands.call("ASKING")
                return await server.commands.call("EVAL", sharded.source, len(keys), *keys, *arguments)
            return await server.commands.run(sharded, keys, *arguments)

        return await self._routed(keys[0].encode(), send)

    def prepare(self, script: Script, keys: Sequence[str], *first: Part, more: int) -> Call:
        return Call(script.sharded, keys, *first, more=more)

    def post(self, call: Call, packed: bytes, reply: Reply) -> None:
        if (server := self._slots[slot := slot_of(call.key)]) is None:
            raise self._lacks(slot)
        server.post(call, packed, reply)

    async def _routed(self, key: bytes, send: Callable[[Server, bool], Awaitable[T]], within: float = CONNECT) -> T:
        """Send something to the server of a key or channel, and to where that one says instead.

        If no server is known, wait `within` seconds for one.
        """
        asking = False
        server = await self._server_of(key, within)
        for _ in range(HOPS):
            try:
                return await send(server, asking)
            except Unreachable:
                self._look_again()  # perhaps another server has its slots by now
                raise
            except Refused as refused:
                if refused.code not in ("MOVED", "ASK"):
                    if refused.code == "CLUSTERDOWN":
                        self._look_again()
                    raise
                found, asking = self._elsewhere(refused, server), refused.code == "ASK"
                if not asking:
                    self._slots[slot_of(key)] = found
                    self._look_again()
                if found is None:
                    self._reason = f"one of its servers answered {refused}"
                    raise self._lacks(slot_of(key)) from None
                server = found
        raise NotSent(f"expected a server that has slot {slot_of(key)}, but {HOPS} of them sent elsewhere")

    def _elsewhere(self, refused: Refused, by: Server) -> Server | None:
        """Return the server to which a refusal sends: `MOVED 3999 127.0.0.1:6381`."""
        host, _, port = str(refused).split()[2].rpartition(":")
        address = self._address(host, int(port), by.commands.address or self._seeds[0])
        return None if address is None else self._server(address)

    # Channels

    async def subscribe(self, channels: Collection[bytes]) -> None:
        by_slot: dict[int, list[bytes]] = defaultdict(list)
        for channel in channels:
            by_slot[slot_of(channel)].append(channel)
        results = await asyncio.gather(*map(self._subscribe, by_slot.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _subscribe(self, channels: list[bytes]) -> None:
        """Subscribe channels of one slot."""
        await self._routed(channels[0], lambda server, _: server.subscribe(channels))

    def unsubscribe(self, channel: bytes) -> None:
        if (server := self._slots[slot_of(channel)]) is not None:
            server.unsubscribe(channel)

    def is_lost(self, channel: bytes) -> bool:
        server = self._slots[slot_of(channel)]
        return server is None or server.is_lost(channel)

    def parts(self, channels: Collection[bytes]) -> Iterable[Collection[bytes]]:
        parts: dict[Server | None, list[bytes]] = defaultdict(list)
        for channel in channels:
            parts[self._slots[slot_of(channel)]].append(channel)
        return parts.values()

    def moved(self, channel: bytes) -> None:
        """Note that a server has taken a subscription away, because the slot has moved."""
        for server in self._servers.values():
            server.moved(channel)
        self._look_again()

    def is_away(self, channel: bytes) -> bool:
        server = self._slots[slot_of(channel)]
        return server is None or server.away

    # The map

    async def _server_of(self, key: bytes, within: float) -> Server:
        slot = slot_of(key)
        if (server := self._slots[slot]) is None:
            self._look_again()
            assert self._looking is not None
            await asyncio.wait([self._looking], timeout=within)
            if (server := self._slots[slot]) is None:
                raise self._lacks(slot)
        return server

    def _lacks(self, slot: int) -> NotSent:
        """Return the error for a slot without a server."""
        return NotSent(f"expected {self} to have a server for slot {slot}, but {self._reason}")

    def _look_again(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self._spawn(self._look())

    async def _look(self) -> None:
        # Each call that a failed server does not answer wants a new map. So they wait for one together.
        now = asyncio.get_running_loop().time
        if (pause := self._looked + LOOK_PAUSE - now()) > 0:
            await asyncio.sleep(pause)
        try:
            await self._ask_for_map()
        finally:
            self._looked = now()

    async def _ask_for_map(self) -> None:
        """Ask connected servers, then those of the URL, until one has a map with an address for each slot.

        If none has, take the fullest map. A server that has left the cluster names no address, and one that has
        forgotten others names too few.
        """
        known = [server.commands for server in self._servers.values() if server.commands.connected]
        random.shuffle(known)
        asks = [(link.address or self._seeds[0], link.call) for link in known]
        fullest: list[Range] = []
        for asked, ask in (*asks, *((seed, self._asking(seed)) for seed in self._seeds)):
            try:
                ranges = self._ranges(await ask("CLUSTER", "SLOTS"), asked)
            except (Unreachable, Refused) as error:
                self._reason = str(error)
                if "cluster support disabled" in self._reason:
                    self._reason = f"it is one server, whose URL begins with redis://: {error}"
            else:
                self._reason = "the map of slots names none with an address"
                fullest = max(fullest, ranges, key=_slots_in)
                if _slots_in(fullest) == SLOTS:
                    break
        if fullest:
            self._draw(fullest)

    def _asking(self, seed: Address) -> Callable[..., Awaitable[Any]]:
        """Return a function that sends a command to a server on a connection of its own."""

        async def ask(*parts: Part) -> Any:
            connection = await connect(seed, name=self._name, on_push=_ignore, limits=self._limits)
            try:
                return await connection.call(*parts)
            finally:
                connection.close()
                await connection.wait_closed()

        return ask

    def _ranges(self, answer: list[Any], asked: Address) -> list[Range]:
        """Return the ranges of a map that have an address."""
        ranges = []
        for first, last, (host, port, *_), *_ in answer:
            address = self._address((host or b"").decode(), port, asked)
            if address is not None:
                ranges.append((first, last + 1, address))
        return ranges

    def _address(self, host: str, port: int, asked: Address) -> Address | None:
        """Return the address that a server means, or None if it is none.

        The host is empty if it is the one at which the server was asked. It is `?` if servers go by their hostnames,
        and this one has none. The port is 0 if another server has come to the address of one that was down.
        """
        return None if host == "?" or not port else self._seeds[0].at(host or asked.host, port)

    def _draw(self, ranges: list[Range]) -> None:
        """Take a map, close servers that it does not name, and let channels that have moved be subscribed again."""
        slots: list[Server | None] = [None] * SLOTS
        for first, stop, address in ranges:
            slots[first:stop] = [self._server(address)] * (stop - first)
        used = set(slots)
        self._slots = slots
        for key, server in tuple(self._servers.items()):
            if server not in used:
                del self._servers[key], self._echoes[f"{self._echo}:{key}".encode()]
                self._spawn(server.aclose())
        self._on_news()
        self._on_reach()  # a channel may belong to another server now

    def _server(self, address: Address) -> Server:
        """Return the server at an address that the cluster has named."""
        if (server := self._servers.get(str(address))) is None:
            echo = f"{self._echo}:{address}"
            server = self._servers[str(address)] = Server(
                address,
                name=self._name,
                scripts=self._scripts,
                echo=echo,
                on_push=self._on_push,
                on_commands=self._on_commands,
                on_news=self._on_news,
                on_reach=self._on_reach,
                interval=self._interval,
                limits=self._limits,
                sharded=True,
            )
            self._echoes[echo.encode()] = server
            server.open()
        return server

    # The numbers that come back

    def hear(self, channel: bytes, data: bytes) -> bool:
        server = self._echoes.get(channel)
        return server is not None and server.hear(channel, data)

    def echo(self) -> asyncio.Future[Any]:
        # Not awaited: a server that is frozen must not delay the beat, which is about all of them.
        for server in self._servers.values():
            if server.connected:
                server.echo()
        return asyncio.gather()

    def drop_deaf(self) -> None:
        """Also look for servers that are gone, and let lost channels be subscribed again."""
        if not all(server.connected for server in self._servers.values()):
            self._look_again()
        self._on_news()
        for server in self._servers.values():
            server.drop_deaf()

    def drop(self, reason: str) -> None:
        for server in self._servers.values():
            server.drop(reason)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # An expected error goes to whoever waits for it, and perhaps nobody does.
        if error is not None and not isinstance(error, (Unreachable, Refused)):
            logger.error("%s failed", task.get_coro(), exc_info=error)


def _slots_in(ranges: list[Range]) -> int:
    return sum(stop - first for first, stop, _ in ranges)


def _ignore(_: Any) -> None:
    """Do nothing."""
