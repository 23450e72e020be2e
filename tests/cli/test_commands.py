from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from tailrace.cli.commands import COMMANDS, run
from tests.cli.served import PATIENCE

HEAVY = {"alembic", "asyncio", "httpx", "numpy", "PIL", "pydantic_ai", "rich", "sqlalchemy", "uvicorn"} | {
    "tailrace.chat",
    "tailrace.rover",
}


def test_the_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(["--help"])
    said = capsys.readouterr().out.split()
    assert {command.name for command in COMMANDS} <= set(said)


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    code = f"import sys, tailrace.cli.commands; print(*sorted({HEAVY} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert ended.stdout.split() == []


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_help_needs_no_unicode(name: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        [sys.executable, "-m", "tailrace", name, "--help"], env=env, capture_output=True, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.isascii()


def test_an_output_that_is_not_the_systems_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    with pytest.raises(SystemExit, match="0"):
        run(["--version"])
    assert output.getvalue().startswith("tailrace ")


WRONG = {
    "": "tailrace: the following arguments are required: COMMAND; see tailrace --help",
    "tail http://a --\x1b": "tailrace tail: unrecognized arguments: --␛; see tailrace tail --help",
    "tail http://a --data @/\x1b": "tailrace tail: cannot read --data from /␛: No such file or directory",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_meant_is_one_line(capsys: pytest.CaptureFixture[str], line: str) -> None:
    try:
        status = run(line.split())
    except SystemExit as end:
        status = int(str(end.code))
    assert (status, *capsys.readouterr()) == (2, "", f"{WRONG[line]}\n")
