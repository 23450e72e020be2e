"""A rover on Mars: where it drives, what power it has, how warm it is, and how well it can be heard.

The same seed and the same start give the same drive. A state and a number of seconds give the next state, and nothing
else does: no clock, no random numbers that are not in the seed.

The numbers are those of solar rovers of the class of Spirit and Opportunity (185 kg, at most 0.05 m/s, about 900 Wh a
sol from new arrays), with the batteries and the top speed of later designs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from .mars import (
    RADIUS,
    SOL,
    Contact,
    Ground,
    Place,
    Sun,
    air_temperature,
    contact,
    irradiance,
    mean_time,
    optical_depth,
    relays,
    sun,
    wave,
)

Activity = Literal["driving", "charging", "sleeping", "science"]

SITE = Place(18.2, -24.3)
"""Oxia Planum, a plain of clays that was chosen as the landing site of a rover."""

SITE_HEIGHT = -3_000.0
"""Metres above the reference height of Mars: the plain lies in the lowlands."""

MORNING = 8.5
"""The local hour at which a mission begins by default: the sun is high enough to drive."""

STEP = 30.0
"""The most seconds of a step. Powers and temperatures hardly change in it."""

# Power, in W and Wh

CAPACITY = 480.0
ARRAY = 1.6 * 0.26
"""m² of triple-junction cells that turn 26 % of the light into power."""

DUST_PER_SOL = 0.0028
"""The part of the light that a sol's dust takes away: 0.28 % on Pathfinder (Landis and Jenkins, 2000)."""

CLEANED = 80
"""The sols after which a gust cleans the array, as happened to both Mars Exploration Rovers."""

ASLEEP = 5.0
AWAKE = 32.0
MOTORS = 60.0
MOTORS_PER_DEGREE = 7.0
"""W for each degree of slope: 185 kg that are lifted at 0.042 m/s, with the losses of the gears."""

INSTRUMENTS = 40.0
RADIO = 15.0
HEATER = 45.0

QUIET = 0.3
"""The charge below which the radio is off, so that there is power for the heater until the morning."""

# Heat

BODY = 60_000.0
"""J/K: about 60 kg of electronics, batteries and frame."""

LEAK = 0.7
"""W/K through the insulation of aerogel."""

ISOTOPES = 8.0
"""W from heater units of plutonium: eight of 1 W each, as in the Mars Exploration Rovers."""

HEATED = (-26.0, -18.0)
"""°C between which the heater goes from all to nothing. Lithium-ion cells must not be charged far below this."""

# Driving

TOP_SPEED = 0.042
"""m/s on level ground: 152 m in an hour, as Perseverance drives."""

LEG = 55.0
"""Metres from one waypoint to the next, where the rover stops for science."""

TURN = 16.0
"""Metres after a waypoint in which the rover turns to the next one."""

SCIENCE = 2_400.0
"""Seconds of science at a waypoint."""

# The radio link, in dBm: 8.5 W at 401.6 MHz, as the relay radios at Mars send.

SENT = 39.3
FREQUENCY = 401.6
NOISE_FLOOR = -122.0
STRONGEST = -93.0


@dataclass(frozen=True, slots=True)
class State:
    """A rover at a moment.

    - `time`: the mission's time in seconds since the Unix epoch.
    - `landing`: the number of the sol on which the mission began.
    - `x`, `y`: metres east and north of the landing site.
    - `energy`: Wh in the battery.
    - `body`: °C of the body.
    - `left`: seconds of science that are left at this waypoint.
    - `solar`, `load`: W that came in and went out during the step to this state.
    """

    time: float
    landing: int
    x: float = 0.0
    y: float = 0.0
    odometer: float = 0.0
    heading: float = 0.0
    speed: float = 0.0
    energy: float = 0.62 * CAPACITY
    body: float = -20.0
    activity: Activity = "charging"
    left: float = 0.0
    solar: float = 0.0
    load: float = 0.0

    @property
    def charge(self) -> float:
        """How full the battery is, from 0 to 1."""
        return self.energy / CAPACITY


class Link(NamedTuple):
    """How well an orbiter hears the rover. `percent` is 0 where only noise is left."""

    contact: Contact
    dbm: float
    percent: float


class Around(NamedTuple):
    """The surroundings of a rover at a moment."""

    sun: Sun
    light: float
    air: float
    link: Link


def morning_before(time: float, place: Place = SITE) -> float:
    """Return the latest local morning at or before a time."""
    _, hour = mean_time(time, place.longitude)
    return time - (hour - MORNING) % 24.0 / 24.0 * SOL


class Rover:
    """A rover that was made from a seed. It has no state: its methods take one."""

    def __init__(self, seed: int = 1, place: Place = SITE) -> None:
        self.seed = seed
        self.place = place
        self.ground = Ground(seed)
        self.orbiters = relays(seed)

    def land(self, time: float) -> State:
        """Return the state at the beginning of a mission."""
        sol, _ = mean_time(time, self.place.longitude)
        return self._step(State(time, sol, heading=self.course(0.0)), 0.0)

    def advance(self, state: State, seconds: float) -> State:
        """Return the state some seconds later."""
        count = max(math.ceil(seconds / STEP), 1)
        for _ in range(count):
            state = self._step(state, seconds / count)
        return state

    def around(self, state: State) -> Around:
        """Return what the rover meets at its place and time."""
        place = self.position(state)
        above = sun(state.time, place)
        return Around(
            above,
            irradiance(above, optical_depth(state.time, self.seed)),
            air_temperature(state.time, place, self.seed),
            self.link(state.time, place),
        )

    def position(self, state: State) -> Place:
        """Return the latitude and the longitude."""
        north, east = math.degrees(state.y / RADIUS), math.degrees(state.x / RADIUS)
        latitude = self.place.latitude + north
        return Place(latitude, self.place.longitude + east / math.cos(math.radians(latitude)))

    def height(self, state: State) -> float:
        """Return the metres above the reference height of Mars."""
        return SITE_HEIGHT + self.ground.height(state.x, state.y)

    def course(self, odometer: float) -> float:
        """Return the heading at a place on the route, in degrees clockwise from north.

        The route is endless. Behind each waypoint, it turns smoothly into the direction of the next one.
        """
        leg, along = divmod(odometer, LEG)
        part = min(along / TURN, 1.0)
        before, after = self._bearing(leg - 1), self._bearing(leg)
        return (before + (after - before) * part * part * (3.0 - 2.0 * part)) % 360.0

    def link(self, time: float, place: Place) -> Link:
        """Return the link to the orbiter that hears the rover best."""
        found = (contact(time, place, orbiter) for orbiter in self.orbiters)
        best = max(found, key=strength)
        fading = 1.5 * wave(self.seed, "fading", time / 20.0)
        dbm = max(strength(best) + fading, NOISE_FLOOR + 0.5 * fading)
        share = (dbm - NOISE_FLOOR - 0.75) / (STRONGEST - NOISE_FLOOR - 0.75)
        return Link(best, dbm, 100.0 * max(0.0, min(1.0, share)))

    def _bearing(self, leg: float) -> float:
        return 310.0 + 95.0 * wave(self.seed, "bearing", leg * 0.4)

    def _step(self, state: State, seconds: float) -> State:
        around = self.around(state)
        activity = decide(state, around.sun.elevation)
        speed = self._speed(state) if activity == "driving" else 0.0
        load = self._load(state, activity, around)
        solar = around.light * ARRAY * cleanness(mean_time(state.time, self.place.longitude)[0] - state.landing)
        moved = self._drive(state, speed * seconds)
        return replace(
            moved,
            time=state.time + seconds,
            speed=speed,
            energy=max(0.0, min(CAPACITY, state.energy + (solar - load) * seconds / 3_600.0)),
            body=state.body + _heat(state, activity, around.air) * seconds / BODY,
            activity=activity,
            left=moved.left - seconds if activity == "science" else moved.left,
            solar=solar,
            load=load,
        )

    def _drive(self, state: State, distance: float) -> State:
        """Return the state after some metres of the route. A waypoint on them begins a stop for science."""
        odometer = state.odometer + distance
        heading = self.course(odometer)
        # The direction in the middle of a step, which is short against any turn.
        middle = math.radians(self.course(state.odometer + distance / 2.0))
        return replace(
            state,
            x=state.x + distance * math.sin(middle),
            y=state.y + distance * math.cos(middle),
            odometer=odometer,
            heading=heading,
            left=SCIENCE if odometer // LEG > state.odometer // LEG else max(state.left, 0.0),
        )

    def _speed(self, state: State) -> float:
        slope = self.ground.slope(state.x, state.y, state.heading)
        turns = state.odometer % LEG < TURN
        return TOP_SPEED * (0.6 if turns else 1.0) / (1.0 + (abs(slope) / 7.0) ** 2)

    def _load(self, state: State, activity: Activity, around: Around) -> float:
        load = electronics(activity)
        if activity == "driving":
            slope = self.ground.slope(state.x, state.y, state.heading)
            load += MOTORS + MOTORS_PER_DEGREE * max(slope, 0.0)
        elif activity == "science":
            load += INSTRUMENTS
        if around.link.percent > 0.0 and state.charge > QUIET:
            load += RADIO
        return load + heater(state)


def decide(state: State, elevation: float) -> Activity:
    """Return what a rover does next, by its battery and the height of the sun.

    Each limit is lower for what it does already, so that it does not change its mind at every step.
    """
    charge, before = state.charge, state.activity
    asleep = before == "sleeping"
    if elevation < (9.0 if asleep else 5.0) or charge < (0.25 if asleep else 0.15):
        return "sleeping"
    # A night takes most of a full battery.
    if charge < (0.5 if before in ("driving", "science") else 0.6):
        return "charging"
    if state.left > 0.0:
        return "science"
    return "driving" if elevation > 20.0 else "charging"


def strength(contact: Contact) -> float:
    """Return the dBm at which an orbiter receives the rover, without fading."""
    # The loss in free space, for kilometres and MHz (ITU-R P.525).
    loss = 32.45 + 20.0 * math.log10(contact.distance / 1_000.0 * FREQUENCY)
    # Near the horizon, rocks and the antenna's own pattern take the rest. Below it, the planet does.
    low = max(12.0 - contact.elevation, 0.0)
    return SENT + contact.orbiter.gain - loss - 0.08 * low * low


def heater(state: State) -> float:
    """Return the W that the thermostat gives to the heater. With an empty battery, there are none."""
    cold, warm = HEATED
    part = max(0.0, min(1.0, (warm - state.body) / (warm - cold)))
    return HEATER * part if state.charge > 0.02 else 0.0


def cleanness(sol: int) -> float:
    """Return the part of the light that dust on the array lets through."""
    return float((1.0 - DUST_PER_SOL) ** (20 + sol % CLEANED))


def electronics(activity: Activity) -> float:
    """Return the W of the computer and other electronics, without motors, instruments, radio and heater."""
    return ASLEEP if activity == "sleeping" else AWAKE


def _heat(state: State, activity: Activity, air: float) -> float:
    """Return the W that warm the body. Motors, the radio and the instruments are outside."""
    return electronics(activity) + heater(state) + ISOTOPES - LEAK * (state.body - air)
