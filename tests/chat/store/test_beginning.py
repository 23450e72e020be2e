"""Servers that share a database and begin turns in one session at the same moment, or take over from a dead one.

Each has a thread and an event loop of its own. They meet between what they read and what they write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from tailrace.chat.store import Begun, NewTurn, SessionRunning, Store, Streams, Turn, open_store
from tailrace.chat.store.beginning import Beginning
from tests.raw import BOUND

from .asking import asks, begin

T = TypeVar("T")

STREAMS = Streams(b"the same", "redis://localhost")
WORKERS = ("one", "two")

pytestmark = pytest.mark.parametrize("url", ["file", "postgresql"], indirect=True)


def on(url: str, *works: Callable[[Store], Awaitable[T]]) -> list[T]:
    """Let several servers do their work on one database at once, and return their results."""

    # The default timeout is too short for a machine that runs other tests beside these.
    patient = f"{url}{'&' if '?' in url else '?'}timeout=30"

    async def serve(work: Callable[[Store], Awaitable[T]]) -> T:
        async with open_store(patient, streams=STREAMS) as store:
            return await work(store)

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(lambda work: asyncio.run(serve(work)), works))


def ask(turn: NewTurn) -> Callable[[Store], Awaitable[Begun | SessionRunning]]:
    """Return the work of a server that is asked a question: it begins a turn, or finds that another one has."""

    async def work(store: Store) -> Begun | SessionRunning:
        try:
            return await begin(store, turn, create=True)
        except SessionRunning as running:
            return running

    return work


@pytest.fixture
def _meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two servers meet when each has looked for the turn of its key, before it writes."""
    barrier, met, known = Barrier(len(WORKERS)), set[str](), Beginning._known

    def meet(self: Beginning, connection: Connection) -> Turn | None:
        found = known(self, connection)
        if self.turn.worker in WORKERS and self.turn.stream_id not in met:
            met.add(self.turn.stream_id)
            barrier.wait(BOUND)
        return found

    monkeypatch.setattr(Beginning, "_known", meet)


@pytest.mark.usefixtures("_meeting")
@pytest.mark.parametrize("keys", [(None, None), ("a", "b"), ("a", "a")], ids=["no key", "two keys", "one key"])
@pytest.mark.parametrize("session", ["new", "idle", "replaced"])
def test_of_two_servers_that_begin_a_turn_at_once_one_does(
    url: str, session: str, keys: tuple[str | None, str | None]
) -> None:
    replaces = None
    if session == "new":
        on(url, Store.count)  # makes the tables
    else:
        [first] = on(url, ask(asks(worker="before")))
        assert isinstance(first, Begun)
        on(url, lambda store: store.interrupt_turn(first.turn))
        replaces = first.turn.stream_id if session == "replaced" else None
    turns = [asks(key=key, worker=worker, replaces=replaces) for worker, key in zip(WORKERS, keys, strict=True)]
    results = on(url, *map(ask, turns))
    [winner] = [found for found in results if isinstance(found, Begun) and found.known is None]
    results.remove(winner)
    [loser] = results
    if keys[0] is not None and keys[0] == keys[1]:
        assert isinstance(loser, Begun)
        assert loser.known == winner.turn
    else:
        assert isinstance(loser, SessionRunning)
        assert loser.stream_id == winner.turn.stream_id
    [page] = on(url, lambda store: store.turns("s", "ann", limit=9))
    assert page.items[-1] == winner.turn
    assert len(page.items) == (2 if session == "idle" else 1)


def test_of_two_servers_that_take_over_from_a_dead_one_one_does(url: str) -> None:
    [dead] = on(url, ask(asks(worker="dead")))
    assert isinstance(dead, Begun)
    barrier = Barrier(len(WORKERS))

    def take_over(worker: str) -> Callable[[Store], Awaitable[tuple[bool, Begun | SessionRunning]]]:
        async def work(store: Store) -> tuple[bool, Begun | SessionRunning]:
            left = await store.left_by("dead")
            barrier.wait(BOUND)
            assert left == [("ann", dead.turn)]
            # The end of the dead one's turn comes before the next question, also at the server that does not store it.
            interrupted = await store.interrupt_turn(dead.turn)
            barrier.wait(BOUND)
            return interrupted, await ask(asks(worker=worker))(store)

        return work

    results = on(url, *map(take_over, WORKERS))
    assert sorted(interrupted for interrupted, _ in results) == [False, True]
    [winner] = [found for _, found in results if isinstance(found, Begun)]
    [loser] = [found for _, found in results if isinstance(found, SessionRunning)]
    assert loser.stream_id == winner.turn.stream_id
    [page] = on(url, lambda store: store.turns("s", "ann", limit=9))
    assert [turn.state for turn in page.items] == ["interrupted", "generating"]
    assert page.items[-1] == winner.turn
