"""The way between a process and Redis, with faults that `tailrace.testing.Relay` does not have."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tailrace.testing import Relay


class Network(Relay):
    """A relay that can drop one batch on its way to a subscriber, or everything, or hold all back."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.dropped = 0
        self._drop: re.Pattern[bytes] | None = None  # how the message to drop begins
        self._subscribers: set[asyncio.StreamWriter] = set()  # which have had something published
        self._deaf: frozenset[asyncio.StreamWriter] = frozenset()
        self._late: frozenset[asyncio.StreamWriter] = frozenset()
        self._holding = False
        self._held: list[tuple[bytes, asyncio.StreamWriter]] = []

    def drop_next(self, channel: str) -> None:
        """Drop the next batch that is published on a channel, and nothing else."""
        name = re.escape(channel.encode())
        self._drop = re.compile(rb">3\r\n\$7\r\nmessage\r\n\$\d+\r\n%b\r\n\$(\d+)\r\n(?=\+)" % name)

    def deafen(self) -> None:
        """Let nothing more pass to those who have subscribed until now."""
        self._deaf = frozenset(self._subscribers)

    def hold(self) -> None:
        """Become a black hole: connections stay, and nothing passes them, until `let_go`."""
        self._holding = True

    def hold_news(self) -> None:
        """Hold back what comes to those who have subscribed until now, until `let_go`."""
        self._late = frozenset(self._subscribers)

    def let_go(self) -> None:
        """Pass all that was held back."""
        self._holding, self._late = False, frozenset()
        held, self._held = self._held, []
        for data, writer in held:
            with suppress(RuntimeError):  # its connection has ended meanwhile
                writer.write(data)

    def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._drop is not None and (found := self._drop.search(data)) is not None:
            end = found.end() + int(found[1]) + 2
            assert len(data) >= end, "expected the whole message in one piece"
            data, self._drop, self.dropped = data[: found.start()] + data[end:], None, self.dropped + 1
        if data.startswith(b">"):
            self._subscribers.add(writer)
        if self._holding or writer in self._late:
            self._held.append((data, writer))
        elif writer not in self._deaf:
            super().pass_on(data, writer)

    def take(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._holding:
            self._held.append((data, writer))
        else:
            super().take(data, writer)


@asynccontextmanager
async def network(target: str) -> AsyncIterator[tuple[Network, str]]:
    """Run a network to a server. Yield it, and the server's URL through it."""
    host, port = urlsplit(target).hostname, urlsplit(target).port
    assert host is not None
    assert port is not None
    relay = Network(host, port)
    listener = await asyncio.start_server(relay.connect, "127.0.0.1", 0)
    try:
        yield relay, f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await relay.close()
        await listener.wait_closed()
