"""A file or the memory as a database, and the threads that wait for it."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from tailrace.chat.store import StoreError, database, open_store
from tailrace.chat.store.opening import open_database, upgrade
from tailrace.chat.store.sqlite import Threads
from tests.raw import BOUND

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
        await begin(store, asks(), create=True)
        files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert files == dict.fromkeys(["chat.sqlite3", "chat.sqlite3-shm", "chat.sqlite3-wal", "chat.sqlite3.lock"], 0o600)


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


async def test_a_lock_holds_up_writers_only_and_only_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FRESH", 0)
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file, "?timeout=1")) as store:
        await begin(store, asks(), create=True)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError) as refused:
                await begin(store, asks())
            assert str(refused.value) == f"{file}: database is locked"
            assert await store.count() == 1
            with pytest.raises(StoreError):
                await store.ping()
        assert (await begin(store, asks())).session.turns == 2
        await store.ping()


async def test_those_who_wait_for_a_lock_wait_together(tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file, "?timeout=1")) as store:
        await begin(store, asks(), create=True)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = asyncio.get_running_loop().time()
            refused = await asyncio.gather(*(begin(store, asks()) for _ in range(8)), return_exceptions=True)
            waited = asyncio.get_running_loop().time() - began
        assert all(isinstance(each, StoreError) for each in refused)
        assert waited < 8 * 1 / 2
        assert (await begin(store, asks())).session.turns == 2


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_written_into_a_file_that_is_gone(
    tmp_path: Path, suffix: str, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FRESH", 0)
    file, aside = tmp_path / f"chat.sqlite3{suffix}", tmp_path / "aside"
    async with open_store(file_url(tmp_path / "chat.sqlite3")) as store:
        await begin(store, asks(), create=True)
        await store.ping()
        file.rename(aside)
        if replaced:
            file.write_bytes(aside.read_bytes())
        for writing in (begin(store, asks()), store.ping()):
            with pytest.raises(StoreError) as refused:
                await writing
            gone = "expected the file that was opened, but it was deleted or replaced"
            assert str(refused.value) == f"{file}: {gone}"
        file.unlink(missing_ok=True)
        aside.rename(file)
        await store.ping()
        assert (await begin(store, asks())).session.turns == 2


async def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FRESH", 0)
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file)) as store:
        begun = await begin(store, asks(), create=True)
        with largest_file(1 << 20):
            with pytest.raises(StoreError) as refused:
                await begin(store, asks(message="x" * (4 << 20)))
            assert str(refused.value) == f"{file}: disk I/O error"
        with largest_file(1 << 10), pytest.raises(StoreError):
            await store.ping()
        await store.ping()
        assert store.last_write < 5
        assert list((await store.turns("s", "ann", limit=9)).items) == [begun.turn]
        assert (await begin(store, asks(message="x" * (4 << 20)))).session.turns == 2


async def test_what_was_committed_is_in_the_file_while_the_server_runs(tmp_path: Path) -> None:
    """As after a kill -9: nothing waits for the store to be closed."""
    file = tmp_path / "chat.sqlite3"
    async with open_store(file_url(file)) as store:
        await begin(store, asks(message="Do not lose me"), create=True)
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
        await begin(store, asks(), create=True)
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
        assert self._may_go_on.wait(BOUND)
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
        await asyncio.wait_for(begun.has_begun.wait(), BOUND)
        second = asyncio.create_task(database.write(insert("waiting")))
        third = asyncio.create_task(database.write(insert("patient")))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second], timeout=BOUND)  # although the thread is still at work
        assert first.cancelled()
        assert second.cancelled()
        begun.let_go_on()
        await asyncio.wait_for(third, BOUND)
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
    async with open_database(file_url(tmp_path / "chat.sqlite3", "?timeout=1")) as opened:
        for _ in range(2):
            with pytest.raises(StoreError, match=r"expected an answer within 0\.05 s, but got none"):
                await opened.ping(held, 0.05)
        with pytest.raises(StoreError, match=r"expected a turn within 1 s, but other work took longer"):
            await opened.write(lambda connection: 1)
        assert await opened.read(lambda connection: 1) == 1
    (left,) = (thread for thread in threading.enumerate() if thread not in before)
    held.let_go_on()
    left.join(BOUND)
    assert not left.is_alive()


@asynccontextmanager
async def some_threads(count: int = 1) -> AsyncIterator[Threads]:
    """They are closed with the block, and all of them end."""
    ended: list[threading.Thread] = []
    before = threading.enumerate()
    threads = Threads("test", count, lambda: ended.append(threading.current_thread()))
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert len(started) == count
    try:
        yield threads
    finally:
        await threads.close(5)
    assert not any(thread.is_alive() for thread in started)
    assert len(ended) == 1
    assert ended[0] in started


async def test_a_call_returns_or_raises() -> None:
    def fail(left: float) -> None:
        raise LookupError("not here")

    async with some_threads() as threads:
        assert await threads.run(lambda left: threading.current_thread().name, BOUND) == "test"
        with pytest.raises(LookupError, match="not here"):
            await threads.run(fail, BOUND)
        assert await threads.run(lambda left: 2, BOUND) == 2


def same(number: int, left: float) -> int:
    return number


async def test_one_thread_keeps_the_order() -> None:
    done: list[int] = []

    def note(number: int, left: float) -> None:
        done.append(number)

    async with some_threads() as threads:
        await asyncio.gather(*(threads.run(partial(note, number), BOUND) for number in range(9)))
    assert done == list(range(9))


async def test_several_threads_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3)
    async with some_threads(3) as threads:
        places = await asyncio.gather(*(threads.run(lambda left: meeting.wait(BOUND), BOUND) for _ in range(3)))
    assert sorted(places) == [0, 1, 2]


async def test_what_was_asked_for_is_done_before_they_end() -> None:
    async with some_threads(2) as threads:
        asked = [asyncio.create_task(threads.run(partial(same, number), BOUND)) for number in range(9)]
        await asyncio.sleep(0)
    assert [await one for one in asked] == list(range(9))


async def test_waiting_for_a_thread_and_working_have_one_deadline() -> None:
    hanging = threading.Event()
    left: list[float] = []
    async with some_threads() as threads:
        first = asyncio.create_task(threads.run(lambda _: hanging.wait(BOUND), BOUND))
        began = asyncio.get_running_loop().time()
        others = [asyncio.create_task(threads.run(left.append, 0.05)) for _ in range(1000)]
        last = asyncio.create_task(threads.run(left.append, BOUND))
        for other in others:
            with pytest.raises(TimeoutError, match=r"expected a turn within 0\.05 s, but other work took longer"):
                await other
        waited = asyncio.get_running_loop().time() - began
        assert waited < BOUND  # together, not one after the other
        hanging.set()
        await asyncio.gather(first, last)
    assert len(left) == 1
    assert 0 < left[0] <= BOUND - 0.05


async def test_a_thread_that_waits_holds_on_to_nothing() -> None:
    class Result:
        pass

    async with some_threads() as threads:
        result = await threads.run(lambda left: Result(), BOUND)
        await threads.run(lambda left: None, BOUND)
        seen = weakref.ref(result)
        del result
        assert seen() is None


async def test_one_that_hangs_is_left() -> None:
    hanging = threading.Event()
    last = threading.Event()
    threads = Threads("test", 2, last.set)
    asked = asyncio.create_task(threads.run(lambda left: hanging.wait(BOUND), BOUND))
    await asyncio.sleep(0)
    await threads.close(0.02)
    assert not last.is_set()
    hanging.set()
    assert await asyncio.wait_for(asked, BOUND) is True
    assert last.wait(BOUND)
