"""The connections that read an engine's logs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Literal, Protocol, TypeAlias
from weakref import WeakKeyDictionary

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


Claims: TypeAlias = tuple[str, str]
"""The earlier claim, and the one that was made in its place."""

NO_CLAIMS: Claims = "", ""


class Seat:
    """The right to read a log that has one reader at a time. The next reader to take the seat replaces this one.

    The log's `control.seat` tells all processes which one has the seat. A process takes it by a claim, which replaces
    the
    claim that it knows of. If several processes claim the seat at once, one claim succeeds, and the others learn that
    they have lost.
    """

    __slots__ = ("_claims", "_dismiss", "_lost", "log")

    def __init__(self, log: Log, claims: Claims) -> None:
        self.log = log
        self._claims = claims
        self._dismiss: Dismiss | None = None
        self._lost = False

    def look(self, log: Log) -> None:
        """Lose the seat if another process has claimed it."""
        if log.control.seat not in self._claims:
            self.lose()

    def give(self, dismiss: Dismiss) -> None:
        """Give the seat to a connection, which is dismissed when the seat is lost, or now if it is lost already."""
        self._dismiss = dismiss
        if self._lost:
            dismiss(REPLACED)

    def leave(self) -> None:
        """Dismiss nobody any more. Otherwise only the garbage collector could free the connection."""
        self.log.unlisten(self.look)
        self._dismiss = None

    def lose(self) -> None:
        """Dismiss the connection, now or as soon as there is one."""
        if not self._lost:
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
        self._claims: WeakKeyDictionary[Log, Claims] = WeakKeyDictionary()  # the last ones that were made here
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
        other = self._seats.get(log)
        if first and other is not None:
            seat = Seat(log, NO_CLAIMS)
            seat.lose()
            return seat
        seat = self._seats[log] = Seat(log, self._claim(log, first=first))
        if other is not None:
            other.lose()
        log.listen(seat.look)
        seat.look(log)
        return seat

    def _claim(self, log: Log, *, first: bool) -> Claims:
        """Claim a log for this process, unless it has the claim already. Return the claims with which it has the seat.

        The reader that started the stream needs no claim, because any reader with a claim came later.
        """
        claims = self._claims.get(log)
        if claims is None or log.control.seat not in claims:
            claims = self._claims[log] = NO_CLAIMS if first else (log.control.seat, token_urlsafe(6))
        before, own = claims
        if own not in ("", log.control.seat):
            log.claim_seat(own, before)  # perhaps again: the reader before may have left too early for it
        return claims

    def free(self, seat: Seat) -> None:
        """Give back a seat, unless it is lost already."""
        seat.leave()
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
