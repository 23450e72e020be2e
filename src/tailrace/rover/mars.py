"""Mars as a rover meets it: clock, sun, dust, air, ground and relay orbiters, as pure functions of time and place.

Times are seconds since the Unix epoch, as `datetime.timestamp` returns them. Angles are in degrees. East longitude and
north latitude are positive. What has no formula in the literature (the dust of a day, the ground) comes from a seed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from math import cos, exp, radians, sin
from random import Random
from typing import NamedTuple

SOL = 88_775.244
"""Seconds of a mean solar day (Allison and McEwen, Planetary and Space Science 48, 2000)."""

ROTATION = 88_642.663
"""Seconds of a sidereal rotation."""

RADIUS = 3_389_500.0
"""The mean radius in metres."""

SUNLIGHT = 590.0
"""W/m² above the atmosphere at the mean distance from the sun (Appelbaum and Flood, NASA TM-102299, 1990)."""

OBLIQUITY = 25.1919

# The Mars24 algorithm of NASA GISS, after Allison and McEwen (2000), without the seven planetary perturbations. They
# move the sun by less than 0.02 degrees.

_J2000 = 946_727_935.816
"""2000-01-01 12:00 TT. Terrestrial Time was 64.184 s ahead of UTC then. The leap seconds since are left out: they are
5 s of a clock that this application runs faster than real anyway."""


class Sun(NamedTuple):
    """The sun at a place: its height above the horizon, and its distance in mean distances of Mars."""

    elevation: float
    distance: float


@dataclass(frozen=True, slots=True)
class Place:
    """A place on Mars."""

    latitude: float
    longitude: float


def sol_date(time: float) -> float:
    """Return the Mars Sol Date, which counts mean solar days at the prime meridian since 1873-12-29."""
    return (_days(time) - 4.5) / 1.0274912517 + 44_796.0 - 0.0009626


def mean_time(time: float, longitude: float) -> tuple[int, float]:
    """Return the number of the sol at a longitude, and the local mean solar time in hours from 0 to 24."""
    sol, part = divmod(sol_date(time) + longitude / 360.0, 1.0)
    return int(sol), part * 24.0


def solar_longitude(time: float) -> float:
    """Return the season as the planet's angle on its orbit: 0 at the northern spring equinox."""
    return _orbit(time)[0]


def sun(time: float, place: Place) -> Sun:
    """Return where the sun is."""
    season, centre, anomaly = _orbit(time)
    declination = math.asin(sin(radians(OBLIQUITY)) * sin(radians(season)))
    # The equation of time: how far the true sun is ahead of the mean one.
    ahead = 2.861 * _sin(2 * season) - 0.071 * _sin(4 * season) + 0.002 * _sin(6 * season) - centre
    hour_angle = radians(sol_date(time) % 1.0 * 360.0 + place.longitude + ahead - 180.0)
    latitude = radians(place.latitude)
    height = sin(latitude) * sin(declination) + cos(latitude) * cos(declination) * cos(hour_angle)
    # The solution of Kepler's equation for an eccentricity of 0.0934, to the second order.
    distance = 1.00436 - 0.09309 * _cos(anomaly) - 0.004336 * _cos(2 * anomaly)
    return Sun(math.degrees(math.asin(max(-1.0, min(1.0, height)))), distance)


def _orbit(time: float) -> tuple[float, float, float]:
    """Return the solar longitude, the equation of the centre and the mean anomaly."""
    days = _days(time)
    anomaly = 19.3871 + 0.52402073 * days
    centre = (
        (10.691 + 3.0e-7 * days) * _sin(anomaly)
        + 0.623 * _sin(2 * anomaly)
        + 0.050 * _sin(3 * anomaly)
        + 0.005 * _sin(4 * anomaly)
        + 0.0005 * _sin(5 * anomaly)
    )
    return (270.3871 + 0.524038496 * days + centre) % 360.0, centre, anomaly


def _days(time: float) -> float:
    return (time - _J2000) / 86_400.0


def _sin(degrees: float) -> float:
    return sin(radians(degrees))


def _cos(degrees: float) -> float:
    return cos(radians(degrees))


# Noise


def wave(seed: int, name: str, at: float) -> float:
    """Return smooth noise between -1 and 1. Each whole `at` has a value of its own, and others lie between."""
    whole = math.floor(at)
    part = at - whole
    before, after = _random(seed, name, whole), _random(seed, name, whole + 1)
    return before + (after - before) * part * part * (3.0 - 2.0 * part)


def _random(seed: int, name: str, number: int) -> float:
    # A string seeds by its SHA-512, so the same in every process.
    return Random(f"{seed} {name} {number}").uniform(-1.0, 1.0)


# The air


def optical_depth(time: float, seed: int) -> float:
    """Return the dust of the air: about 0.5 when it is clear. It changes over some sols."""
    return 0.55 + 0.25 * wave(seed, "dust", sol_date(time) / 3.0)


def irradiance(sun: Sun, depth: float) -> float:
    """Return the W/m² on level ground, direct and scattered.

    Dust scatters most light forwards, so much more arrives than the direct beam. This has the form of the net flux
    function of Appelbaum and Flood (1990), which they give as a table.
    """
    height = sin(radians(sun.elevation))
    if height <= 0.0:
        return 0.0
    return SUNLIGHT / sun.distance**2 * height * exp(-0.38 * depth * height**-0.6)


# Local hours and fractions of the way from the coldest to the warmest: as at the Viking and Pathfinder landers, the air
# is coldest before sunrise and warmest in the early afternoon, and it cools fast in the evening.
_HOURS = (-1.0, 5.5, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 23.0, 29.5)
_WARMTH = (0.19, 0.0, 0.35, 0.70, 0.93, 1.0, 0.88, 0.58, 0.36, 0.19, 0.0)


def air_temperature(time: float, place: Place, seed: int) -> float:
    """Return the temperature of the air in °C, between -90 and 0.

    Viking 1 measured from -89 to -31 °C, and rovers near the equator reach 0 °C on warm days.
    """
    sol, hour = mean_time(time, place.longitude)
    season = _cos(solar_longitude(time) - 251.0)  # Mars is closest to the sun at 251 degrees
    coldest = -83.0 + 3.0 * season + 3.0 * wave(seed, "night", sol + (hour + 12.0) / 24.0)
    warmest = -16.0 + 7.0 * season + 4.0 * wave(seed, "noon", sol + hour / 24.0)
    gust = 1.2 * wave(seed, "gust", time / 240.0) * max(_interpolate(hour), 0.15)
    return coldest + (warmest - coldest) * _interpolate(hour) + gust


def _interpolate(hour: float) -> float:
    after = bisect_right(_HOURS, hour)
    start, end = _HOURS[after - 1], _HOURS[after]
    part = (hour - start) / (end - start)
    part = part * part * (3.0 - 2.0 * part)
    return _WARMTH[after - 1] + (_WARMTH[after] - _WARMTH[after - 1]) * part


# The ground


class Ground:
    """Rolling ground without cliffs: a sum of waves. Metres east and north of the landing site."""

    def __init__(self, seed: int) -> None:
        random = Random(f"{seed} ground")
        self._waves = [
            (length, length * steepness, random.uniform(0, math.tau), random.uniform(0, math.tau))
            for length, steepness in ((1_900.0, 0.009), (610.0, 0.011), (230.0, 0.012), (87.0, 0.011), (34.0, 0.009))
        ]

    def height(self, x: float, y: float) -> float:
        """Return metres above the landing site's level."""
        return sum(
            rise * sin(math.tau / length * (x * cos(turn) + y * sin(turn)) + phase)
            for length, rise, turn, phase in self._waves
        )

    def slope(self, x: float, y: float, heading: float) -> float:
        """Return the rise in a direction, in degrees. Headings count clockwise from north."""
        east, north = _sin(heading), _cos(heading)
        return math.degrees(math.atan(self.height(x + east, y + north) - self.height(x, y)))


# The orbiters


class Orbiter(NamedTuple):
    """A relay in a circular orbit: altitude in metres, inclination, gain of its antenna in dB, where it was at time 0.

    `node` is the angle to where the orbit crosses the equator, `phase` the angle from there to the orbiter.
    """

    name: str
    altitude: float
    inclination: float
    gain: float
    node: float
    phase: float


class Contact(NamedTuple):
    """An orbiter as seen from a place: its height above the horizon, and its distance in metres."""

    orbiter: Orbiter
    elevation: float
    distance: float


GRAVITY = 4.282837e13
"""The standard gravitational parameter of Mars in m³/s²."""


def relays(seed: int) -> tuple[Orbiter, ...]:
    """Return three low orbiters and two high ones. The seed says where they are on their orbits.

    The low ones have orbits of relays at Mars, and pass in minutes. The high ones have the orbit that was planned for
    the Mars Telecommunications Orbiter, and a dish. They are opposite each other, and in view for hours.
    """
    random = Random(f"{seed} orbiters")
    low = (("Odyssey", 400e3, 93.1), ("MRO", 290e3, 92.7), ("TGO", 400e3, 74.0))
    passing = [Orbiter(*orbit, 0.0, random.uniform(0, 360), random.uniform(0, 360)) for orbit in low]
    node, phase = random.uniform(0, 360), random.uniform(0, 360)
    high = [Orbiter(f"MTO-{half + 1}", 4_450e3, 130.0, 17.0, (node + 180 * half) % 360, phase) for half in (0, 1)]
    return (*passing, *high)


def contact(time: float, place: Place, orbiter: Orbiter) -> Contact:
    """Return where an orbiter is, seen from a place."""
    radius = RADIUS + orbiter.altitude
    turned = radians(orbiter.phase) + time * math.sqrt(GRAVITY / radius**3)
    node, tilt = radians(orbiter.node), radians(orbiter.inclination)
    # Axes that do not turn with the planet: z is north.
    x, y, z = cos(turned), sin(turned) * cos(tilt), sin(turned) * sin(tilt)
    above = radius * (x * cos(node) - y * sin(node)), radius * (x * sin(node) + y * cos(node)), radius * z
    latitude, longitude = radians(place.latitude), radians(place.longitude) + math.tau * time / ROTATION
    up = cos(latitude) * cos(longitude), cos(latitude) * sin(longitude), sin(latitude)
    away = [there - RADIUS * here for there, here in zip(above, up, strict=True)]
    distance = math.sqrt(sum(part * part for part in away))
    height = sum(part * axis for part, axis in zip(away, up, strict=True)) / distance
    return Contact(orbiter, math.degrees(math.asin(height)), distance)
