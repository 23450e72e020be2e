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
from tests.cli.tails import Run
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


USAGE = {
    "localhost:80/": "argument URL: expected an address with http://, https://, ws:// or wss://, but got",
    "http://a:99999/": "argument URL: expected an address with http://",
    "http://a/ b": "argument URL: expected an address with http://",
    "http://[a": "argument URL: expected an address with http://",
    "http://a --max 0": "argument --max: expected a whole number above 0, but got '0'",
    "http://a --idle -1": "argument --idle: expected seconds above 0, but got '-1'",
    "http://a --idle soon": "argument --idle: expected seconds above 0, but got 'soon'",
    "http://a --header x": "argument --header: expected 'Name: value' in ASCII, but got 'x'",
    "http://a --header x:é": "argument --header: expected 'Name: value' in ASCII, but got 'x:é'",
    "http://a --after é": "argument --after: expected printable ASCII, but got 'é'",
    "http://a --idempotency-key \n": "argument --idempotency-key: expected printable ASCII, but got '\\n'",
    "http://a --method (": "argument --method: expected a method like POST, but got '('",
    "http://a --method head": "argument --method: expected a method that is answered with events, but got HEAD",
    "http://a --data @": "argument --data: expected @FILE, but got @ alone",
    "http://a --retries -1": "argument --retries: expected a whole number, but got '-1'",
    "http://a --max-bytes 1M": "argument --max-bytes: expected a whole number above 0, but got '1M'",
    "http://a --header Content-Length:3": "argument --header: expected a header of the request, but got Content-Length",
    "http://a --header Transfer-Encoding:x": "argument --header: expected a header of the request, but got Transfer-",
    "ws://a --header Sec-WebSocket-Key:x": "argument --header: expected a header of the request, but got Sec-",
    "http://a --header Upgrade:x": "argument --header: expected a header of the request, but got Upgrade",
    "": "the following arguments are required: URL",
}


@pytest.mark.parametrize("line", USAGE)
async def test_a_wrong_command_line_is_one_line(run: Run, line: str) -> None:
    status, out, err = await run(*(line.replace("/ b", "/\tb").split(" ") if line else []))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"tailrace tail: {USAGE[line]}")
