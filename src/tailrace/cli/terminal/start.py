"""Start a chat, or send one message, and turn its end into an exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from socket import gaierror
from typing import Any
from urllib.parse import urlsplit

from ..command import CommandError
from .tty import interruptible

# The exit statuses of programs that a signal ended: 128 plus its number, as in a shell.
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

KNOCK_SECONDS = 5.0
"""The seconds in which a server must accept a connection."""

PROXIES = ("all_proxy", "http_proxy", "https_proxy")


def chat(url: str, key: str | None, session_id: str | None) -> int:
    """Chat on the terminal, and return the exit status. Raise CommandError if there is no server."""
    return _run(_chat(url, key, session_id))


def send(url: str, key: str | None, session_id: str | None, message: str, *, json: bool) -> int:
    """Send one message, print the reply, and return the exit status. Raise CommandError if there is no server."""
    return _run(_send(url, key, session_id, message, json=json))


def _run(work: Coroutine[Any, Any, int]) -> int:
    if sys.stderr is None:
        # Otherwise notices would appear between the lines of the reply.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        # Replace characters that the terminal cannot show.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return asyncio.run(work)
    except BrokenPipeError:  # pragma: no cover - Python 3.11 no longer traces here
        _forget_output()
        return BROKEN_PIPE
    except OSError as error:  # pragma: no cover - for the same reason
        # This is an error of the output: errors of the connection are no OSErrors.
        _forget_output()
        raise CommandError(f"cannot write to the output: {error.strerror}") from None


def _forget_output() -> None:  # pragma: no cover - for the same reason
    """Discard buffered output, because flushing it at exit would raise the error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _chat(url: str, key: str | None, session_id: str | None) -> int:
    from .dialogue import Dialogue, fitting_output

    await knock(url)
    with fitting_output():
        running = asyncio.create_task(Dialogue(url, key, session_id).run())
    # Handle SIGTERM, which would otherwise leave the terminal without echo.
    with interruptible(running.cancel, signal.SIGTERM):
        await asyncio.wait([running])
    if running.cancelled():
        return TERMINATED
    running.result()
    return 0


async def _send(url: str, key: str | None, session_id: str | None, message: str, *, json: bool) -> int:
    from .conversation import Conversation
    from .server import connected
    from .state import State
    from .view import JSONView, make_console, view_for

    await knock(url)
    view = JSONView(sys.stdout, sys.stderr) if json else view_for(make_console())
    async with connected(url, key, in_chat=False) as server:
        conversation = Conversation(server, view, State(session_id))
        ended = await conversation.ask(message, once=True)
    if conversation.interrupted:
        return INTERRUPTED
    return 0 if ended == "complete" else 1


async def knock(url: str) -> None:
    """Raise CommandError unless something accepts connections at a URL. Behind a proxy, only a request can tell."""
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        # Import it here, because few users need it.
        from ...client.environment import proxy_for

        if proxy_for(url) is not None:
            return
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(KNOCK_SECONDS):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
            )
    except (OSError, UnicodeError, TimeoutError) as error:
        raise CommandError(f"no server at {url} ({why(error)}): start one with: tailrace serve") from None
    writer.close()


def why(error: Exception) -> str:
    """Return in plain words why there is no connection."""
    if isinstance(error, gaierror | UnicodeError):
        return "there is no such host"
    if isinstance(error, TimeoutError):
        return f"no response in {KNOCK_SECONDS:g} s"
    # If several addresses fail for different reasons, asyncio's error has no number.
    number = getattr(error, "errno", None)
    return "no connection" if number is None else os.strerror(number)
