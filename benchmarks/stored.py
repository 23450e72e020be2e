"""A database of the chat server, filled in one transaction before the server opens it."""

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert

from benchmarks.process import Command
from tailrace.chat.access import ANYBODY
from tailrace.chat.settings import database_url
from tailrace.chat.store.opening import open_database, upgrade
from tailrace.chat.store.schema import owners, sessions, turns

MESSAGE = "How is a stream resumed after its connection was lost?"
REPLY = "Every event has an id, and whoever comes back with the last one that arrived gets what came after it. " * 4
AGO = 30.0
"""Seconds from the last change of a session to that of the next."""


def stored(command: Command, *, sessions: int, turns: int) -> Command:
    """The command of a server whose database has so many sessions of so many turns already."""

    def filling(port: int, directory: Path) -> list[str]:
        asyncio.run(fill(directory / "chat.sqlite3", sessions, turns))
        return command(port, directory)

    return filling


def session_id(number: int) -> str:
    """The name of a stored session, counted from 0."""
    return str(UUID(int=number, version=4))


async def fill(file: Path, session_count: int, turn_count: int) -> None:
    def write(connection: Connection) -> None:
        connection.execute(insert(owners), {"owner": ANYBODY, "sessions": session_count})
        connection.execute(insert(sessions), [session_row(number, turn_count, now) for number in range(session_count)])
        rows = [turn_row(number, turn, now) for number in range(session_count) for turn in range(turn_count)]
        connection.execute(insert(turns), rows)

    now = time.time()
    async with open_database(database_url(str(file))) as database:
        await upgrade(database)
        await database.write(write)


def session_row(number: int, turn_count: int, now: float) -> dict[str, Any]:
    moment = now - AGO * (number + 1)
    return {
        "id": session_id(number),
        "owner": ANYBODY,
        "title": MESSAGE,
        "turns": turn_count,
        "created": moment,
        "updated": moment,
    }


def turn_row(number: int, turn: int, now: float) -> dict[str, Any]:
    return {
        "session_id": session_id(number),
        "stream_id": f"{number:011d}{turn:011d}",
        "message": MESSAGE,
        "model": "demo",
        "created": now - AGO * (number + 1),
        "state": "complete",
        "reply": REPLY,
        "chunks": 20,
        "seconds": 2.0,
        "context_messages": 1,
        "owner": ANYBODY,
    }
