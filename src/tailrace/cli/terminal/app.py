"""What the parts of the chat on a terminal act on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING

from .formatting import count
from .state import State, short

if TYPE_CHECKING:
    from rich.console import Console

    from .connection import Connection
    from .conversation import Conversation
    from .server import Server


class App:
    """A chat with the server at `url`. It ends once somebody has set `leaving`."""

    def __init__(self, url: str, connection: Connection, confirm: Callable[[str], Awaitable[bool]]) -> None:
        self.url = url
        self.state = State()
        self.leaving = False
        self._connection = connection
        self._confirm = confirm

    @cached_property
    def console(self) -> Console:
        from .view import make_console

        return make_console()

    def say(self, line: str, style: str = "") -> None:
        from .view import say

        say(self.console, line, style)

    async def confirm(self, question: str) -> bool:
        return await self._confirm(question)

    async def server(self) -> Server:
        """As soon as it can be asked."""
        return await self._connection.server()

    async def conversation(self) -> Conversation:
        """In the current session, or in a new one."""
        server = await self.server()
        from .conversation import Conversation
        from .view import view_for

        return Conversation(server, view_for(self.console), self.state)

    async def go_on(self, session_id: str) -> None:
        """Make a session the current one, say what it is, and read the reply that it may be writing."""
        server = await self.server()
        found = await server.chat.session(session_id, limit=1)
        self.state.session_id = found.session_id
        messages = count(found.message_count, "message")
        self.say(f"Going on with {short(session_id)}: {messages}, {found.title or 'without a title'}.")
        if found.stream_id is not None:
            conversation = await self.conversation()
            await conversation.join(found.stream_id)
