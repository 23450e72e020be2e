"""Nothing that a request does reads a whole table, or sorts."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tailrace.chat.store import Store, open_store

from .asking import asks, begin


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """What SQLAlchemy executes in the block, with its parameters."""
    found: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        found.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def read_pages(store: Store) -> None:
    sessions = await store.sessions("ann", limit=1)
    turns = await store.turns("s", "ann", limit=1)
    assert sessions.next
    assert turns.next
    await store.sessions("ann", limit=1, after=sessions.next)
    await store.turns("s", "ann", limit=1, before=turns.next)


async def read_one(store: Store) -> None:
    await store.session("s", "ann")
    await store.find_turn("stream-1", "ann")
    await store.count("ann")


async def begin_turns(store: Store) -> None:
    await begin(store, asks(key="k"))
    await begin(store, asks(key="k"))
    await begin(store, asks("new"), create=True)


async def end_turns(store: Store) -> None:
    (turn,) = (await store.turns("s", "ann", limit=1)).items
    await store.checkpoint([(turn.number, "some", 1)])
    await store.end_turn(replace(turn, state="complete"))
    await store.interrupt_turns()


async def share(store: Store) -> None:
    begun = await begin(store, asks(worker="one"))
    await store.running("ann")
    await store.workers()
    await store.left_by("one")
    await store.left_by(None)
    await store.end_turn(replace(begun.turn, state="complete"))
    await begin(store, asks(worker="two"))


async def change(store: Store) -> None:
    (turn,) = (await store.turns("s", "ann", limit=1)).items
    await store.rename("s", "ann", "Name")
    await begin(store, asks(replaces=turn.stream_id))


async def search(store: Store) -> None:
    """Read the sessions in the order of their index, and the turns of each by theirs."""
    await store.search("ann", "hello", limit=1)
    await store.search("ann", "hello", limit=1, after=(await store.sessions("ann", limit=1)).next)


async def remove(store: Store) -> None:
    await store.clear("s", "ann")
    await store.delete("s", "ann")


@pytest.mark.parametrize("work", [read_pages, read_one, begin_turns, end_turns, share, change, search, remove])
async def test_an_index_is_used(tmp_path: Path, work: Callable[[Store], Awaitable[None]]) -> None:
    file = tmp_path / "chat.sqlite3"
    async with open_store(f"sqlite:///{file}") as store:
        await begin(store, asks(), create=True)
        await begin(store, asks())
        await begin(store, asks("other"), create=True)
        with statements() as found:
            await work(store)
        assert found
        with closing(sqlite3.connect(file)) as connection:
            for statement, parameters in found:
                given = parameters[0] if isinstance(parameters, list) else parameters
                plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", given)]
                assert all(is_quick(step) for step in plan), (statement, plan)


def is_quick(step: str) -> bool:
    """The index of the turns that are generating holds only these. A subquery is as quick as its own steps."""
    return step.startswith(("SEARCH ", "CORRELATED SCALAR SUBQUERY ", "LIST SUBQUERY ")) or step.endswith(
        " tailrace_turns_generating"
    )
