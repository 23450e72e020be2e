"""What holds for every test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("tailrace", deadline=None)
settings.load_profile("tailrace")

SLOWEST = (
    "test_docs.py",
    "rover/test_pages.py",
    "system/test_widgets.py",
    "chat/test_docs_page.py",
    "client/test_stream.py",
    "chat/test_demo_connection.py",
    "cli/test_server.py",
    "chat/models/test_remote.py",
    "log/redis/test_cluster.py",
    "chat/test_workers.py",
    "chat/test_demo_page.py",
    "test_examples.py",
    "log/test_keeper.py",
    "cli/test_chat.py",
)
"""Files that take 45 seconds or more, begun first: the last file to begin keeps the other processes waiting."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """If several processes share the tests, put the slowest files first, and then those with the most tests."""
    if not hasattr(config, "workerinput"):  # pytest-xdist sets it in each of the processes
        return
    tests = Counter(item.path for item in items)
    root = Path(__file__).parent
    rank = {root / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: (rank.get(item.path, len(rank)), -tests[item.path]))
