from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.cli.served import PATIENCE
from tests.serving import ROOT


async def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "websockets.py").write_text("raise ModuleNotFoundError(name='websockets')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    line = "tailrace tail: needs the extra client, but there is no websockets: pip install 'tailrace[client]'\n"
    command = [sys.executable, "-m", "tailrace", "tail", "http://127.0.0.1:1/"]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": path}, stderr=PIPE)
    async with asyncio.timeout(PATIENCE):
        _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (2, line)
