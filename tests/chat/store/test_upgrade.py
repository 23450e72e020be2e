"""How a database comes to the newest version of its schema."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from tailrace.chat.store import Store, StoreError, open_store
from tailrace.chat.store.database import Database
from tailrace.chat.store.opening import open_database
from tailrace.chat.store.schema import HEAD, VERSION_TABLE, metadata
from tailrace.chat.store.upgrade import SCRIPTS, upgrade, version

from .asking import asks, begin

lasting = pytest.mark.parametrize("url", ["file", "postgresql"], indirect=True)

LATER = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9999", {head!r}

def upgrade():
    op.add_column("tailrace_sessions", sa.Column("words", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE tailrace_sessions SET words = length(title)")
    {last}
"""


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url) as database:
        await upgrade(database)
        yield database


@pytest.fixture
async def other_url(url: str, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of another empty database of the same kind."""
    if url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'other.sqlite3'}"
        return
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE DATABASE other"))
        yield url.replace("/postgres?", "/other?")
        await connection.execute(text("DROP DATABASE other"))
    await engine.dispose()


def later(folder: Path, last: str = "") -> Path:
    """Scripts that know one version more, whose upgrade ends with `last`."""
    scripts = folder / "100%"  # which a configuration file would take for something else
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "later.py").write_text(LATER.format(head=HEAD, last=last))
    return scripts


def words(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT words FROM tailrace_sessions ORDER BY id")).scalars())


def test_the_newest_script_makes_the_version_that_the_store_expects() -> None:
    assert ScriptDirectory(str(SCRIPTS)).get_current_head() == HEAD


async def test_the_scripts_make_the_tables_of_the_schema(database: Database) -> None:
    def differences(connection: Connection) -> object:
        options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert await database.read(differences) == []


async def test_the_scripts_make_all_indexes(database: Database) -> None:
    names = {"sqlite": "SELECT name FROM sqlite_master", "postgresql": "SELECT indexname FROM pg_indexes"}

    def indexes(connection: Connection) -> set[str]:
        return set(connection.execute(text(names[connection.dialect.name])).scalars())

    wanted = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    assert len(wanted) == 5
    assert wanted <= await database.read(indexes)


async def test_a_later_version_keeps_what_is_there(database: Database, tmp_path: Path) -> None:
    store = Store(database)
    begun = await begin(store, asks(message="Keep this"), new_session=True)
    await upgrade(database, scripts=later(tmp_path), head="9999")
    assert await database.read(version) == "9999"
    assert await database.read(words) == [len("Keep this")]
    assert await store.session("s", "ann") == begun.session
    assert list((await store.turns("s", limit=9)).items) == [begun.turn]
    assert (await begin(store, asks())).session.turns == 2


async def test_an_upgrade_that_fails_leaves_all_as_it_was(database: Database, tmp_path: Path) -> None:
    begun = await begin(Store(database), asks(), new_session=True)
    with pytest.raises(ZeroDivisionError):
        await upgrade(database, scripts=later(tmp_path, last="1 / 0"), head="9999")
    assert await database.read(version) == HEAD
    with pytest.raises(StoreError, match="words"):
        await database.read(words)
    assert await Store(database).session("s", "ann") == begun.session


@lasting
@pytest.mark.parametrize("newer", ["9999", "0000", "from elsewhere"])
async def test_a_version_that_is_not_known_is_refused(url: str, newer: str) -> None:
    def pretend(connection: Connection) -> None:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{newer}'"))

    async with open_database(url) as database:
        await upgrade(database)
        await database.write(pretend)
    with pytest.raises(StoreError, match=f"expected at most version {HEAD} of its schema, but got {newer}"):
        async with open_store(url):
            pass


OPEN = """
import asyncio, sys
from tailrace.chat.store import open_store

async def count(url):
    async with open_store(url) as store:
        return await store.count()

print("ready", flush=True)
for url in sys.stdin:
    print(asyncio.run(count(url.strip())), "alembic" in sys.modules, flush=True)
"""


class Elsewhere:
    """Another process, which opens stores and tells how many sessions it found, and whether it needed Alembic yet."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def close(self) -> None:
        self._stdin.close()

    async def line(self) -> str:
        return (await asyncio.wait_for(self._stdout.readline(), 30)).decode().strip()

    async def open(self, url: str) -> str:
        self._stdin.write(f"{url}\n".encode())
        return await self.line()


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, stdin=pipe, stdout=pipe, stderr=None)
    elsewhere = Elsewhere(process)
    try:
        yield elsewhere
    finally:
        elsewhere.close()
        assert await asyncio.wait_for(process.wait(), 30) == 0


@lasting
async def test_another_process_upgrades_only_what_is_not(url: str, elsewhere: Elsewhere, other_url: str) -> None:
    assert await elsewhere.line() == "ready"
    async with open_store(url) as store:
        await begin(store, asks(), new_session=True)
        assert await elsewhere.open(url) == "1 False"

    async def open_here() -> None:
        async with open_store(other_url):
            pass

    found, _ = await asyncio.gather(elsewhere.open(other_url), open_here())
    assert found.startswith("0 ")


async def test_an_upgrade_leaves_logging_alone(url: str) -> None:
    before = logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level
    async with open_store(url):
        pass
    assert before == (logging.root.level, logging.root.handlers, logging.getLogger("alembic").level)
