"""The terminal while nobody reads from it: what is typed waits, and Ctrl-C has a meaning."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOCAL = 3
"""Where termios keeps the local modes."""


@contextmanager
def unseen() -> Iterator[None]:
    """Keys are kept as they are typed, and Ctrl-C is heard; on a terminal that can do so."""
    try:
        import termios
    except ModuleNotFoundError:  # pragma: no cover - on Windows, which does not show what is typed when nobody reads
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = [*before]
    # Ctrl-C would throw away what was typed before it.
    quiet[LOCAL] = quiet[LOCAL] & ~(termios.ECHO | termios.ICANON) | termios.NOFLSH
    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def interruptible(act: Callable[[], object], by: int = signal.SIGINT) -> Iterator[None]:
    """What Ctrl-C does meanwhile, or another signal."""
    loop = asyncio.get_running_loop()

    def heard(*_: object) -> None:
        loop.call_soon_threadsafe(act)

    before = signal.signal(by, heard)
    try:
        yield
    finally:
        signal.signal(by, before)


@contextmanager
def suspendable(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Ctrl-Z may suspend the program meanwhile. Whoever has the terminal then may leave it another way than it was."""
    if not hasattr(signal, "SIGTSTP"):  # pragma: no cover - on Windows, where nothing is suspended
        yield
        return

    def suspend() -> None:
        before()
        modes = _modes()
        heard = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        # Going on, by `fg`.
        signal.signal(signal.SIGTSTP, heard)
        if modes is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, modes)
        after()

    with interruptible(suspend, signal.SIGTSTP):
        yield


def _modes() -> list[Any] | None:
    """Of the terminal that is typed at, if there is one."""
    import termios

    return termios.tcgetattr(sys.stdin.fileno()) if sys.stdin is not None and sys.stdin.isatty() else None
