"""The databases that a store is tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tailrace.chat.store import Store, open_store

from .postgresql import postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a database on a server that starts with the first test that asks for it."""
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["file", "memory", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of an empty database."""
    if request.param == "memory":
        yield "sqlite:///:memory:"
    elif request.param == "file":
        yield f"sqlite:///{tmp_path / 'chat.sqlite3'}"
    else:
        server = request.getfixturevalue("postgresql")
        yield server
        await _empty(server)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        yield store


async def _empty(url: str) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
    finally:
        await engine.dispose()
