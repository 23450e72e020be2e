"""Transcripts of a terminal: commands behind `$`, and what they print. They are run again and compared.

Ids, epochs, dates and delays differ from run to run. They are compared by the order in which they appear, and the ids
that a transcript shows are replaced by those that a run has got, so that a later command can name an earlier stream.
A command of which no output is shown is run, and must succeed. One that sets a variable sets it for those that follow.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ADDRESS = "127.0.0.1:8000"

# A stream's id, or the epoch in a cursor.
_ID = re.compile(
    r"(?<![A-Za-z0-9_-])(?:chatcmpl-)?([A-Za-z0-9_-]{22})(?![A-Za-z0-9_-])|(?<=[a-z0-9_-]\.)([A-Za-z0-9_-]{8})(?=\.\d)",
    re.IGNORECASE,
)
_VOLATILE = [
    (re.compile(r"^date: .*$", re.MULTILINE), "date: …"),
    (re.compile(r'"created":\d+'), '"created":…'),
    (re.compile(r'\bretry(": ?|: )\d+'), r"retry\1…"),
    (re.compile(r'"timestamp":"[^"]*"'), '"timestamp":"…"'),
    (re.compile(r'"session_id":"[0-9a-f-]{36}"'), '"session_id":"…"'),
]

_ASSIGNMENT = re.compile(r"(\w+)=\$\(")


@dataclass(frozen=True)
class Command:
    """A command line and the output that is shown for it."""

    line: str
    output: str


def read_transcript(text: str) -> list[Command]:
    """The commands of a transcript; a line that ends in a backslash goes on in the next one."""
    commands = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        end = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\"))
        commands.append(Command("\n".join(lines[:end]), "\n".join(lines[end:])))
    return commands


@dataclass
class Session:
    """Runs commands against the server at `address`, and remembers which id stands for which."""

    folder: Path
    address: str = ADDRESS
    ids: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.check(command)

    def check(self, command: Command) -> None:
        if (assigned := _ASSIGNMENT.match(command.line)) is not None:
            self.variables[assigned[1]] = self._execute(f'{command.line}; printf %s "${assigned[1]}"')
            return
        printed = self._execute(command.line).replace(self.address, ADDRESS)
        if not command.output.strip():
            return
        shown = command.output
        self.ids.update(zip(_ids(shown), _ids(printed), strict=False))
        expected = self._replaced(shown)
        same = _comparable(printed) == _comparable(expected)
        assert same, f"{command.line}\nexpected:\n{expected}\nbut got:\n{printed}"

    def _execute(self, line: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", "-c", self._replaced(line).replace(ADDRESS, self.address)],
            cwd=self.folder,
            env={**os.environ, **self.variables, "PATH": path},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        # 18 is curl's word for a body that broke off, which is what some commands show.
        assert result.returncode in (0, 18), f"{line}\n{result.stderr}"
        return result.stdout

    def _replaced(self, text: str) -> str:
        for shown, actual in self.ids.items():
            text = text.replace(shown, actual)
        return text


def _ids(text: str) -> list[str]:
    return [match[1] or match[2] for match in _ID.finditer(text)]


def _comparable(text: str) -> list[str]:
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return [line.rstrip() for line in text.strip().split("\n")]
