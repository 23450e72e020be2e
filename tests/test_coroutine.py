from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from tailrace.coroutine import begin
from tests.silence import silent_loop as silent_loop

pytestmark = pytest.mark.usefixtures("silent_loop")


async def cancelled_in_its_rest(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Begin a coroutine, and cancel a task that awaits the rest of it."""

    async def wait(rest: Awaitable[None]) -> None:
        await rest

    rest = begin(work)
    assert rest is not None
    task = asyncio.create_task(wait(rest))
    await asyncio.sleep(0)
    task.cancel()
    return task


async def test_a_coroutine_that_waits_for_nothing_is_done_at_once() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    assert begin(work()) is None
    assert done == [1]


async def test_the_rest_of_a_coroutine_goes_on_in_a_task() -> None:
    gate, done = asyncio.Event(), []

    async def work() -> None:
        for number in range(2):
            await gate.wait()
            await asyncio.sleep(0)
            done.append(number)

    rest = begin(work())
    assert rest is not None
    asyncio.get_running_loop().call_soon(gate.set)
    await rest
    assert done == [0, 1]


async def test_an_error_is_raised_where_the_rest_is_awaited() -> None:
    async def work() -> None:
        raise OSError("gone")

    rest = begin(work())
    assert rest is not None
    with pytest.raises(OSError, match="gone"):
        await rest


@pytest.mark.parametrize("catches", [True, False])
async def test_a_cancellation_reaches_the_rest(catches: bool) -> None:
    heard = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append("cancelled")
            await asyncio.sleep(0)
            heard.append("cleaned up")
            if not catches:
                raise

    task = await cancelled_in_its_rest(work())
    await asyncio.wait([task])
    assert task.cancelled() is not catches
    assert heard == ["cancelled", "cleaned up"]


async def test_a_cancellation_that_ends_the_rest_at_once() -> None:
    async def work() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    task = await cancelled_in_its_rest(work())
    await task


async def test_a_cancellation_leaves_nothing_to_the_garbage_collector() -> None:
    class Held:
        """What a coroutine refers to."""

    async def work(_held: Held) -> None:
        await asyncio.Event().wait()

    held = Held()
    gone = weakref.ref(held)
    gc.disable()
    try:
        task = await cancelled_in_its_rest(work(held))
        del held
        await asyncio.wait([task])
        del task
        assert gone() is None
    finally:
        gc.enable()
