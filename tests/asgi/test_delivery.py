"""What `send` finds while the log steps its readers: what it would find in any task."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar, Token
from typing import Any

import anyio
import pytest
import websockets
from pydantic_core import from_json
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Send

from tailrace import Engine, Log, StreamResponse
from tailrace.asgi.connection import Connection
from tests.asgi.apps import Served, Server, small_engine
from tests.loops import on_each_loop
from tests.raw import BOUND, values
from tests.serving import serving
from tests.silence import silent_loop as silent_loop
from tests.sources import turns

pytestmark = pytest.mark.usefixtures("silent_loop")

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")

Wrapped = Callable[[Send], Send]


class Reader(Server):
    """A request for a log, in a task of its own as servers have it, with middleware around `send`."""

    def __init__(self, app: ASGIApp, wrap: Wrapped = lambda send: send) -> None:
        super().__init__()
        self.answering = asyncio.create_task(self._answer(app, wrap))

    async def _answer(self, app: ASGIApp, wrap: Wrapped) -> None:
        await app(self.scope, self.receive, wrap(self.send))

    async def wait(self, *expected: Any) -> None:
        """Wait until the body has these values."""
        while values(self.body)[: len(expected)] != [*expected]:  # noqa: ASYNC110 - nobody says that one was sent to
            await asyncio.sleep(0)


class Broadcast:
    """A log and those who read it."""

    def __init__(self, engine: Engine, log: Log) -> None:
        self.engine = engine
        self.log = log
        self.app: ASGIApp = StreamResponse(log, engine=engine)
        self.readers: list[Reader] = []

    def read(self, wrap: Wrapped = lambda send: send) -> Reader:
        self.readers.append(Reader(self.app, wrap))
        return self.readers[-1]

    @property
    def connections(self) -> list[Connection]:
        return [reader for reader in self.engine.readers._readers if isinstance(reader, Connection)]

    async def idle(self, readers: int) -> None:
        """Wait until so many readers wait for news."""
        while len(self.log._sleepers) < readers:  # noqa: ASYNC110 - nobody says that a reader sleeps
            await asyncio.sleep(0)


@asynccontextmanager
async def broadcast(*, within: float = BOUND, **options: Any) -> AsyncIterator[Broadcast]:
    engine = small_engine(**options)
    log = await engine.log("news")
    async with asyncio.timeout(within):
        cast = Broadcast(engine, log)
        try:
            yield cast
        finally:
            for reader in cast.readers:
                reader.gone.set()
            await asyncio.gather(*(reader.answering for reader in cast.readers), return_exceptions=True)
            assert not any(isinstance(member, Connection) for slot in engine.pulse._slots for member in slot)
            assert not cast.connections
            await engine.aclose()
    assert log.readers == 0
    assert not log._sleepers


def body_of(message: Message) -> bytes:
    body: bytes = message.get("body", b"")
    return body


class Gate:
    """Suspends the sends of a body with data until it opens."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def pass_through(self, message: Message) -> None:
        if b"data:" in body_of(message):
            self.reached.set()
            await self.open.wait()

    def wrap(self, send: Send) -> Send:
        async def send_later(message: Message) -> None:
            await self.pass_through(message)
            await send(message)

        return send_later


# Time


@pytest.mark.parametrize("suspends", [False, True])
@on_each_loop
async def test_a_timeout_around_a_send_that_is_in_time(suspends: bool) -> None:
    def wrap(send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(BOUND):
                if suspends:
                    await asyncio.sleep(0.001)
                await send(message)

        return send_in_time

    async with broadcast() as cast:
        reader, other = cast.read(wrap), cast.read(wrap)
        await cast.idle(2)
        for number in 1, 2:
            await cast.log.append(number)
        await reader.wait(1, 2)
        await other.wait(1, 2)


@on_each_loop
async def test_a_timeout_around_a_send_that_is_not_in_time() -> None:
    late: list[bytes] = []

    def wrap(send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(0.001):
                    await gate.pass_through(message)
            except TimeoutError:
                late.append(body_of(message))
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0
            await send(message)

        return send_in_time

    gate = Gate()
    async with broadcast() as cast:
        reader, other = cast.read(wrap), cast.read()
        await cast.idle(2)
        await cast.log.append(1)
        await other.wait(1)
        await reader.wait(1)
        await cast.idle(2)  # it has gone back to its log
        assert [values(body) for body in late] == [[1]]
        gate.open.set()
        await cast.log.append(2)
        await reader.wait(1, 2)


@on_each_loop
async def test_a_timeout_that_is_not_caught_ends_the_one_response() -> None:
    def wrap(send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(0.001):
                await gate.pass_through(message)
            await send(message)

        return send_in_time

    gate = Gate()
    async with broadcast() as cast:
        reader, other = cast.read(wrap), cast.read()
        await cast.idle(2)
        await cast.log.append(1)
        await reader.answering  # a TimeoutError is an OSError, which servers raise when the client has left
        await other.wait(1)
        assert cast.log.readers == 1
        assert values(reader.body) == []


# Other things to wait for


@on_each_loop
async def test_a_lock_around_a_send() -> None:
    lock = asyncio.Lock()

    def wrap(send: Send) -> Send:
        async def send_alone(message: Message) -> None:
            async with lock:
                await asyncio.sleep(0)
                await send(message)

        return send_alone

    async with broadcast() as cast:
        readers = [cast.read(wrap) for _ in range(5)]
        await cast.idle(5)
        await cast.log.append(1)
        await cast.log.append(2)
        for reader in readers:
            await reader.wait(1, 2)


@on_each_loop
async def test_a_stream_of_anyio_behind_a_send() -> None:
    """BaseHTTPMiddleware passes each message through a memory stream without a buffer, inside a cancel scope."""

    async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    async with broadcast() as cast:
        cast.app = BaseHTTPMiddleware(BaseHTTPMiddleware(cast.app, dispatch), dispatch)
        readers = [cast.read() for _ in range(3)]
        await cast.idle(3)
        for number in 1, 2, 3:
            await cast.log.append(number)
        for reader in readers:
            await reader.wait(1, 2, 3)
        readers[0].gone.set()
        await readers[0].answering
        await cast.log.append(4)
        await readers[1].wait(1, 2, 3, 4)


@on_each_loop
async def test_a_cancel_scope_of_anyio_around_a_send() -> None:
    def wrap(send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            with anyio.move_on_after(0.001):
                await gate.pass_through(message)
            with anyio.fail_after(BOUND):
                await anyio.lowlevel.checkpoint()
            await send(message)

        return send_in_time

    gate = Gate()
    async with broadcast() as cast:
        reader = cast.read(wrap)
        await cast.idle(1)
        await cast.log.append(1)
        await reader.wait(1)
        await cast.log.append(2)
        await reader.wait(1, 2)


# Who one is


@on_each_loop
async def test_the_current_task_is_the_connection_s_own_in_each_send() -> None:
    tasks: dict[str, set[asyncio.Task[Any] | None]] = {"a": set(), "b": set()}

    def watched(name: str) -> Wrapped:
        def wrap(send: Send) -> Send:
            async def send_watched(message: Message) -> None:
                tasks[name].add(asyncio.current_task())
                await send(message)
                if name == "b":
                    await asyncio.sleep(0)
                    tasks[name].add(asyncio.current_task())

            return send_watched

        return wrap

    async with broadcast() as cast:
        readers = [cast.read(watched(name)) for name in tasks]
        await cast.idle(2)
        for number in 1, 2:
            await cast.log.append(number)
            await turns()
        for reader in readers:
            await reader.wait(1, 2)
        connections = [connection._task for connection in cast.connections]
        assert [*tasks.values()] == [{task} for task in connections]
        assert len({*connections, None, asyncio.current_task()}) == 4


@on_each_loop
async def test_context_variables_are_those_of_the_request() -> None:
    found: list[tuple[str, str]] = []

    def named(name: str) -> Wrapped:
        def wrap(send: Send) -> Send:
            WHO.set(name)  # as a middleware does before it calls the application

            async def send_as(message: Message) -> None:
                found.append((name, WHO.get()))
                await send(message)

            return send_as

        return wrap

    async with broadcast() as cast:
        readers = [cast.read(named(name)) for name in ("a", "b")]
        await cast.idle(2)
        WHO.set("the publisher")
        for number in 1, 2:
            await cast.log.append(number)
            await turns()
        for reader in readers:
            await reader.wait(1, 2)
        assert WHO.get() == "the publisher"
    assert {name: {who for own, who in found if own == name} for name in ("a", "b")} == {"a": {"a"}, "b": {"b"}}


@on_each_loop
async def test_a_span_can_be_open_from_one_send_to_a_later_one() -> None:
    """A context variable is reset only in the context that set it, so another context would be refused."""
    spans: list[str] = []

    def wrap(send: Send) -> Send:
        open_span: list[Token[str]] = []

        async def send_spanned(message: Message) -> None:
            if open_span:
                spans.append(WHO.get())
                WHO.reset(open_span.pop())
            open_span.append(WHO.set(f"span {len(spans)}"))
            await send(message)

        return send_spanned

    async with broadcast() as cast:
        reader = cast.read(wrap)
        await cast.idle(1)
        for number in 1, 2:
            await cast.log.append(number)
            await cast.idle(1)
        await reader.wait(1, 2)
        assert spans == ["span 0", "span 1", "span 2"]


# The end of one among many


@pytest.mark.parametrize("suspends", [False, True])
@on_each_loop
async def test_a_request_that_is_cancelled_ends_and_the_others_go_on(suspends: bool) -> None:
    gate = Gate()
    async with broadcast() as cast:
        readers = [cast.read(), cast.read(gate.wrap), cast.read()]
        await cast.idle(3)
        if suspends:
            await cast.log.append(1)
            await gate.reached.wait()
        readers[1].answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await readers[1].answering
        assert cast.log.readers == 2
        await cast.log.append(2)
        await readers[0].wait(*([1, 2] if suspends else [2]))
        await readers[2].wait(*([1, 2] if suspends else [2]))


@pytest.mark.parametrize("suspends", [False, True])
@on_each_loop
async def test_a_connection_is_abandoned_while_it_waits_or_sends(suspends: bool) -> None:
    gate = Gate()
    async with broadcast() as cast:
        reader, other = cast.read(gate.wrap), cast.read()
        await cast.idle(2)
        connection, _ = cast.connections
        if suspends:
            await cast.log.append(1)
            await gate.reached.wait()
        connection.abandon()
        await reader.answering
        assert not reader.whole
        await cast.log.append(2)
        await other.wait(*([1, 2] if suspends else [2]))


@on_each_loop
async def test_a_connection_that_is_abandoned_between_the_news_and_its_step_sends_nothing_more() -> None:
    async with broadcast() as cast:
        readers = [cast.read() for _ in range(3)]
        await cast.idle(3)
        await cast.log.append(1)
        cast.connections[1].abandon()
        await readers[0].wait(1)
        await readers[2].wait(1)
        await readers[1].answering
        assert values(readers[1].body) == []


@pytest.mark.parametrize("error", [OSError("gone"), LookupError("a bug")], ids=["left", "bug"])
@on_each_loop
async def test_a_send_that_raises_ends_the_one_response(error: Exception) -> None:
    def wrap(send: Send) -> Send:
        async def send_or_raise(message: Message) -> None:
            if b"data: 1" in body_of(message):
                raise error
            await send(message)

        return send_or_raise

    async with broadcast() as cast:
        readers = [cast.read(), cast.read(wrap), cast.read()]
        await cast.idle(3)
        await cast.log.append(1)
        await readers[0].wait(1)
        await readers[2].wait(1)
        if isinstance(error, OSError):
            await readers[1].answering  # ASGI 2.4: the client has left
        else:
            with pytest.raises(LookupError, match="a bug"):
                await readers[1].answering
        await cast.log.append(2)
        await readers[0].wait(1, 2)
        await readers[2].wait(1, 2)


# Many


@on_each_loop
async def test_readers_are_served_in_the_order_in_which_they_waited() -> None:
    served: list[int] = []

    def numbered(number: int) -> Wrapped:
        def wrap(send: Send) -> Send:
            async def send_numbered(message: Message) -> None:
                if b"data:" in body_of(message):
                    served.append(number)
                await send(message)

            return send_numbered

        return wrap

    async with broadcast() as cast:
        readers = [cast.read(numbered(number)) for number in range(50)]
        await cast.idle(50)
        for number in 1, 2:
            await cast.log.append(number)
            await cast.idle(50)
        assert served == [*range(50)] * 2
        assert {tuple(values(reader.body)) for reader in readers} == {(1, 2)}


@on_each_loop
async def test_one_that_joins_in_the_middle_of_a_delivery_reads_it_from_the_log() -> None:
    def wrap(send: Send) -> Send:
        async def send_and_join(message: Message) -> None:
            if body_of(message) and not joined:
                joined.append(cast.read())
            await send(message)

        return send_and_join

    joined: list[Reader] = []
    async with broadcast() as cast:
        readers = [cast.read(wrap), cast.read()]
        await cast.idle(2)
        await cast.log.append(1)
        await cast.idle(3)
        for reader in (*readers, *joined):
            await reader.wait(1)


@on_each_loop
async def test_websockets_are_stepped_like_all_readers() -> None:
    engine = small_engine()
    log = await engine.log("news")
    app = Served(engine, x=StreamResponse(log, engine=engine, websocket=True))
    async with serving(app) as url, asyncio.timeout(BOUND), AsyncExitStack() as stack:
        address = url.replace("http", "ws", 1) + "/x"
        sockets = [await stack.enter_async_context(websockets.connect(address)) for _ in range(3)]
        for number, readers in (1, 3), (2, 2):
            while len(log._sleepers) < readers or log.readers > readers:  # noqa: ASYNC110 - nobody says it
                await asyncio.sleep(0.001)
            await log.append(number)
            assert [from_json(await socket.recv())["data"] for socket in sockets] == [number] * readers
            await sockets.pop().close()


async def test_ten_thousand_readers_hold_neither_publisher_nor_loop() -> None:
    count, sends = 10_000, 0

    async def send(message: Message) -> None:
        nonlocal sends
        sends += 1

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def watch() -> None:
        # The time of this thread does not count what other programs take on a busy machine.
        while sends < 3 * count:
            before = time.thread_time()
            await asyncio.sleep(0)
            holds.append(time.thread_time() - before)

    gone, holds = asyncio.Event(), list[float]()
    async with broadcast(within=6 * BOUND) as cast:  # 10,000 tasks, which coverage slows down

        async def request() -> None:
            await cast.app(Server().scope, receive, send)

        requests = [asyncio.create_task(request()) for _ in range(count)]
        await cast.idle(count)
        assert sends == 2 * count  # the headers and the first bytes of the body
        gc.collect()
        gc.freeze()  # a collection would be measured, too
        try:
            before = time.thread_time()
            await cast.log.append(1)
            publishing = time.thread_time() - before
            await watch()
        finally:
            gc.unfreeze()
        assert publishing < 0.005
        assert max(holds) < 0.010
        assert len(holds) > 3
        gone.set()
        await asyncio.gather(*requests)
