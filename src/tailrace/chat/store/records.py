"""What goes into a store and what comes out of it, beside `Session` and `Turn`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column

from ..models.base import Usage
from ..sessions import Session, Turn
from .schema import sessions, turns

TITLE = 80
"""How many characters of a message a session is called by."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A message that is to be answered; `created` in Unix seconds."""

    session_id: str
    stream_id: str
    idempotency_key: str | None
    message: str
    model: str
    created: float

    @property
    def title(self) -> str:
        """What its session is called, if it is the first."""
        return self.message.strip().partition("\n")[0][:TITLE].rstrip()


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn that was begun; or one that was begun before by the same idempotency key, which is `known` then.

    - `session`: after the turn was begun.
    - `context`: the turns before it, the oldest first; empty if it is known.
    """

    turn: Turn
    session: Session
    context: Sequence[Turn]
    known: Turn | None = None


# Columns in the order of the fields, so that a row becomes a record without looking at names; the usage, which is two,
# comes last.
SESSION: tuple[Column[Any], ...] = (
    sessions.c.id,
    sessions.c.owner,
    sessions.c.title,
    sessions.c.turns,
    sessions.c.created,
    sessions.c.updated,
)
TURN: tuple[Column[Any], ...] = (
    turns.c.number,
    turns.c.session_id,
    turns.c.stream_id,
    turns.c.idempotency_key,
    turns.c.message,
    turns.c.model,
    turns.c.created,
    turns.c.state,
    turns.c.reply,
    turns.c.chunks,
    turns.c.seconds,
    turns.c.context_messages,
    turns.c.error_code,
    turns.c.error_message,
    turns.c.input_tokens,
    turns.c.output_tokens,
)
_USAGE = 12


def to_session(row: Sequence[Any]) -> Session:
    return Session(*row)


def to_turn(row: Sequence[Any]) -> Turn:
    *values, input_tokens, output_tokens = row
    values.insert(_USAGE, None if input_tokens is None else Usage(input_tokens, output_tokens))
    return Turn(*values)


def storable(text: str) -> str:
    """The text without what a database refuses: NUL, and halves of characters.

    A model may send a character as two halves, one at the end of a piece and one at the beginning of the next.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", REPLACEMENT)
