"""The store of sessions and turns, in a database of one server, or of several that share their streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from . import statements as sql
from .beginning import Beginning, insert_session
from .database import Conflict, Database, OtherStreams, Streams
from .opening import open_database, upgrade
from .records import (
    Begun,
    NewTurn,
    Page,
    Session,
    Turn,
    session_place,
    session_token,
    storable,
    to_session,
    to_turn,
    turn_place,
    turn_token,
)
from .schema import VERSION_TABLE
from .search import BATCH, RUNNING, SECONDS, Search

PATIENCE = 2.0
"""The seconds after which a database that does not answer counts as unavailable."""

CONFLICTS = 2
"""How many times a turn that could not begin, because of another transaction, is begun again."""


@dataclass(frozen=True, slots=True)
class Running:
    """A turn in progress."""

    session_id: str
    stream_id: str
    worker: str | None


RENEWAL = 6.0
"""The seconds after which all live servers know that the store of their streams has lost its data."""


class Store:
    """Stores sessions and turns. All methods can raise StoreError. None shows an owner what belongs to another."""

    def __init__(self, database: Database, streams: Streams | None = None) -> None:
        self._database = database
        self._streams = streams
        self._searching = asyncio.Semaphore(RUNNING)

    @property
    def place(self) -> str:
        """The place of the database, without a password."""
        return self._database.place

    @property
    def last_write(self) -> float:
        """The seconds since the last successful write, or since the store was opened."""
        return self._database.last_write

    async def renew(self, identity: bytes) -> None:
        """Tell servers that start from now on how to recognise the store of the streams."""
        if self._streams is not None and self._streams.identity != identity:
            streams = replace(self._streams, identity=identity)
            await self._database.renew(streams)
            self._streams = streams

    async def create_session(self, session_id: str, owner: str, now: float, *, limit: int) -> Session:
        """Insert a session without turns. Raise SessionLimit if the owner has `limit` sessions."""
        session = Session(id=session_id, owner=owner, title="", turns=0, created=now, updated=now)
        await self._database.write(lambda connection: insert_session(connection, session, limit))
        return session

    async def session(self, session_id: str, owner: str) -> Session | None:
        def find(connection: Connection) -> Session | None:
            row = connection.execute(sql.FIND_SESSION, sql.place(session_id, owner)).one_or_none()
            return None if row is None else to_session(row)

        return await self._database.read(find)

    async def sessions(self, owner: str, *, limit: int, after: str | None = None) -> Page[Session]:
        """Return a page of the sessions, the most recently updated first. Raise BadToken."""
        statement, place = sql.SESSIONS, {"of_owner": owner, "page": limit + 1}
        if after is not None:
            updated, session_id = session_place(after)
            statement, place = sql.SESSIONS_AFTER, {**place, "updated": updated, "id": session_id}
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
                return int(connection.execute(sql.COUNT_ALL).scalar_one())
            return connection.execute(sql.COUNT, {"of_owner": owner}).scalar_one_or_none() or 0

        return await self._database.read(sum_up)

    async def turns(self, session_id: str, owner: str, *, limit: int, before: str | None = None) -> Page[Turn]:
        """Return a page of the newest turns in order of time. `next` leads to older ones. Raise BadToken."""
        statement, place = sql.TURNS, {**sql.place(session_id, owner), "page": limit + 1}
        if before is not None:
            statement, place = sql.TURNS_BEFORE, {**place, "number": turn_place(before)}
        found = await self._database.read(
            lambda connection: [to_turn(row) for row in connection.execute(statement, place)]
        )
        items = found[limit - 1 :: -1] if len(found) > limit else found[::-1]
        return Page(items, turn_token(items[0].number) if len(found) > limit else None)

    async def find_turn(self, stream_id: str, owner: str) -> Turn | None:
        return await self._find(sql.FIND_TURN, {"stream_id": storable(stream_id), "of_owner": owner})

    async def known_turn(self, idempotency_key: str, owner: str) -> Turn | None:
        """Return the turn with an owner's idempotency key, or None."""
        return await self._find(sql.KNOWN, {"key": idempotency_key, "of_owner": owner})

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
        beginning = Beginning(turn, owner, create, session_limit, turn_limit, context_turns)
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
        await self._database.write(lambda connection: connection.execute(sql.CHECKPOINT, rows) and None)

    async def end_turn(self, turn: Turn) -> bool:
        """Store the end of a turn, in place of an earlier one. Return False if the turn was deleted."""
        return await self._end(sql.END, turn)

    async def interrupt_turn(self, turn: Turn) -> bool:
        """Store the end of a turn whose worker died. Return False if it was deleted, or an end is stored already."""
        return await self._end(sql.INTERRUPT_TURN, replace(turn, state="interrupted"))

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

        def write(connection: Connection) -> bool:
            found = connection.execute(statement, values).rowcount > 0
            if found:
                used = {"of_number": turn.number, "ended": turn.created + turn.seconds}
                connection.execute(sql.SESSION_USED, used)
            return found

        return await self._database.write(write)

    async def interrupt_turns(self) -> int:
        """Mark turns that an earlier server left `generating` as `interrupted`. Return their number."""
        return await self._database.write(lambda connection: connection.execute(sql.INTERRUPT).rowcount)

    async def running(self, owner: str) -> Sequence[Running]:
        """Return the turns of an owner that are `generating`."""
        return await self._database.read(
            lambda connection: [Running(*row) for row in connection.execute(sql.RUNNING, {"of_owner": owner})]
        )

    async def workers(self) -> set[str | None]:
        """Return the workers of the turns that are `generating`."""
        return await self._database.read(lambda connection: set(connection.execute(sql.WORKERS).scalars()))

    async def left_by(self, worker: str | None) -> Sequence[tuple[str, Turn]]:
        """Return the turns of a worker that are `generating`, each with its owner."""
        return await self._database.read(
            lambda connection: [
                (owner, to_turn(turn)) for owner, *turn in connection.execute(sql.LEFT, {"of_worker": worker})
            ]
        )

    async def rename(self, session_id: str, owner: str, title: str) -> Session | None:
        """Give a session a title of the user's, and return the session, or None if there is no such session."""

        def change(connection: Connection) -> Session | None:
            row = connection.execute(sql.RENAME, sql.place(session_id, owner) | {"new_name": title}).one_or_none()
            return None if row is None else to_session(row)

        return await self._database.write(change)

    async def clear(self, session_id: str, owner: str) -> tuple[Session, Sequence[str]] | None:
        """Delete the turns of a session, and the title that they gave it.

        Return the session, and the streams of deleted turns that were `generating`, so that you can stop them. Return
        None if there is no such session.
        """
        return await self._database.write(lambda connection: _empty(connection, sql.place(session_id, owner)))

    async def delete(self, session_id: str, owner: str) -> Sequence[str] | None:
        """Delete a session with its turns. Return streams as `clear` does, or None if there is no such session."""

        def remove(connection: Connection) -> Sequence[str] | None:
            place = sql.place(session_id, owner)
            if (emptied := _empty(connection, place)) is None:
                return None
            connection.execute(sql.DELETE_SESSION, place)
            connection.execute(sql.TAKE_FROM_OWNER, {"of_owner": owner})
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


def _empty(connection: Connection, place: dict[str, Any]) -> tuple[Session, Sequence[str]] | None:
    # The update locks the session, so no turn can begin in between.
    if (row := connection.execute(sql.EMPTY_SESSION, place).one_or_none()) is None:
        return None
    running = connection.execute(sql.RUNNING_IN_SESSION, place).scalars().all()
    connection.execute(sql.DELETE_TURNS, place)
    return to_session(row), running


def _touch(connection: Connection) -> None:
    connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = version_num")


@asynccontextmanager
async def open_store(url: str, *, streams: Streams | None = None) -> AsyncIterator[Store]:
    """Open the store at an SQLAlchemy URL (`sqlite` or `postgresql+asyncpg`) and upgrade its schema.

    No other server can open the store until it is closed, except for others with the same `streams`. Raise StoreError
    if it cannot be used.
    """
    async with open_database(url) as database:
        await _claim(database, streams)
        await upgrade(database)
        yield Store(database, streams)


async def _claim(database: Database, streams: Streams | None) -> None:
    until = time.monotonic() + RENEWAL
    while True:
        try:
            return await database.claim(streams)
        except OtherStreams:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(RENEWAL / 16)
