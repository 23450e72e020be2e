"""A command of `tailrace`: its options, its failures, and its notices on the standard error."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .text import safe_line

if TYPE_CHECKING:
    from ..client import Loss


@dataclass(frozen=True, slots=True)
class Command:
    """`tailrace NAME`.

    - `summary`: its line in the list of commands.
    - `configure`: a function that adds its options to a parser. It runs for every command, and so does the import of
      its module, so both must be quick.
    - `run`: a function that runs the command and returns the exit status. It raises CommandError if it fails.
    """

    name: str
    summary: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


class CommandError(Exception):
    """A command failed while it ran. The text is one line for the user."""

    status = 1


class UsageError(CommandError):
    """The command line is wrong, or it needs something that the user can provide."""

    status = 2


def say(text: str) -> None:
    """Print a line on the standard error. Ignore errors if nobody can read it."""
    if sys.stderr is None:  # closed; `print` would then write to the standard output
        return
    try:
        print(safe_line(text), file=sys.stderr, flush=True)
    except OSError:
        return


class Notices:
    """Prints notices about a command's work, unless the user wants none."""

    def __init__(self, command: str, *, quiet: bool) -> None:
        self._command = command
        self._is_quiet = quiet

    def tell(self, text: str) -> None:
        if not self._is_quiet:
            say(f"tailrace {self._command}: {text}")

    def tell_degraded(self, degraded: bool) -> None:
        # The events that follow show that this is over. The client also says so when the connection has ended.
        if degraded:
            self.tell("the server cannot reach its store; events may be late")

    def tell_reconnect(self, attempt: int, delay: float, loss: Loss) -> None:
        number = "" if attempt == 1 else f" (attempt {attempt})"
        self.tell(f"{loss}; reconnecting in {delay:.1f} s{number}")
