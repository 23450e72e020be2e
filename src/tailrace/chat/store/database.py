"""The contract of a database: it runs pieces of work, each in its own transaction.

StoreError            the database cannot be opened, reached, read or written: one line, without its password
├── InUse             another server has it open, and does not share it
│   └── OtherStreams  another server has it open, and keeps its streams elsewhere
└── Conflict          it refuses a row because of another row
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

T = TypeVar("T")
Work = Callable[[Connection], T]

TIMEOUT = 5.0
"""The seconds that a piece of work may wait for its turn, unless the URL has another `timeout`."""

FRESH = 0.2
"""The seconds after a successful write in which `ping` need not try another one."""


class StoreError(Exception):
    pass


class InUse(StoreError):
    def __init__(self, place: str, owner: str) -> None:
        super().__init__(
            f"{place}: expected a database that no other server uses, or several that share TAILRACE_STREAMS, "
            f"but {owner} has it open"
        )


@dataclass(frozen=True, slots=True)
class Streams:
    """Where servers that share a database keep their streams.

    - `identity`: bytes that are equal for all servers with the same streams, and differ for all others.
    - `place`: the address for errors, without a password.
    """

    identity: bytes
    place: str

    @property
    def key(self) -> int:
        """A number of 31 bits, by which servers find those with other streams."""
        return int.from_bytes(self.identity[:4], "big") >> 1


class OtherStreams(InUse):
    def __init__(self, place: str, streams: Streams, others: str) -> None:
        StoreError.__init__(
            self,
            f"{place}: expected servers with the same streams, but this one keeps its streams in {streams.place}, and "
            f"{others}: give all of them the same TAILRACE_STREAMS, or stop the others before you move to another one",
        )


class Conflict(StoreError):
    pass


class Database(ABC):
    """A database. `place` names it in errors, without its password.

    If a caller is cancelled, its work still runs as a whole, is rolled back, or never begins.
    """

    def __init__(self, place: str, timeout: float) -> None:
        self.place = place
        self.timeout = timeout
        self._pinging: asyncio.Task[None] | None = None
        self._written = time.monotonic() - FRESH

    @property
    def last_write(self) -> float:
        """The seconds since the last successful write, or since the database was opened."""
        return time.monotonic() - self._written

    async def read(self, work: Work[T]) -> T:
        """Run one SELECT, which needs no transaction. Raise StoreError."""
        with self._telling():
            return await self._read(work)

    async def write(self, work: Work[T], *, patience: float | None = None) -> T:
        """Run work in a transaction. Roll back if the work raises an error. Raise StoreError and Conflict.

        Waiting for other work and for locks of other processes counts toward one deadline: `patience` seconds, by
        default the `timeout` of the database.
        """
        with self._telling():
            result = await self._write(work, self.timeout if patience is None else patience)
        self._written = time.monotonic()
        return result

    async def ping(self, work: Work[None], patience: float) -> None:
        """Write, unless a write has just succeeded. Raise StoreError if that fails or takes longer than `patience`.

        All callers wait for the same write, so hanging writes do not pile up.
        """
        if self._pinging is None or self._pinging.done():
            if self.last_write < FRESH:
                return
            self._pinging = asyncio.create_task(self.write(work), name="tailrace chat ping")
        done, _ = await asyncio.wait([self._pinging], timeout=patience)
        if not done:
            raise StoreError(f"{self.place}: expected an answer within {patience:g} s, but got none")
        self._pinging.result()

    async def close(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.wait([self._pinging])
        await self._close()

    @abstractmethod
    async def claim(self, streams: Streams | None) -> None:
        """Keep other servers out until the database is closed, or let only those in that have the same streams.

        Raise InUse if there is one that must not be there.
        """

    @abstractmethod
    async def renew(self, streams: Streams) -> None:
        """Claim other streams instead, because their store has lost its data, and with it the identity."""

    @abstractmethod
    async def _read(self, work: Work[T]) -> T: ...

    @abstractmethod
    async def _write(self, work: Work[T], patience: float) -> T: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn a driver's error into a StoreError of one line."""
        try:
            yield
        except IntegrityError as error:
            raise Conflict(f"{self.place}: {reason(error)}") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"{self.place}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return the first line of a driver's error message."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_options(url: URL, known: set[str], place: str) -> None:
    """Raise StoreError if the query of a URL has options that are not known."""
    if unknown := url.query.keys() - known:
        expected, got = ", ".join(sorted(known)), ", ".join(sorted(unknown))
        raise StoreError(f"{place}: expected only the options {expected}, but got {got}")


def timeout_of(url: URL, place: str) -> float:
    """Return the URL's option `timeout`, in seconds."""
    given = url.query.get("timeout", str(TIMEOUT))
    try:
        return float(str(given))
    except ValueError:
        raise StoreError(f"{place}: expected seconds as timeout, but got {given!r}") from None
