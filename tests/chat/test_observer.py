"""What is counted of a turn."""

from __future__ import annotations

from dataclasses import replace

from tailrace.chat.journal import Journal
from tailrace.chat.models.base import Usage
from tailrace.chat.observer import Observer
from tailrace.chat.sessions import Turn
from tailrace.chat.statistics import Statistics

TURN = Turn(1, "session", "S" * 22, None, "Hello", "m", 0.0)


def test_a_turn_is_counted_from_its_start_to_its_end() -> None:
    statistics = Statistics()
    observer = Observer(statistics, Journal())
    observer.session_created()
    watch = observer.turn_started(TURN, "127.0.0.1")
    assert (statistics.active_streams, statistics.sessions_created) == (1, 1)
    for number in range(1, 12):
        watch.chunk(number)
    assert (statistics.first_chunks.count, statistics.gaps.count) == (1, 10)
    assert watch.seconds >= statistics.first_chunks.total + statistics.gaps.total
    observer.turn_ended(replace(TURN, state="complete", chunks=11, seconds=2.0, usage=Usage(3, 4)))
    assert (statistics.active_streams, statistics.chunks, statistics.output_tokens) == (0, 11, 4)
    assert statistics.turn_seconds.mean == 2.0
