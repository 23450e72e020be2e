"""Sessions and their turns, as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from .models.base import Usage

T = TypeVar("T")

TurnState = Literal["generating", "complete", "stopped", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation that belongs to one owner. Times are Unix seconds.

    - `owner`: the digest of an API key, or empty where there are none.
    - `title`: the beginning of its first message; empty before there is one.
    - `turns`: how many it has; each is two messages.
    """

    id: str
    owner: str
    title: str
    turns: int
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A message and its reply. `number` orders the turns of a session; `stream_id` names the stream of the reply."""

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


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of many; `next` is the token that gets the following ones, None after the last."""

    items: Sequence[T]
    next: str | None
