"""The entry point of `tailrace`. It imports everything else only after it can handle Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 plus the number of the signal, as in a shell."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process, and return the exit status."""
    try:
        from .commands import run

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
