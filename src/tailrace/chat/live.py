"""A reply that is being written, and the question that it answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .. import Log
from .errors import KeyReused
from .turns import RunningTurn


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks; `session_id` None begins a new session, `client` is its address."""

    owner: str
    message: str
    session_id: str | None = None
    idempotency_key: str | None = None
    client: str = ""

    def check_repeats(self, message: str, session_id: str) -> None:
        """That it is the question of the turn that has its idempotency key. KeyReused if it asks something else."""
        if message != self.message or self.session_id not in (None, session_id):
            raise KeyReused


@dataclass(slots=True)
class Live:
    """A reply that is being written: its log, and the turn from the moment that it is stored.

    Nobody else reads the log before `begun`, because the turn may not come to be.
    """

    question: Question
    session_id: str
    log: Log
    turn: RunningTurn | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stream_id(self) -> str:
        return self.log.name.rpartition("/")[2]
