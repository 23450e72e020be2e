from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.rover.mars import (
    GRAVITY,
    RADIUS,
    ROTATION,
    SOL,
    Ground,
    Orbiter,
    Place,
    Sun,
    air_temperature,
    contact,
    irradiance,
    mean_time,
    optical_depth,
    relays,
    sol_date,
    solar_longitude,
    sun,
    wave,
)

EQUATOR = Place(0.0, 0.0)
SITE = Place(18.2, -24.3)
TIMES = st.floats(946_684_800, 4_102_444_800)  # this century
SEEDS = st.integers(0, 1_000)


def at(*date: int) -> float:
    return datetime(*date, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


def test_the_clock_agrees_with_the_worked_example_of_mars24() -> None:
    time = at(2000, 1, 6)
    assert sol_date(time) == pytest.approx(44_795.99976, abs=1e-5)
    assert solar_longitude(time) == pytest.approx(277.187, abs=0.02)
    _, hour = mean_time(time, -184.702)
    assert hour == pytest.approx(11.6807, abs=0.001)


def test_a_sol_later_it_is_the_same_hour() -> None:
    time = at(2026, 11, 28)
    sol, hour = mean_time(time, SITE.longitude)
    later = mean_time(time + SOL, SITE.longitude)
    assert later[0] == sol + 1
    assert later[1] == pytest.approx(hour, abs=1e-4)


def test_a_year_has_668_sols_and_four_seasons() -> None:
    start = at(2026, 1, 1)
    year = 668.5921 * SOL
    assert solar_longitude(start + year) == pytest.approx(solar_longitude(start), abs=0.1)
    seasons = {int(solar_longitude(start + year * part / 40) // 90) for part in range(40)}
    assert seasons == {0, 1, 2, 3}


def noon(time: float, place: Place) -> Sun:
    return max((sun(time + SOL * part / 500, place) for part in range(500)), key=lambda seen: seen.elevation)


@pytest.mark.parametrize("date", [(2026, 2, 27), (2027, 6, 3), (2027, 11, 3)])
def test_the_noon_sun_at_the_equator_is_as_far_from_overhead_as_the_season_says(date: tuple[int, ...]) -> None:
    tilt = math.asin(math.sin(math.radians(25.19)) * math.sin(math.radians(solar_longitude(at(*date)))))
    assert noon(at(*date), EQUATOR).elevation == pytest.approx(90 - abs(math.degrees(tilt)), abs=0.5)


@settings(deadline=None)
@given(TIMES)
def test_the_sun_is_up_at_noon_and_down_at_midnight(time: float) -> None:
    _, hour = mean_time(time, 0.0)
    midday = time + (12 - hour) / 24 * SOL
    assert sun(midday, EQUATOR).elevation > 50
    assert sun(midday + SOL / 2, EQUATOR).elevation < -50
    assert 1.38 / 1.524 < sun(time, EQUATOR).distance < 1.67 / 1.524


def test_light_falls_with_dust_and_with_the_sun() -> None:
    high, low = Sun(80, 1.0), Sun(15, 1.0)
    assert 590 > irradiance(high, 0.2) > irradiance(high, 0.5) > irradiance(high, 2.0) > 0
    assert irradiance(high, 0.5) > irradiance(low, 0.5) > irradiance(Sun(2, 1.0), 0.5) > 0
    assert irradiance(Sun(0, 1.0), 0.5) == irradiance(Sun(-30, 1.0), 0.5) == 0
    assert irradiance(Sun(80, 0.91), 0.5) > irradiance(high, 0.5)


@settings(deadline=None)
@given(TIMES, SEEDS)
def test_air_is_between_minus_90_and_0_and_dust_is_moderate(time: float, seed: int) -> None:
    assert -90 <= air_temperature(time, SITE, seed) <= 0
    assert 0.3 <= optical_depth(time, seed) <= 0.8


@pytest.mark.parametrize("seed", range(5))
def test_nights_are_colder_than_days_and_nothing_jumps(seed: int) -> None:
    start = at(2026, 11, 28)
    airs = [
        (sun(start + 60 * i, SITE).elevation, air_temperature(start + 60 * i, SITE, seed)) for i in range(3 * 1_480)
    ]
    nights = [air for elevation, air in airs if elevation < -10]
    days = [air for elevation, air in airs if elevation > 40]
    assert max(nights) < min(days)
    assert max(abs(after - before) for (_, before), (_, after) in itertools.pairwise(airs)) < 1.0


def test_noise_is_smooth_and_the_same_each_time() -> None:
    values = [wave(7, "x", i / 100) for i in range(1_000)]
    assert values == [wave(7, "x", i / 100) for i in range(1_000)]
    assert values != [wave(8, "x", i / 100) for i in range(1_000)]
    assert all(-1 <= value <= 1 for value in values)
    assert max(abs(after - before) for before, after in itertools.pairwise(values)) < 0.04
    assert wave(7, "x", -3.5) != wave(7, "y", -3.5)


@given(SEEDS, st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.floats(0, 360))
def test_the_ground_rolls_without_cliffs(seed: int, x: float, y: float, heading: float) -> None:
    ground = Ground(seed)
    assert abs(ground.height(x, y)) < 60
    assert abs(ground.slope(x, y, heading)) < 20
    assert ground.slope(x, y, heading) == pytest.approx(-ground.slope(x, y, heading + 180), abs=1)


def test_an_orbiter_overhead_is_as_far_away_as_it_is_high() -> None:
    orbiter = Orbiter("one", 400e3, 0.0, 0.0, 0.0, 0.0)
    found = contact(0.0, EQUATOR, orbiter)
    assert found.elevation == pytest.approx(90)
    assert found.distance == pytest.approx(400e3)
    opposite = contact(0.0, Place(0.0, 180.0), orbiter)
    assert opposite.elevation == pytest.approx(-90)


def test_an_orbiter_that_turns_with_the_planet_stays_above_its_place() -> None:
    radius = (GRAVITY * (ROTATION / math.tau) ** 2) ** (1 / 3)
    orbiter = Orbiter("one", radius - RADIUS, 0.0, 0.0, 0.0, 30.0)
    for time in (0.0, 1e4, 1e5, 1.7e9):
        assert contact(time, Place(0.0, 30.0), orbiter).elevation == pytest.approx(90, abs=0.1)


def test_low_orbiters_pass_in_minutes() -> None:
    low = relays(1)[0]
    start = at(2026, 11, 28)
    up = [contact(start + 30 * i, SITE, low).elevation > 0 for i in range(5 * 2_959)]
    passes = "".join("x" if seen else " " for seen in up).split()
    assert 2 * 5 <= len(passes) <= 8 * 5
    assert max(map(len, passes)) * 30 < 20 * 60
    assert relays(1) == relays(1) != relays(2)
