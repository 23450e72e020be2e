"""The way past the frameworks' wrappers of `send`, and what stays on it."""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import inspect
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest
import websockets
from fastapi import FastAPI
from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tailrace import Engine, Flow, Log, Retention, StreamResponse, StreamRouter
from tailrace.asgi.connection import Connection
from tailrace.asgi.wrappers import _SERVERS, _WRAPPERS, is_server, past_wrappers, relay_of
from tailrace.coroutine import begin
from tailrace.log.base import BATCH_ENTRIES
from tests.asgi.apps import SSE_HEADERS, Server, small_engine
from tests.raw import BOUND, Exchange, exchange, values
from tests.serving import http_client, serving
from tests.silence import silent_loop as silent_loop
from tests.sources import turns
from tests.storing import FetchingLog

pytestmark = pytest.mark.usefixtures("silent_loop")

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Watch:
    """A middleware that counts what passes it, and in which task."""

    def __init__(self, app: ASGIApp, kind: str, seen: list[Any]) -> None:
        self.app = app
        self.kind = kind
        self.seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            self.seen.append((message["type"], asyncio.current_task() is not None))
            await send(message)

        await self.app(scope, receive, watched if scope["type"] == self.kind else send)


class Feed:
    """A log, read over HTTP and WebSockets on a real server."""

    def __init__(self, log: Log | None = None, *, watched: str = "", flow: Flow | None = None, **options: Any) -> None:
        # By default, no ping wakes a reader that news did not.
        self.engine: Engine = small_engine(**{"heartbeat": 2 * BOUND, **options})
        self._log = log
        self.url = ""
        self.seen: list[Any] = []
        self.errors: list[Exception] = []
        app = FastAPI()
        self.app: ASGIApp = app
        router = StreamRouter(engine=self.engine)

        @router.stream("/feed", websocket=True, flow=flow)
        async def feed() -> Log:
            return await self.log()

        app.include_router(router)
        if watched:
            app.add_middleware(Watch, kind=watched, seen=self.seen)

    async def log(self) -> Log:
        return self._log or await self.engine.log("feed")

    @asynccontextmanager
    async def open(self, count: int = 3) -> AsyncIterator[list[websockets.ClientConnection]]:
        async with serving(self._call, interface="asgi3") as self.url, asyncio.timeout(BOUND):
            address = self.url.replace("http", "ws", 1) + "/feed"
            guests = [await websockets.connect(address, compression=None) for _ in range(count)]
            try:
                yield guests
            finally:
                for guest in guests:
                    await guest.close()
                self.engine.drain()

    async def asleep(self, count: int) -> list[Connection]:
        """Wait until so many readers sleep, and return those that are sent what is new without a step of their task."""
        log = await self.log()
        while len(log._sleepers) < count:  # noqa: ASYNC110 - nobody says that a reader sleeps
            await asyncio.sleep(0)
        return connections(log)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            self.errors.append(error)
            raise


async def heard(guest: websockets.ClientConnection) -> Any:
    return from_json(await guest.recv())["data"]


def connections(log: Log) -> list[Connection]:
    """The readers that are sent what is new without a step of their task."""
    return [sleeper.act.__self__ for sleeper in log._sleepers if sleeper.act is not None]  # type: ignore[attr-defined]


def watch(found: list[Connection]) -> list[asyncio.Task[Any] | None]:
    """Return a list to which each further message of the connections adds the task that sends it."""
    tasks: list[asyncio.Task[Any] | None] = []

    def watched(send: Send) -> Send:
        async def send_watched(message: Message) -> None:
            tasks.append(asyncio.current_task())
            await send(message)

        return send_watched

    for connection in found:
        connection._send, connection._onward = watched(connection._send), watched(connection._onward)
    return tasks


async def test_sockets_are_sent_to_without_a_step_of_their_tasks() -> None:
    feed = Feed()
    async with feed.open() as guests:
        log = await feed.log()
        found = await feed.asleep(len(guests))
        tasks = watch(found)
        for number in range(3):
            await log.append(number)
            assert [await heard(guest) for guest in guests] == [number] * 3
        assert tasks == [None] * 9
        assert connections(log) == found
        assert log._shared.news is not None  # they have the same message
        await log.append(3, 4)
        assert [[await heard(guest), await heard(guest)] for guest in guests] == [[3, 4]] * 3


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_middleware_that_wraps_send_sees_all_messages_in_their_tasks(kind: str) -> None:
    feed = Feed(watched=kind)
    async with feed.open() as guests:
        log = await feed.log()
        await log.append("hello")
        assert [await heard(guest) for guest in guests] == ["hello"] * 3
        assert not connections(log)
    bodies = [task for kind, task in feed.seen if kind in ("http.response.body", "websocket.send")]
    assert len(bodies) >= 3
    assert all(bodies)


async def test_a_guest_that_reads_nothing_delays_nobody_and_gets_everything_later() -> None:
    feed = Feed()
    async with feed.open(2) as [reader, stuck]:
        log = await feed.log()
        stuck.transport.pause_reading()
        texts = [str(number) * 500_000 for number in range(9)]
        for text in texts:
            await log.append(text)
            assert await heard(reader) == text
        stuck.transport.resume_reading()
        assert [await heard(stuck) for _ in texts] == texts


async def test_a_guest_that_took_the_news_late_is_not_given_up_while_there_is_no_more() -> None:
    feed, texts = Feed(send_timeout=2 * BOUND), list[str]()  # no longer than the time between two beats
    async with feed.open(2) as [reader, stuck]:
        log = await feed.log()
        _, connection = await feed.asleep(2)
        stuck.transport.pause_reading()
        while not connection._sending:
            texts.append(f"{len(texts):09}" * 20_000)  # one message of the server's
            await log.append(texts[-1])
            assert await heard(reader) == texts[-1]
        stuck.transport.resume_reading()
        assert [await heard(stuck) for _ in texts] == texts
        await feed.asleep(2)
        for _ in range(4):
            connection.beat()
        await log.append("more")
        assert await heard(stuck) == "more"


async def test_a_guest_that_stops_reading_the_news_is_abandoned() -> None:
    feed = Feed(heartbeat=0.05, send_timeout=0.2)
    async with feed.open(2) as [stuck, reader]:
        log = await feed.log()
        stuck.transport.pause_reading()
        while log.readers > 1:
            await log.append("x" * 500_000)
            assert len(await heard(reader)) == 500_000
        stuck.transport.resume_reading()


async def test_each_reader_is_sent_news_in_its_own_form() -> None:
    feed = Feed()
    async with (
        feed.open(1) as [guest],
        http_client(feed.url, headers={"Accept": "application/x-ndjson"}) as client,
        client.stream("GET", "/feed") as lines,
        client.stream("GET", "/feed", headers={"Accept": "text/event-stream"}) as events,
    ):
        log = await feed.log()
        of_lines, of_events = lines.aiter_lines(), events.aiter_lines()
        for number in range(5):
            await log.append(number)
            assert await heard(guest) == number
            assert from_json(await anext(of_lines))["data"] == number
            while not (field := await anext(of_events)).startswith("data:"):
                pass
            assert field == f"data: {number}"


@asynccontextmanager
async def idle(feed: Feed, count: int) -> AsyncIterator[tuple[list[Exchange], list[Connection]]]:
    """Open readers over HTTP, and let them sleep."""
    async with feed.open(0), AsyncExitStack() as stack:
        readers: list[Exchange] = []
        for number in range(count):
            readers.append(await stack.enter_async_context(exchange(feed.url, "/feed", SSE_HEADERS)))
            await feed.asleep(number + 1)
        yield readers, await feed.asleep(count)


def own_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "tailrace connection"]


async def test_readers_that_wait_have_no_tasks_of_their_own() -> None:
    feed = Feed()
    async with idle(feed, 3) as (readers, found):
        log = await feed.log()
        alone = [found[0]._task]  # it was alone when it fell asleep
        assert own_tasks() == alone
        tasks = watch(found)
        for number in range(3):
            await log.append(number)
            for reader in readers:
                await reader.until(b"data: %d" % number)
        for _ in range(2):
            for connection in found:
                connection.beat()
        for reader in readers:
            await reader.until(b": ping")
        assert tasks == [None] * 12
        assert own_tasks() == alone
        await log.close()
        for reader in readers:
            assert values(await reader.rest()) == ["done"]
            assert reader.whole
    assert not feed.errors


async def test_a_reader_that_is_alone_has_a_task() -> None:
    feed = Feed()
    async with idle(feed, 1) as ([first], [connection]):
        log = await feed.log()
        assert own_tasks() == [connection._task]
        async with exchange(feed.url, "/feed", SSE_HEADERS) as second:
            await feed.asleep(2)
            assert own_tasks() == [connection._task]
            await log.append(1)
            for reader in first, second:
                await reader.until(b"data: 1")
            connection.abandon()
            assert values(await first.rest()) == []
            assert log.readers == 1
            await log.append(2)
            await second.until(b"data: 2")
            await log.append(3)
            await second.until(b"data: 3")
            await feed.asleep(1)
            assert len(own_tasks()) == 1
    assert not feed.errors


async def test_an_eager_task_factory_ends_no_reader() -> None:
    """Python 3.12 and later have `asyncio.eager_task_factory`. This one does the same for connections."""

    async def rest_of(work: Any) -> None:
        if work is not None:
            await work

    def eager(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        if work.__qualname__ == Connection._proceed.__qualname__:
            work = rest_of(begin(work))
        return asyncio.Task(work, loop=loop, **options)

    feed = Feed()
    asyncio.get_running_loop().set_task_factory(eager)
    async with idle(feed, 2) as (readers, _):
        log = await feed.log()
        for number in range(2):
            await log.append(number)
            for reader in readers:
                await reader.until(b"data: %d" % number)
        await log.close()
        for reader in readers:
            assert values(await reader.rest()) == ["done"]
            assert reader.whole
    assert not feed.errors


async def test_a_reader_that_waits_without_a_task_is_abandoned() -> None:
    feed = Feed()
    async with idle(feed, 2) as (readers, found):
        log = await feed.log()
        assert found[1]._task is None
        await log.append(1)
        for _ in range(2):
            found[1].abandon()  # before the news, which are due already
        assert values(await readers[1].rest()) == []
        assert not readers[1].whole
        assert values(await readers[0].until(b"data: 1\n\n")) == [1]
        assert log.readers == 1
        assert own_tasks() == [found[0]._task]
    assert not feed.errors


async def test_a_request_that_is_cancelled_while_news_are_due_sends_nothing() -> None:
    feed = Feed()
    async with idle(feed, 2) as (readers, found):
        log = await feed.log()
        tasks, alone = watch(found), found[0]._task
        assert found[1]._task is None
        assert found[1]._waiting is not None
        found[1]._waiting.cancel()  # as the server does when it stops
        await log.close()  # each reader needs a task to tell its client
        assert values(await readers[0].rest()) == ["done"]
        assert values(await readers[1].rest()) == []
        assert tasks == [alone]
        assert not own_tasks()


@pytest.mark.parametrize(("count", "exclusive"), [(2, False), (1, True)])
@pytest.mark.parametrize("end", ["gone", "cancelled", "refused", "failed"])
async def test_a_connection_that_has_ended_leaves_nothing_to_the_garbage_collector(
    end: str, count: int, exclusive: bool
) -> None:
    engine, server = small_engine(), Server()
    log = await engine.log("feed")
    response = StreamResponse(log, engine=engine, exclusive=exclusive)
    failures: list[type[Exception]] = []

    async def send(message: Message) -> None:
        for failure in failures:
            raise failure
        await server.send(message)

    async def serve() -> None:
        with suppress(RuntimeError, TimeoutError):
            async with asyncio.timeout(0.1 if end == "cancelled" else BOUND):
                await response(server.scope, server.receive, send)

    send.__module__, send.__qualname__ = min(_SERVERS)
    gc.collect()
    gc.disable()
    try:
        async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
            for readers in range(1, count + 1):
                group.create_task(serve())
                while len(log._sleepers) < readers:  # noqa: ASYNC110 - nobody says that a reader sleeps
                    await asyncio.sleep(0)
            if end == "gone":
                server.gone.set()
            elif end != "cancelled":
                failures.append(OSError if end == "refused" else RuntimeError)
                await log.append(1)
        await turns()
        assert not [found for found in gc.get_objects() if type(found) is Connection]
        assert log.readers == len(engine.readers) == 0
    finally:
        gc.enable()


async def test_context_variables_are_those_of_the_request_in_each_task() -> None:
    feed, found = Feed(), list[str]()
    app = feed.app

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        WHO.set(scope["query_string"].decode())
        await app(scope, receive, send)

    def watched(send: Send) -> Send:
        async def send_watched(message: Message) -> None:
            found.append(WHO.get())
            await send(message)

        return send_watched

    feed.app = named
    async with feed.open(0), AsyncExitStack() as stack:
        urls = [f"/feed?{name}" for name in ("a", "b")]
        readers = [await stack.enter_async_context(exchange(feed.url, url, SSE_HEADERS)) for url in urls]
        for connection in await feed.asleep(2):
            connection._send = watched(connection._send)
        await (await feed.log()).close()
        for reader in readers:
            assert values(await reader.rest()) == ["done"]
    assert sorted(found) == ["a", "b"]


async def test_readers_that_were_sent_news_are_not_pinged_until_they_are_idle() -> None:
    feed = Feed()
    async with feed.open(0), AsyncExitStack() as stack:
        log = await feed.log()
        readers = [await stack.enter_async_context(exchange(feed.url, "/feed", SSE_HEADERS)) for _ in range(3)]
        for number in range(2):
            found = await feed.asleep(len(readers))
            await log.append(number)
            bodies = [await reader.until(b"data: %d" % number) for reader in readers]
            assert not any(b"ping" in body for body in bodies)
            for connection in found:
                connection.beat()
        for connection in found:
            connection.beat()
        for reader in readers:
            await reader.until(b": ping")


async def test_a_guest_that_is_cut_off_ends_alone() -> None:
    feed = Feed()
    async with feed.open(3) as [gone, *others]:
        log = await feed.log()
        gone.transport.abort()
        for number in range(20):
            await log.append(number)
            assert [await heard(guest) for guest in others] == [number] * 2
        while log.readers > 2:  # noqa: ASYNC110 - bounded by the timeout of the feed
            await asyncio.sleep(0)


async def test_a_server_that_refuses_news_is_sent_no_more() -> None:
    """uvicorn raises RuntimeError after a close. The socket's own end is to follow, and not an error of the route."""
    feed = Feed()
    async with feed.open(2) as guests:
        log = await feed.log()
        _, last = connections(log)
        await log.append("before")  # it is sent soon
        await last._onward({"type": "websocket.close", "code": 1000})
        with pytest.raises(websockets.ConnectionClosedOK):
            await heard(guests[1])
        assert await heard(guests[0]) == "before"
        await log.append("after")
        assert await heard(guests[0]) == "after"
    assert not feed.errors


async def test_news_of_several_batches_comes_without_further_news() -> None:
    feed, items = Feed(), list(range(2 * BATCH_ENTRIES + 1))
    async with feed.open(2) as guests:
        log = await feed.log()
        await log.append(*items)
        for guest in guests:
            assert [await heard(guest) for _ in items] == items


async def test_the_end_may_come_with_the_last_news() -> None:
    feed = Feed()
    async with feed.open(2) as guests:
        log = await feed.log()
        await feed.asleep(2)
        await log.append("last")
        await log.close()
        for guest in guests:
            assert await heard(guest) == "last"
            assert from_json(await guest.recv())["event"] == "done"


@pytest.mark.parametrize(
    ("flow", "retention", "event"),
    [(Flow.log(), Retention(count=2), "reset"), (Flow.disconnect(2), Retention(), "farewell")],
)
async def test_a_reader_that_lacks_too_much_to_be_sent_the_news_is_told_so(
    flow: Flow, retention: Retention, event: str
) -> None:
    feed = Feed(flow=flow)
    log = await feed.engine.log("feed", retention=retention)
    async with feed.open(2) as guests:
        await feed.asleep(2)
        for number in range(3):
            await log.append(number)
        assert [from_json(await guest.recv())["event"] for guest in guests] == [event] * 2
    assert log.resets == (2 if event == "reset" else 0)
    assert not feed.errors


async def test_readers_that_are_woken_for_nothing_sleep_on() -> None:
    feed = Feed()
    async with (
        feed.open(1) as [guest],
        exchange(feed.url, "/feed", SSE_HEADERS) as one,
        exchange(feed.url, "/feed", SSE_HEADERS) as other,
    ):
        log = await feed.log()
        for number in range(2):
            await feed.asleep(3)
            log.wake_readers()
            await turns()
            await feed.asleep(3)
            await log.append(number)
            assert await heard(guest) == number
            for reader in one, other:
                await reader.until(b"data: %d" % number)
    assert not feed.errors


async def test_news_that_have_to_be_fetched_are_fetched_by_the_tasks() -> None:
    log = FetchingLog("feed")
    feed = Feed(log)
    async with feed.open(2) as guests:
        for number in range(2):
            await feed.asleep(2)
            await log.append(number)
            assert [await heard(guest) for guest in guests] == [number] * 2
    assert not feed.errors


async def test_a_reader_over_http_that_has_to_wait_gets_the_news_later() -> None:
    feed, texts = Feed(), list[str]()
    async with feed.open(1) as [guest], exchange(feed.url, "/feed", SSE_HEADERS, window=4096) as slow:
        log = await feed.log()
        (connection,) = [found for found in await feed.asleep(2) if relay_of(found._send) is None]
        while not connection._sending:
            texts.append(f"{len(texts):09}" * 20_000)
            await log.append(texts[-1])
            assert await heard(guest) == texts[-1]
        await log.append("more")
        assert values(await slow.until(b'more"\n\n')) == [*texts, "more"]


async def test_a_large_event_is_sent_whole() -> None:
    feed = Feed()
    async with feed.open(2) as guests:
        log = await feed.log()
        await log.append("x" * 1_000_000)
        assert [len(await heard(guest)) for guest in guests] == [1_000_000] * 2
        assert log._shared.news is None  # each reader sends it in pieces


async def test_unknown_functions_stay() -> None:
    async def send(message: Message) -> None:
        """Do nothing."""

    assert past_wrappers(send) is send
    assert not is_server(send)
    assert relay_of(send) is None


@pytest.mark.parametrize("wrapper", sorted(_WRAPPERS))
def test_a_wrapper_that_is_passed_by_only_looks_at_the_start(wrapper: tuple[str, str]) -> None:
    """What follows the head must go on as it is. A framework that changes its wrapper fails here."""
    module, name = wrapper
    tree: ast.AST = ast.parse(inspect.getsource(importlib.import_module(module)))
    for part in name.split("."):
        if part != "<locals>":
            tree = next(node for node in ast.iter_child_nodes(tree) if getattr(node, "name", "") == part)
    assert isinstance(tree, ast.AsyncFunctionDef)
    *before, last = [statement for statement in tree.body if not isinstance(statement, ast.Nonlocal)]
    assert ast.unparse(last) == "await send(message)"
    assert [ast.unparse(statement.test) for statement in before if isinstance(statement, ast.If)] == [
        "message['type'] == 'http.response.start'"
    ]
    assert len(before) == 1
