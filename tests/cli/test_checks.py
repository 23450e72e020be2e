from __future__ import annotations

import pytest
from sqlalchemy import make_url

from tailrace.cli.checks import place_of


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite+aiosqlite:////var/chat.sqlite3", "/var/chat.sqlite3"),
        ("sqlite+aiosqlite://", ":memory:"),
        ("postgresql+asyncpg://me:secret@db:5433/chat?password=secret", "postgresql://me@db:5433/chat"),
    ],
)
def test_a_database_is_named_without_its_password(url: str, expected: str) -> None:
    assert place_of(make_url(url)) == expected
