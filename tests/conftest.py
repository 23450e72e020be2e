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
    "system/test_leaks.py",
    "test_docs.py",
    "rooms/test_storm.py",
    "client/test_stream.py",
    "log/redis/test_cluster.py",
    "log/redis/test_contract.py",
    "log/redis/test_mutations.py",
    "log/redis/test_sentinel.py",
    "chat/test_workers.py",
    "system/test_deploy.py",
    "system/test_shared.py",
    "reliability/test_workers.py",
    "reliability/test_servers.py",
    "reliability/test_data.py",
)
"""Files that take the longest, begun first: one that begins last keeps all but one process waiting for it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """If several processes share the tests, put the slowest files first, and then those with the most tests."""
    if not hasattr(config, "workerinput"):  # pytest-xdist sets it in each of the processes
        return
    tests = Counter(item.path for item in items)
    root = Path(__file__).parent
    rank = {root / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: (rank.get(item.path, len(rank)), -tests[item.path]))
