"""Telemetry: one simulated rover, one log of its readings, and any number of readers.

All processes that share a store share the rover. One of them flies it, and appends a reading every few seconds. When it
dies, or the store refuses it, another one goes on from the last reading, so readers see neither a gap nor an end.

This takes two logs. A process flies for as long as its producer has the lease of the log of pilots. It ends with the
pilot: with the process, if that dies. The log of readings has no writer of its own, so it takes what any pilot appends,
and goes on. Before each reading, the pilot says its name in the log of pilots. A process that was taken for dead and
comes back cannot do that, because it has lost the lease.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

from .. import (
    NDJSON,
    SSE,
    Engine,
    Job,
    Log,
    LogClosed,
    LogFenced,
    Producer,
    Retention,
    StoreUnavailable,
    StreamError,
    StreamRouter,
    Tail,
)
from .mars import SOL, mean_time
from .simulation import CAPACITY, Activity, Rover, State, morning_before

logger = logging.getLogger("tailrace.rover")

PATH = "/stream/rover-telemetry"
READINGS = PATH
PILOTS = f"{PATH}/pilots"

EVERY = 2.0
SPEED = SOL / 3_600.0
"""Mission seconds in a second: a sol takes an hour, so that the plots of a few minutes show a part of the day."""

HISTORY = 900.0
"""Seconds of readings that a new viewer gets at once."""

RETRY = 1.0
"""Seconds before the next attempt to fly, after a failure."""

PATIENCE = 2.0
"""Seconds for the store to take a reading. Others take a process for dead after two to four, and go on. So a pilot
whose network is gone must not repeat an append for longer: it might succeed when another pilot flies."""


class Location(BaseModel):
    """`x` and `y` are metres east and north of the landing site. `elevation` is in metres, as Mars counts it."""

    x: float
    y: float
    latitude: float
    longitude: float
    elevation: float


class Power(BaseModel):
    """W from the array, and to everything that uses power."""

    solar: float
    load: float


class Temperature(BaseModel):
    """°C of the air, and of the rover's body."""

    ambient: float
    body: float


class Relay(BaseModel):
    """The orbiter that hears the rover best: degrees above the horizon, km, and dBm."""

    orbiter: str
    elevation: float
    distance: float
    strength: float


class Reading(BaseModel):
    """A report of the rover about itself.

    `time` is the mission's, which may run faster than yours. `heading` counts degrees clockwise from north, `speed` is
    in m/s, `odometer` in metres, `sun` in degrees above the horizon; `battery` and `signal` are percentages.
    """

    time: datetime
    sol: int
    local_time: str
    location: Location
    heading: float
    speed: float
    odometer: float
    battery: float
    power: Power
    temperature: Temperature
    signal: float
    relay: Relay
    sun: float
    state: Activity


def read(rover: Rover, state: State) -> Reading:
    """Return the reading of a state."""
    around, place = rover.around(state), rover.position(state)
    sol, hour = mean_time(state.time, rover.place.longitude)
    orbiter, elevation, distance = around.link.contact
    return Reading(
        time=datetime.fromtimestamp(round(state.time, 3), UTC),
        sol=sol - state.landing + 1,
        local_time=_clock(hour),
        location=Location(
            x=round(state.x, 3),
            y=round(state.y, 3),
            latitude=round(place.latitude, 6),
            longitude=round(place.longitude, 6),
            elevation=round(rover.height(state), 2),
        ),
        heading=round(state.heading, 1) % 360.0,
        speed=round(state.speed, 4),
        odometer=round(state.odometer, 3),
        battery=round(100.0 * state.charge, 3),
        power=Power(solar=round(state.solar, 1), load=round(state.load, 1)),
        temperature=Temperature(ambient=round(around.air, 1), body=round(state.body, 2)),
        signal=round(around.link.percent, 1),
        relay=Relay(
            orbiter=orbiter.name,
            elevation=round(elevation, 1),
            distance=round(distance / 1_000.0, 1),
            strength=round(around.link.dbm, 1),
        ),
        sun=round(around.sun.elevation, 1),
        state=state.activity,
    )


def resume(rover: Rover, reading: Reading) -> State:
    """Return the state that a reading tells of. A stop for science that was under way is over."""
    time = reading.time.timestamp()
    sol, _ = mean_time(time, rover.place.longitude)
    return State(
        time=time,
        landing=sol - reading.sol + 1,
        x=reading.location.x,
        y=reading.location.y,
        odometer=reading.odometer,
        heading=rover.course(reading.odometer),
        speed=reading.speed,
        energy=reading.battery / 100.0 * CAPACITY,
        body=reading.temperature.body,
        activity=reading.state,
        solar=reading.power.solar,
        load=reading.power.load,
    )


def _clock(hour: float) -> str:
    seconds = int(hour * 3_600.0) % 86_400
    return f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


class Telemetry:
    """The log of readings, and this process's part in writing it."""

    def __init__(
        self,
        engine: Engine,
        rover: Rover,
        *,
        every: float = EVERY,
        speed: float = SPEED,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`every` is the seconds between readings. `speed` is the mission's seconds in a second.

        A new mission begins on the latest local morning before `now`.
        """
        self.engine = engine
        self.rover = rover
        self.every = every
        self.speed = speed
        self.flies = False
        """True while this process writes the readings."""
        self.name = f"{platform.node()}:{os.getpid()}"
        """Entries for the log of pilots while this process flies."""
        self._now = now

    async def readings(self) -> Log:
        """Return the log of readings."""
        return await self.engine.log(READINGS, retention=Retention(age=HISTORY))

    async def newest(self) -> Reading | None:
        """Return the newest reading, or None before the first."""
        log = await self.readings()
        entries = await log.read(max(log.top - 1, log.base), 1)
        return Reading.model_validate(entries[-1].data) if entries else None

    async def run(self) -> None:
        """Fly whenever nobody else does, until the engine drains."""
        while not self.engine.draining:
            try:
                await self._take_turn()
            except StoreUnavailable as error:
                logger.warning("no telemetry: %s", error)
                await asyncio.sleep(RETRY)

    @asynccontextmanager
    async def running(self, app: Any = None) -> AsyncIterator[None]:
        """Run for as long as a server runs: the lifespan of a router."""
        task = asyncio.create_task(self.run(), name="tailrace rover")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _take_turn(self) -> None:
        """Become the pilot, or wait until the pilot has gone."""
        pilots = await self.engine.log(PILOTS, retention=Retention(count=1))
        try:
            pilot = await self.engine.produce(pilots, Job(self._fly), patience=RETRY)
        except LogFenced:
            await pilots.wait_end()  # another process flies
        except LogClosed:
            pass  # the log of the last pilot, which nobody has forgotten yet
        else:
            await pilot.wait()
            if pilot.error is not None:
                logger.warning("no telemetry: %s", pilot.error)
                await asyncio.sleep(RETRY)
        await self.engine.forget(pilots)

    async def _fly(self, pilot: Producer) -> None:
        """Append a reading at each tick. If the store refuses one, the next turn goes on from the last that it has."""
        try:
            with pilot.log.tail(pilot.log.top) as said:
                await self._append_readings(pilot, said)
        except (LogClosed, StoreUnavailable, TimeoutError) as error:
            reason = str(error) or f"the store did not accept a reading within {PATIENCE:g} s"
            raise StreamError(reason, code="store_failed") from error
        finally:
            self.flies = False

    async def _append_readings(self, pilot: Producer, said: Tail) -> None:
        log, last = await self.readings(), await self.newest()
        tick = self.every * self.speed
        rover, loop = self.rover, asyncio.get_running_loop()
        state = self._land() if last is None else rover.advance(resume(rover, last), tick)
        self.flies, due = True, loop.time()
        while True:
            async with asyncio.timeout(PATIENCE):
                # A process that was frozen does not know that another one flies. But its own log does.
                await pilot.send(self.name)
                async for _ in said:
                    await log.append(read(rover, state))
                    break
            # It does not catch up either: the mission stopped with it.
            due = max(due + self.every, loop.time())
            await asyncio.sleep(due - loop.time())
            state = rover.advance(state, tick)

    def _land(self) -> State:
        return self.rover.land(morning_before(self._now(), self.rover.place))


def telemetry_router(telemetry: Telemetry) -> StreamRouter:
    """Serve the readings, and write them while the application runs."""
    router = StreamRouter(engine=telemetry.engine, lifespan=telemetry.running, tags=["telemetry"])

    @router.stream(PATH, wires=(SSE(), NDJSON()), response_model=Reading)
    async def rover_telemetry(
        pace: Annotated[float | None, Query(gt=0, le=3600, description="Seconds between readings, if not all.")] = None,
    ) -> Any:
        """Follow the rover.

        A new viewer gets the readings of the last 15 minutes, and then each new one. A viewer who comes back gets what
        was missed. With `pace`, only some of the readings are sent.
        """
        log = await telemetry.readings()
        nth = 1 if pace is None else max(round(pace / telemetry.every), 1)
        return log if nth == 1 else thinned(log, nth)

    return router


async def thinned(log: Log, nth: int) -> AsyncIterator[Any]:
    """Yield each nth reading, the same ones for every viewer."""
    with log.tail() as tail:
        async for entries in tail:
            for entry in entries:
                if entry.offset % nth == 0:
                    yield entry.data
