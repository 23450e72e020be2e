"""A chat on a terminal, as its commands see it, and its connection to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from ..text import count, short
from .state import State

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from ...client import Session
    from .conversation import Conversation
    from .server import Server

COMPLETION_SECONDS = 2.0
"""The seconds in which the server must answer for the completion of an id."""


class App:
    """A chat with the server at `url`. It ends once `leaving` is set. `is_silent` is True until it prints something."""

    def __init__(self, url: str, connection: Connection, confirm: Callable[[str], Awaitable[bool]]) -> None:
        self.url = url
        self.state = State()
        self.leaving = False
        self.is_silent = True
        self._connection = connection
        self._confirm = confirm

    @cached_property
    def console(self) -> Console:
        from .view import make_console

        return make_console()

    def say(self, line: str, style: str = "") -> None:
        self.is_silent = False
        from .view import say

        say(self.console, line, style)

    async def confirm(self, question: str) -> bool:
        return await self._confirm(question)

    async def server(self) -> Server:
        """Wait until the server can be asked, and return it."""
        return await self._connection.server()

    async def model(self) -> str:
        """Ask the server for the name of its model. Use the statistics, because unlike `/`, they need the API key."""
        server = await self.server()
        return (await server.chat.stats()).model

    async def greeting(self) -> tuple[str, str]:
        """Return a line that tells whether the server can be used, and the line's style."""
        server = await self.server()
        from .server import ERRORS

        try:
            return f"connected · {await self.model()}", "dim"
        except ERRORS as error:
            return server.wording.sentence(error), "red"

    async def conversation(self) -> Conversation:
        """Return a conversation in the current session, or in a new one."""
        server = await self.server()
        from .conversation import Conversation
        from .view import view_for

        return Conversation(server, view_for(self.console), self.state)

    async def open(self, session_id: str) -> None:
        """Make a session the current one, describe it, and show its reply in progress if it has one."""
        server = await self.server()
        found = await server.chat.session(session_id, limit=1)
        self.state.session_id = found.session_id
        messages = count(found.message_count, "message")
        self.say(f"Continuing {short(session_id)}: {messages}, {found.title or 'no title'}.")
        if found.stream_id is not None:
            conversation = await self.conversation()
            await conversation.join(found.stream_id)


class Connection:
    """Makes the chat's server in the background, while the user sees the prompt.

    The necessary imports take longer than showing the prompt, and users should not wait for them before they type.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._key = key
        self._stack = AsyncExitStack()
        self._making: asyncio.Task[Server] | None = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._making is not None:
            # A thread cannot be stopped during an import.
            await asyncio.wait([self._making])
        await self._stack.aclose()

    def begin(self) -> None:
        """Start making the server, unless it has begun already."""
        if self._making is None:
            self._making = asyncio.create_task(self._make())

    async def server(self) -> Server:
        """Wait for the server and return it."""
        self.begin()
        assert self._making is not None
        # A cancelled wait must not cancel the server for the other waiters.
        return await asyncio.shield(self._making)

    async def sessions(self) -> AsyncIterator[Session]:
        """Yield the sessions that the server lists within COMPLETION_SECONDS, the most recently used first."""
        server = await self.server()
        from .server import ERRORS

        found: list[Session] = []
        with suppress(TimeoutError, *ERRORS):
            async with asyncio.timeout(COMPLETION_SECONDS):
                async for session in server.sessions():
                    found.append(session)  # noqa: PERF401 - keeps those that came in time
        for session in found:
            yield session

    async def _make(self) -> Server:
        await asyncio.to_thread(_import)
        from .server import connected

        return await self._stack.enter_async_context(connected(self._url, self._key))


def _import() -> None:
    from . import conversation, markdown, view  # noqa: F401
