from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tailrace import __version__
from tailrace.cli.main import INTERRUPTED
from tests.cli.served import PATIENCE
from tests.serving import ROOT

INTERRUPT = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "tailrace"], [str(Path(sys.executable).parent / "tailrace")]]
)
def test_both_ways_to_call_it_say_the_version(command: list[str]) -> None:
    ended = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert ended.stdout == f"tailrace {__version__}\n"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("argparse", ["--version"]), ("httpx", ["tail", "http://127.0.0.1:1/"]), ("uvicorn", ["serve"])],
)
def test_interrupted_while_it_starts_it_says_nothing(tmp_path: Path, module: str, arguments: list[str]) -> None:
    (tmp_path / f"{module}.py").write_text(INTERRUPT)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}
    command = [sys.executable, "-m", "tailrace", *arguments]
    ended = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (INTERRUPTED, b"", b"")
