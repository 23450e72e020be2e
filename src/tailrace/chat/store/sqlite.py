"""SQLite: each piece of work is carried out whole in a thread, because it waits for a disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

from sqlalchemy import QueuePool, create_engine
from sqlalchemy.engine import URL

from .database import Database, T, Work, reason
from .errors import StoreError
from .options import check_options, timeout
from .threads import Threads

READERS = 4
"""Threads that read a file."""

CLOSING = 1.0
"""How many seconds work may take that has all the locks it needs, when the database is closed."""

PRAGMAS = (
    "journal_mode = WAL",  # readers and the writer do not wait for each other
    # What is committed is flushed when the journal is moved into the file, not with each transaction: the end of this
    # process, even by kill -9, loses nothing; a power cut may lose the last moments, and leaves a whole file.
    "synchronous = NORMAL",
    "foreign_keys = ON",
)


class SQLite(Database):
    """A file, or the memory of this process, which ends with the store.

    SQLite has one writer at a time. Writers of this process wait for each other in the order they came; one of another
    process is waited for as long as the URL's `timeout` says (5 s).

    The folder of a file is made. StoreError if it cannot be. A new file is its user's alone.
    """

    OPTIONS: ClassVar = {"timeout"}

    def __init__(self, url: URL) -> None:
        if url.username or url.password or url.host or url.port:
            raise StoreError("expected sqlite:///file as database, but got something before the third slash")
        file = url.database or ":memory:"
        in_memory = file == ":memory:"
        super().__init__("SQLite in memory" if in_memory else file)
        check_options(url, self.OPTIONS, self.place)
        self._timeout = timeout(url, self.place)
        if not in_memory:
            _make_folder(file)
            _make_private(Path(file))
        connect = partial(_connect, file if in_memory else str(Path(file).absolute()), self._timeout)
        self._writing = _Connections("tailrace chat writer", 1, connect)
        # What is in memory has only one connection.
        self._reading = self._writing if in_memory else _Connections("tailrace chat reader", READERS, connect)

    async def _read(self, work: Work[T]) -> T:
        return await self._reading.select(work)

    async def _write(self, work: Work[T]) -> T:
        return await self._writing.transact(work)

    async def _close(self) -> None:
        patience = self._timeout + CLOSING
        await asyncio.gather(*(connections.close(patience) for connections in {self._reading, self._writing}))


class _Connections:
    """So many connections, and a thread for each."""

    def __init__(self, name: str, count: int, connect: Callable[[], sqlite3.Connection]) -> None:
        self._engine = create_engine(
            "sqlite://",
            creator=connect,
            hide_parameters=True,
            poolclass=QueuePool,
            pool_size=count,
            max_overflow=0,
            pool_reset_on_return=None,  # a connection comes back with its transaction ended
        )
        self._threads = Threads(name, count, self._engine.dispose)

    async def select(self, work: Work[T]) -> T:
        def run() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await self._threads.run(run)

    async def transact(self, work: Work[T]) -> T:
        def run() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        return await self._threads.run(run)

    async def close(self, patience: float) -> None:
        await self._threads.close(patience)


def _connect(file: str, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file,
        timeout=patience,
        # The driver begins a transaction with the first INSERT, UPDATE or DELETE, and waits for another process's there
        # rather than later, when it could only fail.
        isolation_level="IMMEDIATE",
        check_same_thread=False,  # it goes from thread to thread, and is one's at a time
    )
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _make_folder(file: str) -> None:
    try:
        Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{file}: cannot make its folder: {reason(error)}") from error


def _make_private(file: Path) -> None:
    """Conversations are for nobody else on the machine. SQLite gives its other files the mode of this one."""
    if not file.exists():
        with suppress(OSError):  # SQLite says it better
            file.touch(mode=0o600)
