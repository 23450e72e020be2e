"""The search for sessions by the text of their titles and messages, in upper or lower case.

It reads the sessions in the order of their list, a few at a time, and needs no index: an index of all parts of all
texts would take several times the space of the texts themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, or_, select, tuple_

from .records import SESSION, TITLE_COLUMN, Session, session_place, storable, to_session
from .schema import sessions, turns

BATCH = 50
"""How many sessions one statement reads. Other work of the database can come between two statements."""

SECONDS = 1.0
"""For how long one search begins further statements."""

RUNNING = 2
"""How many statements of searches may run at once. SQLite has four threads that read."""

# Each database compares by a pattern that names both cases of a letter, because its own knowledge of cases depends on
# its locale, or covers only ASCII.


def _in_sqlite(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return and_(column.like(bindparam("like"), escape="\\"), column.op("GLOB")(bindparam("glob")))


def _in_postgresql(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.regexp_match(bindparam("regex"))


def _statements(contains: Any) -> tuple[Any, Any]:
    """Return the statements that read the first sessions, and those after a place. They tell which have the text."""
    of_session = (turns.c.owner == sessions.c.owner) & (turns.c.session_id == sessions.c.id)
    said = select(turns.c.number).where(of_session, or_(contains(turns.c.message), contains(turns.c.reply))).limit(1)
    # With an EXISTS, PostgreSQL would read the turns of all sessions.
    first = (
        select(or_(contains(TITLE_COLUMN), said.scalar_subquery().is_not(None)), *SESSION)
        .where(sessions.c.owner == bindparam("of_owner"))
        .order_by(sessions.c.updated.desc(), sessions.c.id.desc())
        .limit(BATCH)
    )
    place = tuple_(bindparam("updated"), bindparam("id"))
    return first, first.where(tuple_(sessions.c.updated, sessions.c.id) < place)


STATEMENTS = {"sqlite": _statements(_in_sqlite), "postgresql": _statements(_in_postgresql)}


@dataclass(frozen=True, slots=True)
class Search:
    """The work that reads a few sessions of an owner, and tells which of them contain a text."""

    parameters: dict[str, Any]

    @classmethod
    def of(cls, owner: str, text: str, after: str | None) -> Search:
        """Begin a search with the first session, or after the place in a token. Raise BadToken."""
        cases = [_cases(each) for each in storable(text)]
        search = cls({"of_owner": owner, "like": _like(cases), "glob": _glob(cases), "regex": _regex(cases)})
        return search if after is None else search._after(*session_place(after))

    def past(self, session: Session) -> Search:
        """Return the search that goes on after a session."""
        return self._after(session.updated, session.id)

    def __call__(self, connection: Connection) -> list[tuple[bool, Session]]:
        first, later = STATEMENTS[connection.dialect.name]
        rows = connection.execute(later if "id" in self.parameters else first, self.parameters)
        return [(matches, to_session(row)) for matches, *row in rows]

    def _after(self, updated: float, session_id: str) -> Search:
        return Search(self.parameters | {"updated": updated, "id": session_id})


def _cases(character: str) -> str:
    """Return a character and its forms in the other case, as far as those are single characters."""
    upper, lower = character.upper(), character.lower()
    forms = {character, upper, lower, upper.lower(), lower.upper()}
    return "".join(sorted(form for form in forms if len(form) == 1))


def _like(cases: list[str]) -> str:
    """Return a pattern for SQLite's LIKE. It knows the cases of ASCII, and takes any character for other letters."""
    return f"%{''.join('_' if _is_foreign(each) else _escaped(each[0]) for each in cases)}%"


def _escaped(character: str) -> str:
    return f"\\{character}" if character in "\\%_" else character


def _glob(cases: list[str]) -> str:
    """Return a pattern for SQLite's GLOB, which takes ten times as long. It is `*` if LIKE has compared everything."""
    return f"*{''.join(map(_in_glob, cases))}*" if any(map(_is_foreign, cases)) else "*"


def _in_glob(cases: str) -> str:
    return f"[{cases}]" if len(cases) > 1 or cases in "*?[" else cases


def _regex(cases: list[str]) -> str:
    """Return a regular expression for PostgreSQL."""
    return "".join(f"[{each}]" if len(each) > 1 else re.escape(each) for each in cases)


def _is_foreign(cases: str) -> bool:
    return len(cases) > 1 and not cases.isascii()
