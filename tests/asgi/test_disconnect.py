from __future__ import annotations

import asyncio

import pytest

from tailrace.asgi.disconnect import Disconnected, Message, run_until_disconnect
from tests.raw import BOUND
from tests.sources import turns


class Client:
    """What a server would hand over of a client."""

    def __init__(self, *messages: str) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self.say(message)

    def say(self, message: str) -> None:
        self._messages.put_nowait({"type": message})

    async def receive(self) -> Message:
        return await self._messages.get()


class Work:
    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> str:
        self.started.set()
        try:
            return await self.result
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def test_the_work_s_result_ends_the_wait_for_the_client() -> None:
    async def work() -> str:
        return "done"

    async with asyncio.timeout(BOUND):
        assert await run_until_disconnect(work(), Client().receive) == "done"
    this = asyncio.current_task()
    assert this is not None
    assert this.cancelling() == 0


async def test_the_work_s_exception_comes_out() -> None:
    async def work() -> None:
        raise ValueError("broken")

    async with asyncio.timeout(BOUND):
        with pytest.raises(ValueError, match="broken"):
            await run_until_disconnect(work(), Client().receive)


async def test_a_client_that_goes_ends_the_work() -> None:
    work, client = Work(), Client("http.request", "http.request")
    running = asyncio.create_task(run_until_disconnect(work.run(), client.receive))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        client.say("http.disconnect")
        with pytest.raises(Disconnected):
            await running
    assert work.cancelled.is_set()


async def test_a_client_that_has_gone_already_does_not_let_the_work_begin() -> None:
    work = Work()
    async with asyncio.timeout(BOUND):
        with pytest.raises(Disconnected):
            await run_until_disconnect(work.run(), Client("http.disconnect").receive)
    assert not work.started.is_set()


async def test_work_that_ends_while_the_client_goes_is_done() -> None:
    work, client = Work(), Client()
    running = asyncio.create_task(run_until_disconnect(work.run(), client.receive))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        await turns()
        work.result.set_result("done")
        client.say("http.disconnect")
        assert await running == "done"


async def test_cancelling_from_outside_cancels_the_work() -> None:
    work = Work()
    running = asyncio.create_task(run_until_disconnect(work.run(), Client().receive))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert work.cancelled.is_set()


async def test_cancelling_from_outside_is_not_lost_when_the_work_ends_at_the_same_time() -> None:
    work = Work()
    running = asyncio.create_task(run_until_disconnect(work.run(), Client().receive))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        await turns()
        work.result.set_result("done")
        # The work's task runs now, the one that waits for it has yet to hear of it.
        asyncio.get_running_loop().call_soon(running.cancel)
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_work_that_cancels_itself_counts_as_a_client_gone() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    async with asyncio.timeout(BOUND):
        with pytest.raises(Disconnected):
            await run_until_disconnect(work(), Client().receive)


async def test_a_receive_that_fails_ends_the_work() -> None:
    work = Work()

    async def receive() -> Message:
        await work.started.wait()
        raise ConnectionError("broken")

    async with asyncio.timeout(BOUND):
        with pytest.raises(ConnectionError):
            await run_until_disconnect(work.run(), receive)
    assert work.cancelled.is_set()
