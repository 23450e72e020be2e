from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from starlette.types import Message

from tailrace.asgi import disconnect
from tailrace.asgi.disconnect import MAX_KEPT, Disconnected, SharedReceive, Work
from tests.raw import BOUND
from tests.sources import turns

T = TypeVar("T")


class Client:
    """What a server would hand over of a client."""

    def __init__(self, *messages: str) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self.say(message)

    def say(self, message: str, body: bytes = b"") -> None:
        self._messages.put_nowait({"type": message, "body": body})

    async def receive(self) -> Message:
        return await self._messages.get()

    async def run(self, work: Coroutine[Any, Any, T], **scope: Any) -> T:
        return await Work(work).run({"path": "/x", **scope}, self.receive)


class Held:
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
        assert await Client().run(work()) == "done"
    this = asyncio.current_task()
    assert this is not None
    assert this.cancelling() == 0


async def test_the_work_s_exception_comes_out() -> None:
    async def work() -> None:
        raise ValueError("broken")

    async with asyncio.timeout(BOUND):
        with pytest.raises(ValueError, match="broken"):
            await Client().run(work())


async def test_a_client_that_goes_ends_the_work() -> None:
    work, client = Held(), Client("http.request", "http.request")
    running = asyncio.create_task(client.run(work.run()))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        client.say("http.disconnect")
        with pytest.raises(Disconnected):
            await running
    assert work.cancelled.is_set()


async def test_a_client_that_has_gone_already_does_not_let_the_work_begin() -> None:
    work = Held()
    async with asyncio.timeout(BOUND):
        with pytest.raises(Disconnected):
            await Client("http.disconnect").run(work.run())
    assert not work.started.is_set()


async def test_work_that_ends_while_the_client_goes_is_done() -> None:
    work, client = Held(), Client()
    running = asyncio.create_task(client.run(work.run()))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        await turns()
        work.result.set_result("done")
        client.say("http.disconnect")
        assert await running == "done"


async def test_cancelling_from_outside_cancels_the_work() -> None:
    work = Held()
    running = asyncio.create_task(Client().run(work.run()))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert work.cancelled.is_set()


async def test_cancelling_from_outside_is_not_lost_when_the_work_ends_at_the_same_time() -> None:
    work = Held()
    running = asyncio.create_task(Client().run(work.run()))
    async with asyncio.timeout(BOUND):
        await work.started.wait()
        await turns()
        work.result.set_result("done")
        # The work's task runs now, the one that waits for it has yet to hear of it.
        asyncio.get_running_loop().call_soon(running.cancel)
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_cancellation_that_was_caught_before_does_not_count() -> None:
    async def application() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        work = Held()
        work.result.set_result("done")
        return await Client().run(work.run())

    running = asyncio.create_task(application())
    async with asyncio.timeout(BOUND):
        await turns()
        running.cancel()
        assert await running == "done"


async def test_a_work_that_cancels_itself_counts_as_a_client_gone() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    async with asyncio.timeout(BOUND):
        with pytest.raises(Disconnected):
            await Client().run(work())


async def test_a_receive_that_fails_ends_the_work() -> None:
    work = Held()

    async def receive() -> Message:
        await work.started.wait()
        raise ConnectionError("broken")

    async with asyncio.timeout(BOUND):
        with pytest.raises(ConnectionError):
            await Work(work.run()).run({"path": "/x"}, receive)
    assert work.cancelled.is_set()


# An shared


async def test_the_body_reaches_the_application_while_the_disconnect_is_waited_for() -> None:
    client = Client()
    shared = SharedReceive(client.receive)
    waiting = asyncio.create_task(shared.wait_disconnect())
    async with asyncio.timeout(BOUND):
        await turns()
        client.say("http.request", b"a")
        client.say("http.request", b"b")
        await turns()
        assert [(await shared())["body"] for _ in range(2)] == [b"a", b"b"]
        late = asyncio.create_task(shared())
        await turns()
        client.say("http.request", b"c")
        assert (await late)["body"] == b"c"
        assert not waiting.done()
        client.say("http.disconnect")
        await waiting
        assert (await shared())["type"] == (await shared())["type"] == "http.disconnect"
        await shared.wait_disconnect()


async def test_the_application_s_own_wait_for_the_disconnect_ends_both() -> None:
    client = Client()
    shared = SharedReceive(client.receive)
    async with asyncio.timeout(BOUND):
        reading = asyncio.create_task(shared())
        await turns()
        waiting = asyncio.create_task(shared.wait_disconnect())
        await turns()
        client.say("http.disconnect")
        assert (await reading)["type"] == "http.disconnect"
        await waiting


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    client = Client()
    shared = SharedReceive(client.receive)
    async with asyncio.timeout(BOUND):
        waiting = asyncio.create_task(shared.wait_disconnect())
        await turns()
        waiting.cancel()
        await asyncio.wait([waiting])
        client.say("http.request", b"a")
        assert (await shared())["body"] == b"a"


async def test_no_more_of_a_body_is_kept_than_a_server_would() -> None:
    client = Client()
    shared = SharedReceive(client.receive)
    pieces = [b"a" * MAX_KEPT, b"b", b"c"]
    async with asyncio.timeout(BOUND):
        waiting = asyncio.create_task(shared.wait_disconnect())
        for piece in pieces:
            client.say("http.request", piece)
        await turns()
        assert client._messages.qsize() == 1
        assert [(await shared())["body"] for _ in pieces] == pieces
        client.say("http.disconnect")
        await waiting


async def test_a_body_that_nobody_reads_does_not_hide_the_disconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect, "READ_WITHIN", 0.01)
    client = Client()
    shared = SharedReceive(client.receive)
    for piece in (b"a" * MAX_KEPT, b"b", b"c"):
        client.say("http.request", piece)
    client.say("http.disconnect")
    async with asyncio.timeout(BOUND):
        await shared.wait_disconnect()
    assert not shared._kept


async def test_a_body_that_is_read_too_late_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect, "READ_WITHIN", 0.01)
    client = Client()
    shared = SharedReceive(client.receive)
    client.say("http.request", b"a" * MAX_KEPT)
    client.say("http.request", b"b")
    waiting = asyncio.create_task(shared.wait_disconnect())
    async with asyncio.timeout(BOUND):
        while not shared._dropped:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        with pytest.raises(RuntimeError, match="expected a body of this size to be read"):
            await shared()
        client.say("http.disconnect")
        await waiting


async def test_a_body_that_nobody_can_read_any_more_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    client = Client("http.request")
    client.say("http.request", b"lost")
    client.say("http.request", b"lost too")
    client.say("http.disconnect")
    with caplog.at_level(logging.WARNING, "tailrace"):
        async with asyncio.timeout(BOUND):
            with pytest.raises(Disconnected):
                await client.run(Held().run())
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["/x"]


async def test_a_connection_has_one_inbox() -> None:
    scope: dict[str, object] = {"path": "/x"}
    client = Client("http.disconnect")
    shared = SharedReceive.of(scope, client.receive)
    assert SharedReceive.of(scope, client.receive) is shared
    async with asyncio.timeout(BOUND):
        with pytest.raises(Disconnected):
            await Work(Held().run()).run(scope, Client().receive)
