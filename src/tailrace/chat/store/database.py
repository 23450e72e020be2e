"""A database as the store uses it: pieces of work, each in a transaction of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .driver import connect
from .errors import Conflict, StoreError

T = TypeVar("T")
Work = Callable[[Connection], T]

TIMEOUT = 5.0
"""What `timeout` is where a URL does not say."""


class Database:
    """What both kinds have in common. `place` names it in errors, without its password."""

    def __init__(self, engine: AsyncEngine, place: str) -> None:
        self.place = place
        self._engine = engine
        self._reading = engine
        self._pinging: asyncio.Task[None] | None = None
        self._read_turnstile: AbstractAsyncContextManager[Any] = nullcontext()
        self._write_turnstile: AbstractAsyncContextManager[Any] = nullcontext()

    async def read(self, work: Work[T]) -> T:
        """Run one SELECT: it needs no transaction around it. StoreError."""
        async with self._read_turnstile:
            with self._telling():
                return await self._carry_out(self._select(work))

    async def write(self, work: Work[T]) -> T:
        """Run work in a transaction, which is undone if the work raises. StoreError; Conflict."""
        async with self._write_turnstile:
            with self._telling():
                return await self._carry_out(self._transact(work))

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
        await self._engine.dispose()

    async def _select(self, work: Work[T]) -> T:
        async with self._reading.connect() as connection:
            return await connection.run_sync(work)

    async def _transact(self, work: Work[T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def _carry_out(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say what a driver raises in one line."""
        try:
            yield
        except IntegrityError as error:
            raise Conflict(f"{self.place}: {_reason(error)}") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"{self.place}: {_reason(error)}") from error


class SQLite(Database):
    """A file, or the memory of this process, which ends with the store.

    SQLite has one writer at a time. Writers of this process wait for each other in the order they came; one of another
    process is waited for as long as the URL's `timeout` says (5 s).
    """

    OPTIONS: ClassVar = {"timeout"}

    def __init__(self, url: URL) -> None:
        in_memory = _in_memory(url)
        place = "SQLite in memory" if in_memory else str(url.database)
        _check_options(url, self.OPTIONS, place)
        engine = create_async_engine(
            url.set(query={}),
            hide_parameters=True,
            pool_reset_on_return=None,  # a connection comes back with its transaction ended
            connect_args={
                "async_creator_fn": connect,
                "timeout": _seconds(url, TIMEOUT, place),
                # The driver begins a transaction with the first INSERT, UPDATE or DELETE, and waits for another
                # process's there rather than later, when it could only fail.
                "isolation_level": "IMMEDIATE",
            },
        )
        super().__init__(engine, place)
        self._write_turnstile = asyncio.Lock()
        if in_memory:  # which has only one connection
            self._read_turnstile = self._write_turnstile

    async def _carry_out(self, work: Coroutine[Any, Any, T]) -> T:
        """Who is cancelled hears of it when the work is done, which is soon.

        Work that is broken off takes its connection with it, and the connection a database in memory.
        """
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            raise


class PostgreSQL(Database):
    """Connecting takes as long as the URL's `timeout` says, at most (5 s)."""

    OPTIONS: ClassVar = {"host", "port", "sslmode", "ssl", "timeout", "prepared_statement_cache_size"}

    def __init__(self, url: URL) -> None:
        # Who and where, but not the password.
        place = URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()
        _check_options(url, self.OPTIONS, place)
        options = {name: value for name, value in url.query.items() if name != "timeout"}
        if "sslmode" in options:  # what other programs call `ssl`
            options["ssl"] = options.pop("sslmode")
        engine = create_async_engine(
            url.set(query=options),
            hide_parameters=True,
            pool_pre_ping=True,  # the server may have been restarted since
            pool_timeout=10,
            connect_args={"timeout": _seconds(url, TIMEOUT, place)},
        )
        super().__init__(engine, place)
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """The database of an SQLAlchemy URL, with the folder of its file. StoreError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What it says can hold a part of the password.
        raise StoreError("expected the URL of a database, but got one that cannot be read") from None
    database = _database(parsed)
    try:
        yield database
    finally:
        await database.close()


def _database(url: URL) -> Database:
    match url.drivername:
        case "sqlite+aiosqlite":
            _make_folder(url)
            return SQLite(url)
        case "postgresql+asyncpg":
            try:
                return PostgreSQL(url)
            except ModuleNotFoundError as error:
                raise StoreError(f'PostgreSQL needs an extra: pip install "tailrace[postgres]" ({error})') from error
        case other:
            raise StoreError(f"expected sqlite+aiosqlite or postgresql+asyncpg as database, but got {other}")


def _in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:")


def _make_folder(url: URL) -> None:
    if _in_memory(url):
        return
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{url.database}: cannot make its folder: {_reason(error)}") from error


def _check_options(url: URL, known: set[str], place: str) -> None:
    if unknown := url.query.keys() - known:
        expected, got = ", ".join(sorted(known)), ", ".join(sorted(unknown))
        raise StoreError(f"{place}: expected only the options {expected}, but got {got}")


def _seconds(url: URL, default: float, place: str) -> float:
    """How long the URL's `timeout` says."""
    timeout = url.query.get("timeout", str(default))
    try:
        return float(str(timeout))
    except ValueError:
        raise StoreError(f"{place}: expected seconds as timeout, but got {timeout!r}") from None


def _reason(error: BaseException) -> str:
    """The first line of what the driver says."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return (str(error).strip() or type(error).__name__).splitlines()[0]
