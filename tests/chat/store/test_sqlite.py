"""A file or the memory as a database, and the threads that wait for it."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from tailrace.chat.store import StoreError, open_store
from tailrace.chat.store.opening import open_database
from tailrace.chat.store.upgrade import upgrade

from .asking import asks, begin
from .opening import file_url, refusal

here = pytest.mark.parametrize("url", ["file", "memory"], indirect=True)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond this, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_the_folder_of_a_file_is_made_for_its_user_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "chat.sqlite3"
    async with open_store(file_url(file)):
        assert file.exists()
    assert file.parent.stat().st_mode & 0o777 == 0o700


async def test_a_new_file_and_what_sqlite_puts_beside_it_are_its_users_only(tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file)) as store:
        await begin(store, asks(), new_session=True)
        files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert files == dict.fromkeys(["chat.sqlite3", "chat.sqlite3-shm", "chat.sqlite3-wal"], 0o600)


async def test_the_mode_of_a_file_that_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite3"
    file.touch(mode=0o640)
    async with open_store(file_url(file)):
        assert file.stat().st_mode & 0o777 == 0o640


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


async def test_a_file_stays_the_same_when_the_folder_of_the_process_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("sqlite:///chat.sqlite3") as store:  # which has not connected a writer yet
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        await begin(store, asks(), new_session=True)
        assert await store.count() == 1
    assert store.place == "chat.sqlite3"
    assert list((tmp_path / "other").iterdir()) == []


class Held:
    """Work that has begun in its thread, and goes on when it is let."""

    def __init__(self, work: Callable[[Connection], None]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._may_go_on = threading.Event()
        self.has_begun = asyncio.Event()

    def __call__(self, connection: Connection) -> None:
        self._loop.call_soon_threadsafe(self.has_begun.set)
        assert self._may_go_on.wait(30)
        self._work(connection)

    def let_go_on(self) -> None:
        self._may_go_on.set()


def insert(owner: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(text(f"INSERT INTO tailrace_owners VALUES ('{owner}', 1)"))

    return work


def owners(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT owner FROM tailrace_owners ORDER BY owner")).scalars())


@here
async def test_what_a_cancelled_request_has_begun_is_carried_out_and_nothing_else(url: str) -> None:
    async with open_database(url) as database:
        await upgrade(database)
        begun = Held(insert("begun"))
        first = asyncio.create_task(database.write(begun))
        await asyncio.wait_for(begun.has_begun.wait(), 5)
        second = asyncio.create_task(database.write(insert("waiting")))
        third = asyncio.create_task(database.write(insert("patient")))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second], timeout=5)  # although the thread is still at work
        assert first.cancelled()
        assert second.cancelled()
        begun.let_go_on()
        await asyncio.wait_for(third, 5)
        assert await database.read(owners) == ["begun", "patient"]


@here
async def test_no_thread_is_left(url: str) -> None:
    before = threading.enumerate()
    async with open_store(url) as store:
        await asyncio.gather(*(store.count() for _ in range(9)))
        assert [thread for thread in threading.enumerate() if thread not in before]
    assert [thread for thread in threading.enumerate() if thread not in before] == []


async def test_a_hanging_disk_keeps_no_database_open(tmp_path: Path) -> None:
    before = threading.enumerate()
    held = Held(lambda connection: None)
    async with open_database(file_url(tmp_path / "chat.sqlite3", "?timeout=0")) as database:
        for _ in range(2):
            with pytest.raises(StoreError, match=r"expected an answer within 0\.05 s, but got none"):
                await database.ping(held, 0.05)
        assert await database.write(lambda connection: 1) == 1
    (left,) = (thread for thread in threading.enumerate() if thread not in before)
    held.let_go_on()
    left.join(5)
    assert not left.is_alive()
