"""The transactions that begin a turn or a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from . import statements as sql
from .database import Conflict
from .records import (
    Begun,
    NewTurn,
    Session,
    SessionFull,
    SessionLimit,
    SessionNotFound,
    SessionRunning,
    Turn,
    TurnNotLast,
    to_session,
    to_turn,
)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The transaction that begins a turn. Run it again if it ends in a Conflict."""

    turn: NewTurn
    owner: str
    create: bool
    session_limit: int
    turn_limit: int
    context_turns: int

    def __call__(self, connection: Connection) -> Begun:
        """Run the transaction. Raise SessionLimit, SessionNotFound, SessionFull, SessionRunning or TurnNotLast."""
        if (known := self._known(connection)) is not None:
            found = connection.execute(sql.FIND_SESSION, sql.place(known.session_id, self.owner))
            return Begun(known, to_session(found.one()), (), known)
        session, is_new = self._session(connection)
        turn = self._insert_turn(connection)
        context = self._context(connection, turn.number) if session.turns > 1 else ()
        return Begun(turn, session, context, new_session=is_new)

    def _known(self, connection: Connection) -> Turn | None:
        if (key := self.turn.idempotency_key) is None:
            return None
        row = connection.execute(sql.KNOWN, {"of_owner": self.owner, "key": key}).one_or_none()
        return None if row is None else to_turn(row)

    def _session(self, connection: Connection) -> tuple[Session, bool]:
        """Return the session with the turn added, and whether it is new."""
        new, place = self.turn, sql.place(self.turn.session_id, self.owner)
        if new.replaces is not None:
            return self._replace(connection, new.replaces), False
        change = {"turn_limit": self.turn_limit, "now": new.created, "first_title": new.title}
        row = connection.execute(sql.ADD_TO_SESSION, place | change).one_or_none()
        if row is not None:
            self._check_idle(connection)
            return to_session(row), False
        if (row := connection.execute(sql.FIND_SESSION, place).one_or_none()) is not None:
            if to_session(row).turns < self.turn_limit:
                raise Conflict(f"expected no session {new.session_id!r} yet, but another transaction has made it")
            raise SessionFull(self.turn_limit)
        if not self.create:
            raise SessionNotFound(new.session_id)
        session = Session(new.session_id, self.owner, new.title, 1, new.created, new.created)
        insert_session(connection, session, self.session_limit)
        return session, True

    def _replace(self, connection: Connection, stream_id: str) -> Session:
        """Delete the session's last turn, in whose place the new one comes. Return the session."""
        new, place = self.turn, sql.place(self.turn.session_id, self.owner)
        change = {"now": new.created, "first_title": new.title}
        # The update locks the session, so its last turn stays the last one.
        if (row := connection.execute(sql.REPLACE_IN_SESSION, place | change).one_or_none()) is None:
            raise SessionNotFound(new.session_id)
        self._check_idle(connection)
        last = connection.execute(sql.LAST_TURN, place).one_or_none()
        if last is None or last.stream_id != stream_id:
            raise TurnNotLast(stream_id, last and last.stream_id)
        connection.execute(sql.DELETE_TURN, {"of_number": last.number})
        return to_session(row)

    def _check_idle(self, connection: Connection) -> None:
        """Raise SessionRunning if another worker answers in the session, or Conflict if it answers this very message.

        The session is locked, so of two workers that get a message at once, the second one finds the turn of the first.
        """
        new = self.turn
        place = sql.place(new.session_id, self.owner) | {"own_worker": new.worker}
        running = connection.execute(sql.RUNNING_ELSEWHERE, place).one_or_none() if new.worker is not None else None
        if running is None:
            return
        if new.idempotency_key is not None and new.idempotency_key == running.idempotency_key:
            raise Conflict(f"expected an idempotency key without a turn, but got that of {running.stream_id}")
        raise SessionRunning(new.session_id, running.stream_id, running.worker)

    def _insert_turn(self, connection: Connection) -> Turn:
        new = self.turn
        values: dict[str, Any] = {
            "session_id": new.session_id,
            "stream_id": new.stream_id,
            "idempotency_key": new.idempotency_key,
            "message": new.message,
            "model": new.model,
            "created": new.created,
            "replaces": new.replaces,
            "worker": new.worker,
        }
        number = connection.execute(sql.INSERT_TURN, {**sql.BEGINNING, **values, "owner": self.owner}).scalar_one()
        return Turn(number=number, **values)

    def _context(self, connection: Connection, number: int) -> Sequence[Turn]:
        place = sql.place(self.turn.session_id, self.owner)
        rows = connection.execute(sql.TURNS_BEFORE, {**place, "number": number, "page": self.context_turns})
        return [to_turn(row) for row in reversed(rows.all())]


def insert_session(connection: Connection, session: Session, limit: int) -> None:
    """Insert a session. Raise SessionLimit if the owner has `limit` sessions."""
    adding = sql.ADD_TO_OWNER[connection.dialect.name]
    if connection.execute(adding, {"owner": session.owner, "session_limit": limit}).rowcount == 0:
        raise SessionLimit(limit)
    connection.execute(
        sql.INSERT_SESSION,
        {
            "id": session.id,
            "owner": session.owner,
            "title": session.title,
            "turns": session.turns,
            "created": session.created,
            "updated": session.updated,
        },
    )
