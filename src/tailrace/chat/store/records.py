"""Sessions and turns, as rows and as records, and the tokens of their pages.

SessionLimit          the owner has as many sessions as the server allows
SessionNotFound       the owner has no such session
SessionFull           the session has as many turns as the server allows
TurnNotLast           the turn to replace is not the last one of its session
SessionRunning        another worker is answering in the session
ValueError
└── BadToken          not a token that a page gave
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, func

from ..models.base import Usage
from .schema import sessions, turns

T = TypeVar("T")

TurnState = Literal["generating", "complete", "stopped", "failed", "interrupted"]

TITLE = 80
"""The most characters of a session's first message that become its title."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation. Its id is unique among the sessions of its owner. Times are Unix seconds.

    - `owner`: the digest of an API key; empty if the server has no keys.
    - `title`: the one that the user gave, or the beginning of the first message. Empty if there is neither.
    - `turns`: the number of turns. Each is two messages.
    - `updated`: when the last reply ended. While it is generated, when it began.
    """

    id: str
    owner: str
    title: str
    turns: int
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A message and its reply. `number` orders the turns of a session; `stream_id` names the reply's stream.

    `replaces` is the stream of the turn whose place this one took, if it took one. `worker` is the process that runs
    the turn, if several share the database.
    """

    number: int
    session_id: str
    stream_id: str
    idempotency_key: str | None
    message: str
    model: str
    created: float
    state: TurnState = "generating"
    reply: str = ""
    chunks: int = 0
    seconds: float = 0.0
    context_messages: int = 0
    usage: Usage | None = None
    error_code: str | None = None
    error_message: str | None = None
    replaces: str | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. `next` is the token of the following page, or None on the last page."""

    items: Sequence[T]
    next: str | None


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A message to answer. `created` is in Unix seconds.

    `replaces` is the stream of the session's last turn, if this turn takes the place of that one. `worker` is the
    process that runs the turn, if several share the database.
    """

    session_id: str
    stream_id: str
    idempotency_key: str | None
    message: str
    model: str
    created: float
    replaces: str | None = None
    worker: str | None = None

    @property
    def title(self) -> str:
        """The title of the session if this is its first message."""
        return self.message.strip().partition("\n")[0][:TITLE].rstrip()


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn that has begun.

    - `session`: the session, this turn included.
    - `context`: the turns before this one, oldest first. Empty for a known turn.
    - `known`: the earlier turn with the same idempotency key, if there is one. If so, nothing was written.
    - `new_session`: whether the turn also began its session.
    """

    turn: Turn
    session: Session
    context: Sequence[Turn]
    known: Turn | None = None
    new_session: bool = False


class SessionLimit(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"expected fewer than {self.limit} sessions of one owner, but this one has as many"


class SessionNotFound(Exception):
    def __init__(self, session_id: str) -> None:
        super().__init__(session_id)
        self.session_id = session_id

    def __str__(self) -> str:
        return f"expected a session of this owner, but got {self.session_id!r}"


class SessionFull(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"expected fewer than {self.limit} turns in one session, but this one has as many"


class TurnNotLast(Exception):
    """`last` is the stream of the session's last turn, or None if the session has no turns."""

    def __init__(self, stream_id: str, last: str | None) -> None:
        super().__init__(stream_id, last)
        self.stream_id = stream_id
        self.last = last

    def __str__(self) -> str:
        return f"expected the stream of the session's last turn, {self.last}, but got {self.stream_id!r}"


class SessionRunning(Exception):
    """Another worker is answering in the session. `stream_id` is the stream of that reply."""

    def __init__(self, session_id: str, stream_id: str, worker: str) -> None:
        super().__init__(session_id, stream_id, worker)
        self.session_id = session_id
        self.stream_id = stream_id
        self.worker = worker

    def __str__(self) -> str:
        return f"expected that nobody answers in session {self.session_id!r}, but got the stream {self.stream_id!r}"


class BadToken(ValueError):
    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return f"expected a token that a page gave, but got {self.token[:80]!r}"


# Rows. The columns have the order of the fields, so that a row becomes a record without lookups by name. The two
# columns of the usage come last.

TITLE_COLUMN = func.coalesce(sessions.c.name, sessions.c.title)
SESSION: tuple[ColumnElement[Any], ...] = (
    sessions.c.id,
    sessions.c.owner,
    TITLE_COLUMN,
    sessions.c.turns,
    sessions.c.created,
    sessions.c.updated,
)
TURN: tuple[ColumnElement[Any], ...] = (
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
    turns.c.replaces,
    turns.c.worker,
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
    """Replace the characters that databases refuse: NUL, and halves of surrogate pairs.

    Two adjacent halves become their character, because a model may send them in two pieces.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", REPLACEMENT)


# Tokens. Each has the place of a page's last row, and is opaque to clients.

_NUMBER = Struct(">q")
_TIME = Struct(">d")


def turn_token(number: int) -> str:
    return _spell(_NUMBER.pack(number))


def turn_place(token: str) -> int:
    """Return the number in a token. Raise BadToken."""
    try:
        (number,) = _NUMBER.unpack(_read(token))
    except (ValueError, StructError) as error:
        raise BadToken(token) from error
    return int(number)


def session_token(updated: float, session_id: str) -> str:
    return _spell(_TIME.pack(updated) + session_id.encode())


def session_place(token: str) -> tuple[float, str]:
    """Return the time and the session's id in a token. Raise BadToken."""
    try:
        place = _read(token)
        (updated,) = _TIME.unpack_from(place)
        session_id = place[_TIME.size :].decode()
    except (ValueError, StructError) as error:
        raise BadToken(token) from error
    if "\0" in session_id:  # PostgreSQL refuses NUL
        raise BadToken(token)
    return updated, session_id


def _spell(place: bytes) -> str:
    return urlsafe_b64encode(place).decode().rstrip("=")


def _read(token: str) -> bytes:
    return urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
