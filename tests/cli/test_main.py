from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tailrace import __version__
from tailrace.cli.commands import COMMANDS
from tailrace.cli.main import main
from tests.cli.served import PATIENCE

HEAVY = {"alembic", "pydantic_ai", "rich", "sqlalchemy", "uvicorn", "tailrace.chat"}


def run(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return ended.stdout


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "tailrace"], [str(Path(sys.executable).parent / "tailrace")]]
)
def test_both_ways_to_call_it_say_the_version(command: list[str]) -> None:
    assert run(*command, "--version") == f"tailrace {__version__}\n"


def test_the_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out.split()
    assert {command.name for command in COMMANDS} <= set(said)


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    code = f"import sys, tailrace.cli.commands; print(*sorted({HEAVY} & set(sys.modules)))"
    assert run(sys.executable, "-c", code).split() == []


def test_no_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    said = capsys.readouterr().err
    assert said == "tailrace: the following arguments are required: COMMAND; see tailrace --help\n"
