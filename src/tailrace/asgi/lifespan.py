"""An application's engine and its graceful shutdown."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from starlette.types import Scope

from ..engine.engine import Engine

logger = logging.getLogger("tailrace")

_STATE = "tailrace_engine"

_SERVERS = frozenset({"fastapi", "granian", "gunicorn", "hypercorn", "uvicorn"})
_HEEDING = frozenset({"fastapi", "gunicorn", "uvicorn"})
"""The servers that read WEB_CONCURRENCY."""


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
    _warn_of_workers(engine)
    return engine


def engine_of(scope: Scope) -> Engine:
    """Return the engine for a request. If the application has no state, make an engine for this request alone."""
    app = scope.get("app")
    return app_engine(app) if hasattr(app, "state") else Engine()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Send readers a farewell as soon as the server is asked to stop: `FastAPI(lifespan=tailrace.lifespan)`.

    A server closes its connections before it ends the lifespan. So this function handles the signal itself, and then
    calls the server's own handler. You need it only without a StreamRouter: including one does the same.

    An application cannot notice how Hypercorn stops its worker processes. They cut their streams after
    `--graceful-timeout` or, from Python 3.12 on, wait for the clients to leave. Run Hypercorn with `--workers 0`.
    """
    async with running(app_engine(app)):
        yield


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    """Drain the engine at SIGTERM or SIGINT. Close it on exit."""
    _warn_of_workers(engine)
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
        # The loop may call this late, when the engine is closed already.
        if listening:
            engine.drain()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(drain)
        previous[number](number, frame)

    for stop in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(stop)
        # Without a handler, the process dies immediately and nothing can be drained.
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


def _warn_of_workers(engine: Engine) -> None:
    """Warn once if several processes serve the application but do not share streams. Only the first process warns."""
    if engine.warned or engine.store.shared:
        return
    engine.warned = True
    count = worker_count(sys.argv, os.environ)
    # uvicorn's workers are SpawnProcess-1, -2 and so on. gunicorn's forks have no number.
    if count > 1 and multiprocessing.current_process().name in ("MainProcess", "SpawnProcess-1"):
        logger.warning(
            "%d workers serve this application, but each keeps its streams in its own memory: a request that reaches "
            "another worker cannot resume or stop a stream. Share them with Engine('redis://…'), or run one worker.",
            count,
        )


def worker_count(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Return how many workers a server's command line starts, or 1 if the server is not a known one.

    Servers do not pass the number to their workers. But each worker has its parent's command line and environment.
    """
    path = Path(command[0]) if command else Path()
    name = path.parent.name if path.name == "__main__.py" else path.stem
    if name not in _SERVERS or "--reload" in command:
        return 1
    found = re.findall(r"(?<!\S)(?:--workers|-w)[ =]?(\d+)(?!\S)", " ".join(command[1:]))
    if not found and name in _HEEDING:
        found = re.findall(r"\A\d+\Z", environment.get("WEB_CONCURRENCY", ""))
    return int(found[-1]) if found else 1
