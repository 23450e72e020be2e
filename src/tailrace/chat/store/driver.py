"""aiosqlite with fewer journeys to its thread.

Its cursor is opened, asked, read and closed there in four steps, and each waits until the thread gets its turn and then
until the event loop does. That is most of the time of a small statement. Here all is one step.
"""

from __future__ import annotations

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
    def cursor(self) -> Cursor:  # type: ignore[override]
        return Cursor(self)

    async def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function with the real connection in the thread that owns it."""
        # Not public, but what aiosqlite's own cursors do; public is only what takes several steps.
        await self._execute(function, self._conn, *arguments)  # type: ignore[no-untyped-call]


def connect(database: str, **options: Any) -> Connection:
    """A connection to be awaited, as `aiosqlite.connect` gives one."""
    return Connection(lambda: sqlite3.connect(database, **options), iter_chunk_size=64)
