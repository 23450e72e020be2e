"""One question and its answer, for scripts."""

from __future__ import annotations

from .conversation import Conversation
from .reply import Ended
from .server import Server
from .state import State
from .view import View

STATUS: dict[Ended, int] = {"complete": 0, "stopped": 1, "failed": 1, "left": 1}


async def ask_once(server: Server, view: View, message: str, session_id: str | None) -> tuple[int, bool]:
    """The exit status, and whether Ctrl-C was the reason for it."""
    conversation = Conversation(server, view, State(session_id))
    ended = await conversation.ask(message, join=False)
    return STATUS[ended], conversation.interrupted
