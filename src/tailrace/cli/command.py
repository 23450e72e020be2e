"""What a command is, and how it gives up."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """`tailrace NAME`.

    - `summary`: its line in the list of commands.
    - `configure`: adds its options to a parser. This and the import of its module are done for every command, so both
      have to be quick.
    - `run`: does it, and returns the exit status; CommandError where it cannot.
    """

    name: str
    summary: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


class CommandError(Exception):
    """Something failed while a command ran. Its text is the one line that the user sees."""

    status = 1


class UsageError(CommandError):
    """What the user asked for cannot be meant, or lacks something that the user can bring."""

    status = 2
