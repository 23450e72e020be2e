"""The command line of an example that is a module. `tests/test_examples.py` tests that of a script."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from contextlib import closing

import httpx
import pytest

from tests.programs import serving


@pytest.mark.parametrize("module", ["tailrace.examples.streaming", "tailrace.examples.demo"])
def test_a_taken_port_is_one_clear_line_with_a_command_that_works(module: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", module, "--port", str(port)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        refusal, _, suggestion = line.partition(" Choose another: ")
        assert refusal == f"Cannot use port {port} (Address already in use)."
        assert suggestion.startswith(f"{os.path.relpath(sys.executable)} -m {module} --port ")
        with serving(*shlex.split(suggestion)) as server:
            assert server.url == f"http://127.0.0.1:{suggestion.split()[-1]}"
            assert httpx.get(server.url, timeout=30).status_code == 200


@pytest.mark.parametrize("module", ["tailrace.examples.streaming", "tailrace.examples.demo"])
def test_help_begins_with_what_the_example_is(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert f"python -m {module}\n" in result.stdout
    assert "--port PORT  default 8000; 0 picks a free port" in result.stdout
