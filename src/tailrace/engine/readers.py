"""The connections that read an engine's logs."""

from __future__ import annotations

import asyncio
import random
from typing import Literal, Protocol

from ..events import Farewell


class Reader(Protocol):
    """A connection that reads one of the engine's logs."""

    def leave(self) -> None:
        """Decide whether to send a farewell, because the server is about to stop."""

    def abandon(self) -> None:
        """End the connection now, whatever the client still lacks, because the grace is over."""


class Readers:
    """The connections of this process, to be notified when the server stops."""

    def __init__(self, reconnect: tuple[float, float]) -> None:
        """`reconnect` is the range of the random delay, in seconds, after which dismissed readers come back."""
        self._reconnect = reconnect
        self._readers: dict[Reader, None] = {}
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._readers)

    def join(self, reader: Reader) -> None:
        """Register a connection."""
        self._readers[reader] = None
        self._none.clear()

    def part(self, reader: Reader) -> None:
        """Remove a connection that has ended."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._none.set()

    def farewell(self, reason: Literal["shutdown", "slow"]) -> Farewell:
        """Return a farewell with a random delay, so that the readers do not all come back at once."""
        return Farewell(reason, round(random.uniform(*self._reconnect) * 1000))

    def leave(self) -> None:
        """Ask all connections to leave."""
        for reader in tuple(self._readers):
            reader.leave()

    def abandon(self) -> None:
        """End all connections."""
        for reader in tuple(self._readers):
            reader.abandon()

    async def wait_none(self) -> None:
        """Wait until no connection is left."""
        await self._none.wait()
