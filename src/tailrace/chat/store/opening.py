"""Which database a URL means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from .database import Database
from .errors import StoreError
from .sqlite import SQLite


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
        case "sqlite":
            return SQLite(url)
        case "postgresql+asyncpg":
            return _postgresql(url)
        case other:
            raise StoreError(f"expected sqlite or postgresql+asyncpg as database, but got {other}")


def _postgresql(url: URL) -> Database:
    try:
        # What it needs takes as long to import as all the rest of SQLAlchemy.
        from .postgresql import PostgreSQL

        return PostgreSQL(url)
    except ImportError as error:
        raise StoreError(f'PostgreSQL needs an extra: pip install "tailrace[postgres]" ({error})') from None
