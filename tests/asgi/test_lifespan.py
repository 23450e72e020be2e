from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from tailrace import Engine, StreamResponse, StreamRouter, lifespan
from tailrace.asgi.lifespan import app_engine, engine_of, running, worker_count
from tests.asgi.apps import SSE_HEADERS, Served, small_engine
from tests.raw import BOUND, exchange, frames
from tests.serving import serving
from tests.sources import Faucet, soon


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that a server's own handlers have heard."""
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_application_has_one_engine_made_at_the_first_call() -> None:
    app = Starlette()
    engine = app_engine(app)
    assert isinstance(engine, Engine)
    assert app_engine(app) is engine


def test_an_application_s_engine_can_be_set() -> None:
    app = FastAPI()
    app.state.tailrace_engine = engine = Engine()
    assert app_engine(app) is engine


def test_what_is_set_must_be_an_engine() -> None:
    app = FastAPI()
    app.state.tailrace_engine = "memory://"
    with pytest.raises(TypeError, match=r"expected app.state.tailrace_engine to be an Engine, but got 'memory://'"):
        app_engine(app)


def test_without_an_application_there_is_a_new_engine() -> None:
    assert engine_of({}) is not engine_of({})
    assert engine_of({"app": object()}) is not None
    app = SimpleNamespace(state=SimpleNamespace())
    assert engine_of({"app": app}) is app_engine(app)


class Leaving:
    """A reader that says when it is told to leave."""

    def __init__(self, left: asyncio.Event) -> None:
        self.leave = left.set
        self.abandon = left.set


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_is_passed_on(number: int, heard: list[int]) -> None:
    engine = small_engine(shutdown_grace=60.0)
    left = asyncio.Event()
    before = signal.getsignal(number)
    async with running(engine):
        reader = Leaving(left)
        engine.readers.join(reader)
        os.kill(os.getpid(), number)
        await soon(left)
        engine.readers.part(reader)
        assert engine.draining
        assert heard == [number]
    assert signal.getsignal(number) is before


async def test_a_signal_that_the_loop_comes_to_after_the_end_drains_nothing(heard: list[int]) -> None:
    engine = small_engine()
    async with running(engine):
        signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    assert heard == [signal.SIGTERM]
    assert not engine.draining


async def test_a_signal_that_nobody_handles_is_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        async with running(small_engine()):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_handler_that_was_set_meanwhile_is_kept(heard: list[int]) -> None:
    def other(number: int, frame: Any) -> None: ...

    async with running(small_engine()):
        signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    async def run() -> None:
        engine = small_engine()
        async with running(engine):
            seen.append(signal.getsignal(signal.SIGTERM))
        assert not engine.draining

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join(BOUND)
    assert seen == [before]


async def test_the_engine_is_closed_even_if_the_application_fails() -> None:
    engine = small_engine()
    faucet = Faucet()

    async def application() -> None:
        async with running(engine):
            await engine.produce(await engine.log("x"), faucet.run())
            await soon(faucet.started)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await application()
    assert faucet.closed.is_set()


async def test_readers_get_their_farewell_before_the_server_ends_the_lifespan(heard: list[int]) -> None:
    engine = small_engine()
    log = await engine.log("news")
    async with serving(Served(engine, x=StreamResponse(log))) as url, exchange(url, "/x", SSE_HEADERS) as got:
        await log.append(1)
        await got.until(b"data: 1")
        os.kill(os.getpid(), signal.SIGTERM)
        assert [frame.event for frame in frames(await got.rest())] == ["farewell"]
        assert got.whole
    # uvicorn passes it on when it is done.
    assert heard == [signal.SIGTERM]


# As FastAPI runs it


def counting(name: str, order: list[str]) -> Any:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        order.append(f"{name} starts")
        yield {name: True}
        order.append(f"{name} ends")

    return lifespan


async def states(app: FastAPI) -> dict[str, Any]:
    async with app.router.lifespan_context(app) as state:
        return dict(state or {})


async def test_lifespans_of_application_and_routers_keep_their_state() -> None:
    order: list[str] = []
    inner = StreamRouter(lifespan=counting("inner", order))
    middle = StreamRouter(lifespan=counting("middle", order))
    middle.include_router(inner, prefix="/inner")
    app = FastAPI(lifespan=counting("app", order))
    app.include_router(middle)
    assert await states(app) == {"app": True, "middle": True, "inner": True}
    assert order == [f"{name} starts" for name in ("app", "middle", "inner")] + [
        f"{name} ends" for name in ("inner", "middle", "app")
    ]


async def test_streams_can_still_be_finished_while_the_application_s_own_things_are_there() -> None:
    order: list[str] = []
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[int]:
        yield 1  # pragma: no cover

    app = FastAPI(lifespan=counting("app", order))
    app.include_router(router)
    app.state.tailrace_engine = engine = small_engine()

    async def last_words() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1  # pragma: no cover
        finally:
            order.append("stream ends")

    async with app.router.lifespan_context(app):
        await engine.produce(await engine.log("x"), last_words())
        await asyncio.sleep(0)
    assert order == ["app starts", "stream ends", "app ends"]


async def test_a_router_may_have_an_engine_of_its_own() -> None:
    own = small_engine()
    router = StreamRouter(engine=own)
    app = FastAPI()
    app.include_router(router)
    faucet = Faucet()
    async with app.router.lifespan_context(app):
        await own.produce(await own.log("x"), faucet.run())
        await soon(faucet.started)
    assert faucet.closed.is_set()
    assert not hasattr(app.state, "tailrace_engine")


def test_an_application_can_be_started_again() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[int]:
        yield 1

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/x").json() == {"data": [1]}
            text = client.get("/x", headers={"Accept": "text/event-stream"}).text
            assert text.endswith("event: done\ndata: {}\n\n")
    assert not app_engine(app).draining


@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        ("/bin/uvicorn main:app", {}, 1),
        ("/bin/uvicorn main:app --workers 4", {}, 4),
        ("/bin/uvicorn --workers=2 main:app", {"WEB_CONCURRENCY": "3"}, 2),
        ("/lib/uvicorn/__main__.py main:app", {"WEB_CONCURRENCY": "3"}, 3),
        ("/bin/uvicorn main:app --reload", {"WEB_CONCURRENCY": "3"}, 1),
        ("/bin/uvicorn main:app", {"WEB_CONCURRENCY": "many"}, 1),
        ("/bin/gunicorn -w 4 -k uvicorn_worker.UvicornWorker main:app", {}, 4),
        ("/bin/gunicorn -w4 main:app", {}, 4),
        ("/bin/hypercorn main:app", {"WEB_CONCURRENCY": "3"}, 1),
        ("/bin/fastapi run --workers 2", {}, 2),
        ("main.py --workers 4", {"WEB_CONCURRENCY": "3"}, 1),
        ("", {}, 1),
    ],
)
def test_workers_are_counted_by_the_command_line(command: str, environment: dict[str, str], expected: int) -> None:
    assert worker_count(command.split(), environment) == expected


DEFAULT_ENGINE = """
from fastapi import FastAPI
from tailrace import lifespan

app = FastAPI(lifespan=lifespan)
"""
OWN_ENGINES = """
from fastapi import FastAPI
from tailrace import Engine, StreamRouter

app = FastAPI()
app.state.tailrace_engine = Engine()
for _ in range(2):
    app.include_router(StreamRouter())
"""


def test_only_a_store_that_dies_with_its_process_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/uvicorn", "main:app", "--workers", "2"])
    app = FastAPI()
    app.state.tailrace_engine = shared = small_engine()
    shared.store.shared = True
    app_engine(app)
    assert not caplog.records
    app.state.tailrace_engine = small_engine()
    app_engine(app)
    app_engine(app)
    assert [record.getMessage()[:36] for record in caplog.records] == ["2 workers serve this application, but"[:36]]


@pytest.mark.parametrize("program", [DEFAULT_ENGINE, OWN_ENGINES])
async def test_several_workers_are_warned_of_once(program: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(program)
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(tmp_path), "--port", "0", "--workers", "2", "main:app"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(3 * BOUND):
            while said.count(b"Application startup complete") < 2:
                said += await process.stderr.readline()
    finally:
        process.terminate()
        said += (await process.communicate())[1]
    assert said.count(b"2 workers serve this application, but each keeps its streams in its own memory") == 1
