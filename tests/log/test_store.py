from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace import Log, Retention
from tailrace.log.memory import MemoryStore
from tailrace.log.store import Keeper
from tailrace.pulse import Pulse

UNBOUNDED = Retention(count=None, size=None)


# The store


async def test_a_store_keeps_logs_by_name() -> None:
    store = MemoryStore()
    assert await store.find("a") is None
    log = store.open("a", UNBOUNDED)
    assert store.open("a", Retention()) is log
    with pytest.raises(ValueError, match="expected no log named 'a' yet, but there is one"):
        store.create("a", UNBOUNDED)
    assert log.retention is UNBOUNDED
    assert await store.find("a") is log
    store.drop(log)
    store.drop(log)
    assert await store.find("a") is None
    held = store.open("b", UNBOUNDED)
    await store.aclose()
    assert await store.find(held.name) is None
    assert not store.survives_restart


async def test_a_released_log_stays_while_the_application_holds_it() -> None:
    store = MemoryStore()
    held = store.open("a", UNBOUNDED)
    store.release(held)
    store.release(held)
    gc.collect()
    assert await store.find("a") is held
    with pytest.raises(ValueError, match="expected no log named 'a' yet"):
        store.create("a", UNBOUNDED)
    del held
    gc.collect()
    assert await store.find("a") is None


async def test_a_released_log_that_is_opened_again_stays() -> None:
    store = MemoryStore()
    log = store.open("a", UNBOUNDED)
    epoch = log.epoch
    store.release(log)
    store.open("a", UNBOUNDED)
    del log
    gc.collect()
    assert store.open("a", UNBOUNDED).epoch == epoch


async def test_only_the_log_itself_is_dropped_or_released_by_its_name() -> None:
    store = MemoryStore()
    old = store.open("a", UNBOUNDED)
    store.drop(old)
    new = store.open("a", UNBOUNDED)
    store.drop(old)
    store.release(old)
    epoch = new.epoch
    del new
    gc.collect()
    found = await store.find("a")
    assert found is not None
    assert found.epoch == epoch


# The keeper


class Kept:
    """A keeper over a store in memory, with a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.now = 100.0
        monkeypatch.setattr("tailrace.log.store.time", SimpleNamespace(monotonic=lambda: self.now))
        self.store = MemoryStore()
        self.pulse = Pulse(60)
        self.busy: set[Log] = set()
        defaults: dict[str, Any] = {"keep": 10, "count": 100, "size": 1_000, "idle": 50}
        self.keeper = Keeper(self.store, self.pulse, busy=self.busy.__contains__, **{**defaults, **options})

    def open(self, name: str) -> Log:
        log = self.store.open(name, Retention())
        self.keeper.watch(log)
        return log

    async def ended(self, name: str, size: int = 1) -> Log:
        log = self.open(name)
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
    assert kept.open("a") is log
    await kept.ended("b", 4)
    assert (len(kept.keeper), kept.keeper.size) == (2, 7)
    kept.pass_time(5)
    assert await kept.there("a", "b") == [False, True]
    kept.pass_time(5)
    assert await kept.there("a", "b") == [False, False]
    assert (len(kept.keeper), kept.keeper.size) == (0, 0)


async def test_the_time_counts_from_the_last_readers_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    log = kept.open("a")
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
    kept.open("idle")
    kept.busy.add(kept.open("produced"))
    reading = kept.open("read").tail()
    kept.open("written")
    held = kept.open("held")
    kept.pass_time(40)
    (await kept.store.find("written")).write(None, b"1")  # type: ignore[union-attr]  # it is there
    kept.pass_time(10)
    assert await kept.there("idle", "produced", "read", "written", "held") == [False, True, True, True, True]
    kept.busy.clear()
    reading.close()
    del reading
    kept.pass_time(49)
    assert await kept.there("produced", "read", "written") == [True, True, True]
    kept.pass_time(1)
    assert await kept.there("produced", "read", "written", "held") == [False, False, False, True]
    assert kept.open("held") is held


async def test_a_log_that_was_read_or_asked_for_in_between_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    for name in ("read", "asked", "idle"):
        kept.open(name)
    kept.pass_time(40)
    kept.open("asked")
    (await kept.store.find("read")).tail().close()  # type: ignore[union-attr]  # it is there
    kept.pass_time(49)
    assert await kept.there("read", "asked", "idle") == [True, True, False]
    kept.pass_time(1)
    assert await kept.there("read", "asked") == [False, False]


async def test_a_held_log_that_is_opened_again_is_looked_after_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    held = kept.open("a")
    kept.pass_time(50)
    kept.open("a")
    del held
    kept.pass_time(49)
    assert await kept.there("a") == [True]
    kept.pass_time(1)
    assert await kept.there("a") == [False]


async def test_open_logs_may_be_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch, idle=None)
    kept.open("a")
    kept.pass_time(1e9)
    assert await kept.there("a") == [True]
    assert not any(kept.pulse._slots)


async def test_a_log_is_forgotten_on_request_and_not_kept_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    log = kept.open("a")
    kept.keeper.forget(log)
    kept.keeper.forget(log)
    await log.close()
    assert len(kept.keeper) == 0
    ended = await kept.ended("b")
    kept.keeper.forget(ended)
    ended.tail().close()
    assert (len(kept.keeper), kept.keeper.size) == (0, 0)
    assert await kept.there("a", "b") == [False, False]


async def test_the_pulse_is_joined_only_while_there_is_something_to_look_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept(monkeypatch)
    kept.open("a")
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
    log = kept.open("a")
    assert not any(kept.pulse._slots)

    async def read() -> None:
        log.tail().close()
        assert any(kept.pulse._slots)
        kept.pulse.stop()

    asyncio.run(read())
