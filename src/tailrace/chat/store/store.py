"""The store of sessions and turns, in a database of one server, or of several that share their streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Text, bindparam, case, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from .database import Conflict, Database
from .opening import open_database, upgrade
from .records import (
    SESSION,
    TURN,
    Begun,
    NewTurn,
    Page,
    Session,
    SessionFull,
    SessionLimit,
    SessionNotFound,
    SessionRunning,
    Turn,
    TurnNotLast,
    session_place,
    session_token,
    storable,
    to_session,
    to_turn,
    turn_place,
    turn_token,
)
from .schema import VERSION_TABLE, is_generating, owners, sessions, turns
from .search import BATCH, RUNNING, SECONDS, Search

PATIENCE = 2.0
"""The seconds after which a database that does not answer counts as unavailable."""

CONFLICTS = 2
"""How many times a turn that could not begin, because of another transaction, is begun again."""

# Make each statement only once, because SQLAlchemy finds the compiled form of a known statement faster.

_of_owner = sessions.c.owner == bindparam("of_owner")
_is_session = _of_owner & (sessions.c.id == bindparam("session_id"))
_in_session = (turns.c.owner == bindparam("of_owner")) & (turns.c.session_id == bindparam("session_id"))
_is_turn = turns.c.number == bindparam("of_number")

_SESSION = select(*SESSION).where(_is_session)
_SESSIONS = (
    select(*SESSION).where(_of_owner).order_by(sessions.c.updated.desc(), sessions.c.id.desc()).limit(bindparam("page"))
)
_SESSIONS_AFTER = _SESSIONS.where(
    tuple_(sessions.c.updated, sessions.c.id) < tuple_(bindparam("updated"), bindparam("id"))
)
_TURNS = select(*TURN).where(_in_session).order_by(turns.c.number.desc()).limit(bindparam("page"))
_TURNS_BEFORE = _TURNS.where(turns.c.number < bindparam("number"))
_LAST_TURN = select(turns.c.number, turns.c.stream_id).where(_in_session).order_by(turns.c.number.desc()).limit(1)
_TURN = select(*TURN).where(turns.c.stream_id == bindparam("stream_id"), turns.c.owner == bindparam("of_owner"))
_KNOWN = select(*TURN).where(turns.c.owner == bindparam("of_owner"), turns.c.idempotency_key == bindparam("key"))
_COUNT = select(owners.c.sessions).where(owners.c.owner == bindparam("of_owner"))
_COUNT_ALL = select(func.coalesce(func.sum(owners.c.sessions), 0))

# This locks the row until the end of the transaction, so the turns of a session begin one after the other.
_ADD_TO_SESSION = (
    update(sessions)
    .where(_is_session, sessions.c.turns < bindparam("turn_limit"))
    .values(
        turns=sessions.c.turns + 1,
        updated=bindparam("now"),
        title=case((sessions.c.turns == 0, bindparam("first_title")), else_=sessions.c.title),
    )
    .returning(*SESSION)
)
_REPLACE_IN_SESSION = (
    update(sessions)
    .where(_is_session)
    .values(
        updated=bindparam("now"),
        title=case((sessions.c.turns == 1, bindparam("first_title")), else_=sessions.c.title),
    )
    .returning(*SESSION)
)
_INSERT_SESSION = insert(sessions)
_INSERT_TURN = insert(turns).returning(turns.c.number)
_BEGINNING = {"state": "generating", "reply": "", "chunks": 0, "seconds": 0.0, "context_messages": 0}

_CHECKPOINT = (
    update(turns)
    .where(_is_turn, is_generating)  # do not change a turn that has ended in the meantime
    .values(reply=bindparam("reply"), chunks=bindparam("chunks"), worker=bindparam("worker"))
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
_INTERRUPT_TURN = _END.where(is_generating)
# Turns of other workers. A worker knows which ones of its own are in progress, even if it cannot store their ends.
_RUNNING_ELSEWHERE = (
    select(turns.c.stream_id, turns.c.idempotency_key)
    .where(_in_session, is_generating, turns.c.worker != bindparam("own_worker"))
    .limit(1)
)
_RUNNING = select(turns.c.session_id, turns.c.stream_id, turns.c.worker).where(
    turns.c.owner == bindparam("of_owner"), is_generating
)
_RUNNING_IN_SESSION = select(turns.c.stream_id).where(_in_session, is_generating)
_WORKERS = select(turns.c.worker).where(is_generating)
_LEFT = select(turns.c.owner, *TURN).where(
    is_generating, turns.c.worker.is_not_distinct_from(bindparam("of_worker", type_=Text))
)
_INTERRUPT = update(turns).where(is_generating).values(state="interrupted")
_RENAME = update(sessions).where(_is_session).values(name=bindparam("new_name")).returning(*SESSION)
_EMPTY_SESSION = update(sessions).where(_is_session).values(turns=0, title="").returning(*SESSION)
_DELETE_TURNS = delete(turns).where(_in_session)
_DELETE_TURN = delete(turns).where(_is_turn)
_DELETE_SESSION = delete(sessions).where(_is_session)
_TAKE_FROM_OWNER = update(owners).where(owners.c.owner == bindparam("of_owner")).values(sessions=owners.c.sessions - 1)


def _add_to_owner(dialect: Any) -> Any:
    adding = dialect.insert(owners).values(owner=bindparam("owner"), sessions=1)
    return adding.on_conflict_do_update(
        index_elements=[owners.c.owner],
        set_={"sessions": owners.c.sessions + 1},
        where=owners.c.sessions < bindparam("session_limit"),
    )


_ADD_TO_OWNER = {"sqlite": _add_to_owner(sqlite), "postgresql": _add_to_owner(postgresql)}


@dataclass(frozen=True, slots=True)
class Running:
    """A turn in progress."""

    session_id: str
    stream_id: str
    worker: str | None


class Store:
    """Stores sessions and turns. All methods can raise StoreError. None shows an owner what belongs to another."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._searching = asyncio.Semaphore(RUNNING)

    @property
    def place(self) -> str:
        """The place of the database, without a password."""
        return self._database.place

    @property
    def last_write(self) -> float:
        """The seconds since the last successful write, or since the store was opened."""
        return self._database.last_write

    async def create_session(self, session_id: str, owner: str, now: float, *, limit: int) -> Session:
        """Insert a session without turns. Raise SessionLimit if the owner has `limit` sessions."""
        session = Session(id=session_id, owner=owner, title="", turns=0, created=now, updated=now)
        await self._database.write(lambda connection: _insert_session(connection, session, limit))
        return session

    async def session(self, session_id: str, owner: str) -> Session | None:
        def find(connection: Connection) -> Session | None:
            row = connection.execute(_SESSION, _place(session_id, owner)).one_or_none()
            return None if row is None else to_session(row)

        return await self._database.read(find)

    async def sessions(self, owner: str, *, limit: int, after: str | None = None) -> Page[Session]:
        """Return a page of the sessions, the most recently updated first. Raise BadToken."""
        statement, place = _SESSIONS, {"of_owner": owner, "page": limit + 1}
        if after is not None:
            updated, session_id = session_place(after)
            statement, place = _SESSIONS_AFTER, {**place, "updated": updated, "id": session_id}
        found = await self._database.read(
            lambda connection: [to_session(row) for row in connection.execute(statement, place)]
        )
        items = found[:limit]
        return Page(items, session_token(items[-1].updated, items[-1].id) if len(found) > limit else None)

    async def search(self, owner: str, text: str, *, limit: int, after: str | None = None) -> Page[Session]:
        """Return a page of the sessions whose title or messages contain a text, in the order of `sessions`.

        The page ends early if the search takes too long: `next` then leads on. Raise BadToken.
        """
        search, found = Search.of(owner, text, after), list[Session]()
        deadline = time.monotonic() + SECONDS
        while True:
            async with self._searching:
                batch = await self._database.read(search)
            for matches, session in batch:
                search = search.past(session)
                if matches:
                    found.append(session)
                if len(found) == limit:
                    return Page(found, session_token(session.updated, session.id))
            if len(batch) < BATCH:
                return Page(found, None)
            if time.monotonic() >= deadline:
                return Page(found, session_token(session.updated, session.id))

    async def count(self, owner: str | None = None) -> int:
        """Return the number of sessions of an owner, or of all owners together."""

        def sum_up(connection: Connection) -> int:
            if owner is None:
                return int(connection.execute(_COUNT_ALL).scalar_one())
            return connection.execute(_COUNT, {"of_owner": owner}).scalar_one_or_none() or 0

        return await self._database.read(sum_up)

    async def turns(self, session_id: str, owner: str, *, limit: int, before: str | None = None) -> Page[Turn]:
        """Return a page of the newest turns in order of time. `next` leads to older ones. Raise BadToken."""
        statement, place = _TURNS, {**_place(session_id, owner), "page": limit + 1}
        if before is not None:
            statement, place = _TURNS_BEFORE, {**place, "number": turn_place(before)}
        found = await self._database.read(
            lambda connection: [to_turn(row) for row in connection.execute(statement, place)]
        )
        items = found[limit - 1 :: -1] if len(found) > limit else found[::-1]
        return Page(items, turn_token(items[0].number) if len(found) > limit else None)

    async def find_turn(self, stream_id: str, owner: str) -> Turn | None:
        return await self._find(_TURN, {"stream_id": storable(stream_id), "of_owner": owner})

    async def known_turn(self, idempotency_key: str, owner: str) -> Turn | None:
        """Return the turn with an owner's idempotency key, or None."""
        return await self._find(_KNOWN, {"key": idempotency_key, "of_owner": owner})

    async def begin_turn(
        self,
        turn: NewTurn,
        owner: str,
        *,
        create: bool,
        session_limit: int,
        turn_limit: int,
        context_turns: int,
    ) -> Begun:
        """Insert a turn that is `generating`, and read the last `context_turns` turns before it, in one transaction.

        If the owner has a turn with this idempotency key, return that turn and write nothing. If the session does not
        exist, make it if `create` is set, and raise SessionNotFound if not. Raise SessionLimit if the owner has
        `session_limit` sessions, SessionFull if the session has `turn_limit` turns, and SessionRunning if another
        worker answers in it.

        A turn that `replaces` another deletes that one. Raise TurnNotLast unless that is the session's last turn.
        """
        beginning = _Beginning(turn, owner, create, session_limit, turn_limit, context_turns)
        for _ in range(CONFLICTS):
            with suppress(Conflict):  # another transaction has begun the same turn or session, and is visible now
                return await self._database.write(beginning)
        return await self._database.write(beginning)

    async def checkpoint(self, texts: Sequence[tuple[int, str, int]], worker: str | None = None) -> None:
        """Store the text so far and the number of chunks of each running reply, by the number of its turn.

        `worker` is the present name of the process that runs them.
        """
        if not texts:
            return
        # Keep the order, so that two transactions cannot wait for each other's rows.
        rows = [
            {"of_number": number, "reply": storable(text), "chunks": chunks, "worker": worker}
            for number, text, chunks in sorted(texts)
        ]
        await self._database.write(lambda connection: connection.execute(_CHECKPOINT, rows) and None)

    async def end_turn(self, turn: Turn) -> bool:
        """Store the end of a turn, in place of an earlier one. Return False if the turn was deleted."""
        return await self._end(_END, turn)

    async def interrupt_turn(self, turn: Turn) -> bool:
        """Store the end of a turn whose worker died. Return False if it was deleted, or an end is stored already."""
        return await self._end(_INTERRUPT_TURN, replace(turn, state="interrupted"))

    async def _end(self, statement: Any, turn: Turn) -> bool:
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
        return await self._database.write(lambda connection: connection.execute(statement, values).rowcount > 0)

    async def interrupt_turns(self) -> int:
        """Mark turns that an earlier server left `generating` as `interrupted`. Return their number."""
        return await self._database.write(lambda connection: connection.execute(_INTERRUPT).rowcount)

    async def running(self, owner: str) -> Sequence[Running]:
        """Return the turns of an owner that are `generating`."""
        return await self._database.read(
            lambda connection: [Running(*row) for row in connection.execute(_RUNNING, {"of_owner": owner})]
        )

    async def workers(self) -> set[str | None]:
        """Return the workers of the turns that are `generating`."""
        return await self._database.read(lambda connection: set(connection.execute(_WORKERS).scalars()))

    async def left_by(self, worker: str | None) -> Sequence[tuple[str, Turn]]:
        """Return the turns of a worker that are `generating`, each with its owner."""
        return await self._database.read(
            lambda connection: [
                (owner, to_turn(turn)) for owner, *turn in connection.execute(_LEFT, {"of_worker": worker})
            ]
        )

    async def rename(self, session_id: str, owner: str, title: str) -> Session | None:
        """Give a session a title of the user's, and return the session, or None if there is no such session."""

        def change(connection: Connection) -> Session | None:
            row = connection.execute(_RENAME, _place(session_id, owner) | {"new_name": title}).one_or_none()
            return None if row is None else to_session(row)

        return await self._database.write(change)

    async def clear(self, session_id: str, owner: str) -> tuple[Session, Sequence[str]] | None:
        """Delete the turns of a session, and the title that they gave it. Return None if there is no such session.

        Return the session, and the streams of deleted turns that were `generating`, so that you can stop them.
        """
        return await self._database.write(lambda connection: _empty(connection, _place(session_id, owner)))

    async def delete(self, session_id: str, owner: str) -> Sequence[str] | None:
        """Delete a session with its turns. Return None if there is no such session, or streams as `clear` does."""

        def remove(connection: Connection) -> Sequence[str] | None:
            place = _place(session_id, owner)
            if (emptied := _empty(connection, place)) is None:
                return None
            connection.execute(_DELETE_SESSION, place)
            connection.execute(_TAKE_FROM_OWNER, {"of_owner": owner})
            return emptied[1]

        return await self._database.write(remove)

    async def ping(self, *, patience: float = PATIENCE) -> None:
        """Raise StoreError if a write fails or takes longer than `patience` seconds."""
        await self._database.ping(_touch, patience)

    async def _find(self, statement: Any, place: dict[str, str]) -> Turn | None:
        def find(connection: Connection) -> Turn | None:
            row = connection.execute(statement, place).one_or_none()
            return None if row is None else to_turn(row)

        return await self._database.read(find)


def _place(session_id: str, owner: str) -> dict[str, Any]:
    return {"session_id": storable(session_id), "of_owner": owner}


def _empty(connection: Connection, place: dict[str, Any]) -> tuple[Session, Sequence[str]] | None:
    # The update locks the session, so no turn can begin in between.
    if (row := connection.execute(_EMPTY_SESSION, place).one_or_none()) is None:
        return None
    running = connection.execute(_RUNNING_IN_SESSION, place).scalars().all()
    connection.execute(_DELETE_TURNS, place)
    return to_session(row), running


def _touch(connection: Connection) -> None:
    connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = version_num")


@dataclass(frozen=True, slots=True)
class _Beginning:
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
            found = connection.execute(_SESSION, _place(known.session_id, self.owner))
            return Begun(known, to_session(found.one()), (), known)
        session, is_new = self._session(connection)
        turn = self._insert_turn(connection)
        context = self._context(connection, turn.number) if session.turns > 1 else ()
        return Begun(turn, session, context, new_session=is_new)

    def _known(self, connection: Connection) -> Turn | None:
        if (key := self.turn.idempotency_key) is None:
            return None
        row = connection.execute(_KNOWN, {"of_owner": self.owner, "key": key}).one_or_none()
        return None if row is None else to_turn(row)

    def _session(self, connection: Connection) -> tuple[Session, bool]:
        """Return the session with the turn added, and whether it is new."""
        new, place = self.turn, _place(self.turn.session_id, self.owner)
        if new.replaces is not None:
            return self._replace(connection, new.replaces), False
        change = {"turn_limit": self.turn_limit, "now": new.created, "first_title": new.title}
        row = connection.execute(_ADD_TO_SESSION, place | change).one_or_none()
        if row is not None:
            self._check_idle(connection)
            return to_session(row), False
        if (row := connection.execute(_SESSION, place).one_or_none()) is not None:
            if to_session(row).turns < self.turn_limit:
                raise Conflict(f"expected no session {new.session_id!r} yet, but another transaction has made it")
            raise SessionFull(self.turn_limit)
        if not self.create:
            raise SessionNotFound(new.session_id)
        session = Session(new.session_id, self.owner, new.title, 1, new.created, new.created)
        _insert_session(connection, session, self.session_limit)
        return session, True

    def _replace(self, connection: Connection, stream_id: str) -> Session:
        """Delete the session's last turn, in whose place the new one comes. Return the session."""
        new, place = self.turn, _place(self.turn.session_id, self.owner)
        change = {"now": new.created, "first_title": new.title}
        # The update locks the session, so its last turn stays the last one.
        if (row := connection.execute(_REPLACE_IN_SESSION, place | change).one_or_none()) is None:
            raise SessionNotFound(new.session_id)
        self._check_idle(connection)
        last = connection.execute(_LAST_TURN, place).one_or_none()
        if last is None or last.stream_id != stream_id:
            raise TurnNotLast(stream_id, last and last.stream_id)
        connection.execute(_DELETE_TURN, {"of_number": last.number})
        return to_session(row)

    def _check_idle(self, connection: Connection) -> None:
        """Raise SessionRunning if another worker answers in the session, or Conflict if it answers this very message.

        The session is locked, so of two workers that get a message at once, the second one finds the turn of the first.
        """
        new = self.turn
        place = _place(new.session_id, self.owner) | {"own_worker": new.worker}
        running = connection.execute(_RUNNING_ELSEWHERE, place).one_or_none() if new.worker is not None else None
        if running is None:
            return
        if new.idempotency_key is not None and new.idempotency_key == running.idempotency_key:
            raise Conflict(f"expected an idempotency key without a turn, but got that of {running.stream_id}")
        raise SessionRunning(new.session_id, running.stream_id)

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
        number = connection.execute(_INSERT_TURN, {**_BEGINNING, **values, "owner": self.owner}).scalar_one()
        return Turn(number=number, **values)

    def _context(self, connection: Connection, number: int) -> Sequence[Turn]:
        place = _place(self.turn.session_id, self.owner)
        rows = connection.execute(_TURNS_BEFORE, {**place, "number": number, "page": self.context_turns})
        return [to_turn(row) for row in reversed(rows.all())]


def _insert_session(connection: Connection, session: Session, limit: int) -> None:
    """Insert a session. Raise SessionLimit if the owner has `limit` sessions."""
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


@asynccontextmanager
async def open_store(url: str, *, shared: bool = False) -> AsyncIterator[Store]:
    """Open the store at an SQLAlchemy URL (`sqlite` or `postgresql+asyncpg`) and upgrade its schema.

    No other server can open the store until it is closed, except for others with `shared`. Raise StoreError if it
    cannot be used.
    """
    async with open_database(url) as database:
        await database.claim(shared=shared)
        await upgrade(database)
        yield Store(database)
