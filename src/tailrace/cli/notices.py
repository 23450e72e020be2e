"""What is said beside the output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .terminal.safe import safe_line

if TYPE_CHECKING:
    from ..client import Loss


def say(text: str) -> None:
    """A line on the standard error, which nobody has to read."""
    if sys.stderr is None:  # closed; for `print` that is the standard output
        return
    try:
        print(safe_line(text), file=sys.stderr, flush=True)
    except OSError:
        return


class Notices:
    """What a command says of its work, unless nobody wants to know."""

    def __init__(self, command: str, *, quiet: bool) -> None:
        self._command = command
        self._is_quiet = quiet

    def tell(self, text: str) -> None:
        if not self._is_quiet:
            say(f"tailrace {self._command}: {text}")

    def tell_reconnect(self, attempt: int, delay: float, loss: Loss) -> None:
        again = "" if attempt == 1 else f" (attempt {attempt})"
        self.tell(f"{loss}; connecting again in {delay:.1f} s{again}")
