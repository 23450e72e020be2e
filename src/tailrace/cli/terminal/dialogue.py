"""The chat on a terminal: a prompt, and what is typed there.

The prompt comes first. What is only needed to talk with the server is loaded behind it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from textwrap import fill

from prompt_toolkit.application.current import create_app_session
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.utils import is_dumb_terminal

from .app import App
from .commands import run_command
from .connection import Connection
from .input import Input
from .quiet import interruptible, unseen

HINT = "/help lists the commands, Alt-Enter begins a new line, Ctrl-D leaves."


class Dialogue:
    """One run of `tailrace chat` on a terminal; with a `session_id` it goes on with that session."""

    def __init__(self, url: str, key: str | None, session_id: str | None = None) -> None:
        self._connection = Connection(url, key)
        self._input = Input(self._connection.sessions, self._connection.begin)
        self._app = App(url, self._connection, self._input.confirm)
        self._first = "" if session_id is None else f"/open {session_id}"

    async def run(self) -> None:
        """Until the user leaves."""
        width = max(2, get_terminal_size().columns - 1)
        for line in (f"tailrace chat · {self._app.url}", HINT):
            print(fill(line, width, break_long_words=False, break_on_hyphens=False))
        # Also between prompts: what is typed there would be drawn where the next one begins, and Ctrl-C never leaves.
        with unseen(), interruptible(lambda: None):
            async with self._connection:
                await self._talk()

    async def _talk(self) -> None:
        line: str | None = self._first
        while line is not None:
            await self._obey(line)
            line = None if self._app.leaving else await self._read()

    async def _read(self) -> str | None:
        """What was typed, or None if the user leaves."""
        state = self._app.state
        unsent, state.unsent = state.unsent, ""
        try:
            line = await self._input.read(state.name, f"/{unsent}" if unsent.startswith("/") else unsent)
            # Of a terminal that does not speak UTF-8 there are bytes that cannot be sent.
            return line.encode(errors="replace").decode()
        except KeyboardInterrupt:
            self._app.say("Ctrl-D or /quit leaves.", "dim")
            return ""
        except EOFError:
            return None

    async def _obey(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            await self._command(line)
        elif line:
            conversation = await self._app.conversation()
            await conversation.ask(line.removeprefix("/") if line.startswith("//") else line)

    async def _command(self, line: str) -> None:
        """Ctrl-C gives up waiting for it."""
        running = asyncio.create_task(self._run(line))
        with interruptible(running.cancel):
            await asyncio.wait([running])
        if running.cancelled():
            self._app.say("Given up.", "yellow")
        else:
            running.result()

    async def _run(self, line: str) -> None:
        try:
            await run_command(self._app, line)
        except _errors() as error:
            server = await self._app.server()
            self._app.say(server.wording.sentence(error), "red")


def _errors() -> tuple[type[Exception], ...]:
    """What can go wrong with a server. It is known when there is one."""
    from .server import ERRORS

    return ERRORS


@contextmanager
def fitting_output() -> Iterator[None]:
    """For what begins in it: a terminal that cannot even move its cursor is not told to show it."""
    if not is_dumb_terminal():
        yield
        return
    with create_app_session(output=PlainTextOutput(sys.stdout)):
        yield
