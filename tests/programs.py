"""Starts programs that serve, waits until they say that they listen, and ends them in every case."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

STARTED = re.compile(r"(?:running|ready) on (http://[\d.]+:\d+)")


@dataclass
class Server:
    """A running server: its address, and the lines that it has printed so far."""

    url: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)


@contextmanager
def serving(*command: str, cwd: Path | None = None, limit: float = 60.0) -> Iterator[Server]:
    """Run a command that starts a server. It listens inside the block, and ends after it."""
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield _wait_until_started(Server("", process), limit)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving_app(app: str, folder: Path) -> Iterator[Server]:
    """Run `uvicorn app` of a module in `folder` on a port that the system chooses."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--port", "0", app]
    with serving(*command, cwd=folder) as server:
        yield server


@contextmanager
def serving_chat(folder: Path) -> Iterator[Server]:
    """Run `tailrace serve` on a port that the system chooses, with a database in `folder`."""
    options = ["--port", "0", "--database", str(folder / "chat.sqlite3"), "--log-format", "json"]
    with serving(sys.executable, "-m", "tailrace", "serve", *options, cwd=folder) as server:
        yield server
        # The second signal, which follows, interrupts replies that nobody reads any more.
        server.process.terminate()


def _wait_until_started(server: Server, limit: float) -> Server:
    addresses: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        # To the end, because a full pipe would block the server.
        assert server.process.stdout is not None
        with server.process.stdout as output:
            for line in output:
                server.lines.append(line.rstrip("\n"))
                if (match := STARTED.search(line)) is not None:
                    addresses.put(match[1])
        addresses.put("")

    threading.Thread(target=listen, daemon=True).start()
    try:
        server.url = addresses.get(timeout=limit)
    except queue.Empty:
        raise AssertionError(f"expected the server to start within {limit} s, but it said {server.lines}") from None
    assert server.url, f"expected the server to start, but it ended and said {server.lines}"
    return server
