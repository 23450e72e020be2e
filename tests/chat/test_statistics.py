from __future__ import annotations

from math import inf

import pytest

from tailrace.chat.models.base import Usage
from tailrace.chat.statistics import (
    FIRST_CHUNK_BOUNDS,
    GAP_BOUNDS,
    TURN_BOUNDS,
    Histogram,
    HttpKind,
    Statistics,
    StatisticsSnapshot,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_histogram_counts_a_value_on_a_bound_below_it() -> None:
    histogram = Histogram([1, 2])
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.observe(value)
    assert list(histogram.cumulative()) == [(1, 2), (2, 4), (inf, 5)]
    assert (histogram.count, histogram.total, histogram.mean) == (5, 7.5, 1.5)


def test_an_empty_histogram_has_no_mean() -> None:
    assert Histogram([1]).mean == 0.0


@pytest.mark.parametrize("bounds", [FIRST_CHUNK_BOUNDS, GAP_BOUNDS, TURN_BOUNDS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_a_new_server_has_done_nothing() -> None:
    clock = Clock()
    statistics = Statistics(clock)
    clock.now += 2.5
    assert statistics.snapshot() == StatisticsSnapshot(
        uptime=2.5,
        requests_total=0,
        requests_successful=0,
        requests_failed=0,
        active_streams=0,
        sessions_created=0,
        average_response_time=0.0,
        chunks=0,
    )


def test_turns_are_active_until_they_end_and_counted_by_how_they_did() -> None:
    statistics = Statistics()
    for _ in range(5):
        statistics.turn_started()
    statistics.turn_ended("complete", 1.0, 10, Usage(100, 20))
    statistics.turn_ended("complete", 2.0, 20, Usage(1, 2))
    statistics.turn_ended("stopped", 3.0, 3, None)
    statistics.turn_ended("failed", 0.0, 0, None)
    assert statistics.turns == {"complete": 2, "stopped": 1, "failed": 1, "interrupted": 0}
    assert (statistics.input_tokens, statistics.output_tokens) == (101, 22)
    said = statistics.snapshot()
    assert (said.active_streams, said.chunks, said.average_response_time) == (1, 33, 1.5)


def test_a_turn_that_goes_on_has_not_ended() -> None:
    statistics = Statistics()
    statistics.turn_started()
    with pytest.raises(KeyError):
        statistics.turn_ended("generating", 1.0, 1, None)
    assert statistics.active_streams == 1


def test_the_first_chunk_and_the_gaps_after_it_are_apart() -> None:
    statistics = Statistics()
    statistics.first_chunk(0.2)
    statistics.gap(0.01)
    statistics.gap(0.03)
    assert (statistics.first_chunks.count, statistics.gaps.count) == (1, 2)
    assert statistics.gaps.mean == pytest.approx(0.02)


def test_requests_are_in_flight_then_successful_or_failed() -> None:
    statistics = Statistics()
    for _ in range(5):
        statistics.request_started()
    statistics.request_ended("GET", "/health", 200, True, 0.5)
    statistics.request_ended("GET", "/health", 204, True, 0.25)
    statistics.request_ended("POST", "/chat/stream", 404, False, 1.0)
    statistics.request_ended("POST", "/chat/stream", None, True, 1.0)
    said = statistics.snapshot()
    assert (said.requests_total, said.requests_successful, said.requests_failed) == (5, 3, 1)
    health = statistics.requests[HttpKind("GET", "/health", "2xx", True)]
    assert (health.count, health.seconds) == (2, 0.75)
    assert HttpKind("POST", "/chat/stream", "4xx", False) in statistics.requests
    assert HttpKind("POST", "/chat/stream", "none", True) in statistics.requests


def test_made_up_methods_are_counted_together() -> None:
    statistics = Statistics()
    for method in ("BREW", "WHEN"):
        statistics.request_ended(method, "unmatched", 405, False, 0.0)
    assert [kind.method for kind in statistics.requests] == ["other"]


def test_refusals_are_counted_by_code() -> None:
    statistics = Statistics()
    for code in ("session_busy", "unauthorized", "session_busy"):
        statistics.refused(code)
    assert statistics.refusals == {"session_busy": 2, "unauthorized": 1}


def test_sessions_created_are_counted() -> None:
    statistics = Statistics()
    statistics.session_created()
    assert statistics.snapshot().sessions_created == 1
