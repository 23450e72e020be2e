"""Which database a URL means."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from tailrace.chat.store import OtherStreams, Session, Store, StoreError, Streams, Turn, open_store
from tailrace.chat.store.database import Database
from tailrace.chat.store.opening import SCRIPTS, open_database, upgrade, version
from tailrace.chat.store.schema import HEAD, VERSION_TABLE, metadata

from .asking import asks, begin
from .opening import file_url, refusal

STREAMS = Streams(b"here", "redis://here")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        (
            "postgresql+asyncpg://ann:secret@host/chats?channel_binding=secret",
            "postgresql://ann@host/chats: expected only the options host, port, prepared_statement_cache_size, ssl, "
            "sslmode, timeout, but got channel_binding",
        ),
        (
            "postgresql+asyncpg://ann:secret@host/chats?timeout=soon",
            "postgresql://ann@host/chats: expected seconds as timeout, but got 'soon'",
        ),
        (
            "sqlite:///:memory:?cache=shared",
            "SQLite in memory: expected only the options timeout, but got cache",
        ),
        (
            "sqlite:///:memory:?timeout=1&timeout=2",
            "SQLite in memory: expected seconds as timeout, but got ('1', '2')",
        ),
    ],
)
async def test_options_that_are_not_known(url: str, line: str) -> None:
    assert await refusal(url) == line


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("mysql://ann:secret@host/chats", "expected sqlite or postgresql+asyncpg as database, but got mysql"),
        ("sqlite+aiosqlite://", "expected sqlite or postgresql+asyncpg as database, but got sqlite+aiosqlite"),
        ("sqlite://secret", "expected sqlite:///file as database, but got something before the third slash"),
        ("secret", "expected the URL of a database, but got one that cannot be read"),
        (
            "postgresql+asyncpg://ann:secret@host:port/chats",
            "expected the URL of a database, but got one that cannot be read",
        ),
    ],
)
async def test_what_is_no_database(url: str, line: str) -> None:
    assert await refusal(url) == line


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
    begun = await begin(store, asks(message="Keep this"), create=True)
    await upgrade(database, scripts=later(tmp_path), head="9999")
    assert await database.read(version) == "9999"
    assert await database.read(words) == [len("Keep this")]
    assert await store.session("s", "ann") == begun.session
    assert list((await store.turns("s", "ann", limit=9)).items) == [begun.turn]
    assert (await begin(store, asks())).session.turns == 2


async def test_the_first_version_of_the_schema_keeps_what_is_there(url: str, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(SCRIPTS, older)
    for later in (older / "versions").glob("v000[2-9]*.py"):
        later.unlink()

    def fill(connection: Connection) -> None:
        connection.execute(text("INSERT INTO tailrace_owners VALUES ('ann', 1)"))
        connection.execute(
            text(
                "INSERT INTO tailrace_sessions (id, owner, title, turns, created, updated) "
                "VALUES ('s', 'ann', 'Keep this', 1, 1.5, 2.5)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO tailrace_turns (session_id, stream_id, idempotency_key, message, model, created, state, "
                "reply, chunks, seconds, context_messages, owner) "
                "VALUES ('s', 'stream', 'k', 'Keep this', 'demo', 1.5, 'complete', 'Kept', 2, 0.5, 1, 'ann')"
            )
        )

    async with open_database(url) as database:
        await upgrade(database, scripts=older, head="0001")
        await database.write(fill)
        await upgrade(database)
        store = Store(database)
        kept = Turn(1, "s", "stream", "k", "Keep this", "demo", 1.5, "complete", "Kept", 2, 0.5, 1)
        assert await store.session("s", "ann") == Session("s", "ann", "Keep this", 1, 1.5, 2.5)
        assert list((await store.turns("s", "ann", limit=9)).items) == [kept]
        begun = await begin(store, asks())
        assert (begun.session.turns, list(begun.context)) == (2, [kept])
        assert begun.turn.number > kept.number
        assert (await begin(store, asks(), "bob", create=True)).new_session
        assert await store.delete("s", "ann") == [begun.turn.stream_id]
        assert await store.find_turn("stream", "ann") is None


async def test_an_upgrade_that_fails_leaves_all_as_it_was(database: Database, tmp_path: Path) -> None:
    begun = await begin(Store(database), asks(), create=True)
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
from tailrace.chat.store import StoreError, open_store

async def count(url):
    async with open_store(url) as store:
        return await store.count()

async def hold(url):
    async with open_store(url):
        print("held", flush=True)
        await asyncio.Event().wait()

print("ready", flush=True)
for line in sys.stdin:
    verb, url = line.split()
    try:
        print(asyncio.run({"count": count, "hold": hold}[verb](url)), "alembic" in sys.modules, flush=True)
    except StoreError as error:
        print(error, flush=True)
"""


class Elsewhere:
    """Another process, which opens stores and tells how many sessions it found, and whether it needed Alembic yet."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    async def line(self) -> str:
        return (await asyncio.wait_for(self._stdout.readline(), 30)).decode().strip()

    async def do(self, verb: str, url: str) -> str:
        self._stdin.write(f"{verb} {url}\n".encode())
        return await self.line()


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, stdin=pipe, stdout=pipe, stderr=None)
    elsewhere = Elsewhere(process)
    try:
        assert await elsewhere.line() == "ready"
        yield elsewhere
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 30)


@lasting
async def test_only_one_server_opens_a_database(url: str, elsewhere: Elsewhere) -> None:
    async with open_store(url) as store:
        await begin(store, asks(), create=True)
        refused = await elsewhere.do("count", url)
        assert refused.startswith(f"{store.place}: expected a database that no other server uses, or ")
        assert re.search(rf"\bprocess (id )?{os.getpid()}\b.* has it open$", refused)
        assert (await begin(store, asks())).session.turns == 2
    assert await elsewhere.do("count", url) == "1 False"  # nothing was left to upgrade


@lasting
async def test_a_server_that_is_killed_owns_nothing(url: str, elsewhere: Elsewhere) -> None:
    assert await elsewhere.do("hold", url) == "held"
    assert re.search(rf"\bprocess (id )?{elsewhere.process.pid}\b", await refusal(url))
    elsewhere.process.kill()
    await asyncio.wait_for(elsewhere.process.wait(), 30)
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreError):  # PostgreSQL takes a moment to see that its client has gone
                async with open_store(url):
                    return


async def test_a_link_leads_to_the_same_database(tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite3"
    link.symlink_to(tmp_path / "chat.sqlite3")
    async with open_store(file_url(tmp_path / "chat.sqlite3")):
        assert str(os.getpid()) in await refusal(file_url(link))


async def test_a_claim_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "chat.sqlite3.lock").mkdir()
    line = await refusal(file_url(tmp_path / "chat.sqlite3"))
    assert line == f"{tmp_path}/chat.sqlite3.lock: unable to open database file"


async def test_an_upgrade_leaves_logging_alone(url: str) -> None:
    before = logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level
    async with open_store(url):
        pass
    assert before == (logging.root.level, logging.root.handlers, logging.getLogger("alembic").level)


@lasting
async def test_servers_that_share_their_streams_share_a_database(url: str) -> None:
    async with open_store(url, streams=STREAMS) as one:
        async with open_store(url, streams=STREAMS) as other:
            await begin(one, asks(), create=True)
            assert await other.count() == 1
            assert "has it open" in await refusal(url)
        assert "has it open" in await refusal(url)
    async with open_store(url) as alone:
        with pytest.raises(StoreError, match="has it open"):
            async with open_store(url, streams=STREAMS):
                pass
        assert await alone.count() == 1
    async with open_store(url, streams=STREAMS) as one:
        assert await one.count() == 1


@lasting
async def test_servers_with_other_streams_wait_for_those_that_live(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.chat.store.store.RENEWAL", 0.1)
    others = Streams(b"others", "redis://there")
    async with open_store(url, streams=STREAMS) as one:
        for _ in range(2):
            with pytest.raises(OtherStreams) as refused:
                async with open_store(url, streams=others):
                    pass
            for said in ("streams in redis://there", "redis://here", "TAILRACE_STREAMS"):
                assert said in str(refused.value)
        async with open_store(url, streams=STREAMS):
            assert await one.count() == 0
    async with open_store(url, streams=others) as other:
        assert await other.count() == 0
        with pytest.raises(OtherStreams):
            async with open_store(url, streams=STREAMS):
                pass


@lasting
async def test_servers_whose_streams_are_lost_let_others_in_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Streams(b"new", STREAMS.place)
    async with open_store(url, streams=STREAMS) as one, open_store(url, streams=STREAMS) as two:

        async def start() -> int:
            async with open_store(url, streams=lost) as three:
                return await three.count()

        starting = asyncio.create_task(start())
        for store in (one, two):
            assert not starting.done()
            await store.renew(lost.identity)
            await store.renew(lost.identity)
        assert await starting == 0
        monkeypatch.setattr("tailrace.chat.store.store.RENEWAL", 0.1)
        with pytest.raises(OtherStreams):
            async with open_store(url, streams=STREAMS):
                pass


async def test_a_server_that_starts_cannot_miss_one_whose_claim_is_renewed(tmp_path: Path) -> None:
    url, lock, claims = file_url(tmp_path / "chat.sqlite3"), tmp_path / "chat.sqlite3.lock", "chat.sqlite3.shared-*"
    async with open_store(url, streams=STREAMS) as store:
        before = list(tmp_path.glob(claims))
        with closing(sqlite3.connect(lock, isolation_level=None)) as starting:
            starting.execute("BEGIN IMMEDIATE")  # as a server does while it looks for the claims of others
            renewing = asyncio.create_task(store.renew(b"new"))
            done, _ = await asyncio.wait([renewing], timeout=0.5)
            assert (done, list(tmp_path.glob(claims))) == (set(), before)
        await asyncio.wait_for(renewing, 30)
        assert len(list(tmp_path.glob(claims))) == 2
        async with open_store(url, streams=Streams(b"new", STREAMS.place)) as other:
            assert await other.count() == 0


@lasting
async def test_of_servers_that_start_at_once_one_upgrades(url: str) -> None:
    async def start() -> int:
        async with open_store(url, streams=STREAMS) as store:
            return await store.count()

    assert await asyncio.gather(*(start() for _ in range(4))) == [0] * 4


async def test_a_database_in_memory_cannot_be_shared() -> None:
    with pytest.raises(StoreError, match="expected a database that other servers can open, but got SQLite in memory"):
        async with open_store("sqlite:///:memory:", streams=STREAMS):
            pass
