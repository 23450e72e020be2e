from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.programs import Server, serving

PACE = 0.01
"""Seconds between two pieces of a reply."""


def serve(folder: Path, port: int = 0, **environment: str) -> AbstractContextManager[Server]:
    """A chat server with a database in a folder, as a process."""
    variables = [f"{name}={value}" for name, value in {"TAILRACE_DEMO_PACE": str(PACE), **environment}.items()]
    options = ["--port", str(port), "--database", str(folder / "chat.sqlite3"), "--log-format", "json"]
    return serving("env", *variables, sys.executable, "-m", "tailrace", "serve", *options)


@pytest.fixture(scope="session")
def chat_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the tests that leave it as it is."""
    with serve(tmp_path_factory.mktemp("chat")) as server:
        yield server
