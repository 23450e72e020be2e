"""The SQL statements about sessions and turns.

Each is made only once, because SQLAlchemy finds the compiled form of a known statement faster.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text, bindparam, case, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from .records import SESSION, TURN, storable
from .schema import is_generating, owners, sessions, turns

_of_owner = sessions.c.owner == bindparam("of_owner")
_is_session = _of_owner & (sessions.c.id == bindparam("session_id"))
_in_session = (turns.c.owner == bindparam("of_owner")) & (turns.c.session_id == bindparam("session_id"))
_is_turn = turns.c.number == bindparam("of_number")

FIND_SESSION = select(*SESSION).where(_is_session)
SESSIONS = (
    select(*SESSION).where(_of_owner).order_by(sessions.c.updated.desc(), sessions.c.id.desc()).limit(bindparam("page"))
)
SESSIONS_AFTER = SESSIONS.where(
    tuple_(sessions.c.updated, sessions.c.id) < tuple_(bindparam("updated"), bindparam("id"))
)
TURNS = select(*TURN).where(_in_session).order_by(turns.c.number.desc()).limit(bindparam("page"))
TURNS_BEFORE = TURNS.where(turns.c.number < bindparam("number"))
LAST_TURN = select(turns.c.number, turns.c.stream_id).where(_in_session).order_by(turns.c.number.desc()).limit(1)
FIND_TURN = select(*TURN).where(turns.c.stream_id == bindparam("stream_id"), turns.c.owner == bindparam("of_owner"))
KNOWN = select(*TURN).where(turns.c.owner == bindparam("of_owner"), turns.c.idempotency_key == bindparam("key"))
COUNT = select(owners.c.sessions).where(owners.c.owner == bindparam("of_owner"))
COUNT_ALL = select(func.coalesce(func.sum(owners.c.sessions), 0))

# This locks the row until the end of the transaction, so the turns of a session begin one after the other.
ADD_TO_SESSION = (
    update(sessions)
    .where(_is_session, sessions.c.turns < bindparam("turn_limit"))
    .values(
        turns=sessions.c.turns + 1,
        updated=bindparam("now"),
        title=case((sessions.c.turns == 0, bindparam("first_title")), else_=sessions.c.title),
    )
    .returning(*SESSION)
)
REPLACE_IN_SESSION = (
    update(sessions)
    .where(_is_session)
    .values(
        updated=bindparam("now"),
        title=case((sessions.c.turns == 1, bindparam("first_title")), else_=sessions.c.title),
    )
    .returning(*SESSION)
)
INSERT_SESSION = insert(sessions)
INSERT_TURN = insert(turns).returning(turns.c.number)
BEGINNING = {"state": "generating", "reply": "", "chunks": 0, "seconds": 0.0, "context_messages": 0}

CHECKPOINT = (
    update(turns)
    .where(_is_turn, is_generating)  # do not change a turn that has ended in the meantime
    .values(reply=bindparam("reply"), chunks=bindparam("chunks"), worker=bindparam("worker"))
)
END = (
    update(turns)
    .where(_is_turn)
    .values(
        {
            column: bindparam(column.name)
            for column in (
                turns.c.state,
                turns.c.reply,
                turns.c.chunks,
                turns.c.seconds,
                turns.c.context_messages,
                turns.c.input_tokens,
                turns.c.output_tokens,
                turns.c.error_code,
                turns.c.error_message,
            )
        }
    )
)
INTERRUPT_TURN = END.where(is_generating)
SESSION_USED = (
    update(sessions)
    .where(
        tuple_(sessions.c.owner, sessions.c.id).in_(select(turns.c.owner, turns.c.session_id).where(_is_turn)),
        sessions.c.updated < bindparam("ended"),
    )
    .values(updated=bindparam("ended"))
)
# Turns of other workers. A worker knows which ones of its own are in progress, even if it cannot store their ends.
RUNNING_ELSEWHERE = (
    select(turns.c.stream_id, turns.c.idempotency_key, turns.c.worker)
    .where(_in_session, is_generating, turns.c.worker != bindparam("own_worker"))
    .limit(1)
)
RUNNING = select(turns.c.session_id, turns.c.stream_id, turns.c.worker).where(
    turns.c.owner == bindparam("of_owner"), is_generating
)
RUNNING_IN_SESSION = select(turns.c.stream_id).where(_in_session, is_generating)
WORKERS = select(turns.c.worker).where(is_generating)
LEFT = select(turns.c.owner, *TURN).where(
    is_generating, turns.c.worker.is_not_distinct_from(bindparam("of_worker", type_=Text))
)
INTERRUPT = update(turns).where(is_generating).values(state="interrupted")
RENAME = update(sessions).where(_is_session).values(name=bindparam("new_name")).returning(*SESSION)
EMPTY_SESSION = update(sessions).where(_is_session).values(turns=0, title="").returning(*SESSION)
DELETE_TURNS = delete(turns).where(_in_session)
DELETE_TURN = delete(turns).where(_is_turn)
DELETE_SESSION = delete(sessions).where(_is_session)
TAKE_FROM_OWNER = update(owners).where(owners.c.owner == bindparam("of_owner")).values(sessions=owners.c.sessions - 1)


def _add_to_owner(dialect: Any) -> Any:
    adding = dialect.insert(owners).values(owner=bindparam("owner"), sessions=1)
    return adding.on_conflict_do_update(
        index_elements=[owners.c.owner],
        set_={"sessions": owners.c.sessions + 1},
        where=owners.c.sessions < bindparam("session_limit"),
    )


ADD_TO_OWNER = {"sqlite": _add_to_owner(sqlite), "postgresql": _add_to_owner(postgresql)}


def place(session_id: str, owner: str) -> dict[str, Any]:
    """Return the parameters that name a session."""
    return {"session_id": storable(session_id), "of_owner": owner}
