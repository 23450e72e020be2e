from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tailrace.pulse import SLOTS, Pulse

LIMIT = 30.0
INTERVAL = 0.008


class Member:
    """Counts its beats, and sets `enough` at a given number."""

    def __init__(self, enough: int = 1, action: Callable[[], object] | None = None) -> None:
        self.beats = 0
        self.times: list[float] = []
        self.enough = asyncio.Event()
        self._enough_at = enough
        self._action = action

    def beat(self) -> None:
        self.beats += 1
        self.times.append(asyncio.get_running_loop().time())
        if self.beats == self._enough_at:
            self.enough.set()
        if self._action is not None:
            self._action()


@contextlib.contextmanager
def kept_errors() -> Any:
    """Collect what the loop's callbacks raise."""
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context.get("exception")))
    try:
        yield errors
    finally:
        loop.set_exception_handler(None)


async def test_each_member_is_called_once_an_interval() -> None:
    pulse = Pulse(INTERVAL)
    members = [Member(enough=3) for _ in range(2 * SLOTS)]
    slots = [pulse.join(member) for member in members]
    for member in members:
        await asyncio.wait_for(member.enough.wait(), LIMIT)
    beats = [member.beats for member in members]
    assert max(beats) - min(beats) <= 1
    for member in members:
        assert member.times[2] - member.times[0] >= 1.9 * INTERVAL
    for slot, member in zip(slots, members, strict=True):
        slot.discard(member)


async def test_members_are_spread_over_the_slots() -> None:
    pulse = Pulse(60)
    slots = [pulse.join(Member()) for _ in range(3 * SLOTS)]
    assert sorted(len(slot) for slot in slots) == [3] * len(slots)
    assert len({id(slot) for slot in slots}) == SLOTS
    pulse.stop()


async def test_a_member_that_left_is_not_called() -> None:
    pulse = Pulse(INTERVAL)
    stays, leaves = Member(enough=3), Member()
    slot, other = pulse.join(stays), pulse.join(leaves)
    other.discard(leaves)
    await asyncio.wait_for(stays.enough.wait(), LIMIT)
    assert leaves.beats == 0
    slot.discard(stays)


async def test_the_timer_runs_only_while_there_are_members() -> None:
    pulse = Pulse(INTERVAL)
    assert pulse._timer is None
    member = Member(action=lambda: slot.discard(member))
    slot = pulse.join(member)
    assert pulse._timer is not None
    await asyncio.wait_for(member.enough.wait(), LIMIT)
    await asyncio.sleep(0)
    assert pulse._timer is None
    again = Member()
    slot = pulse.join(again)
    await asyncio.wait_for(again.enough.wait(), LIMIT)
    slot.discard(again)


async def test_a_member_that_joins_in_a_beat_starts_no_second_timer() -> None:
    pulse = Pulse(INTERVAL)
    late = Member(enough=2)
    joined: list[Any] = []

    def join() -> None:
        if not joined:
            before = pulse._timer
            joined.append(pulse.join(late))
            assert pulse._timer is before

    first = Member(action=join)
    slot = pulse.join(first)
    await asyncio.wait_for(first.enough.wait(), LIMIT)
    await asyncio.wait_for(late.enough.wait(), LIMIT)
    assert late.times[1] - late.times[0] >= 0.9 * INTERVAL
    slot.discard(first)
    joined[0].discard(late)


async def test_a_member_that_raises_does_not_stop_the_others() -> None:
    def fail() -> None:
        raise LookupError("lost")

    pulse = Pulse(INTERVAL)
    failing, other = Member(action=fail), Member(enough=3)
    with kept_errors() as errors:
        slots = [pulse.join(failing), pulse.join(other)]
        await asyncio.wait_for(other.enough.wait(), LIMIT)
        slots[0].discard(failing)
        slots[1].discard(other)
    assert failing.beats >= 2
    assert {type(error) for error in errors} == {LookupError}


async def test_a_stopped_pulse_beats_no_more_and_can_be_joined_again() -> None:
    pulse = Pulse(INTERVAL)
    stopped = Member()
    pulse.join(stopped).discard(stopped)
    pulse.stop()
    pulse.stop()
    member = Member()
    slot = pulse.join(member)
    await asyncio.wait_for(member.enough.wait(), LIMIT)
    assert stopped.beats == 0
    slot.discard(member)


@pytest.mark.parametrize("interval", [0, -1.0])
def test_the_interval_is_above_0(interval: float) -> None:
    with pytest.raises(ValueError, match="expected an interval above 0 seconds, but got"):
        Pulse(interval)


def test_a_later_loop_has_a_timer_of_its_own() -> None:
    pulse = Pulse(INTERVAL)

    async def leave_at_once(member: Member) -> None:
        pulse.join(member)

    async def stay(member: Member) -> None:
        slot = pulse.join(member)
        await asyncio.wait_for(member.enough.wait(), LIMIT)
        slot.discard(member)

    gone, present = Member(), Member()
    asyncio.run(leave_at_once(gone))
    earlier = gone.beats  # usually none: its loop ends at once, but it may stand still before that
    asyncio.run(stay(present))
    assert (gone.beats - earlier, present.beats) == (0, 1)
