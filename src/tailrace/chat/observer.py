"""Where the life of a turn is counted and logged."""

from __future__ import annotations

import time

from .journal import Journal
from .sessions import Turn
from .statistics import Statistics


class Observer:
    """Tells the statistics and the journal what happens to turns."""

    def __init__(self, statistics: Statistics, journal: Journal) -> None:
        self._statistics = statistics
        self._journal = journal

    def session_created(self) -> None:
        self._statistics.session_created()

    def turn_started(self, turn: Turn, client: str | None) -> TurnWatch:
        self._statistics.turn_started()
        self._journal.started(turn, client=client, active_streams=self._statistics.active_streams)
        return TurnWatch(turn, self._statistics, self._journal)

    def turn_ended(self, turn: Turn) -> None:
        self._statistics.turn_ended(turn.state, turn.seconds, turn.chunks, turn.usage)
        self._journal.ended(turn, active_streams=self._statistics.active_streams)


class TurnWatch:
    """The clock of one running turn."""

    __slots__ = ("_began", "_journal", "_last", "_statistics", "_turn")

    def __init__(self, turn: Turn, statistics: Statistics, journal: Journal) -> None:
        self._turn = turn
        self._statistics = statistics
        self._journal = journal
        self._began = self._last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the turn started."""
        return time.perf_counter() - self._began

    def chunk(self, number: int) -> None:
        """A chunk comes; called for each."""
        now = time.perf_counter()
        if number == 1:
            self._statistics.first_chunk(now - self._began)
        else:
            self._statistics.gap(now - self._last)
        self._last = now
        # Of the others the journal tells nothing: asking it costs more than all else here.
        if number == 1 or number % 10 == 0:
            self._journal.chunks(self._turn, number, now - self._began)
