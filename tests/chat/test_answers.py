"""Turns whose end the database refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tailrace.chat import answers
from tailrace.chat.answers import Unstored
from tailrace.chat.settings import database_url
from tailrace.chat.store import NewTurn, Store, Turn, open_store


async def begin(store: Store, number: int) -> Turn:
    new = NewTurn(f"session-{number}", f"{number:022}", None, "Hello", "m", 0.0)
    limits = {"session_limit": 10, "turn_limit": 10, "context_turns": 10}
    return (await store.begin_turn(new, "", create=True, **limits)).turn


async def test_they_are_stored_when_it_takes_them(tmp_path: Path) -> None:
    file = tmp_path / "chat.sqlite3"
    async with open_store(database_url(str(file))) as store:
        waiting = Unstored(store)
        await waiting.store_all()
        for number in range(2):
            waiting.add(replace(await begin(store, number), state="complete", reply="kept"))
        with closing(sqlite3.connect(file)) as other:
            other.execute("ALTER TABLE tailrace_turns RENAME TO elsewhere")
            await waiting.store_all()
            assert len(waiting) == 2
            other.execute("ALTER TABLE elsewhere RENAME TO tailrace_turns")
        await waiting.store_all()
        assert len(waiting) == 0
        for number in range(2):
            turn = await store.find_turn(f"{number:022}", "")
            assert turn is not None
            assert (turn.state, turn.reply) == ("complete", "kept")


async def test_there_are_not_more_than_so_many(tmp_path: Path) -> None:
    async with open_store(database_url(str(tmp_path / "chat.sqlite3"))) as store:
        waiting = Unstored(store)
        for number in range(answers.MAX_UNSTORED + 5):
            waiting.add(Turn(number, "s", f"{number:022}", None, "Hello", "m", 0.0))
        assert len(waiting) == answers.MAX_UNSTORED
