"""How a database is reached, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tailrace.chat.store import StoreError, open_store

from ...serving import free_port, listening_socket
from .asking import asks, begin


def file_url(path: Path, options: str = "") -> str:
    return f"sqlite+aiosqlite:///{path}{options}"


async def refusal(url: str) -> str:
    """What is said when a store cannot be opened: one line."""
    with pytest.raises(StoreError) as refused:
        async with open_store(url):
            pass
    line = str(refused.value)
    assert line.splitlines() == [line]
    return line


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond this, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# A file


async def test_the_folder_of_a_file_is_made_for_its_user_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "chat.sqlite3"
    async with open_store(file_url(file)):
        assert file.exists()
    assert file.parent.stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    file = tmp_path / "taken" / "folder" / "chat.sqlite3"
    assert await refusal(file_url(file)) == (
        f"{file}: cannot make its folder: [Errno 20] Not a directory: '{tmp_path}/taken/folder'"
    )


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("Remember the milk. " * 100)
    assert await refusal(file_url(file)) == f"{file}: file is not a database"
    assert file.read_text().startswith("Remember the milk.")


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert await refusal(file_url(tmp_path)) == f"{tmp_path}: unable to open database file"


async def test_a_file_that_somebody_keeps_locked(tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert await refusal(file_url(file, "?timeout=0.05")) == f"{file}: database is locked"
        other.execute("ROLLBACK")
    async with open_store(file_url(file)):
        pass


async def test_a_lock_holds_up_writers_only_and_only_while_it_lasts(tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file, "?timeout=0.05")) as store:
        await begin(store, asks(), new_session=True)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError) as refused:
                await begin(store, asks())
            assert str(refused.value) == f"{file}: database is locked"
            assert await store.count() == 1
            await store.ping()
        assert (await begin(store, asks())).session.turns == 2


async def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file)) as store:
        begun = await begin(store, asks(), new_session=True)
        with largest_file(1 << 20), pytest.raises(StoreError) as refused:
            await begin(store, asks(message="x" * (4 << 20)))
        assert str(refused.value) == f"{file}: disk I/O error"
        assert list((await store.turns("s", limit=9)).items) == [begun.turn]
        assert (await begin(store, asks(message="x" * (4 << 20)))).session.turns == 2


async def test_what_was_committed_is_in_the_file_while_the_server_runs(tmp_path: Path) -> None:
    """As after a kill -9: nothing waits for the store to be closed."""
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file)) as store:
        await begin(store, asks(message="Do not lose me"), new_session=True)
        with closing(sqlite3.connect(file)) as other:
            assert other.execute("SELECT message, state FROM tailrace_turns").fetchall() == [
                ("Do not lose me", "generating")
            ]
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("url", ["file", "memory"], indirect=True)
async def test_who_is_cancelled_twice_still_waits_for_the_end(url: str) -> None:
    async with open_store(url) as store:
        for steps in range(2, 12):
            task = asyncio.create_task(begin(store, asks(f"s{steps}"), new_session=True))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert len((await store.sessions("ann", limit=99)).items) == await store.count("ann")


# PostgreSQL


async def test_a_server_that_is_not_there() -> None:
    port = free_port()
    line = await refusal(f"postgresql+asyncpg://ann:secret@127.0.0.1:{port}/chats?sslmode=disable")
    assert line.startswith(f"postgresql://ann@127.0.0.1:{port}/chats: ")
    assert "Connect call failed" in line
    assert "secret" not in line


async def test_a_server_that_says_nothing() -> None:
    """It takes the connection, and no more."""
    with listening_socket() as silent:
        port = silent.getsockname()[1]
        line = await refusal(f"postgresql+asyncpg://ann@127.0.0.1:{port}/chats?timeout=0.1")
    assert line == f"postgresql://ann@127.0.0.1:{port}/chats: TimeoutError"


async def test_a_database_that_the_server_does_not_have(postgresql: str) -> None:
    line = await refusal(postgresql.replace("/postgres?", "/nowhere?"))
    assert line == 'postgresql://tailrace@/nowhere: database "nowhere" does not exist'


async def test_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    assert 'pip install "tailrace[postgres]"' in await refusal("postgresql+asyncpg://ann:secret@127.0.0.1/chats")


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_server_that_was_restarted_is_reached_again(url: str) -> None:
    async with open_store(url) as store:
        await begin(store, asks(), new_session=True)
        await execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert (await begin(store, asks())).session.turns == 2
        await store.ping()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_ping_does_not_wait_for_ever(url: str) -> None:
    engine = create_async_engine(url)
    async with open_store(url) as store:
        async with engine.begin() as connection:
            await connection.execute(text("LOCK TABLE tailrace_version IN ACCESS EXCLUSIVE MODE"))
            for _ in range(2):
                with pytest.raises(StoreError, match=r"expected an answer within 0\.05 s, but got none"):
                    await store.ping(patience=0.05)
        await store.ping()
        async with engine.begin() as connection:
            await connection.execute(text("LOCK TABLE tailrace_version IN ACCESS EXCLUSIVE MODE"))
            with pytest.raises(StoreError):
                await store.ping(patience=0.05)
    await engine.dispose()


async def execute(url: str, statement: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


# Others


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
            "sqlite+aiosqlite:///:memory:?cache=shared",
            "SQLite in memory: expected only the options timeout, but got cache",
        ),
        (
            "sqlite+aiosqlite:///:memory:?timeout=1&timeout=2",
            "SQLite in memory: expected seconds as timeout, but got ('1', '2')",
        ),
    ],
)
async def test_options_that_are_not_known(url: str, line: str) -> None:
    assert await refusal(url) == line


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("mysql://ann:secret@host/chats", "expected sqlite+aiosqlite or postgresql+asyncpg as database, but got mysql"),
        ("secret", "expected the URL of a database, but got one that cannot be read"),
        (
            "postgresql+asyncpg://ann:secret@host:port/chats",
            "expected the URL of a database, but got one that cannot be read",
        ),
    ],
)
async def test_what_is_no_database(url: str, line: str) -> None:
    assert await refusal(url) == line
