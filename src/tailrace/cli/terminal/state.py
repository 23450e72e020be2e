"""What is known of a chat before there is a connection, and kept across its messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .statistics import ClientStatistics

if TYPE_CHECKING:
    from .message import Message


@dataclass
class State:
    """`session_id` is None until the first message begins a session. `unsent` is a message for the next prompt, because
    the server has perhaps not taken it; `unanswered` is one that has perhaps arrived, but of whose reply nothing came.
    """

    session_id: str | None = None
    unsent: str = ""
    unanswered: Message | None = None
    statistics: ClientStatistics = field(default_factory=ClientStatistics)

    @property
    def name(self) -> str:
        """The session as a prompt shows it."""
        return "new" if self.session_id is None else short(self.session_id)


def short(session_id: str) -> str:
    """The part of an id that is enough for people."""
    return session_id[:8]
