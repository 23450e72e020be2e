from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace import Keeping, MemoryLog, MemoryStore, Retention
from tailrace.pulse import Pulse

UNBOUNDED = Retention(count=None, size=None)

pytestmark = pytest.mark.usefixtures("frozen_heap")


class Kept:
    """A store in memory with a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **bounds: Any) -> None:
        self.now = 100.0
        monkeypatch.setattr("tailrace.log.keeper.time", SimpleNamespace(monotonic=lambda: self.now))
        self.pulse = Pulse(60)
        self.store = MemoryStore(Keeping(**{"keep": 10, "count": 100, "size": 1_000, "idle": 50, **bounds}), self.pulse)
        self.keeper = self.store._keeper

    async def open(self, name: str) -> MemoryLog:
        return await self.store.attach(name, Retention())

    async def ended(self, name: str, size: int = 1) -> MemoryLog:
        log = await self.open(name)
        log.write(None, b"1" * size)
        await log.close()
        return log

    async def there(self, *names: str) -> list[bool]:
        gc.collect()
        return [await self.store.find(name) is not None for name in names]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.keeper.beat()


async def test_an_ended_log_is_forgotten_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    log = await kept.ended("a", 3)
    kept.pass_time(5)
    assert await kept.open("a") is log
    await kept.ended("b", 4)
    assert (len(kept.keeper), kept.keeper.size) == (2, 7)
    kept.pass_time(5)
    assert await kept.there("a", "b") == [False, True]
    kept.pass_time(5)
    assert await kept.there("a", "b") == [False, False]
    assert (len(kept.keeper), kept.keeper.size) == (0, 0)


async def test_the_time_counts_from_the_last_readers_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    log = await kept.open("a")
    first, second = log.tail(), log.tail()
    await log.close()
    kept.pass_time(1_000)
    first.close()
    kept.pass_time(1_000)
    assert len(kept.keeper) == 0
    second.close()
    kept.pass_time(9)
    with log.tail():
        kept.pass_time(1_000)
    kept.pass_time(9)
    assert await kept.there("a") == [True]
    kept.pass_time(1)
    assert await kept.there("a") == [False]


async def test_a_log_that_is_being_read_is_kept_however_many_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch, count=2, size=100)
    log = await kept.ended("read", 90)
    with log.tail():
        for name in "abcd":
            await kept.ended(name, 60)
        assert await kept.there("read", *"abcd") == [True, False, False, False, True]
    # The reader can come back, because what was left last goes last.
    assert await kept.there("read", "d") == [True, False]
    assert (len(kept.keeper), kept.keeper.size) == (1, 90)


async def test_of_too_many_the_one_that_was_left_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch, count=2)
    first = await kept.ended("a")
    await kept.ended("b")
    first.tail().close()
    await kept.ended("c")
    assert await kept.there(*"abc") == [True, False, True]


async def test_the_log_that_was_left_last_stays_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch, size=250)
    for name in "abc":
        await kept.ended(name, 100)
    assert await kept.there(*"abc") == [False, True, True]
    await kept.ended("giant", 1_000)
    assert await kept.there("b", "c", "giant") == [False, False, True]
    assert kept.keeper.size == 1_000
    kept.pass_time(10)
    assert await kept.there("giant") == [False]


async def test_an_open_log_is_forgotten_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    await kept.open("idle")
    writer = await kept.store.lease(await kept.open("produced"))
    reading = (await kept.open("read")).tail()
    await kept.open("written")
    held = await kept.open("held")
    kept.pass_time(40)
    (await kept.store.find("written")).write(None, b"1")  # type: ignore[union-attr]  # it is there
    kept.pass_time(10)
    assert await kept.there("idle", "produced", "read", "written", "held") == [False, True, True, True, True]
    await writer.release()
    del writer
    reading.close()
    del reading
    kept.pass_time(49)
    assert await kept.there("produced", "read", "written") == [True, True, True]
    kept.pass_time(1)
    assert await kept.there("produced", "read", "written", "held") == [False, False, False, True]
    assert await kept.open("held") is held


async def test_a_log_that_was_read_or_asked_for_in_between_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    for name in ("read", "asked", "idle"):
        await kept.open(name)
    kept.pass_time(40)
    await kept.open("asked")
    (await kept.store.find("read")).tail().close()  # type: ignore[union-attr]  # it is there
    kept.pass_time(49)
    assert await kept.there("read", "asked", "idle") == [True, True, False]
    kept.pass_time(1)
    assert await kept.there("read", "asked") == [False, False]


async def test_a_held_log_that_is_opened_again_is_looked_after_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    held = await kept.open("a")
    kept.pass_time(50)
    await kept.open("a")
    del held
    kept.pass_time(49)
    assert await kept.there("a") == [True]
    kept.pass_time(1)
    assert await kept.there("a") == [False]


async def test_open_logs_may_be_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch, idle=None)
    await kept.open("a")
    kept.pass_time(1e9)
    assert await kept.there("a") == [True]
    assert not any(kept.pulse._slots)


async def test_a_log_is_forgotten_on_request_and_not_kept_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    log = await kept.open("a")
    await kept.store.drop(log)
    await kept.store.drop(log)
    await log.close()
    assert len(kept.keeper) == 0
    ended = await kept.ended("b")
    await kept.store.drop(ended)
    ended.tail().close()
    assert (len(kept.keeper), kept.keeper.size) == (0, 0)
    assert await kept.there("a", "b") == [False, False]


async def test_the_pulse_is_joined_only_while_there_is_something_to_look_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept(monkeypatch)
    await kept.open("a")
    assert any(kept.pulse._slots)
    kept.pass_time(50)
    assert not any(kept.pulse._slots)
    await kept.ended("b")
    assert any(kept.pulse._slots)
    kept.keeper.clear()
    assert not any(kept.pulse._slots)
    assert (len(kept.keeper), kept.keeper.size) == (0, 0)
    kept.pulse.stop()


def test_a_log_that_was_opened_before_there_was_a_loop_is_looked_after_later(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    log = MemoryLog("a")
    kept.keeper.watch(log)
    assert not any(kept.pulse._slots)

    async def read() -> None:
        log.tail().close()
        assert any(kept.pulse._slots)
        kept.pulse.stop()

    asyncio.run(read())
