from __future__ import annotations

from math import inf

from tailrace.cli.terminal.state import ClientStatistics, Message
from tailrace.client import Loss


def test_a_message_has_not_arrived_while_nobody_was_there_to_take_it() -> None:
    now = 100.0
    message = Message("hello", None, clock=lambda: now)
    assert message.may_have_arrived  # the first attempt may be sending it
    message.miss(Loss("unsent", "no connection", "All connection attempts failed"), 2.0)
    assert not message.may_have_arrived
    now = 102.0  # when the next attempt begins
    assert message.may_have_arrived
    message.miss(Loss("unsent", "no connection in time"), inf)
    assert not message.may_have_arrived
    message.miss(Loss("broken", "the connection failed"), 2.0)
    assert message.may_have_arrived


def test_each_message_has_a_key_of_its_own() -> None:
    one, other = Message("hello", "a"), Message("hello", "a")
    assert one.key != other.key
    assert one.is_repeated_by("hello", "a")
    assert not one.is_repeated_by("hello", "b")
    assert not one.is_repeated_by("hello?", "a")


def test_averages_are_of_complete_replies() -> None:
    times = iter([100.0, 102.5, 104.0])
    statistics = ClientStatistics(lambda: next(times))
    before = dict(statistics.rows())
    assert before["Session duration"] == "2.5 s"
    assert (before["Average chunks a stream"], before["Average response time"]) == ("–", "–")
    statistics.succeed(4, 1.0)
    statistics.succeed(5, 2.0)
    statistics.stopped, statistics.failed, statistics.chunks = 1, 1, 100
    rows = dict(statistics.rows())
    assert rows["Session duration"] == "4.0 s"
    assert (rows["Successful streams"], rows["Chunks received"]) == ("2", "100")
    assert (rows["Average chunks a stream"], rows["Average response time"]) == ("4.5", "1.50 s")
