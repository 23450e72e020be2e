from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest

from tailrace.events import Entry
from tailrace.flow import Flow, LogStatistics, Policy, Retention


@pytest.mark.parametrize(
    ("flow", "policy", "high"),
    [
        (Flow.block(), "block", 1024),
        (Flow.block(1), "block", 1),
        (Flow.log(), "log", 1024),
        (Flow.latest(), "latest", 1024),
        (Flow.drop(8), "drop", 8),
        (Flow.disconnect(high=8), "disconnect", 8),
    ],
)
def test_each_policy_has_a_constructor_with_its_bound(flow: Flow, policy: Policy, high: int) -> None:
    assert (flow.policy, flow.high) == (policy, high)


@pytest.mark.parametrize("make", [Flow.block, Flow.drop, Flow.disconnect])
@pytest.mark.parametrize("high", [0, -1])
def test_a_bound_below_one_entry_is_refused(make: Callable[[int], Flow], high: int) -> None:
    with pytest.raises(ValueError, match=f"expected high to be at least 1 entry, but got {high}"):
        make(high)


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of block, log, latest, drop, disconnect, but got 'blok'"):
        Flow("blok")  # type: ignore[arg-type]


def test_latest_replaces_by_event_name_unless_told_otherwise() -> None:
    reading = Entry(1, "battery", b'{"rover":7}')
    assert Flow.latest().key(reading) == "battery"
    assert Flow.latest(key=lambda entry: entry.data["rover"]).key(reading) == 7


def test_a_log_keeps_ten_thousand_entries_and_eight_megabytes_unless_told_otherwise() -> None:
    assert Retention() == Retention(count=10_000, size=8 * 1024 * 1024, age=None)


def test_every_bound_of_a_retention_can_be_left_out() -> None:
    assert Retention(None, None, None).count is None


@pytest.mark.parametrize(
    ("bound", "value"), [("count", 0), ("count", -1), ("size", 0), ("age", 0.0), ("age", -math.inf)]
)
def test_a_retention_that_keeps_nothing_is_refused(bound: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"expected {bound} to be above 0 or None, but got {value}"):
        Retention(**{bound: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "field"),
    [(Flow.log(), "high"), (Retention(), "count"), (LogStatistics("n", "open", 0, 1, 1, 9, 0, 0, 0, 0), "top")],
)
def test_settings_and_statistics_do_not_change(value: object, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, 1)
