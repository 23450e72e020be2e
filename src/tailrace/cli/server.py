"""uvicorn, as `tailrace serve` runs it: it announces itself, and ends as it is told."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import ChangeReload

from .. import Engine
from ..asgi.lifespan import app_engine
from ..chat.app import create_app
from ..chat.journal import ServerFacts, announce
from ..chat.logs import configure_logging
from ..chat.models.spec import UnusableModel
from ..chat.settings import ChatSettings
from ..chat.store import StoreError
from .command import CommandError

logger = logging.getLogger("tailrace.serve")
uvicorn_logger = logging.getLogger("uvicorn.error")

PACKAGE = Path(__file__).parents[1]

GRACEFUL_END = 20
"""Seconds that connections get to end. After the grace these are the ones whose client takes nothing."""


class Config(uvicorn.Config):
    """Keeps the application that its factory makes: the server starts and ends it, and asks it what still runs."""

    application: Any = None

    def load_app(self) -> Callable[[], Any]:
        factory = super().load_app()

        def make() -> Any:
            self.application = factory()
            return self.application

        return make


class Server(uvicorn.Server):
    """Ends as it is told.

    The first SIGTERM or SIGINT lets running replies go on for the engine's grace. A second one ends them now, and what
    there is of them is stored. A third one ends the process.
    """

    config: Config

    def __init__(self, config: Config, announcement: ServerFacts | None = None) -> None:
        super().__init__(config)
        self._announcement = announcement
        self._application = AsyncExitStack()
        self._heard: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hurries = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # Here, because the reloader's processes begin here.
        _configure_logging()
        try:
            super().run(sockets)
        except (StoreError, UnusableModel) as error:
            # After the start, only the end of the application raises: it could not store all replies.
            logger.error("%s%s", "" if self.started else "cannot start: ", error)
            sys.exit(CommandError.status)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's way to do this could only log what went wrong, with its traceback.
        app = self.config.application
        await self._application.enter_async_context(app.router.lifespan_context(app))
        await super().startup(sockets)
        if self._announcement is not None:
            announce(self._announcement)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._heard.append(sig)
        self.should_exit = True
        # Of Ctrl-C the reloader's process hears itself, and then its parent sends SIGTERM: that is no second wish.
        if self._loop is None or (sig == signal.SIGTERM and self._heard.count(sig) == 1):
            return
        if self._hurries:  # pragma: no cover - nothing can be measured of a process that ends so
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._hurries = True
        self._loop.call_soon_threadsafe(self._hurry)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # First, so that who acts on what is logged is heard.
        self._loop = asyncio.get_running_loop()
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
        again = "Ctrl-C again" if signal.SIGINT in self._heard else "a second signal"
        grace = self._engine.shutdown_grace
        return f"stopping: waiting up to {grace:g} s for {_count(replies)}; {again} stops now"

    def _hurry(self) -> None:
        replies = self._engine.statistics().producers
        logger.info("stopping now%s", f": {_count(replies)} interrupted; the text so far is kept" if replies else "")
        self._engine.drain(grace=0)


def serve(listener: socket.socket, facts: ServerFacts) -> int:
    """Serve in this process until a signal ends it; the exit status."""
    Server(_config(), facts).run([listener])
    return 0


def serve_reloading(listener: socket.socket, facts: ServerFacts) -> int:
    """Serve in a process that is started anew whenever a file of the package changes; the exit status.

    The socket is this process's, so that connections wait while there is no server.
    """
    config = _config(reload=True, reload_dirs=[str(PACKAGE)])
    _configure_logging()
    announce(facts)
    ChangeReload(config, target=Server(config).run, sockets=[listener]).run()
    return 0


def _count(replies: int) -> str:
    return "1 reply" if replies == 1 else f"{replies} replies"


def _configure_logging() -> None:
    configure_logging(ChatSettings().log_format)
    # What uvicorn would say of its start and end is said here.
    uvicorn_logger.setLevel(logging.WARNING)


def _config(**options: Any) -> Config:
    return Config(
        f"{create_app.__module__}:{create_app.__name__}",  # by its name, for the reloader's processes
        factory=True,
        lifespan="off",  # see Server.startup
        workers=1,
        access_log=False,  # each request has a record of its own
        log_config=None,
        timeout_graceful_shutdown=GRACEFUL_END,
        **options,
    )
