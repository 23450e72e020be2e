from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.rover.mars import SOL, Contact, Orbiter, mean_time
from tailrace.rover.simulation import (
    CAPACITY,
    HEATER,
    MORNING,
    SCIENCE,
    SITE,
    STEP,
    TOP_SPEED,
    Rover,
    State,
    cleanness,
    decide,
    heater,
    morning_before,
    strength,
)

START = morning_before(datetime(2026, 11, 28, tzinfo=UTC).timestamp())


def drive(rover: Rover, sols: float = 1.0, seconds: float = STEP, start: float = START) -> Iterator[State]:
    state = rover.land(start)
    yield state
    for _ in range(round(sols * SOL / seconds)):
        state = rover.advance(state, seconds)
        yield state


@pytest.fixture(scope="module", params=[1, 2, 3])
def run(request: pytest.FixtureRequest) -> tuple[Rover, list[State]]:
    """A rover, and two sols of its states, one for each step."""
    rover = Rover(request.param)
    return rover, list(drive(rover, 2.0))


Run = tuple[Rover, list[State]]


def test_the_battery_gains_what_comes_in_and_loses_what_goes_out(run: Run) -> None:
    for before, after in itertools.pairwise(run[1]):
        gained = (after.solar - after.load) * (after.time - before.time) / 3_600
        assert after.energy == pytest.approx(min(max(before.energy + gained, 0), CAPACITY))
        assert 0 <= after.charge <= 1


def test_the_battery_goes_up_by_day_and_down_by_night(run: Run) -> None:
    rover, states = run
    charges = [state.charge for state in states]
    assert max(charges) > 0.9
    assert 0.1 < min(charges) < 0.6
    for before, after in itertools.pairwise(states):
        if rover.around(before).sun.elevation < -1:
            assert after.energy < before.energy


def test_a_rover_keeps_power_for_the_night() -> None:
    """Even when the air is full of dust, as in these sols."""
    states = drive(Rover(1), 3.5, seconds=4 * STEP, start=morning_before(1_795_000_000.0))
    assert min(state.charge for state in states) > 0.1


def test_the_odometer_is_the_integral_of_the_speed(run: Run) -> None:
    states = run[1]
    distance = 0.0
    for before, after in itertools.pairwise(states):
        distance += after.speed * (after.time - before.time)
        assert after.odometer == pytest.approx(distance)
        assert 0 <= after.speed <= TOP_SPEED
        assert (after.speed > 0) == (after.activity == "driving")
    assert 150 < distance < 2_000


def test_the_path_is_as_long_as_the_odometer_says_and_has_no_corners(run: Run) -> None:
    for before, after in itertools.pairwise(run[1]):
        moved = math.hypot(after.x - before.x, after.y - before.y)
        assert moved == pytest.approx(after.odometer - before.odometer, rel=1e-3)
        turn = (after.heading - before.heading + 180) % 360 - 180
        assert abs(turn) <= 16 * moved + 1e-9
        assert 0 <= after.heading < 360
        if moved:
            direction = math.degrees(math.atan2(after.x - before.x, after.y - before.y)) % 360
            assert abs((direction - after.heading + 180) % 360 - 180) < 12


def test_a_rover_sleeps_at_night_drives_by_day_and_stops_for_science(run: Run) -> None:
    rover, states = run
    assert {state.activity for state in states} == {"driving", "charging", "sleeping", "science"}
    for before, after in itertools.pairwise(states):
        if rover.around(before).sun.elevation < 5:
            assert after.activity == "sleeping"
        if after.activity == "driving":
            assert rover.around(before).sun.elevation > 20
    runs = itertools.groupby(state.activity for state in states)
    stops = [len(list(run)) for activity, run in runs if activity == "science"]
    assert max(stops) * STEP == pytest.approx(SCIENCE, abs=STEP)


def test_the_body_is_kept_warm(run: Run) -> None:
    rover, states = run
    assert all(-30 < state.body < 25 for state in states)
    around = [rover.around(state).air for state in states[::20]]
    assert min(state.body for state in states) > min(around) + 40


def test_the_link_is_bounded_and_comes_and_goes(run: Run) -> None:
    rover, states = run
    links = [rover.around(state).link for state in states[::2]]
    assert all(-125 < link.dbm < -80 and 0 <= link.percent <= 100 for link in links)
    assert min(link.percent for link in links) == 0
    assert max(link.percent for link in links) > 60
    assert all(link.percent == 0 for link in links if link.contact.elevation < -5)


def test_the_same_seed_is_the_same_drive() -> None:
    one, again, other = (list(drive(Rover(seed), 0.2)) for seed in (5, 5, 6))
    assert one == again
    assert one[-1] != other[-1]


def test_the_size_of_the_steps_hardly_matters() -> None:
    rover = Rover(4)
    *_, fine = drive(rover, 0.3, 5.0)
    *_, coarse = drive(rover, 0.3, 30.0)
    assert fine.odometer == pytest.approx(coarse.odometer, rel=0.05)
    assert fine.energy == pytest.approx(coarse.energy, rel=0.03)
    assert fine.body == pytest.approx(coarse.body, abs=0.2)


def test_an_advance_takes_short_steps() -> None:
    rover = Rover(1)
    state = rover.land(START)
    once = rover.advance(state, 300.0)
    for _ in range(10):
        state = rover.advance(state, 30.0)
    assert once == state


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0, 5_000), st.floats(0, 1))
def test_the_course_turns_smoothly(seed: int, odometer: float, step: float) -> None:
    rover = Rover(seed)
    turn = (rover.course(odometer + step) - rover.course(odometer) + 180) % 360 - 180
    assert abs(turn) <= 16 * step + 1e-9


def test_a_mission_begins_in_the_morning() -> None:
    for hours in range(0, 50, 7):
        now = START + hours * 3_600 + 1
        morning = morning_before(now)
        assert now - SOL < morning <= now
        assert mean_time(morning, SITE.longitude)[1] == pytest.approx(MORNING)
    landed = Rover(1).land(START)
    assert (landed.time, landed.odometer, landed.activity) == (START, 0, "driving")
    assert landed.solar > 0


def state(**changes: object) -> State:
    return replace(State(START, 0, energy=0.6 * CAPACITY, activity="driving"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "elevation", "activity"),
    [
        (state(), 50, "driving"),
        (state(), 15, "charging"),
        (state(), 4, "sleeping"),
        (state(left=1.0), 50, "science"),
        (state(left=1.0), 15, "science"),
        (state(activity="sleeping"), 7, "sleeping"),
        (state(activity="sleeping"), 10, "charging"),
        (state(activity="charging"), 7, "charging"),
        (state(energy=0.55 * CAPACITY), 50, "driving"),
        (state(energy=0.55 * CAPACITY, activity="charging"), 50, "charging"),
        (state(energy=0.45 * CAPACITY), 50, "charging"),
        (state(energy=0.1 * CAPACITY), 50, "sleeping"),
        (state(energy=0.2 * CAPACITY, activity="sleeping"), 50, "sleeping"),
        (state(energy=0.2 * CAPACITY, activity="charging"), 50, "charging"),
    ],
)
def test_what_a_rover_does_depends_on_the_sun_and_the_battery(before: State, elevation: float, activity: str) -> None:
    assert decide(before, elevation) == activity


def test_a_heater_follows_the_body_and_needs_power() -> None:
    assert heater(state(body=-40.0)) == HEATER
    assert 0 < heater(state(body=-22.0)) < HEATER
    assert heater(state(body=0.0)) == 0
    assert heater(state(body=-40.0, energy=0.0)) == 0


def test_an_empty_battery_does_not_get_below_nothing() -> None:
    rover = Rover(1)
    night = rover.land(START + SOL / 2)
    empty = rover.advance(replace(night, energy=0.01), 3_600.0)
    assert empty.energy == 0.0
    assert empty.activity == "sleeping"


def test_dust_settles_until_a_gust_takes_it() -> None:
    assert all(cleanness(sol + 1) < cleanness(sol) for sol in range(79))
    assert cleanness(80) == cleanness(0) <= 1


def test_a_signal_falls_with_the_distance_and_near_the_horizon() -> None:
    orbiter, dish = Orbiter("one", 400e3, 93, 0, 0, 0), Orbiter("two", 400e3, 93, 17, 0, 0)
    overhead = strength(Contact(orbiter, 90, 400e3))
    assert overhead == pytest.approx(-97, abs=1)
    assert strength(Contact(orbiter, 90, 800e3)) == pytest.approx(overhead - 6.02, abs=0.01)
    assert strength(Contact(dish, 90, 400e3)) == pytest.approx(overhead + 17)
    assert strength(Contact(orbiter, -10, 400e3)) < overhead - 30


def test_a_place_follows_the_path() -> None:
    rover = Rover(1)
    north, east = rover.position(state(y=59_158.0)), rover.position(state(x=59_158.0))
    assert north.longitude == SITE.longitude
    assert north.latitude - SITE.latitude == pytest.approx(1, abs=1e-3)
    assert east.longitude - SITE.longitude == pytest.approx(1 / math.cos(math.radians(SITE.latitude)), abs=1e-3)
    assert rover.height(state()) == pytest.approx(-3_000, abs=60)
