"""The entry point of `tailrace`. It imports the rest when it can answer Ctrl-C already."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` say, by default those of the process; its exit status."""
    try:
        from .commands import run

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
