"""A database as the store uses it: pieces of work, each in a transaction of its own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from .errors import Conflict, StoreError

T = TypeVar("T")
Work = Callable[[Connection], T]


class Database(ABC):
    """What all kinds have in common. `place` names it in errors, without its password.

    Who is cancelled leaves nothing half done: work is carried out whole, or undone, or not begun.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._pinging: asyncio.Task[None] | None = None

    async def read(self, work: Work[T]) -> T:
        """Run one SELECT: it needs no transaction around it. StoreError."""
        with self._telling():
            return await self._read(work)

    async def write(self, work: Work[T]) -> T:
        """Run work in a transaction, which is undone if the work raises. StoreError; Conflict."""
        with self._telling():
            return await self._write(work)

    async def ping(self, work: Work[None], patience: float) -> None:
        """Run one SELECT; StoreError if that takes longer. One that hangs is waited for by all who ask."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self.read(work), name="tailrace chat ping")
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
    async def _read(self, work: Work[T]) -> T: ...

    @abstractmethod
    async def _write(self, work: Work[T]) -> T: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say what a driver raises in one line."""
        try:
            yield
        except IntegrityError as error:
            raise Conflict(f"{self.place}: {reason(error)}") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"{self.place}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The first line of what a driver says."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return (str(error).strip() or type(error).__name__).splitlines()[0]
