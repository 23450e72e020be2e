"""Who is in a room: several processes read one log of those who come and go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tailrace import MemoryLog, Retention, StoreUnavailable
from tailrace.events import Entries
from tailrace.log.base import BATCH_BYTES
from tailrace.rooms.lives import Lives
from tailrace.rooms.presence import SNAPSHOT_EVERY, Presence
from tests.asgi.apps import small_engine
from tests.raw import BOUND
from tests.rooms.apps import until

pytestmark = pytest.mark.usefixtures("silent_loop")

PLACE = {"announced": 0, "room": ["another epoch", 0]}
"""What an entry says of the room. Nobody else announces what is of another epoch."""


class Told(MemoryLog):
    """A room in which joins and leaves are announced."""

    def __init__(self, retention: Retention | None = None) -> None:
        super().__init__("room", retention)

    @property
    def events(self) -> list[Any]:
        entries = self.read_nowait(self.base, 10_000)
        return [(entry.data["member"], entry.event, entry.data["members"]) for entry in entries]


def presence(log: MemoryLog, told: Told, delay: float = 0.0) -> Presence:
    return Presence(log, told, Lives(None, "processes", nobody, delay=0.0), leave_delay=delay)


async def nobody(process: str) -> None:
    raise AssertionError(f"expected no end of a process, but {process} ended")  # pragma: no cover


async def test_each_join_and_leave_is_told_once_whatever_process_they_are_at() -> None:
    log, told = MemoryLog("members"), Told()
    one, two = presence(log, told), presence(log, told)
    await one.enter("ada")
    await two.enter("ada")
    await two.enter("bob")
    assert await one.members() == await two.members() == ["ada", "bob"]
    await one.leave("ada")
    assert await two.members() == ["ada", "bob"]
    await two.leave("ada")
    assert await one.members() == ["bob"]
    await two.leave("bob")
    assert told.events == [("ada", "join", 1), ("bob", "join", 2), ("ada", "leave", 1), ("bob", "leave", 0)]


async def test_two_processes_at_once() -> None:
    log, told = MemoryLog("members"), Told()
    processes = [presence(log, told) for _ in range(5)]
    await asyncio.gather(*(process.enter("ada") for process in processes for _ in range(3)))
    assert told.events == [("ada", "join", 1)]
    await asyncio.gather(*(process.leave("ada") for process in processes for _ in range(3)))
    assert told.events[1:] == [("ada", "leave", 0)]


class Waiting(Told):
    """A room in which the first announcement takes until a test lets it go on."""

    __slots__ = ("begun", "go_on")

    def __init__(self, retention: Retention | None = None) -> None:
        super().__init__(retention)
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def add(self, rows: Any, *, fence: int | None = None, key: str | None = None) -> range:
        if not self.begun.is_set():
            self.begun.set()
            await self.go_on.wait()
        return await super().add(rows, fence=fence, key=key)


async def test_announcements_are_in_the_order_of_what_happened() -> None:
    log, told = MemoryLog("members"), Waiting()
    slow, fast = presence(log, told), presence(log, told)
    async with asyncio.timeout(BOUND):
        first = asyncio.create_task(slow.enter("ada"))
        await told.begun.wait()
        await fast.enter("bob")
        assert told.events == [("ada", "join", 1), ("bob", "join", 2)]
        told.go_on.set()
        await first
    await slow.enter("cy")
    assert told.events == [("ada", "join", 1), ("bob", "join", 2), ("cy", "join", 3)]


async def test_a_process_that_dies_before_it_announces_a_join_leaves_that_to_others() -> None:
    log, told = MemoryLog("members"), Waiting()
    dying, other = presence(log, told), presence(log, told)
    async with asyncio.timeout(BOUND):
        entering = asyncio.create_task(dying.enter("ada"))
        await told.begun.wait()
        entering.cancel()
        await asyncio.wait([entering])
    await other.enter("bob")
    await other.leave("bob")
    assert told.events == [("ada", "join", 1), ("bob", "join", 2), ("bob", "leave", 1)]


async def test_what_a_room_may_have_forgotten_is_not_announced_again() -> None:
    log, told = MemoryLog("members"), Told(Retention(count=10))
    here, there = presence(log, told), presence(log, told)
    await here.enter("ada")
    for number in range(20):
        await told.append({"member": "ada", "members": number})
    await there.enter("bob")
    assert told.events[-2:] == [("ada", None, 19), ("bob", "join", 2)]


async def test_a_member_that_comes_back_within_the_delay_has_not_left() -> None:
    log, told = MemoryLog("members"), Told()
    here = presence(log, told, delay=0.01)
    await here.enter("ada")
    leaving = asyncio.create_task(here.leave("ada"))
    await asyncio.sleep(0)
    assert (here.connections, await here.members()) == (0, ["ada"])
    await here.enter("ada")
    await leaving
    assert told.events == [("ada", "join", 1)]
    assert here.connections == 1
    await here.leave("ada")
    assert await here.members() == []


async def test_a_leave_that_is_cancelled_is_told_at_once() -> None:
    log, told = MemoryLog("members"), Told()
    here = presence(log, told, delay=60)
    await here.enter("ada")
    leaving = asyncio.create_task(here.leave("ada"))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert told.events[-1] == ("ada", "leave", 0)


async def test_a_leave_is_told_at_once_when_the_server_stops() -> None:
    log, told, engine = MemoryLog("members"), Told(), small_engine()
    here = Presence(log, told, Lives(engine, "processes", nobody, delay=60), leave_delay=60)
    for name in ("ada", "bob"):
        await here.enter(name)
    leaving = asyncio.create_task(here.leave("ada"))
    await asyncio.sleep(0)
    assert not told.events[2:]
    engine.drain()
    async with asyncio.timeout(BOUND):
        await leaving
        await here.leave("bob")
        await engine.aclose()
    assert told.events[2:] == [("ada", "leave", 1), ("bob", "leave", 0)]


async def test_a_process_that_comes_late_begins_with_a_snapshot() -> None:
    log, told = MemoryLog("members", Retention(count=SNAPSHOT_EVERY + 50)), Told()
    first, busy = presence(log, told), presence(log, told)
    await first.enter("ada")
    for number in range(SNAPSHOT_EVERY):
        await busy.enter(f"guest {number}")
        await busy.leave(f"guest {number}")
    await busy.enter("bob")
    assert log.base > 1
    late = presence(log, told)
    assert await late.members() == ["ada", "bob"]
    await first.leave("ada")
    assert await late.members() == await busy.members() == ["bob"]
    await late.enter("bob")
    await late.leave("bob")
    assert told.events[-1] == ("ada", "leave", 1)


async def test_a_process_that_has_slept_begins_anew() -> None:
    log, told = MemoryLog("members", Retention(count=SNAPSHOT_EVERY + 50)), Told()
    asleep, busy = presence(log, told), presence(log, told)
    await asleep.enter("ada")
    for number in range(2 * SNAPSHOT_EVERY):
        await busy.enter(f"guest {number}")
        await busy.leave(f"guest {number}")
    assert await asleep.members() == ["ada"]


class Refusing(MemoryLog):
    """A log of a store that does not answer now and then."""

    __slots__ = ("refuses",)

    refuses: bool

    async def read(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        if self.refuses:
            raise StoreUnavailable(self.name, "the test refuses it")
        return await super().read(after, limit, size)

    async def add(self, rows: Any, *, fence: int | None = None, key: str | None = None) -> range:
        if self.refuses:
            raise StoreUnavailable(self.name, "the test refuses it")
        return await super().add(rows, fence=fence, key=key)


async def test_a_leave_that_could_not_be_written_is_told_later(caplog: pytest.LogCaptureFixture) -> None:
    log, told = Refusing("members"), Told()
    log.refuses = False
    here = presence(log, told)
    await here.enter("ada")
    log.refuses = True
    await here.leave("ada")
    assert "cannot announce yet that ada has left" in caplog.text
    log.refuses = False
    await here.enter("bob")
    assert await here.members() == ["bob"]
    assert told.events[1:] == [("bob", "join", 2), ("ada", "leave", 1)]


class Together(Lives):
    """One of several processes, as far as it knows."""

    @property
    def shared(self) -> bool:
        return True


async def test_a_process_follows_the_others_while_somebody_is_there(caplog: pytest.LogCaptureFixture) -> None:
    log, told = Refusing("members"), Told()
    log.refuses = False
    here = Presence(log, told, Together(None, "processes", nobody, delay=0.0), leave_delay=0.0)
    async with here.followed():
        await asyncio.sleep(0)
        await log.append({"process": "elsewhere", "in": ["ada"], "out": [], **PLACE})
        log.refuses = True
        await until(lambda: "may be noticed late" in caplog.text)
        log.refuses = False
        async with here.followed(), here.followed():  # the next who comes begins anew
            await until(lambda: here._count)
        await log.append({"process": "elsewhere", "in": ["bob"], "out": [], **PLACE})
        await until(lambda: len(here._count) == 2)
    assert log.readers == 0


async def test_entries_that_say_what_is_known_change_nothing() -> None:
    log, told = MemoryLog("members"), Told()
    here = presence(log, told)
    await here.enter("ada")
    entry = {"process": "elsewhere", "in": ["bob"], "out": ["ada", "cy"], **PLACE}
    await log.append(entry, entry, {"gone": "nowhere", **PLACE})
    await log.append({"process": "nowhere", "in": [], "out": [], **PLACE})
    assert await here.members() == ["ada", "bob"]
    await here.bury("elsewhere")
    await here.bury("elsewhere")
    assert await here.members() == ["ada"]
    assert told.events == [("ada", "join", 1), ("bob", "leave", 1)]
