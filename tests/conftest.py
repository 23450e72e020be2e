"""What holds for every test."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("tailrace", deadline=None)
settings.load_profile("tailrace")


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Let the garbage collector see only what the test makes. Of what other tests have left, it takes a second."""
    gc.freeze()
    yield
    gc.unfreeze()


SLOWEST = (
    "test_docs.py",
    "chat/test_docs_page.py",
    "rover/test_pages.py",
    "chat/test_demo_connection.py",
    "system/test_widgets.py",
    "cli/test_server.py",
    "chat/test_workers.py",
    "client/test_stream.py",
    "chat/test_openapi.py",
    "chat/models/test_remote.py",
    "test_command_runner.py",
    "system/test_servers.py",
    "cli/test_chat.py",
    "log/redis/test_cluster.py",
    "test_examples.py",
    "chat/test_demo_display.py",
    "chat/test_demo_page.py",
    "cli/terminal/test_commands.py",
    "test_exercises.py",
    "system/test_shutdown.py",
    "system/test_middleware.py",
    "chat/test_demo_sessions.py",
    "chat/test_demo_access.py",
    "cli/terminal/test_dialogue.py",
    "js/test_browser.py",
    "system/test_deploy.py",
    "js/test_decoders.py",
    "system/test_leaks.py",
    "system/test_shared.py",
    "cli/terminal/test_screen.py",
    "reliability/test_workers.py",
)
"""Files that take about 40 seconds or more on a busy machine.

They are begun first, because the last file to begin keeps the other processes waiting.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """If several processes share the tests, put the slowest files first, and then those with the most tests."""
    if not hasattr(config, "workerinput"):  # pytest-xdist sets it in each of the processes
        return
    tests = Counter(item.path for item in items)
    root = Path(__file__).parent
    rank = {root / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: (rank.get(item.path, len(rank)), -tests[item.path]))
