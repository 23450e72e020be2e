"""The changes to each owner's sessions, as one stream for all clients that show a list of them."""

from __future__ import annotations

import logging
import time
from typing import Any

from .. import Engine, Log, Retention, TailraceError
from ..client import SessionChange
from .objects import facts, from_unix, members
from .store import Session, Turn

logger = logging.getLogger("tailrace.chat")

RETENTION = Retention(count=1_000, size=256 << 10, age=600.0)
"""A client that was away for longer gets a reset, and reads the list again."""


class Changes:
    """Tells the clients of each owner what happens to the owner's sessions.

    An owner has a log only from the first client that follows it until an hour after the last one has left.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def log(self, owner: str) -> Log:
        """Return the log of an owner's changes."""
        return await self._engine.log(await self._name(owner), retention=RETENTION)

    async def session(self, change: str, session: Session, stream_id: str | None = None) -> None:
        """Tell that a session was `created`, `renamed` or `cleared`, or that its turn `stream_id` began."""
        await self._tell(session.owner, change=change, **facts(session, stream_id))

    async def turn_ended(self, owner: str, turn: Turn) -> None:
        await self._tell(
            owner,
            change="turn_ended",
            session_id=turn.session_id,
            stream_id=turn.stream_id,
            state=turn.state,
            updated=from_unix(turn.created + turn.seconds),
        )

    async def deleted(self, owner: str, session_id: str) -> None:
        await self._tell(owner, change="deleted", session_id=session_id, updated=from_unix(time.time()))

    async def _tell(self, owner: str, **said: Any) -> None:
        """Write a change, if there is a log. What has happened must not fail because nobody can be told."""
        try:
            if (log := await self._engine.find(await self._name(owner))) is not None:
                told = members(SessionChange(**said))
                await log.append({name: value for name, value in told.items() if value is not None})
        except TailraceError as error:
            logger.warning("session %s: cannot tell clients of a change: %s", said["session_id"], error)

    async def _name(self, owner: str) -> str:
        # Cursors show the last part of the name. The id does not give the owner away, nor lead to another owner's log.
        return f"/sessions/changes/{await self._engine.derive_id('changes', owner)}"
