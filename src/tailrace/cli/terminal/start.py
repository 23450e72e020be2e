"""Which kind of chat it is to be, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from socket import gaierror
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..command import CommandError
from .quiet import interruptible

if TYPE_CHECKING:
    from .wish import Wish

# As shells have it for programs that a signal has ended.
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

KNOCK_SECONDS = 5.0
"""Seconds that a server may take to accept a connection."""

PROXIES = ("all_proxy", "http_proxy", "https_proxy")


def start(wish: Wish) -> int:
    """Talk, and return the exit status; CommandError if there is no server to talk with."""
    if sys.stderr is None:
        # What is said beside a reply would be printed in it.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows another.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return asyncio.run(_chat(wish) if wish.message is None else _once(wish, wish.message))
    except BrokenPipeError:  # pragma: no cover - Python 3.11 has stopped to trace when it comes here
        _forget_output()
        return BROKEN_PIPE
    except OSError as error:  # pragma: no cover - for the same reason
        # What goes wrong with the server is none of these.
        _forget_output()
        raise CommandError(f"cannot write to the output: {error.strerror}") from None


def _forget_output() -> None:  # pragma: no cover - for the same reason
    """Python would complain of what is left when it flushes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _chat(wish: Wish) -> int:
    from .dialogue import Dialogue, fitting_output

    await knock(wish.url)
    with fitting_output():
        running = asyncio.create_task(Dialogue(wish.url, wish.key, wish.session_id).run())
    # Ended at once, the terminal would stay as the chat needs it.
    with interruptible(running.cancel, signal.SIGTERM):
        await asyncio.wait([running])
    if running.cancelled():
        return TERMINATED
    running.result()
    return 0


async def _once(wish: Wish, message: str) -> int:
    from .once import ask_once
    from .server import connected
    from .view import JSONView, make_console, view_for

    await knock(wish.url)
    view = JSONView(sys.stdout, sys.stderr) if wish.json else view_for(make_console())
    async with connected(wish.url, wish.key, in_chat=False) as server:
        status, interrupted = await ask_once(server, view, message, wish.session_id)
    return INTERRUPTED if interrupted else status


async def knock(url: str) -> None:
    """CommandError unless something accepts connections there; behind a proxy nobody can know."""
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(KNOCK_SECONDS):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
            )
    except (OSError, UnicodeError, TimeoutError) as error:
        raise CommandError(f"there is no server at {url} ({why(error)}): start one with: tailrace serve") from None
    writer.close()


def why(error: Exception) -> str:
    """Why nobody accepts a connection, without what only programmers understand."""
    if isinstance(error, gaierror | UnicodeError):
        return "there is no such host"
    if isinstance(error, TimeoutError):
        return f"no answer in {KNOCK_SECONDS:g} s"
    # Of several addresses that fail in several ways there is no number.
    number = getattr(error, "errno", None)
    return "no connection" if number is None else os.strerror(number)
