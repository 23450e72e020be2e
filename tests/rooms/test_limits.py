"""The bounds of rooms: names, and how often a member may send."""

from __future__ import annotations

import pytest

from tailrace import StreamError
from tailrace.rooms.limits import KEPT, Rates, check_name


@pytest.mark.parametrize("name", ["a", "Lobby-1", "a.b_c", "9" * 64])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "-a", ".", "a b", "a/b", "a\n", "ä", "9" * 65])
def test_names_that_no_room_has(name: str) -> None:
    with pytest.raises(StreamError, match="expected a room's name"):
        check_name(name)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    rates = Rates(2.0, 4, clock=clock)
    assert [rates.take("ada", 1) for _ in range(4)] == [0, 0, 0, 0]
    assert rates.take("ada", 1) == pytest.approx(0.5)
    assert rates.take("bob", 4) == 0
    clock.now += 0.5
    assert rates.take("ada", 1) == 0
    assert rates.take("ada", 1) == pytest.approx(0.5)
    clock.now += 60
    assert rates.take("ada", 4) == 0


def test_what_exceeds_the_burst_by_itself_passes_when_nothing_is_due() -> None:
    clock = Clock()
    rates = Rates(1.0, 2, clock=clock)
    assert rates.take("ada", 5) == 0
    assert rates.take("ada", 1) == pytest.approx(4)


def test_the_rates_of_many_senders_are_bounded() -> None:
    clock = Clock()
    rates = Rates(1.0, 1, clock=clock)
    for number in range(KEPT + 10):
        rates.take(str(number), 1)
    assert rates.take("0", 1) == 0  # forgotten
    assert rates.take(str(KEPT + 9), 1) > 0
    for _ in range(KEPT // 2 + 10):
        clock.now += 10
        rates.take("last", 1)
    assert list(rates._due) == ["last"]
