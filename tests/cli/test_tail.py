from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tailrace.cli.main import main
from tailrace.client import Retry, Timeouts
from tailrace.wire.base import MAX_FRAME_BYTES
from tests.cli.served import PATIENCE
from tests.serving import ROOT


def test_a_closed_output_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # which is what Python makes of a closed one
    assert main(["tail", "http://127.0.0.1:1/"]) == 1
    assert capsys.readouterr().err == "tailrace tail: the standard output is closed\n"


def test_the_help_says_the_defaults(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        main(["tail", "--help"])
    said = capsys.readouterr().out
    for option, default in {
        "--retries N": Retry().limit,
        "--idle SECONDS": round(Timeouts().idle),
        "--max-bytes N": MAX_FRAME_BYTES,
    }.items():
        assert re.search(rf"^  {option} [^\[]*\[default: {default}\]$", said, re.MULTILINE)


async def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "websockets.py").write_text("raise ModuleNotFoundError(name='websockets')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    line = "tailrace tail: needs the extra client, but there is no websockets: pip install 'tailrace[client]'\n"
    command = [sys.executable, "-m", "tailrace", "tail", "http://127.0.0.1:1/"]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": path}, stderr=PIPE)
    async with asyncio.timeout(PATIENCE):
        _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (2, line)
