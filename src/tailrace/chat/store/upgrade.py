"""The version of a database's schema, and how it comes to the newest."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Select, String, column, inspect, select, table

from .database import Database
from .errors import StoreError
from .schema import HEAD, VERSION_TABLE

SCRIPTS = Path(__file__).parent / "migrations"

VERSION: Select[str] = select(column("version_num", String)).select_from(table(VERSION_TABLE))

# Of two servers that start at the same time, one upgrades and the other finds it done.
_LOCK = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(8732116450)"}


async def upgrade(database: Database, *, scripts: Path = SCRIPTS, head: str = HEAD) -> None:
    """Bring the schema to its newest version, all of it or nothing. StoreError for a version that is not known."""
    found = await database.read(version)
    if found == head:
        return

    # It is needed once in the life of a database, and takes longer to import than the rest of a start.
    from alembic.util import CommandError

    try:
        await database.write(lambda connection: _run(connection, scripts))
    except CommandError as error:
        wanted = f"expected at most version {head} of its schema, but got {found}"
        raise StoreError(f"{database.place}: {wanted}, which a newer tailrace must have made") from error


def version(connection: Connection) -> str | None:
    """The version of the schema, None where there is none yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(VERSION).scalar_one_or_none()


def _run(connection: Connection, scripts: Path) -> None:
    from alembic import command
    from alembic.config import Config

    connection.exec_driver_sql(_LOCK[connection.dialect.name])
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    command.upgrade(config, "head")
