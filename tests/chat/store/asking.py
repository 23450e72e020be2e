"""Turns for tests of the store."""

from __future__ import annotations

from itertools import count
from typing import Any

from tailrace.chat.store import Begun, NewTurn, Store

_streams = count(1)


def asks(
    session_id: str = "s",
    message: str = "hello",
    *,
    key: str | None = None,
    now: float = 1000.5,
    replaces: str | None = None,
    worker: str | None = None,
) -> NewTurn:
    return NewTurn(
        session_id=session_id,
        stream_id=f"stream-{next(_streams)}",
        idempotency_key=key,
        message=message,
        model="demo",
        created=now,
        replaces=replaces,
        worker=worker,
    )


async def begin(store: Store, turn: NewTurn, owner: str = "ann", *, create: bool = False, **limits: int) -> Begun:
    options: dict[str, Any] = {"session_limit": 1000, "turn_limit": 1000, "context_turns": 50, **limits}
    return await store.begin_turn(turn, owner, create=create, **options)
