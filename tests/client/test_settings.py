from __future__ import annotations

import math

import pytest

from tailrace.client.settings import Backoff, Deadline, Loss, Overdue, Retry, Spent, read_retry_after, seconds_of


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (None, None, None),
        ("3", 3.0, 3.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0, 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0, 0.0),
        ("Fri, 21 Oct 2185 07:28:00 GMT", 1e9, 1e10),
        ("999999999999", 999999999999.0, 999999999999.0),
        ("9" * 400, math.inf, math.inf),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999", None, None),
        ("soon", None, None),
        ("-1", None, None),
    ],
)
def test_retry_after_has_seconds_or_a_date(value: str | None, low: float | None, high: float | None) -> None:
    seconds = read_retry_after(value)
    if low is None or high is None:
        assert seconds is None
    else:
        assert seconds is not None
        assert low <= seconds <= high


class TestBackoff:
    def test_a_delay_is_never_less_than_none(self) -> None:
        backoff = Backoff(Retry(base=0.0))
        backoff.heed(-5000)
        assert (backoff.fail(), backoff.fail(-5.0), backoff.fail(at_least=-5.0)) == (0.0, 0.0, 0.0)

    def test_a_server_waits_as_long_as_the_caller_allows(self) -> None:
        backoff = Backoff(Retry(base=0.0, longest=5.0))
        assert (backoff.fail(5.0), backoff.fail(at_least=5.0)) == (5.0, 5.0)
        for told, at_least in ((1e11, 0.0), (None, 1e11)):
            with pytest.raises(Spent, match=r"for a pause of 100000000000 s, but Retry\(longest=5\) allows less"):
                backoff.fail(told, at_least=at_least)

    def test_an_sse_delay_is_cut_to_what_the_caller_allows(self) -> None:
        backoff = Backoff(Retry(base=0.0, longest=5.0))
        backoff.heed(10**400)
        assert backoff.fail() == 5.0

    def test_any_number_of_milliseconds_is_a_time(self) -> None:
        assert seconds_of(1500) == 1.5
        assert seconds_of(10**400) > 3600
        assert seconds_of(-(10**400)) < 0


class TestDeadline:
    def test_shortens_what_goes_beyond_it(self) -> None:
        now = 100.0
        deadline = Deadline(3.0, clock=lambda: now)
        assert (deadline.left, deadline.within(1.0), deadline.within(9.0)) == (3.0, 1.0, 3.0)
        now = 104.0
        assert deadline.left == 0.0
        with pytest.raises(Overdue, match="the total timeout of 3 s is over"):
            deadline.within(1.0)

    def test_may_be_made_sooner(self) -> None:
        now = 100.0
        deadline = Deadline(3.0, clock=lambda: now)
        assert (deadline.at_most(1.0).left, deadline.at_most(9.0).left) == (1.0, 3.0)
        assert Deadline(None).at_most(0.0).left == 0.0

    def test_may_be_never(self) -> None:
        assert (Deadline(None).left, Deadline(None).within(9.0)) == (None, 9.0)


def test_a_loss_is_a_sentence() -> None:
    assert str(Loss("broken", "the connection failed")) == "the connection failed"
    assert str(Loss("unsent", "no connection", "refused")) == "no connection: refused"
