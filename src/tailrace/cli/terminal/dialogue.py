"""The chat on a terminal: it shows a prompt, and runs what the user types.

The prompt comes first. Meanwhile, the modules for the connection to the server are imported in the background.
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

from .app import App, Connection
from .commands import run_command
from .input import Input
from .tty import interruptible, unseen

HINT = "/help lists the commands, Alt-Enter starts a new line, Ctrl-D leaves."

PATIENCE = 2.0
"""The seconds without an answer after which a command tells the user that it waits."""


class Dialogue:
    """One run of `tailrace chat` on a terminal. With a `session_id`, it continues that session."""

    def __init__(self, url: str, key: str | None, session_id: str | None = None) -> None:
        self._connection = Connection(url, key)
        self._input = Input(self._connection.sessions, self._begin)
        self._app = App(url, self._connection, self._input.confirm)
        self._first = "" if session_id is None else f"/open {session_id}"
        # A terminal that cannot move its cursor cannot print above a prompt.
        self._greets_later = not (self._first or is_dumb_terminal())
        self._greeting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Chat until the user leaves."""
        width = max(2, get_terminal_size().columns - 1)
        for line in (f"tailrace chat · {self._app.url}", HINT):
            print(fill(line, width, break_long_words=False, break_on_hyphens=False))
        # Hold this between prompts too. Otherwise the terminal would echo input, and Ctrl-C would end the chat.
        with unseen(), interruptible(lambda: None):
            async with self._connection:
                try:
                    await self._talk()
                finally:
                    await self._end_greeting()

    async def _talk(self) -> None:
        if not self._greets_later:
            await self._command(self._first, greets=True)
        while not self._app.leaving and (line := await self._read()) is not None:
            await self._obey(line)

    async def _read(self) -> str | None:
        """Return the user's input, or None if the user leaves."""
        state = self._app.state
        unsent, state.unsent = state.unsent, ""
        try:
            line = await self._input.read(state.name, f"/{unsent}" if unsent.startswith("/") else unsent)
            # A terminal without UTF-8 may return bytes that cannot be sent.
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

    async def _command(self, line: str, *, greets: bool = False) -> None:
        """Run a command until it is done or Ctrl-C cancels it."""
        self._app.is_silent = True
        running = asyncio.create_task(self._run(line, greets=greets))
        with interruptible(running.cancel):
            await asyncio.wait([running], timeout=PATIENCE)
            if self._app.is_silent and not running.done() and not self._input.is_reading:
                self._app.say("waiting for the server; Ctrl-C cancels", "dim")
            await asyncio.wait([running])
        if running.cancelled():
            self._app.say("Cancelled.", "yellow")
        else:
            running.result()

    async def _run(self, line: str, *, greets: bool) -> None:
        if greets:
            self._app.say(*await self._app.greeting())
        try:
            if line:
                await run_command(self._app, line)
        except _errors() as error:
            server = await self._app.server()
            self._app.say(server.wording.sentence(error), "red")

    # The greeting

    def _begin(self) -> None:
        """Connect once the prompt is shown, and print the greeting above it."""
        self._connection.begin()
        if self._greeting is None and self._greets_later:
            self._greeting = asyncio.create_task(self._greet())

    async def _greet(self) -> None:
        line, style = await self._app.greeting()
        # A reply that has begun in the meantime also shows that the server works.
        if self._input.is_reading:
            await self._input.print_above(lambda: self._app.say(line, style))

    async def _end_greeting(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
            [end] = await asyncio.gather(self._greeting, return_exceptions=True)
            if isinstance(end, Exception):
                raise end


def _errors() -> tuple[type[Exception], ...]:
    """Return the errors of a server. They are imported together with it."""
    from .server import ERRORS

    return ERRORS


@contextmanager
def fitting_output() -> Iterator[None]:
    """Make everything that starts inside write plain text if the terminal cannot move its cursor."""
    if not is_dumb_terminal():
        yield
        return
    with create_app_session(output=PlainTextOutput(sys.stdout)):
        yield
