"""The terminal while no prompt reads from it: keep the user's input, and handle Ctrl-C and Ctrl-Z."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOCAL = 3
"""The index of the local modes in the list from termios."""


@contextmanager
def unseen() -> Iterator[None]:
    """Keep the user's input without showing it, and let Ctrl-C send a signal."""
    try:
        import termios
    except ModuleNotFoundError:  # pragma: no cover - Windows shows nothing that is typed while nobody reads
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = [*before]
    # Without NOFLSH, Ctrl-C would discard the input before it.
    quiet[LOCAL] = quiet[LOCAL] & ~(termios.ECHO | termios.ICANON) | termios.NOFLSH
    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def interruptible(act: Callable[[], object], by: int = signal.SIGINT) -> Iterator[None]:
    """Call `act` in the event loop when Ctrl-C is pressed, or when another signal arrives."""
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        loop.call_soon_threadsafe(act)

    before = signal.signal(by, handle)
    try:
        yield
    finally:
        signal.signal(by, before)


@contextmanager
def suspendable(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-Z suspend the program, and restore the terminal's modes when it continues."""
    if not hasattr(signal, "SIGTSTP"):  # pragma: no cover - Windows suspends nothing
        yield
        return

    def suspend() -> None:
        before()
        modes = _modes()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        # The program continues here after `fg`.
        signal.signal(signal.SIGTSTP, handler)
        if modes is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, modes)
        after()

    with interruptible(suspend, signal.SIGTSTP):
        yield


def _modes() -> list[Any] | None:
    """Return the modes of the user's terminal, or None if the input is not a terminal."""
    import termios

    return termios.tcgetattr(sys.stdin.fileno()) if sys.stdin is not None and sys.stdin.isatty() else None
