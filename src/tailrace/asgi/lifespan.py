"""An application's engine, and its graceful end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from starlette.types import Scope

from ..engine import Engine

_STATE = "tailrace_engine"


def app_engine(app: Any) -> Engine:
    """Return the engine of a Starlette or FastAPI application. The first call makes one in memory.

    Set another with `app.state.tailrace_engine = Engine(...)` before the application starts.
    """
    engine = getattr(app.state, _STATE, None)
    if engine is None:
        engine = Engine()
        setattr(app.state, _STATE, engine)
    if not isinstance(engine, Engine):
        raise TypeError(f"expected app.state.{_STATE} to be an Engine, but got {engine!r}")
    return engine


def engine_of(scope: Scope) -> Engine:
    """The engine for a request. Without an application that has a state, the request gets an engine of its own."""
    app = scope.get("app")
    return app_engine(app) if hasattr(app, "state") else Engine()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Send readers a farewell as soon as the server is told to stop: `FastAPI(lifespan=tailrace.lifespan)`.

    A server closes its connections before it ends the lifespan. So this listens for the signal itself, and calls the
    server's own handler too. You need it only without a StreamRouter, which does the same when you include it.

    Hypercorn tells its worker processes to stop in a way that no application can notice. They cut their streams after
    `--graceful-timeout` or, from Python 3.12 on, wait for the clients to leave; run it with `--workers 0`.
    """
    async with running(app_engine(app)):
        yield


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    """Drain the engine at SIGTERM or SIGINT, and close it at the end."""
    with _heard_signals(engine):
        try:
            yield
        finally:
            await engine.aclose()


@contextmanager
def _heard_signals(engine: Engine) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}
    listening = True

    def drain() -> None:
        # The loop may run this only after the engine has been closed.
        if listening:
            engine.drain()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(drain)
        previous[number](number, frame)

    for stop in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(stop)
        # Without a handler the process dies at once, so there is nothing to drain for.
        if callable(handler):
            previous[stop] = handler
            signal.signal(stop, hear)
    try:
        yield
    finally:
        listening = False
        for number, handler in previous.items():
            if signal.getsignal(number) is hear:
                signal.signal(number, handler)
