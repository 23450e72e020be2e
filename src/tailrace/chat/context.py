"""What of a conversation the model is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .models.base import Message
from .store import Turn


@dataclass(frozen=True, slots=True)
class Context:
    """The messages for the model, the new one last, and how many older ones did not fit."""

    messages: Sequence[Message]
    dropped: int

    def describe(self) -> str:
        """One line for the user."""
        kept = len(self.messages)
        dropped = f"; the {self.dropped} oldest did not fit" if self.dropped else ""
        return f"Generating response… ({kept} message{'s' if kept > 1 else ''} in context{dropped})"


def fit_context(
    turns: Sequence[Turn], message: str, *, earlier: int, max_messages: int, max_characters: int
) -> Context:
    """As many of the newest turns, whole, as fit beside the message; the message itself always goes.

    `turns` are the newest of the `earlier` ones that there are, in order of time. A reply without any text is left out.
    """
    messages: list[Message] = []
    size, used = len(message), 0
    for turn in reversed(turns):
        both = _messages(turn)
        size += sum(len(each.text) for each in both)
        if size > max_characters or len(messages) + len(both) + 1 > max_messages:
            break
        messages[:0] = both
        used += 1
    return Context([*messages, Message("user", message)], 2 * (earlier - used))


def _messages(turn: Turn) -> list[Message]:
    asked = Message("user", turn.message)
    return [asked, Message("assistant", turn.reply)] if turn.reply else [asked]
