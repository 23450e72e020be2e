"""aiosqlite with fewer journeys to its thread.

Its cursor is opened, asked, read and closed there in four steps, and each waits until the thread gets its turn and then
until the event loop does. That is most of the time of a small statement. Here all is one step.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import aiosqlite


class Cursor:
    """What SQLAlchemy asks of a cursor; the rows are read with the statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Cursor:
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> Cursor:
        await self._connection.run(self._run, sqlite3.Cursor.execute, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Any]) -> Cursor:
        await self._connection.run(self._run, sqlite3.Cursor.executemany, sql, parameters)
        return self

    async def fetchall(self) -> Sequence[Any]:
        return self._rows

    async def close(self) -> None:
        """It is closed already."""

    def _run(self, connection: sqlite3.Connection, execute: Any, sql: str, parameters: Any) -> None:
        cursor = connection.cursor()
        try:
            execute(cursor, sql, parameters)
            self._rows = cursor.fetchall()
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()


class Connection(aiosqlite.Connection):
    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True  # a server that is made to leave at once does not wait for it
        self._stopped: asyncio.Future[None] | None = None

    def cursor(self) -> Cursor:  # type: ignore[override]
        return Cursor(self)

    def stop(self) -> asyncio.Future[None] | None:
        self._stopped = super().stop()
        return self._stopped

    async def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function with the real connection in the thread that owns it."""
        # Not public, but what aiosqlite's own cursors do; public is only what takes several steps.
        await self._execute(function, self._conn, *arguments)  # type: ignore[no-untyped-call]

    async def opened(self) -> Connection:
        """Itself, once it is open. What fails has ended its thread before it raises."""
        try:
            await self
        except BaseException:
            await self._stopped  # type: ignore[misc]  # aiosqlite has begun that
            raise
        return self


async def connect(database: str, **options: Any) -> Connection:
    """A connection that is ready for use; what it waits for takes at most `timeout` seconds."""
    return await Connection(lambda: _open(database, options)).opened()


PRAGMAS = (
    "journal_mode = WAL",  # readers and the writer do not wait for each other
    # What is committed is flushed when the journal is moved into the file, not with each transaction: the end of this
    # process, even by kill -9, loses nothing; a power cut may lose the last moments, and leaves a whole file.
    "synchronous = NORMAL",
    "foreign_keys = ON",
)


def _open(database: str, options: dict[str, Any]) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(database, **options)
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
