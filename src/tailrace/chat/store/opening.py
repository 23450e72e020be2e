"""Open the database that a URL names, and upgrade its schema to the newest version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, Select, String, column, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from .database import Database, StoreError
from .schema import HEAD, VERSION_TABLE
from .sqlite import SQLite

SCRIPTS = Path(__file__).parent / "migrations"

VERSION: Select[str] = select(column("version_num", String)).select_from(table(VERSION_TABLE))

UPGRADING_LOCK = "SELECT pg_advisory_xact_lock(873211, 2)"

UPGRADING = 3600.0
"""The seconds that an upgrade may take. It may copy tables."""


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Open the database at an SQLAlchemy URL, without an upgrade. Raise StoreError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The error's own message may contain a part of the password.
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
        # Import it here, because it takes as long as the rest of SQLAlchemy.
        from .postgresql import PostgreSQL

        return PostgreSQL(url)
    except ImportError as error:
        raise StoreError(f'PostgreSQL needs an extra: pip install "tailrace[postgres]" ({error})') from None


async def upgrade(database: Database, *, scripts: Path = SCRIPTS, head: str = HEAD) -> None:
    """Upgrade the schema to its newest version, completely or not at all. Raise StoreError for an unknown version."""
    found = await database.read(version)
    if found == head:
        return

    # Import it here, because only upgrades need it, and it takes longer than the rest of the server's start.
    from alembic.util import CommandError

    try:
        await database.write(lambda connection: _run(connection, scripts), patience=UPGRADING)
    except CommandError as error:
        wanted = f"expected at most version {head} of its schema, but got {found}"
        raise StoreError(f"{database.place}: {wanted}, which a newer tailrace must have made") from error


def version(connection: Connection) -> str | None:
    """Return the version of the schema, or None if there is no schema yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(VERSION).scalar_one_or_none()


def _run(connection: Connection, scripts: Path) -> None:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "sqlite":
        # The driver begins a transaction only when data changes, but an upgrade first changes tables.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(UPGRADING_LOCK)  # of several servers that start at once, one upgrades
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    command.upgrade(config, "head")
