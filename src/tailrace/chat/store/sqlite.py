"""SQLite. It blocks on the disk, so each piece of work runs as a whole in a thread."""

from __future__ import annotations

import asyncio
import glob
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, ClassVar, TypeVar

from sqlalchemy import QueuePool, create_engine
from sqlalchemy.engine import URL

from .database import Database, InUse, OtherStreams, StoreError, Streams, T, Work, check_options, reason, timeout_of

R = TypeVar("R")

READERS = 4
"""The number of threads that read a file."""

CLOSING = 1.0
"""The seconds beyond the timeout that running work may take when the database is closed."""

CLAIMING = 0.5
"""The seconds to wait for another process that checks the claim at the same time."""

PRAGMAS = (
    "journal_mode = WAL",  # readers and the writer do not wait for each other
    # Commits reach the disk together, when the journal is merged into the file. If this process dies, even by kill -9,
    # nothing is lost. A power cut may lose the last moments, but leaves the file intact.
    "synchronous = NORMAL",
    "foreign_keys = ON",
)


class SQLite(Database):
    """A database in a file, or in the memory of this process.

    SQLite allows one writer at a time. A writer waits for other writers in this process and for the locks of other
    processes. Both waits count toward the URL's `timeout` (5 s).

    The folder of a file is created if necessary. Only its user can access a new file.
    """

    OPTIONS: ClassVar = {"timeout"}

    def __init__(self, url: URL) -> None:
        if url.username or url.password or url.host or url.port:
            raise StoreError("expected sqlite:///file as database, but got something before the third slash")
        file = url.database or ":memory:"
        in_memory = file == ":memory:"
        place = "SQLite in memory" if in_memory else file
        check_options(url, self.OPTIONS, place)
        super().__init__(place, timeout_of(url, place))
        self._file = None if in_memory else _File(file)
        self._claims: list[sqlite3.Connection] = []
        connect = partial(_connect, self._file.path if self._file else file, self.timeout)
        self._writing = _Connections("tailrace chat writer", 1, connect)
        # A database in memory has only one connection.
        self._reading = self._writing if in_memory else _Connections("tailrace chat reader", READERS, connect)

    async def claim(self, streams: Streams | None) -> None:
        if self._file is not None:
            self._claims.append(_claim(self._file) if streams is None else _claim_shared(self._file, streams))
        elif streams is not None:
            raise StoreError(f"expected a database that other servers can open, but got {self.place}")

    async def renew(self, streams: Streams) -> None:
        assert self._file is not None, "a database in memory is not shared"
        claim = await asyncio.to_thread(_claim_anew, self._file, streams, self.timeout)
        for before in self._claims:
            before.close()
        self._claims = [claim]

    async def _read(self, work: Work[T]) -> T:
        return await self._reading.select(work, self.timeout)

    async def _write(self, work: Work[T], patience: float) -> T:
        return await self._writing.transact(work, patience, self._file)

    async def _close(self) -> None:
        patience = self.timeout + CLOSING
        await asyncio.gather(*(connections.close(patience) for connections in {self._reading, self._writing}))
        for claim in self._claims:
            claim.close()


class _File:
    """A database's file. It and its journal must stay in place, because writes to a deleted file are lost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = str(Path(name).absolute())
        try:
            Path(name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{name}: cannot make its folder: {reason(error)}") from error
        _make_private(Path(self.path))
        # The journal exists while a connection is open, so the first write finds it.
        self._known = {self.path: _identity(self.path), f"{self.path}-wal": None}

    def check(self) -> None:
        """Raise StoreError if the file or its journal was deleted or replaced."""
        for path, known in self._known.items():
            found = _identity(path)
            if known is None:
                self._known[path] = found
            elif found != known:
                gone = path.removeprefix(self.path)
                raise StoreError(
                    f"{self.name}{gone}: expected the file that was opened, but it was deleted or replaced"
                )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:  # SQLite has a better message
        return None
    return found.st_dev, found.st_ino


def _make_private(file: Path) -> None:
    """Make a new file that only its user can access. SQLite gives its other files the same mode."""
    if not file.exists():
        with suppress(OSError):  # SQLite has a better message
            file.touch(mode=0o600)


# A server's claim is a lock on a small database beside the file. SQLite's locks work wherever the database itself
# works, and they end with their process. A server that is alone keeps the first database, `.lock`, locked for writers,
# and its process id in there. Servers that share the file each read a second one all the time, whose name tells their
# streams from others. Both kinds have the first database locked while they look at the second ones or make one, so they
# cannot miss each other.


def _claim(file: _File) -> sqlite3.Connection:
    """Claim the file for this server alone. Raise InUse."""
    with _claiming(file, ".lock") as alone:
        _lock(alone, file.name)
        if _other_streams(file) is not None:
            raise InUse(file.name, "a server that shares its streams")
    return alone


def _claim_shared(file: _File, streams: Streams) -> sqlite3.Connection:
    """Claim the file for this server and others with the same streams. Raise InUse."""
    with _claiming(file, ".lock") as alone, closing(alone):
        _lock(alone, file.name)
        if (place := _other_streams(file, _suffix(streams))) is not None:
            raise OtherStreams(file.name, streams, f"another server keeps its streams in {place}")
        return _claim_streams(file, streams)


def _claim_anew(file: _File, streams: Streams, patience: float) -> sqlite3.Connection:
    """Claim the file for a server that shares it already, but by other streams. Raise InUse after the patience."""
    with _claiming(file, ".lock", patience) as alone, closing(alone):
        _lock(alone, file.name)
        return _claim_streams(file, streams)


def _claim_streams(file: _File, streams: Streams) -> sqlite3.Connection:
    with _claiming(file, _suffix(streams)) as claim:
        claim.execute("CREATE TABLE IF NOT EXISTS streams AS SELECT ? AS place", [streams.place])
        claim.execute("BEGIN")
        claim.execute("SELECT place FROM streams").fetchone()  # takes the lock, which the transaction keeps
    return claim


def _suffix(streams: Streams) -> str:
    return f".shared-{streams.key:08x}"


def _other_streams(file: _File, own: str = "") -> str | None:
    """Return the place of the streams of a server that has claimed the file with others than `own`, if there is one.

    Remove the claims of servers that have ended. The first database must be locked.
    """
    path = os.path.realpath(file.path)
    for found in Path(path).parent.glob(f"{glob.escape(Path(path).name)}.shared-????????"):
        suffix = str(found).removeprefix(path)
        if suffix == own:
            continue
        with _claiming(file, suffix) as claim:
            try:
                claim.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                row = claim.execute("SELECT place FROM streams").fetchone()
                claim.close()
                return str(row[0])
        claim.close()
        found.unlink()
    return None


@contextmanager
def _claiming(file: _File, suffix: str, patience: float = CLAIMING) -> Iterator[sqlite3.Connection]:
    """Open a database beside the file. Close it if the block raises an error, and tell errors as StoreErrors."""
    beside = Path(f"{os.path.realpath(file.path)}{suffix}")
    _make_private(beside)
    try:
        claim = sqlite3.connect(beside, timeout=patience, isolation_level=None, check_same_thread=False)
        try:
            yield claim
        except BaseException:  # an interrupt too: an open connection could keep its lock
            claim.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"{beside}: {reason(error)}") from error


def _lock(claim: sqlite3.Connection, place: str) -> None:
    try:
        claim.execute("BEGIN IMMEDIATE")
        claim.execute(f"PRAGMA user_version = {os.getpid()}")
        claim.execute("COMMIT")
        claim.execute("BEGIN IMMEDIATE")  # others can still read the id of the process, but not lock
    except sqlite3.OperationalError:
        pid = claim.execute("PRAGMA user_version").fetchone()[0]
        raise InUse(place, f"the server with process id {pid}") from None


class _Connections:
    """A pool of connections, with one thread for each."""

    def __init__(self, name: str, count: int, connect: Callable[[], sqlite3.Connection]) -> None:
        self._engine = create_engine(
            "sqlite://",
            creator=connect,
            hide_parameters=True,
            poolclass=QueuePool,
            pool_size=count,
            max_overflow=0,
            pool_reset_on_return=None,  # connections come back without an open transaction
        )
        self._threads = Threads(name, count, self._engine.dispose)

    async def select(self, work: Work[T], patience: float) -> T:
        def run(_: float) -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await self._threads.run(run, patience)

    async def transact(self, work: Work[T], patience: float, file: _File | None) -> T:
        def run(left: float) -> T:
            with self._engine.begin() as connection:
                if file is not None:
                    file.check()
                # The wait for locks of other processes gets the rest of the time.
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(left * 1000)}")
                return work(connection)

        return await self._threads.run(run, patience)

    async def close(self, patience: float) -> None:
        await self._threads.close(patience)


def _connect(file: str, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file,
        timeout=patience,
        # The driver begins a transaction with the first INSERT, UPDATE or DELETE. It must wait for the write lock at
        # that point: a later wait would fail immediately if another process had written in between.
        isolation_level="IMMEDIATE",
        check_same_thread=False,  # several threads use it, but only one at a time
    )
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


Call = Callable[[float], Any]


class Threads:
    """Threads that run calls in the order of arrival. The last thread to end calls `last`.

    A ThreadPoolExecutor would join its threads at the end of the process, even if they hang forever.
    """

    def __init__(self, name: str, count: int, last: Callable[[], None]) -> None:
        # There are never more calls than requests, because each request waits for its call. None ends a thread.
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._last = last
        self._running = count
        self._lock = Lock()
        self._ended: Future[None] = Future()
        self._ended.set_running_or_notify_cancel()  # makes cancelling impossible
        self._threads = [Thread(target=self._work, name=name, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[float], R], patience: float) -> R:
        """Run a call and return its result. The call gets the seconds that are left of the patience.

        Raise TimeoutError if no thread was free in time. Cancelling stops the wait; a call that has begun still
        completes.
        """
        future: Future[R] = Future()
        deadline = time.monotonic() + patience
        self._calls.put((future, lambda: call(max(0.0, deadline - time.monotonic()))))
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait([waiting], timeout=patience)
            if not waiting.done() and future.cancel():
                raise TimeoutError(f"expected a turn within {patience:g} s, but other work took longer")
            return await waiting
        finally:
            waiting.cancel()

    async def close(self, patience: float) -> None:
        """Let the threads end after they have run all calls. Leave threads alone that take longer than `patience`."""
        for _ in self._threads:
            self._calls.put(None)
        try:
            async with asyncio.timeout(patience):
                await asyncio.wrap_future(self._ended)
        except TimeoutError:
            return
        for thread in self._threads:
            thread.join()  # each is at its end

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if call[0].set_running_or_notify_cancel():
                _carry_out(*call)
            del call  # do not keep the call alive while waiting for the next one
        with self._lock:
            self._running -= 1
            is_last = self._running == 0
        if is_last:
            _carry_out(self._ended, self._last)


def _carry_out(future: Future[R], call: Callable[[], R]) -> None:
    try:
        result = call()
    except BaseException as error:  # the waiting caller gets it
        future.set_exception(error)
    else:
        future.set_result(result)
