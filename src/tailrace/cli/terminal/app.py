"""A chat on a terminal, as its commands see it, and its connection with the server."""

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
"""How long the completion of an id may take to ask the server."""


class App:
    """A chat with the server at `url`. It ends once `leaving` is set; `is_silent` until something is said."""

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
        """Wait until the server can be asked something."""
        return await self._connection.server()

    async def model(self) -> str:
        """Ask the server for the name of its model. Unlike `/`, the statistics need the API key."""
        server = await self.server()
        return (await server.chat.stats()).model

    async def greeting(self) -> tuple[str, str]:
        """A line that says whether the server can be used, and its style."""
        server = await self.server()
        from .server import ERRORS

        try:
            return f"connected · {await self.model()}", "dim"
        except ERRORS as error:
            return server.wording.sentence(error), "red"

    async def conversation(self) -> Conversation:
        """A conversation in the current session, or in a new one."""
        server = await self.server()
        from .conversation import Conversation
        from .view import view_for

        return Conversation(server, view_for(self.console), self.state)

    async def open(self, session_id: str) -> None:
        """Make a session the current one, say what it is, and show the reply that it may be generating."""
        server = await self.server()
        found = await server.chat.session(session_id, limit=1)
        self.state.session_id = found.session_id
        messages = count(found.message_count, "message")
        self.say(f"Continuing {short(session_id)}: {messages}, {found.title or 'no title'}.")
        if found.stream_id is not None:
            conversation = await self.conversation()
            await conversation.join(found.stream_id)


class Connection:
    """Makes the server that the chat talks with, behind the prompt.

    It imports what talking needs, which takes longer than the prompt: nobody should wait for that before typing.
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
            # A thread that imports cannot be stopped.
            await asyncio.wait([self._making])
        await self._stack.aclose()

    def begin(self) -> None:
        """Start making the server, unless that has begun."""
        if self._making is None:
            self._making = asyncio.create_task(self._make())

    async def server(self) -> Server:
        """Wait for the server."""
        self.begin()
        assert self._making is not None
        # One who stops waiting must not cancel it for the others.
        return await asyncio.shield(self._making)

    async def sessions(self) -> AsyncIterator[Session]:
        """The sessions that the server lists within COMPLETION_SECONDS, the last used first."""
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
