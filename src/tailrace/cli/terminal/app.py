"""The chat on a terminal: a prompt, and what is typed there.

The prompt comes first. What is only needed to talk with the server is loaded behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TYPE_CHECKING

from .commands import run_command
from .formatting import count
from .input import Input
from .quiet import interruptible, unseen
from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from .conversation import Conversation
    from .server import Server

PATIENCE = 2.0
"""Seconds for which a completion may ask the server."""

LISTED = 200
"""Sessions whose ids are known for completion and for beginnings of ids."""


class App:
    """One run of `tailrace chat` on a terminal. `server` and `conversation` are there while something is done."""

    server: Server
    conversation: Conversation

    def __init__(self, url: str, key: str | None, session_id: str | None = None) -> None:
        self.url = url
        self.state = State(session_id)
        self.leaving = False
        self._key = key
        self._input = Input(self._completions, self._load)
        self._loading: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    @cached_property
    def console(self) -> Console:
        from .view import make_console

        return make_console()

    def say(self, line: str, style: str = "") -> None:
        from .view import say

        say(self.console, line, style)

    async def confirm(self, question: str) -> bool:
        return await self._input.confirm(question)

    async def run(self) -> None:
        """Until the user leaves."""
        print(f"tailrace chat · {self.url}\n/help lists the commands, Alt-Enter begins a new line, Ctrl-D leaves.")
        # Also between prompts: what is typed there would be drawn where the next one begins, and Ctrl-C never leaves.
        with unseen(), interruptible(lambda: None):
            await self._talk()

    async def _talk(self) -> None:
        async with self._stack:
            line: str | None = "" if self.state.session_id is None else f"/open {self.state.session_id}"
            while line is not None:
                await self._obey(line)
                line = None if self.leaving else await self._read()

    async def go_on(self) -> None:
        """Say what the session is, and read the reply that it may be writing."""
        assert self.state.session_id is not None
        found = await self.server.chat.session(self.state.session_id, limit=1)
        messages = count(found.message_count, "message")
        self.say(f"Going on with {found.session_id}: {messages}, {found.title or 'without a title'}.")
        if found.stream_id is not None:
            await self.conversation.join(found.stream_id)

    async def session_ids(self) -> AsyncIterator[str]:
        """Those that were used last."""
        number = 0
        async for session in self.server.chat.sessions(LISTED):
            yield session.session_id
            if (number := number + 1) == LISTED:
                return

    async def message_count(self, session_id: str) -> str:
        """Of a session, if the server says it."""
        from .server import ERRORS, sentence

        try:
            return str((await self.server.chat.session(session_id, limit=1)).message_count)
        except ERRORS as error:
            return f"unknown: {sentence(error)}"

    async def _read(self) -> str | None:
        """What was typed, or None if the user leaves."""
        unsent, self.state.unsent = self.state.unsent, ""
        try:
            line = await self._input.read(self.state.name, unsent)
            # Of a terminal that does not speak UTF-8 there are bytes that cannot be sent.
            return line.encode(errors="replace").decode()
        except KeyboardInterrupt:
            self.say("Ctrl-D or /quit leaves.", "dim")
            return ""
        except EOFError:
            return None

    async def _obey(self, line: str) -> None:
        if not line:
            return
        await self._connect()
        if line.startswith("/") and not line.startswith("//"):
            await self._command(line)
        else:
            await self.conversation.ask(line.removeprefix("/") if line.startswith("//") else line)

    async def _command(self, line: str) -> None:
        """Ctrl-C gives up waiting for it."""
        running = asyncio.create_task(run_command(self, line))
        with interruptible(running.cancel):
            await asyncio.wait([running])
        if running.cancelled():
            self.say("Given up.", "yellow")
        else:
            running.result()

    async def _completions(self) -> AsyncIterator[str]:
        """The ids of sessions, or none if the server does not answer in time."""
        await self._connect()
        from .server import ERRORS

        try:
            async with asyncio.timeout(PATIENCE):
                found = [session_id async for session_id in self.session_ids()]
        except (TimeoutError, *ERRORS):
            return
        for session_id in found:
            yield session_id

    # Behind the prompt

    def _load(self) -> None:
        """Begin to load what is needed later."""
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(_import))
            self._stack.push_async_callback(asyncio.wait, [self._loading])

    async def _connect(self) -> None:
        """Be ready to talk with the server."""
        self._load()
        assert self._loading is not None
        await self._loading
        if hasattr(self, "server"):
            return
        from .conversation import Conversation
        from .server import Server
        from .view import view_for

        self.server = Server(self.url, self._key)
        await self._stack.enter_async_context(self.server)
        self.conversation = Conversation(self.server, view_for(self.console), self.state)


def _import() -> None:
    from . import conversation, markdown, view  # noqa: F401
