"""Which database a URL means."""

from __future__ import annotations

import pytest

from .opening import refusal


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
