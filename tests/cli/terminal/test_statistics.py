from __future__ import annotations

from tailrace.cli.terminal.statistics import ClientStatistics


def test_averages_are_of_complete_replies() -> None:
    times = iter([100.0, 102.5, 104.0])
    statistics = ClientStatistics(lambda: next(times))
    before = dict(statistics.rows())
    assert before["Duration"] == "2.5 s"
    assert (before["Average chunks a stream"], before["Average response time"]) == ("–", "–")
    statistics.succeed(4, 1.0)
    statistics.succeed(5, 2.0)
    statistics.stopped, statistics.failed, statistics.chunks = 1, 1, 100
    rows = dict(statistics.rows())
    assert rows["Duration"] == "4.0 s"
    assert (rows["Successful streams"], rows["Chunks received"]) == ("2", "100")
    assert (rows["Average chunks a stream"], rows["Average response time"]) == ("4.5", "1.50 s")
