from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.history import FileHistory, InMemoryHistory

from tailrace.cli.terminal.input import history_path, open_history


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_STATE_HOME": "/state", "LOCALAPPDATA": "/local"}, Path("/state")),
        ({"LOCALAPPDATA": "/local"}, Path("/local")),
        ({}, Path.home() / ".local" / "state"),
    ],
)
def test_the_history_is_where_a_system_keeps_such_things(environment: dict[str, str], folder: Path) -> None:
    assert history_path(environment) == folder / "tailrace" / "history"


def test_the_history_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "tailrace" / "history"
    assert isinstance(open_history(path), FileHistory)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(open_history(path / "no" / "folder"), InMemoryHistory)
