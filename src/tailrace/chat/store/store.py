"""The store: sessions and their turns, for the one server that uses a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Connection, bindparam, delete, func, select, tuple_, update

from ..sessions import Page, Session, Turn
from .begin import Beginning, insert_session
from .database import Database
from .errors import Conflict
from .opening import open_database
from .records import SESSION, TURN, Begun, NewTurn, storable, to_session, to_turn
from .schema import is_generating, owners, sessions, turns
from .tokens import session_place, session_token, turn_place, turn_token
from .upgrade import VERSION, upgrade

PATIENCE = 2.0
"""Seconds after which a database that says nothing counts as unreachable."""

_of_session = sessions.c.id == bindparam("session_id")
_of_owner = sessions.c.owner == bindparam("of_owner")

_SESSION = select(*SESSION).where(_of_session, _of_owner)
_SESSIONS = (
    select(*SESSION).where(_of_owner).order_by(sessions.c.updated.desc(), sessions.c.id.desc()).limit(bindparam("page"))
)
_SESSIONS_AFTER = _SESSIONS.where(
    tuple_(sessions.c.updated, sessions.c.id) < tuple_(bindparam("updated"), bindparam("id"))
)
_TURNS = (
    select(*TURN)
    .where(turns.c.session_id == bindparam("session_id"))
    .order_by(turns.c.number.desc())
    .limit(bindparam("page"))
)
_TURNS_BEFORE = _TURNS.where(turns.c.number < bindparam("number"))
_TURN = select(*TURN).where(turns.c.stream_id == bindparam("stream_id"), turns.c.owner == bindparam("of_owner"))
_COUNT = select(owners.c.sessions).where(owners.c.owner == bindparam("of_owner"))
_COUNT_ALL = select(func.coalesce(func.sum(owners.c.sessions), 0))

_is_turn = turns.c.number == bindparam("of_number")
_CHECKPOINT = (
    update(turns)
    .where(_is_turn, is_generating)  # one that ended in the meantime stays as it ended
    .values(reply=bindparam("reply"), chunks=bindparam("chunks"))
)
_END = (
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
_INTERRUPT = update(turns).where(is_generating).values(state="interrupted")
_EMPTY_SESSION = update(sessions).where(_of_session, _of_owner).values(turns=0, title="")
_DELETE_TURNS = delete(turns).where(turns.c.session_id == bindparam("session_id"))
_DELETE_SESSION = delete(sessions).where(_of_session, _of_owner)
_TAKE_FROM_OWNER = update(owners).where(owners.c.owner == bindparam("of_owner")).values(sessions=owners.c.sessions - 1)


class Store:
    """Every method can raise StoreError. None gives an owner what is another's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def place(self) -> str:
        """Where it is, for people: never with a password in it."""
        return self._database.place

    async def create_session(self, session_id: str, owner: str, now: float, *, limit: int) -> Session:
        """A session without turns. SessionLimit if the owner has `limit` sessions."""
        session = Session(id=session_id, owner=owner, title="", turns=0, created=now, updated=now)
        await self._database.write(lambda connection: insert_session(connection, session, limit))
        return session

    async def session(self, session_id: str, owner: str) -> Session | None:
        def find(connection: Connection) -> Session | None:
            row = connection.execute(_SESSION, {"session_id": storable(session_id), "of_owner": owner}).one_or_none()
            return None if row is None else to_session(row)

        return await self._database.read(find)

    async def sessions(self, owner: str, *, limit: int, after: str | None = None) -> Page[Session]:
        """A page of the sessions, the last updated first. BadToken."""
        statement, place = _SESSIONS, {"of_owner": owner, "page": limit + 1}
        if after is not None:
            updated, session_id = session_place(after)
            statement, place = _SESSIONS_AFTER, {**place, "updated": updated, "id": session_id}
        found = await self._database.read(
            lambda connection: [to_session(row) for row in connection.execute(statement, place)]
        )
        items = found[:limit]
        return Page(items, session_token(items[-1].updated, items[-1].id) if len(found) > limit else None)

    async def count(self, owner: str | None = None) -> int:
        """How many sessions an owner has, or all owners together."""

        def sum_up(connection: Connection) -> int:
            if owner is None:
                return int(connection.execute(_COUNT_ALL).scalar_one())
            return connection.execute(_COUNT, {"of_owner": owner}).scalar_one_or_none() or 0

        return await self._database.read(sum_up)

    async def turns(self, session_id: str, *, limit: int, before: str | None = None) -> Page[Turn]:
        """A page of the newest turns in order of time; `next` leads to older ones. BadToken."""
        statement, place = _TURNS, {"session_id": session_id, "page": limit + 1}
        if before is not None:
            statement, place = _TURNS_BEFORE, {**place, "number": turn_place(before)}
        found = await self._database.read(
            lambda connection: [to_turn(row) for row in connection.execute(statement, place)]
        )
        items = found[limit - 1 :: -1] if len(found) > limit else found[::-1]
        return Page(items, turn_token(items[0].number) if len(found) > limit else None)

    async def begin_turn(
        self,
        turn: NewTurn,
        owner: str,
        *,
        new_session: bool,
        session_limit: int,
        turn_limit: int,
        context_turns: int,
    ) -> Begun:
        """Insert a turn that is `generating`, with the last `context_turns` turns before it. All or nothing.

        If the owner has a turn with this idempotency key, that one is given back, and nothing is written. SessionLimit
        if the owner has `session_limit` sessions and a new one is wanted, else SessionNotFound, or SessionFull if it
        has `turn_limit` turns.
        """
        beginning = Beginning(turn, owner, new_session, session_limit, turn_limit, context_turns)
        try:
            return await self._database.write(beginning)
        except Conflict:  # the same idempotency key at the same time: now the other turn can be seen
            return await self._database.write(beginning)

    async def checkpoint(self, texts: Sequence[tuple[int, str, int]]) -> None:
        """Keep what there is of running replies: the number, the text and the chunks of each."""
        if not texts:
            return
        # In order, so that two transactions cannot wait for each other's rows.
        rows = [
            {"of_number": number, "reply": storable(text), "chunks": chunks} for number, text, chunks in sorted(texts)
        ]
        await self._database.write(lambda connection: connection.execute(_CHECKPOINT, rows) and None)

    async def end_turn(self, turn: Turn) -> None:
        """Keep how a turn ended. Nothing happens if it was removed."""
        values = {
            "of_number": turn.number,
            "state": turn.state,
            "reply": storable(turn.reply),
            "chunks": turn.chunks,
            "seconds": turn.seconds,
            "context_messages": turn.context_messages,
            "input_tokens": turn.usage and turn.usage.input_tokens,
            "output_tokens": turn.usage and turn.usage.output_tokens,
            "error_code": turn.error_code,
            "error_message": turn.error_message and storable(turn.error_message),
        }
        await self._database.write(lambda connection: connection.execute(_END, values))

    async def interrupt_turns(self) -> int:
        """How many turns an earlier server left `generating`; they are `interrupted` now."""
        return await self._database.write(lambda connection: connection.execute(_INTERRUPT).rowcount)

    async def find_turn(self, stream_id: str, owner: str) -> Turn | None:
        def find(connection: Connection) -> Turn | None:
            row = connection.execute(_TURN, {"stream_id": storable(stream_id), "of_owner": owner}).one_or_none()
            return None if row is None else to_turn(row)

        return await self._database.read(find)

    async def clear(self, session_id: str, owner: str) -> bool:
        """Remove the turns of a session, and its title with them. False if there is no such session."""

        def empty(connection: Connection) -> bool:
            if connection.execute(_EMPTY_SESSION, {"session_id": session_id, "of_owner": owner}).rowcount == 0:
                return False
            connection.execute(_DELETE_TURNS, {"session_id": session_id})
            return True

        return await self._database.write(empty)

    async def delete(self, session_id: str, owner: str) -> bool:
        """Remove a session with its turns. False if there is none."""

        def remove(connection: Connection) -> bool:
            if connection.execute(_DELETE_SESSION, {"session_id": session_id, "of_owner": owner}).rowcount == 0:
                return False
            connection.execute(_TAKE_FROM_OWNER, {"of_owner": owner})
            return True

        return await self._database.write(remove)

    async def ping(self, *, patience: float = PATIENCE) -> None:
        """StoreError if the database does not answer within so many seconds."""

        def look(connection: Connection) -> None:
            connection.execute(VERSION)

        await self._database.ping(look, patience)


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """The store at an SQLAlchemy URL (`sqlite` or `postgresql+asyncpg`), its schema brought up to date.

    The folder of a file is made. StoreError if it cannot be used; never with a password in it.
    """
    async with open_database(url) as database:
        await upgrade(database)
        yield Store(database)
