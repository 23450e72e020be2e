"""The transaction that begins a turn, and the one that begins a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ..sessions import Session, Turn
from .errors import SessionFull, SessionLimit, SessionNotFound
from .records import SESSION, TURN, Begun, NewTurn, to_session, to_turn
from .schema import owners, sessions, turns

# Statements are made once: SQLAlchemy finds the compiled form of one that it has seen without walking it again.

_FIND_KNOWN = select(*TURN).where(turns.c.owner == bindparam("of_owner"), turns.c.idempotency_key == bindparam("key"))
_FIND_SESSION = select(*SESSION).where(
    sessions.c.id == bindparam("session_id"), sessions.c.owner == bindparam("of_owner")
)

# The row is locked from here to the end of the transaction, so the turns of a session begin one after the other.
_ADD_TO_SESSION = (
    update(sessions)
    .where(
        sessions.c.id == bindparam("session_id"),
        sessions.c.owner == bindparam("of_owner"),
        sessions.c.turns < bindparam("turn_limit"),
    )
    .values(
        turns=sessions.c.turns + 1,
        updated=bindparam("now"),
        title=case((sessions.c.turns == 0, bindparam("first_title")), else_=sessions.c.title),
    )
    .returning(*SESSION)
)
_INSERT_SESSION = insert(sessions)
_INSERT_TURN = insert(turns).returning(turns.c.number)
_BEGINNING = {"state": "generating", "reply": "", "chunks": 0, "seconds": 0.0, "context_messages": 0}
_CONTEXT = (
    select(*TURN)
    .where(turns.c.session_id == bindparam("session_id"), turns.c.number < bindparam("number"))
    .order_by(turns.c.number.desc())
    .limit(bindparam("context_turns"))
)


def _add_to_owner(dialect: Any) -> Any:
    adding = dialect.insert(owners).values(owner=bindparam("owner"), sessions=1)
    return adding.on_conflict_do_update(
        index_elements=[owners.c.owner],
        set_={"sessions": owners.c.sessions + 1},
        where=owners.c.sessions < bindparam("session_limit"),
    )


_ADD_TO_OWNER = {"sqlite": _add_to_owner(sqlite), "postgresql": _add_to_owner(postgresql)}


@dataclass(frozen=True, slots=True)
class Beginning:
    """The work of beginning a turn: run it in a transaction, and again if it ends in a Conflict."""

    turn: NewTurn
    owner: str
    new_session: bool
    session_limit: int
    turn_limit: int
    context_turns: int

    def __call__(self, connection: Connection) -> Begun:
        """SessionLimit, SessionNotFound or SessionFull."""
        if (known := self._known(connection)) is not None:
            found = connection.execute(_FIND_SESSION, {"session_id": known.session_id, "of_owner": self.owner})
            return Begun(known, to_session(found.one()), (), known)
        session = self._new_session(connection) if self.new_session else self._session(connection)
        turn = self._insert_turn(connection)
        return Begun(turn, session, self._context(connection, turn.number) if session.turns > 1 else ())

    def _known(self, connection: Connection) -> Turn | None:
        if (key := self.turn.idempotency_key) is None:
            return None
        row = connection.execute(_FIND_KNOWN, {"of_owner": self.owner, "key": key}).one_or_none()
        return None if row is None else to_turn(row)

    def _new_session(self, connection: Connection) -> Session:
        new = self.turn
        session = Session(new.session_id, self.owner, new.title, 1, new.created, new.created)
        insert_session(connection, session, self.session_limit)
        return session

    def _session(self, connection: Connection) -> Session:
        new = self.turn
        place = {"session_id": new.session_id, "of_owner": self.owner}
        change = {"turn_limit": self.turn_limit, "now": new.created, "first_title": new.title}
        row = connection.execute(_ADD_TO_SESSION, place | change).one_or_none()
        if row is not None:
            return to_session(row)
        if connection.execute(_FIND_SESSION, place).one_or_none() is None:
            raise SessionNotFound(new.session_id)
        raise SessionFull(self.turn_limit)

    def _insert_turn(self, connection: Connection) -> Turn:
        new = self.turn
        values: dict[str, Any] = {
            "session_id": new.session_id,
            "stream_id": new.stream_id,
            "idempotency_key": new.idempotency_key,
            "message": new.message,
            "model": new.model,
            "created": new.created,
        }
        number = connection.execute(_INSERT_TURN, {**_BEGINNING, **values, "owner": self.owner}).scalar_one()
        return Turn(number=number, **values)

    def _context(self, connection: Connection, number: int) -> Sequence[Turn]:
        wanted = {"session_id": self.turn.session_id, "number": number, "context_turns": self.context_turns}
        return [to_turn(row) for row in reversed(connection.execute(_CONTEXT, wanted).all())]


def insert_session(connection: Connection, session: Session, limit: int) -> None:
    """SessionLimit if its owner has that many."""
    adding = _ADD_TO_OWNER[connection.dialect.name]
    if connection.execute(adding, {"owner": session.owner, "session_limit": limit}).rowcount == 0:
        raise SessionLimit(limit)
    connection.execute(
        _INSERT_SESSION,
        {
            "id": session.id,
            "owner": session.owner,
            "title": session.title,
            "turns": session.turns,
            "created": session.created,
            "updated": session.updated,
        },
    )
