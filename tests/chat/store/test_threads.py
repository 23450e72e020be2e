"""Threads that carry out calls."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from tailrace.chat.store.threads import Threads


@asynccontextmanager
async def some_threads(count: int = 1) -> AsyncIterator[Threads]:
    """They are closed with the block, and all of them end."""
    ended: list[threading.Thread] = []
    before = threading.enumerate()
    threads = Threads("test", count, lambda: ended.append(threading.current_thread()))
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert len(started) == count
    try:
        yield threads
    finally:
        await threads.close(5)
    assert not any(thread.is_alive() for thread in started)
    assert len(ended) == 1
    assert ended[0] in started


async def test_a_call_returns_or_raises() -> None:
    def fail() -> None:
        raise LookupError("not here")

    async with some_threads() as threads:
        assert await threads.run(lambda: threading.current_thread().name) == "test"
        with pytest.raises(LookupError, match="not here"):
            await threads.run(fail)
        assert await threads.run(lambda: 2) == 2


async def test_one_thread_keeps_the_order() -> None:
    done: list[int] = []
    async with some_threads() as threads:
        await asyncio.gather(*(threads.run(partial(done.append, number)) for number in range(9)))
    assert done == list(range(9))


async def test_several_threads_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3)
    async with some_threads(3) as threads:
        places = await asyncio.gather(*(threads.run(lambda: meeting.wait(5)) for _ in range(3)))
    assert sorted(places) == [0, 1, 2]


async def test_what_was_asked_for_is_done_before_they_end() -> None:
    async with some_threads(2) as threads:
        asked = [asyncio.create_task(threads.run(partial(abs, number))) for number in range(9)]
        await asyncio.sleep(0)
    assert [await one for one in asked] == list(range(9))


async def test_a_thread_that_waits_holds_on_to_nothing() -> None:
    class Result:
        pass

    async with some_threads() as threads:
        result = await threads.run(Result)
        await threads.run(lambda: None)
        seen = weakref.ref(result)
        del result
        assert seen() is None


async def test_one_that_hangs_is_left() -> None:
    hanging = threading.Event()
    last = threading.Event()
    threads = Threads("test", 2, last.set)
    asked = asyncio.create_task(threads.run(lambda: hanging.wait(30)))
    await asyncio.sleep(0)
    await threads.close(0.02)
    assert not last.is_set()
    hanging.set()
    assert await asyncio.wait_for(asked, 5) is True
    assert last.wait(5)
