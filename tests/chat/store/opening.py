"""Stores that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.chat.store import StoreError, open_store


def file_url(path: Path, options: str = "") -> str:
    return f"sqlite:///{path}{options}"


async def refusal(url: str) -> str:
    """What is said when a store cannot be opened: one line."""
    with pytest.raises(StoreError) as refused:
        async with open_store(url):
            pass
    line = str(refused.value)
    assert line.splitlines() == [line]
    return line
