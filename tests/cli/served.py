"""Runs `tailrace serve` as a process, and reads its log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.serving import process

PATIENCE = 30.0
"""Seconds that a test waits at most."""

SILENT = {
    **{name: "" for name in os.environ if name.startswith("TAILRACE_")},
    "GENAI_MODEL_ID": "",
    "NO_COLOR": "1",
}
"""Removes the settings of the environment: an empty variable counts as unset."""


@dataclass
class Served:
    """A server that logs JSON, one record a line; `lines` has everything that it printed so far."""

    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)

    async def line(self, part: str) -> str:
        """Wait for the next line that contains `part`."""
        async with asyncio.timeout(PATIENCE):
            while True:
                assert self.process.stdout is not None
                line = (await asyncio.to_thread(self.process.stdout.readline)).decode()
                assert line, f"expected {part!r}, but got the end of\n{''.join(self.lines)}"
                self.lines.append(line)
                if part in line:
                    return line

    async def url(self) -> str:
        """Wait until it listens, and return its address."""
        url: str = json.loads(await self.line("server_started"))["address"]
        return url

    def interrupt(self) -> None:
        """Press Ctrl-C, which a terminal sends to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    async def end(self) -> int:
        """Wait for the exit status, and read the last lines."""
        status = await asyncio.to_thread(self.process.wait, PATIENCE)
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().decode().splitlines(keepends=True)
        return status

    def records(self, event: str) -> list[dict[str, Any]]:
        said = [json.loads(line) for line in self.lines]
        return [record for record in said if record.get("event") == event]

    @property
    def text(self) -> str:
        return "".join(self.lines)


@contextmanager
def served(folder: Path, *options: str, **environment: str) -> Iterator[Served]:
    """Run a server on a free port, with its database in a folder."""
    environment = {
        **SILENT,
        "TAILRACE_PORT": "0",
        "TAILRACE_DATABASE": str(folder / "chat.sqlite3"),
        "TAILRACE_LOG_FORMAT": "json",
        **environment,
    }
    with process(["tailrace", "serve", *options], stdout=subprocess.PIPE, **environment) as server:
        yield Served(server)


class Reply:
    """Reads the objects of a reply as they arrive."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def until(self, type: str) -> dict[str, Any]:
        """Wait for the next object of a type."""
        async with asyncio.timeout(PATIENCE):
            async for line in self._lines:
                if line and (found := json.loads(line))["type"] == type:
                    return dict(found)
        raise AssertionError(f"expected an object of type {type}, but got the end")

    async def is_over(self) -> bool:
        """Whether the body ends without another object."""
        async with asyncio.timeout(PATIENCE):
            return [line async for line in self._lines if line] == []
