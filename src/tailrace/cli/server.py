"""The chat server's process: the checks before its start, and uvicorn as `tailrace serve` runs it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from pydantic import ValidationError
from uvicorn.supervisors import ChangeReload

from .. import Engine, StoreUnavailable
from ..asgi.lifespan import app_engine
from ..chat.app import UNUSABLE, create_app, failure_of
from ..chat.journal import ServerFacts, announce
from ..chat.logs import LogFormat, configure_logging
from ..chat.models import open_model
from ..chat.models.spec import UnusableModel, resolve_model
from ..chat.settings import PREFIX, ChatSettings
from ..chat.store import InUse, open_store
from ..chat.workers import streams_of
from .command import CommandError, UsageError
from .protocol import BoundedProtocol
from .workers import Supervisor

logger = logging.getLogger("tailrace.serve")
uvicorn_logger = logging.getLogger("uvicorn.error")

PACKAGE = Path(__file__).parents[1]

SECRET = frozenset({"api_keys", "admin_keys", "database", "streams"})
"""The settings whose values are never shown."""

GRACEFUL_END = 20
"""The seconds in which connections must close. After the engine's grace, only clients that read nothing remain."""

GC_THRESHOLDS = (10_000, 10, 10)
"""How rarely to collect garbage. Python 3.11 has 700 in place of 10,000. Measured with 1,000 streams of 50 events per
second: the collector then takes 17 % of the CPU, and 1 % like this. Connections leave no garbage for it."""

RELOAD = getattr(signal, "SIGUSR1", None)
"""The signal by which the reloader tells its process that the code has changed. Windows has no such signal."""


# Before the start


def read_settings(names: Mapping[str, str]) -> ChatSettings:
    """Read the settings. Raise UsageError for a wrong value, and name its option from `names` or its variable."""
    try:
        return ChatSettings()
    except ValidationError as error:
        wrong = error.errors()[0]
    field = str(wrong["loc"][0])
    variable = PREFIX + field.upper()
    got = "" if field in SECRET else f", but got {wrong['input']!r}"
    message = wrong["msg"].removeprefix("Value error, ")
    raise UsageError(f"{names.get(variable, variable)}: {message[:1].lower()}{message[1:]}{got}")


def warn_of_unknown(environment: Mapping[str, str], known: Iterable[str], log_format: LogFormat) -> None:
    """Warn of variables that have the prefix of settings but are not settings. They are often misspelt."""
    settings = [field.upper() for field in ChatSettings.model_fields]
    given = {name.removeprefix(PREFIX) for name, value in environment.items() if value and name.startswith(PREFIX)}
    unknown = sorted(given.difference(settings, (name.removeprefix(PREFIX) for name in known)))
    if unknown:
        configure_logging(log_format)  # otherwise the serving process configures it
    for name in unknown:
        close = get_close_matches(name, settings, n=1)
        hint = f": did you mean {PREFIX}{close[0]}?" if close else ""
        logger.warning("%s%s is not a setting of the server%s", PREFIX, name, hint)


def check(settings: ChatSettings, environment: Mapping[str, str], address: str) -> ServerFacts:
    """Open the model, the database and the streams once, and close them again. This upgrades the database's schema.

    Raise UsageError if the name of one of them is wrong or a package is missing, and CommandError if the database
    or the store of the streams cannot be used.
    """
    try:
        url = settings.database_url
    except ValueError as error:
        raise UsageError(f"cannot use the database: {error}") from None
    try:
        engine = Engine(settings.streams or "memory://")
    except (ModuleNotFoundError, ValueError) as error:
        raise UsageError(f"cannot use the streams: {error}") from None
    try:
        return asyncio.run(_open(settings, environment, address, url, engine))
    except asyncio.CancelledError:  # pragma: no cover - needs Ctrl-C within a moment of a driver's timeout
        # Only Ctrl-C cancels this, and a driver's own timeout can hide that from asyncio.run.
        raise KeyboardInterrupt from None
    except UNUSABLE as error:
        raise _kind_of(error)(failure_of(error)) from None


def _kind_of(error: Exception) -> type[CommandError]:
    # An error with a cause comes from the database itself. Without a cause, the database was not asked.
    asked = isinstance(error, StoreUnavailable | InUse) or not isinstance(error.__cause__, ModuleNotFoundError | None)
    return CommandError if asked and not isinstance(error, UnusableModel) else UsageError


async def _open(
    settings: ChatSettings, environment: Mapping[str, str], address: str, url: str, engine: Engine
) -> ServerFacts:
    note = resolve_model(settings.model, environment).note
    opened = open_model(
        settings.model,
        environment,
        demo_words=settings.demo_words,
        demo_pace=settings.demo_pace,
        timeout=settings.model_timeout,
    )
    async with opened as model, aclosing(engine):
        streams = await streams_of(engine, settings.streams)
        async with open_store(url, streams=streams) as store:
            place = None if streams is None else streams.place
            return ServerFacts(model.name, address, store.place, streams=place, note=note)


# The server


class Config(uvicorn.Config):
    """Keeps the application that the factory makes, because the server starts it, ends it and reads its statistics."""

    application: Any = None

    def load_app(self) -> Callable[[], Any]:
        factory = super().load_app()

        def make() -> Any:
            self.application = factory()
            return self.application

        return make


class Server(uvicorn.Server):
    """A server that ends in steps, one for each signal.

    After the first SIGTERM or SIGINT, running replies continue for the engine's grace. The second signal interrupts
    them and stores their text so far. The third signal ends the process. A reload interrupts replies immediately.
    """

    config: Config

    def __init__(self, config: Config, announcement: ServerFacts | None = None) -> None:
        super().__init__(config)
        self._announcement = announcement
        self._application = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signals: list[int] = []
        self._reloads = False
        self._hurries = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # Configure logging here, because the reloader's processes start here.
        _configure_logging()
        try:
            super().run(sockets)
        except UNUSABLE as error:
            # After the start, only the end of the application raises this, if it could not store all replies.
            logger.error("%s", failure_of(error))
            sys.exit(CommandError.status)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        with _handling_reload(self._handle_reload):
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own lifespan would not tell the exit status.
        app = self.config.application
        await self._application.enter_async_context(app.router.lifespan_context(app))
        await super().startup(sockets)
        self._application.enter_context(collecting_rarely())
        if self._announcement is not None:
            announce(self._announcement)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals.append(sig)
        self.should_exit = True
        # The reloader's process gets Ctrl-C itself, then SIGTERM from its parent. That is one request to stop, not two.
        if self._loop is None or (sig == signal.SIGTERM and self._signals.count(sig) == 1):
            return
        if self._hurries:  # pragma: no cover - a process that ends like this cannot be measured
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._hurries = True
        self._loop.call_soon_threadsafe(self._hurry)

    def _handle_reload(self, sig: int, frame: FrameType | None) -> None:
        self._reloads = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Set the loop before the message, so that a signal in response to the message has an effect.
        self._loop = asyncio.get_running_loop()
        if self._reloads:
            self._hurry()
        else:
            logger.info("%s", self._farewell())
        await super().shutdown(sockets)
        await self._application.aclose()

    @property
    def _engine(self) -> Engine:
        return app_engine(self.config.application)

    def _farewell(self) -> str:
        replies = self._engine.statistics().producers
        if not replies:
            return "stopping"
        again = "Ctrl-C again" if signal.SIGINT in self._signals else "a second signal"
        grace = self._engine.shutdown_grace
        return f"stopping: waiting up to {grace:g} s for {_count(replies)}; {again} stops now"

    def _hurry(self) -> None:
        replies = self._engine.statistics().producers
        lost = f": {_count(replies)} interrupted; the text so far is kept" if replies else ""
        logger.info("%s%s", "reloading" if self._reloads else "stopping now", lost)
        self._engine.drain(grace=0)


class Reloader(ChangeReload):  # type: ignore[valid-type, misc]  # one of two classes
    """Tells its process that the code has changed, so that open streams do not delay the reload.

    uvicorn only sends SIGTERM. Measured: with an open stream, each saved file then took the whole grace, 11 seconds.
    """

    def restart(self) -> None:
        if RELOAD is not None and self.process.pid is not None:
            os.kill(self.process.pid, RELOAD)
        super().restart()


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Let the garbage collector run rarely, and never look at what exists already."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _handling_reload(handle: Callable[[int, FrameType | None], None]) -> Any:
    if RELOAD is None:  # pragma: no cover - Windows
        yield
        return
    before = signal.signal(RELOAD, handle)
    try:
        yield
    finally:
        signal.signal(RELOAD, before)


def serve(listener: socket.socket, facts: ServerFacts) -> int:
    """Serve in this process until a signal arrives, and return the exit status."""
    Server(_config(), facts).run([listener])
    return 0


def serve_reloading(listener: socket.socket, facts: ServerFacts) -> int:
    """Serve in a process that restarts when a file of the package changes, and return the exit status.

    The socket belongs to this process, so connections wait while no server runs.
    """
    config = _config(reload=True, reload_dirs=[str(PACKAGE)])
    _configure_logging()
    announce(facts)
    Reloader(config, target=Server(config).run, sockets=[listener]).run()
    return 0


def serve_on_workers(listener: socket.socket, facts: ServerFacts, count: int) -> int:
    """Serve in several processes until a signal arrives, and return the exit status."""
    _configure_logging()
    announce(replace(facts, status=f"starting {count} workers"))
    return Supervisor(work, listener, count).run()


def work(listener: socket.socket) -> None:
    """Serve in a process that a Supervisor has started."""
    Server(_config()).run([listener])


def _count(replies: int) -> str:
    return "1 reply" if replies == 1 else f"{replies} replies"


def _configure_logging() -> None:
    configure_logging(ChatSettings().log_format)
    # The server logs its own start and end, so uvicorn need not.
    uvicorn_logger.setLevel(logging.WARNING)


def _config(**options: Any) -> Config:
    return Config(
        f"{create_app.__module__}:{create_app.__name__}",  # a name that the reloader's processes can import
        factory=True,
        http=BoundedProtocol,
        lifespan="off",  # see Server.startup
        workers=1,
        access_log=False,  # the application logs each request
        log_config=None,
        timeout_graceful_shutdown=GRACEFUL_END,
        **options,
    )
