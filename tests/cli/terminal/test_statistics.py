from __future__ import annotations

import pytest

from tailrace.cli.terminal.statistics import ClientStatistics, count, duration


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7_500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(("number", "expected"), [(0, "0 chunks"), (1, "1 chunk"), (2, "2 chunks")])
def test_one_is_singular(number: int, expected: str) -> None:
    assert count(number, "chunk") == expected


def test_averages_are_of_the_streams_that_ended() -> None:
    times = iter([100.0, 102.5, 104.0])
    statistics = ClientStatistics(lambda: next(times))
    before = dict(statistics.rows())
    assert (before["Average chunks a stream"], before["Average response time"]) == ("–", "–")
    statistics.successful, statistics.stopped, statistics.failed = 2, 1, 1
    statistics.chunks, statistics.seconds = 10, 3.0
    rows = dict(statistics.rows())
    assert rows["Duration"] == "4.0 s"
    assert (rows["Average chunks a stream"], rows["Average response time"]) == ("2.5", "0.75 s")
