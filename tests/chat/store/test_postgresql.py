"""A PostgreSQL server as a database, and what is said when it cannot be reached."""

from __future__ import annotations

import asyncio
import sys

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tailrace.chat.store import InUse, Store, StoreError, Streams, database, open_store
from tailrace.chat.store.postgresql import CLAIM

from ...serving import free_port, listening_socket
from .asking import asks, begin
from .opening import refusal


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
        await begin(store, asks(), create=True)
        await execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert (await begin(store, asks())).session.turns == 2
        await store.ping()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_server_that_has_lost_its_database_to_another_writes_nothing(url: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with open_store(url) as store, engine.connect() as other:
        await begin(store, asks(), create=True)
        await other.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
        async with asyncio.timeout(30):
            while not (await other.execute(CLAIM)).scalar_one():  # the session that has it takes a moment to end
                pass
        async with asyncio.timeout(30):
            while await begins(store):  # the event loop takes a moment to hear of it
                pass
        with pytest.raises(InUse):
            await begin(store, asks())
        turns = len((await store.turns("s", "ann", limit=99)).items)
        await other.execute(text("SELECT pg_advisory_unlock_all()"))
        assert (await begin(store, asks())).session.turns == turns + 1
        assert not (await other.execute(CLAIM)).scalar_one()
    await engine.dispose()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_streams_that_are_lost_while_the_claim_is_count_from_its_renewal_on(url: str) -> None:
    before, after = (Streams(identity, "redis://here") for identity in (b"before", b"after"))
    async with open_store(url, streams=before) as store:
        await begin(store, asks(), create=True)
        await execute(
            url,
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        async with asyncio.timeout(30):
            while True:  # the event loop takes a moment to hear of it
                try:
                    await store.renew(after.identity)
                except StoreError:
                    continue
                break
        assert (await begin(store, asks())).session.turns == 2
        async with open_store(url, streams=after) as other:
            assert await other.count() == 1


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_ping_does_not_wait_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FRESH", 0)
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


async def begins(store: Store) -> bool:
    """Whether a turn begins, or another server has the database."""
    try:
        await begin(store, asks())
    except InUse:
        return False
    return True


async def execute(url: str, statement: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()
