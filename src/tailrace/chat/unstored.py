"""Turns whose end the database refused."""

from __future__ import annotations

import logging

from .sessions import Turn
from .store import Store, StoreError

logger = logging.getLogger("tailrace.chat")

MOST = 1_000
"""How many are kept in memory; of more the oldest are lost, but for what had been stored while they were written."""


class Unstored:
    """Kept until the database takes them, which may have been full or away for a moment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: dict[int, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, turn: Turn) -> None:
        self._turns[turn.number] = turn
        if len(self._turns) > MOST:
            del self._turns[next(iter(self._turns))]

    async def store_all(self) -> None:
        """Try again, as long as it goes well."""
        for number, turn in tuple(self._turns.items()):
            try:
                await self._store.end_turn(turn)
            except StoreError:  # logged when it was tried first
                return
            # Another may have been dropped meanwhile to make room.
            self._turns.pop(number, None)
            logger.info("stream %s: the reply is stored now", turn.stream_id)
