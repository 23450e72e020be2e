"""The connections that read an engine's logs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

from ..events import Farewell
from ..log.base import Log

Dismiss: TypeAlias = Callable[[Farewell], None]
"""A function that makes a connection send a farewell and end."""

REPLACED = Farewell("replaced", 0)


class Reader(Protocol):
    """A connection that reads one of the engine's logs."""

    def leave(self) -> None:
        """Decide whether to send a farewell, because the server is about to stop."""

    def abandon(self) -> None:
        """End the connection now, whatever the client still lacks, because the grace is over."""


class Seat:
    """The right to read a log that has one reader at a time. The next reader to take the seat replaces this one.

    Another process does not say that it gives the seat away. It says that it has a reader now.
    """

    __slots__ = ("_dismiss", "_elsewhere", "_lost", "log")

    def __init__(self, log: Log) -> None:
        self.log = log
        self._dismiss: Dismiss | None = None
        self._lost = False
        self._elsewhere = log.control.elsewhere

    def look(self, log: Log) -> None:
        """Lose the seat if there is one more reader elsewhere. Those that were there before are to leave."""
        before, self._elsewhere = self._elsewhere, log.control.elsewhere
        if self._elsewhere > before and not self._lost:
            self.lose()

    def give(self, dismiss: Dismiss) -> None:
        """Give the seat to a connection, which is dismissed when the seat is lost, or now if it is lost already."""
        self._dismiss = dismiss
        if self._lost:
            dismiss(REPLACED)

    def lose(self) -> None:
        """Dismiss the connection, now or as soon as there is one."""
        self._lost = True
        if self._dismiss is not None:
            self._dismiss(REPLACED)


class Readers:
    """The connections of this process, to be notified when the server stops, and the seats of those that read alone."""

    def __init__(self, reconnect: tuple[float, float]) -> None:
        """`reconnect` is the range of the random delay, in seconds, after which dismissed readers come back."""
        self._reconnect = reconnect
        self._readers: dict[Reader, None] = {}
        self._seats: dict[Log, Seat] = {}
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

    def is_taken(self, log: Log) -> bool:
        """Tell whether somebody has the seat of a log in this process, or reads the log in another one."""
        return log in self._seats or log.control.elsewhere > 0

    def take_seat(self, log: Log, *, first: bool) -> Seat:
        """Take the seat of a log, and replace the reader that has it. Return the seat with `free`.

        With `first`, the request started the stream, so any other reader came later and replaces this one instead.
        """
        seat, other = Seat(log), self._seats.get(log)
        if first and other is not None:
            seat.lose()
            return seat
        self._seats[log] = seat
        log.listen(seat.look)
        if other is not None:
            other.lose()
        return seat

    def free(self, seat: Seat) -> None:
        """Give back a seat, unless it is lost already."""
        seat.log.unlisten(seat.look)
        if self._seats.get(seat.log) is seat:
            del self._seats[seat.log]

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
