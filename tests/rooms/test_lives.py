"""Rooms in Redis: several processes, of which some die."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import websockets

from tailrace import StoreUnavailable
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.log.store import Keeping
from tailrace.rooms import RoomLimits
from tailrace.rooms.lives import Lives
from tests.asgi.apps import small_engine
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.raw import BOUND
from tests.rooms.apps import House, shared_engine, until
from tests.serving import accepting, free_port, process

pytestmark = pytest.mark.usefixtures("silent_loop")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(redis: RedisServer) -> None:
    redis.ask("FLUSHALL")


async def test_people_at_two_processes_are_in_one_room(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(House(engine=shared_engine(redis.url)).open()) for _ in range(2)]
        ada = await stack.enter_async_context(here.enter("red", "ada"))
        assert await ada.hear() == ("join", "ada")
        async with there.enter("red", "bob") as bob, there.enter("red", "ada") as twin:
            assert await bob.until("join", "bob") == [("join", "ada"), ("join", "bob")]
            await bob.say("hello")
            assert await ada.until("message", "hello") == [("join", "bob"), ("message", "hello")]
            assert await twin.until("message", "hello")
            assert await here.members("red") == await there.members("red") == ["ada", "bob"]
        assert await ada.hear() == ("leave", "bob")
        await ada.say("still here")
        assert await ada.hear() == ("message", "still here")
        assert await there.members("red") == ["ada"]


def users_of(house: House) -> int:
    return sum(room.users for room in house.router.rooms._rooms.values())


async def test_many_come_and_go_at_two_processes_and_each_is_told_of_once(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        houses = [await stack.enter_async_context(House(engine=shared_engine(redis.url)).open()) for _ in range(2)]
        watch = await stack.enter_async_context(houses[0].enter("red"))

        async def visit(house: House, name: str) -> None:
            async with house.enter("red", name) as guest:
                await guest.until("join", name)

        await asyncio.gather(*(visit(house, f"guest{number}") for house in houses for number in range(10)))
        for house in houses:
            await house.until_members("red")
        # A member is gone from the list a moment before that is told in the room.
        await until(lambda: [users_of(house) for house in houses] == [1, 0])
        await (await houses[0].router.room("red")).publish("over")
        heard = await watch.until("message", "over")
        for number in range(10):
            told = [event for event, name in heard if name == f"guest{number}"]
            assert told == ["join", "leave"] * (len(told) // 2)
            assert told


async def test_members_at_a_process_that_is_killed_leave_once(redis: RedisServer) -> None:
    port = free_port()
    command = ["uvicorn", "tests.rooms.shared_app:app", "--port", str(port), "--log-level", "warning"]
    async with AsyncExitStack() as stack:
        houses = [await stack.enter_async_context(House(engine=shared_engine(redis.url)).open()) for _ in range(2)]
        guests = [
            await stack.enter_async_context(house.enter("red", name))
            for house, name in zip(houses, ["ada", "bob"], strict=True)
        ]
        with process(command, REDIS=redis.url) as server:
            await accepting(port)
            address = f"ws://127.0.0.1:{port}/rooms/red?name="
            async with asyncio.timeout(BOUND):
                victims = [await websockets.connect(address + name) for name in ("eve", "ada", "eve")]
            assert await guests[0].until("join", "eve")
            assert await houses[0].members("red") == ["ada", "bob", "eve"]
            server.kill()
            for guest in guests:
                assert await guest.until("leave", "eve")
            for victim in victims:
                await victim.close()
        for house in houses:
            assert await house.members("red") == ["ada", "bob"]
            await (await house.router.room("red")).publish("over")
            assert await guests[1].until("message", "over") == [("message", "over")]


@pytest.mark.parametrize("name", ["ada", None])
@pytest.mark.parametrize("first", [True, False])
async def test_members_at_a_dead_process_leave_whoever_is_left(redis: RedisServer, name: str, first: bool) -> None:
    port = free_port()
    command = ["uvicorn", "tests.rooms.shared_app:app", "--port", str(port), "--log-level", "warning"]
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(House(engine=shared_engine(redis.url)).open())
        with process(command, REDIS=redis.url) as server:
            await accepting(port)
            async with asyncio.timeout(BOUND):
                if first:
                    guest = await stack.enter_async_context(house.enter("red", name))
                victim = await websockets.connect(f"ws://127.0.0.1:{port}/rooms/red?name=eve")
                assert await victim.recv()
                if not first:
                    guest = await stack.enter_async_context(house.enter("red", name))
                await guest.until("join", "eve")
                server.kill()
                await guest.until("leave", "eve")
                await victim.close()


async def test_members_of_a_quiet_room_are_kept(redis: RedisServer) -> None:
    engine = small_engine(url=RedisStore(redis.url, Keeping(idle=1.0), pace=Pace(interval=0.05, linger=0.05)))
    async with House(engine=engine).open() as house, house.enter("red", "ada") as ada:
        await ada.hear()
        await asyncio.sleep(1.5)
        assert await house.members("red") == ["ada"]


async def test_the_dead_are_found_by_who_comes_late(redis: RedisServer) -> None:
    port = free_port()
    command = ["uvicorn", "tests.rooms.shared_app:app", "--port", str(port), "--log-level", "warning"]
    with process(command, REDIS=redis.url) as server:
        await accepting(port)
        async with asyncio.timeout(BOUND):
            victim = await websockets.connect(f"ws://127.0.0.1:{port}/rooms/red?name=eve")
            assert json.loads(await victim.recv())["event"] == "join"
        server.kill()
        server.wait()
        await victim.close()
    async with House(engine=shared_engine(redis.url)).open() as house, house.enter("red") as guest:
        assert await guest.until("leave", "eve") == [("join", "eve"), ("leave", "eve")]
        assert await house.members("red") == []


async def test_a_process_that_stops_hands_its_members_over(redis: RedisServer) -> None:
    port = free_port()
    command = ["uvicorn", "tests.rooms.shared_app:app", "--port", str(port), "--log-level", "warning"]
    async with (
        House(engine=shared_engine(redis.url)).open() as house,
        house.enter("red", "ada") as ada,
    ):
        with process(command, REDIS=redis.url, LEAVE_DELAY=str(10 * BOUND)) as server:
            await accepting(port)
            address = f"ws://127.0.0.1:{port}/rooms/red?name="
            async with asyncio.timeout(BOUND):
                victims = [await websockets.connect(address + name) for name in ("eve", "mia")]
            await ada.until("join", "mia")
            await victims[0].close()  # she would leave later
            server.terminate()
            assert await asyncio.to_thread(server.wait, BOUND) in (0, -signal.SIGTERM)
            await victims[1].close()
        left = {await ada.hear(), await ada.hear()}
        assert left == {("leave", "eve"), ("leave", "mia")}
        assert await house.members("red") == ["ada"]


async def test_who_comes_back_at_another_process_has_not_left(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(House(engine=shared_engine(redis.url), leave_delay=0.5).open())
            for _ in range(2)
        ]
        ada = await stack.enter_async_context(here.enter("red", "ada"))
        async with there.enter("red", "bob"):
            await ada.until("join", "bob")
            there.engine.drain()
        async with here.enter("red", "bob"):
            room = await here.router.room("red")
            presence = room._presence
            assert len(presence._here) == 2
            await until(lambda: len(presence._here) == 1)
            await room.publish("over")
            assert await ada.until("message", "over") == [("message", "over")]
            assert await here.members("red") == ["ada", "bob"]


async def test_a_process_that_was_taken_for_dead_comes_back(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(House(engine=shared_engine(redis.url)).open()) for _ in range(2)]
        ada = await stack.enter_async_context(here.enter("red", "ada"))
        bob = await stack.enter_async_context(there.enter("red", "bob"))
        await ada.until("join", "bob")
        name = await here.router.rooms._lives.own()
        life = await there.engine.find(f"/rooms/{{room}} processes/{name}")
        assert life is not None
        await there.engine.forget(life)  # as a burial does, in its effect
        async with asyncio.timeout(BOUND):
            while await here.router.rooms._lives.own() == name:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with there.enter("red", "cy"):
            await bob.until("join", "cy")
        await bob.until("leave", "cy")
        assert await there.members("red") == await here.members("red") == ["ada", "bob"]


async def test_strangers_cannot_fill_the_store_with_rooms(redis: RedisServer) -> None:
    async with House(engine=shared_engine(redis.url), limits=RoomLimits(rooms=2)).open() as house:
        for room in ("red", "blue", "red"):
            assert (await house.client.get(f"/rooms/{room}")).status_code == 200
        answer = await house.client.get("/rooms/green")
        assert (answer.status_code, answer.json()["code"]) == (503, "too_many_rooms")
        assert int(answer.headers["retry-after"]) > 60
        assert (await house.client.get("/rooms/blue")).status_code == 200


async def test_one_process_alone_has_no_life() -> None:
    async def ended(process: str) -> None:
        """Do nothing."""

    lives = Lives(None, "processes", ended, delay=0.0)
    name = await lives.own()
    lives.watch("other")
    assert await lives.own() == name


async def test_a_life_that_the_store_has_just_lost_is_not_named_any_more(redis: RedisServer) -> None:
    engine, ended = small_engine(url=RedisStore(redis.url, pace=Pace(interval=60.0))), asyncio.Queue[str]()
    lives = Lives(engine, "processes", ended.put, delay=0.0)
    async with asyncio.timeout(BOUND):
        name = await lives.own()
        assert await lives.own() == name
        redis.ask("FLUSHALL")
        other = await lives.own()
        assert other != name
        assert await lives.own() == other
        assert await ended.get() == name
        await engine.aclose()


async def test_a_watch_ends_with_the_server(redis: RedisServer) -> None:
    ended: list[str] = []

    async def end(process: str) -> None:
        ended.append(process)

    engine = shared_engine(redis.url)
    lives = Lives(engine, "processes", end, delay=0.0)
    await lives.own()
    lives.watch("nobody")  # the server ends before this one has begun
    async with asyncio.timeout(BOUND):
        await engine.aclose()
    assert ended == []


async def test_an_engine_that_is_used_again_watches_again(redis: RedisServer) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    engine, other = shared_engine(redis.url), shared_engine(redis.url)
    lives = Lives(engine, "processes", ended.put, delay=0.0)
    process = await Lives(other, "processes", ended.put, delay=0.0).own()
    async with asyncio.timeout(BOUND):
        lives.watch(process)
        await engine.aclose()
        lives.watch(process)
        await other.aclose()
        assert await ended.get() == process
        await engine.aclose()


async def test_what_follows_the_end_of_a_life_does_not_keep_the_server(redis: RedisServer) -> None:
    begun = asyncio.Event()

    async def end(process: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = shared_engine(redis.url)
    Lives(engine, "processes", end, delay=0.0).watch("nobody")
    async with asyncio.timeout(BOUND):
        await begun.wait()
        await engine.aclose()


async def test_what_follows_the_end_of_a_life_is_done_as_soon_as_the_store_answers(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.rooms.lives.AGAIN", 0.01)
    attempts: list[str] = []

    async def end(process: str) -> None:
        attempts.append(process)
        if len(attempts) < 3:
            raise StoreUnavailable("members", "the test refuses it")

    engine = shared_engine(redis.url)
    lives = Lives(engine, "processes", end, delay=0.0)
    lives.watch("nobody")
    async with asyncio.timeout(BOUND):
        await engine.readers.wait_none()
        await engine.aclose()
    assert attempts == ["nobody"] * 3
    assert "the members at process nobody are still in their rooms" in caplog.text


async def test_the_server_does_not_wait_for_the_next_attempt(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.rooms.lives.AGAIN", 10 * BOUND)
    failed = asyncio.Event()

    async def end(process: str) -> None:
        failed.set()
        raise StoreUnavailable("members", "the test refuses it")

    engine = shared_engine(redis.url)
    Lives(engine, "processes", end, delay=0.0).watch("nobody")
    async with asyncio.timeout(BOUND):
        await failed.wait()
        await engine.aclose()


async def test_a_room_that_is_lost_keeps_nobody_in_the_others(redis: RedisServer) -> None:
    async with (
        House(engine=shared_engine(redis.url)).open() as house,
        house.enter("blue", "ada") as ada,
        house.enter("red", "ada"),
    ):
        for room in ("blue", "red"):
            log = await house.engine.find(f"/rooms/{room} members")
            assert log is not None
            place = {"announced": 0, "room": [log.epoch, 0]}
            await log.append({"process": "dead", "in": ["eve"], "out": [], **place})
            if room == "blue":
                await house.engine.forget(log)
        async with house.enter("red") as guest:
            await guest.until("leave", "eve")
        await ada.say("still here")
        await ada.until("message", "still here")
