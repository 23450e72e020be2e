"""An application's engine, and its graceful end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from ..engine import Engine

_STATE = "tailrace_engine"


def app_engine(app: Any) -> Engine:
    """The engine of a Starlette or FastAPI application, made in memory at the first call.

    Set another with `app.state.tailrace_engine = Engine(...)` before the application starts.
    """
    engine = getattr(app.state, _STATE, None)
    if engine is None:
        engine = Engine()
        setattr(app.state, _STATE, engine)
    if not isinstance(engine, Engine):
        raise TypeError(f"expected app.state.{_STATE} to be an Engine, but got {engine!r}")
    return engine


def engine_of(scope: Any) -> Engine:
    """The engine for a request; one of its own where no application with a state is around it."""
    app = scope.get("app")
    return app_engine(app) if hasattr(app, "state") else Engine()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """`FastAPI(lifespan=tailrace.lifespan)`: readers get their farewell as soon as the server is told to stop.

    A server closes its connections before it ends the lifespan, so the signal itself has to be heard: its handler is
    kept and called too. A StreamRouter that an application includes brings this along.

    Hypercorn's worker processes are told in a way that no application can hear. They break their streams off after
    `--graceful-timeout` or, from Python 3.12 on, wait for the clients to go; run it with `--workers 0`.
    """
    async with running(app_engine(app)):
        yield


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    """An engine that drains at SIGTERM or SIGINT and is closed at the end."""
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
        # The loop may come to it only after the engine has been closed.
        if listening:
            engine.drain()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(drain)
        previous[number](number, frame)

    for stop in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(stop)
        # Where nobody handles a signal there is no graceful end to join.
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
