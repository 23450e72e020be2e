"""Run the commands of a transcript again, and compare what they print. Commands stand after `$`.

Ids, epochs, dates and delays differ from run to run. Ids are matched by the order in which they appear. The ids of this
run replace those in the transcript, so a later command can name an earlier stream. A command without documented output
only has to succeed. If it sets a variable, later commands can use it.
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
    r"(?<![A-Za-z0-9_-])(?:chatcmpl-)?([A-Za-z0-9_-]{22})(?![A-Za-z0-9_-])|(?<=[a-z0-9_-]\.)([A-Za-z0-9_-]{6})(?=\.\d)",
    re.IGNORECASE,
)
_VOLATILE = [
    (re.compile(r"^date: .*$", re.MULTILINE), "date: …"),
    (re.compile(r'"created":\d+'), '"created":…'),
    (re.compile(r'\bretry(": ?|: )\d+'), r"retry\1…"),
    (re.compile(r'"(time|timestamp)":"[^"]*"'), r'"\1":"…"'),
    (re.compile(r'"session_id":"[0-9a-f-]{36}"'), '"session_id":"…"'),
]

_ASSIGNMENT = re.compile(r"(\w+)=\$\(")


@dataclass(frozen=True)
class Command:
    """A command line and its documented output."""

    line: str
    output: str


def read_transcript(text: str) -> list[Command]:
    """Return the commands of a transcript. A backslash at the end of a line continues a command."""
    commands = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        end = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\"))
        commands.append(Command("\n".join(lines[:end]), "\n".join(lines[end:])))
    return commands


@dataclass
class Session:
    """Runs commands against the server at `address`, and remembers which id replaces which."""

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
            timeout=100,
            check=False,
        )
        # curl ends with 18 if a body was cut short, and some commands show just that.
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
