from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from fastapi import FastAPI

from tailrace import Engine, LogStore
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.rover.mars import SOL
from tailrace.rover.simulation import SITE, Rover, State, morning_before
from tailrace.rover.telemetry import HISTORY, PILOTS, Reading, Telemetry, read, resume, telemetry_router
from tests.log.redis.redis_server import RedisServer
from tests.log.redis.stores import until
from tests.rover.watching import NDJSON, assert_unbroken, readings, take, watching
from tests.serving import http_client, serving
from tests.system.servers import PATIENCE

NOW = datetime(2026, 11, 28, tzinfo=UTC).timestamp()
EVERY, SPEED = 0.02, 1_000.0
TICK = EVERY * SPEED


def telemetry(engine: Engine, seed: int = 1) -> Telemetry:
    return Telemetry(engine, Rover(seed), every=EVERY, speed=SPEED, now=lambda: NOW)


@asynccontextmanager
async def flown(url: str | LogStore = "memory://") -> AsyncIterator[Telemetry]:
    """A telemetry that runs, with an engine of its own."""
    engine = Engine(url, shutdown_grace=0)
    try:
        async with (flight := telemetry(engine)).running():
            yield flight
    finally:
        await engine.aclose()


async def seen(flight: Telemetry, count: int) -> list[Reading]:
    """The first readings that are kept."""
    found: list[Reading] = []
    async with asyncio.timeout(PATIENCE):
        with (await flight.readings()).tail(0) as tail:
            async for entries in tail:
                found += [Reading.model_validate(entry.data) for entry in entries]
                if len(found) >= count:
                    break
    return found


@asynccontextmanager
async def served(url: str = "memory://") -> AsyncIterator[str]:
    app = FastAPI()
    app.include_router(telemetry_router(telemetry(engine := Engine(url, shutdown_grace=0))))
    async with serving(app) as address:
        yield address
        engine.drain()  # as a signal does


# Readings


def test_a_reading_says_what_the_state_is() -> None:
    rover = Rover(1)
    state = rover.advance(rover.land(morning_before(NOW)), 3 * 3_600.0)
    reading = read(rover, state)
    assert (reading.sol, reading.state, reading.local_time[:3]) == (1, state.activity, "11:")
    assert reading.time.timestamp() == pytest.approx(state.time, abs=0.001)
    assert (reading.odometer, reading.battery) == (round(state.odometer, 3), round(100 * state.charge, 3))
    assert 0 <= reading.heading < 360
    assert SITE.latitude != reading.location.latitude == pytest.approx(SITE.latitude, abs=0.1)
    assert reading.relay.orbiter in {orbiter.name for orbiter in rover.orbiters}


def test_a_state_comes_back_from_its_reading() -> None:
    rover = Rover(1)
    state = rover.advance(rover.land(morning_before(NOW)), 30 * 3_600.0)
    again = resume(rover, Reading.model_validate_json(read(rover, state).model_dump_json()))
    for name in {field.name for field in fields(State)} - {"left"}:
        before, after = getattr(state, name), getattr(again, name)
        assert after == before if isinstance(before, str) else after == pytest.approx(before, abs=0.06), name
    assert again.landing == state.landing
    assert read(rover, rover.advance(again, 60.0)).sol == 2


def test_a_clock_runs_from_midnight_to_midnight() -> None:
    rover, start = Rover(1), morning_before(NOW)
    clocks = [read(rover, State(start + SOL / 1_440 * minute, 0)).local_time for minute in range(0, 1_440, 7)]
    assert min(clocks)[:5] < "00:08"
    assert max(clocks)[:5] > "23:52"


# One process


async def test_a_rover_says_something_at_each_tick() -> None:
    async with flown() as flight:
        found = await seen(flight, 20)
        assert flight.flies
        assert found[0].time.timestamp() == pytest.approx(morning_before(NOW), abs=0.001)
        assert found[-1].time > found[0].time
        assert_unbroken(found, TICK)
        assert (await flight.readings()).retention.age == HISTORY
    assert not flight.flies


async def test_all_viewers_see_the_same_rover() -> None:
    async with served() as url, watching(url) as one, watching(url, accept=NDJSON) as other:
        seen_by_one, seen_by_other = await take(one, 10), await take(other, 10)
        assert [frame.data for frame in seen_by_one] == [frame.data for frame in seen_by_other]
        assert_unbroken(readings(seen_by_one), TICK)


async def test_a_viewer_who_comes_late_gets_the_history_first() -> None:
    async with served() as url:
        async with watching(url) as early:
            first = await take(early, 30)
        async with watching(url) as late:
            assert await take(late, 30) == first


async def test_an_event_source_comes_back_without_a_gap() -> None:
    async with served() as url:
        found = []
        last: str | None = None
        for _ in range(4):
            async with watching(url, last_event_id=last) as reader:
                found += await take(reader, 7)
                last = found[-1].id
        assert_unbroken(readings(found), TICK)


async def test_a_viewer_may_ask_for_fewer_readings() -> None:
    async with served() as url:
        async with watching(url, query=f"?pace={5 * EVERY}") as one:
            first = await take(one, 4)
        assert_unbroken(readings(first), 5 * TICK)
        async with (
            watching(url, query=f"?pace={5 * EVERY}") as other,
            watching(url, query=f"?pace={5 * EVERY}", last_event_id=first[1].id) as same,
        ):
            assert [frame.data for frame in await take(other, 4)] == [frame.data for frame in first]
            assert await take(same, 2) == first[2:]
        async with watching(url, query=f"?pace={EVERY / 2}") as every:
            assert_unbroken(readings(await take(every, 5)), TICK)


async def test_a_server_that_stops_sends_its_viewers_away() -> None:
    app = FastAPI()
    app.include_router(telemetry_router(telemetry(engine := Engine(shutdown_grace=0))))
    async with serving(app) as url, watching(url) as reader:
        await take(reader, 3)
        engine.drain()
        frames = await reader.rest()
        assert "farewell" in {frame.event for frame in frames}


async def test_a_failure_is_told_and_the_rover_drives_on(caplog: pytest.LogCaptureFixture) -> None:
    async with flown() as flight:
        before = await seen(flight, 5)
        await flight.engine.forget(await flight.readings())
        await until(lambda: not flight.flies)
        await until(lambda: flight.flies)
        assert (await seen(flight, 1))[0].time == before[0].time  # nothing is left to go on from
    assert "no telemetry" in caplog.text


# Several processes


async def test_of_several_processes_one_flies(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        flights = [await stack.enter_async_context(flown(redis.url)) for _ in range(3)]
        runs = await asyncio.gather(*(seen(flight, 20) for flight in flights))
        assert sum(flight.flies for flight in flights) == 1
        for run in runs:
            assert_unbroken(run, TICK)
            assert run[:20] == runs[0][:20]


async def test_another_process_goes_on_when_the_pilot_leaves(redis: RedisServer) -> None:
    async with AsyncExitStack() as leaving:
        pilot = await leaving.enter_async_context(flown(redis.url))
        await until(lambda: pilot.flies)
        async with flown(redis.url) as heir:
            await seen(heir, 5)
            assert not heir.flies
            await leaving.aclose()
            await until(lambda: heir.flies)
            count = (await heir.readings()).top
            assert_unbroken(await seen(heir, count + 10), TICK)


@pytest.mark.parametrize("rounds", [0, 1])
async def test_the_rover_goes_on_after_an_outage(
    rounds: int, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with flown(RedisStore(own_redis.url, pace=Pace(patience=0.2))) as flight:
        await seen(flight, 10)
        own_redis.kill()
        await until(lambda: not flight.flies)
        await until(lambda: caplog.text.count("no telemetry: ") > rounds)
        own_redis.start()
        await until(lambda: flight.flies)
        count = (await flight.readings()).top
        assert_unbroken(await seen(flight, count + 5), TICK)


async def test_a_pilot_gives_up_before_another_one_may_have_gone_on(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with flown(own_redis.url) as flight:
        await seen(flight, 3)
        with own_redis.frozen():
            await until(lambda: not flight.flies)
        await until(lambda: flight.flies)
        count = (await flight.readings()).top
        assert_unbroken(await seen(flight, count + 3), TICK)
    assert "no telemetry: the store did not accept a reading within 2 s" in caplog.text


async def test_what_the_last_pilot_has_left_does_not_keep_the_next_one_back() -> None:
    engine = Engine(shutdown_grace=0)
    await (await engine.log(PILOTS)).close()
    async with telemetry(engine).running():
        await seen(flight := telemetry(engine), 3)
        assert not flight.flies
    await engine.aclose()


async def test_no_client_reaches_the_log_of_pilots() -> None:
    async with served() as url, http_client(url) as client:
        assert (await client.get(PILOTS)).status_code == 404
        assert (await client.post(f"{PILOTS}/stop")).status_code == 404
