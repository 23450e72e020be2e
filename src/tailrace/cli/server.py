"""uvicorn, as `tailrace serve` runs it: it announces itself, and ends as it is told."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import ChangeReload

from ..asgi.lifespan import app_engine
from ..chat.app import create_app
from ..chat.banner import ServerFacts, announce
from ..chat.logs import configure_logging
from ..chat.settings import ChatSettings

logger = logging.getLogger("tailrace.serve")
uvicorn_logger = logging.getLogger("uvicorn.error")

PACKAGE = Path(__file__).parents[1]

GRACE = 10
"""Seconds that running replies may go on, as the application's engine has it by default."""

GRACEFUL_END = 20
"""Seconds that connections get to end. After the grace these are the ones whose client takes nothing."""


class Config(uvicorn.Config):
    """Keeps the application that its factory makes, so that the server can ask it how much still runs."""

    application: Any = None

    def load_app(self) -> Callable[[], Any]:
        factory = super().load_app()

        def make() -> Any:
            self.application = factory()
            return self.application

        return make


class Server(uvicorn.Server):
    """The first SIGTERM or SIGINT lets running replies go on for the engine's grace, a second one cuts them off."""

    config: Config

    def __init__(self, config: Config, announcement: ServerFacts | None = None) -> None:
        super().__init__(config)
        self._announcement = announcement
        self._heard: list[int] = []
        self._ending: asyncio.Task[None] | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # Here, because the reloader's processes begin here.
        _configure_logging()
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._announcement is not None:
            announce(self._announcement)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._heard.append(sig)
        self.should_exit = True
        # Of Ctrl-C the reloader's process hears itself, and then its parent sends SIGTERM: that is no second wish.
        if self._ending is not None and (sig == signal.SIGINT or self._heard.count(sig) > 1):
            self.force_exit = True
            self._ending.get_loop().call_soon_threadsafe(self._ending.cancel)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # First, so that who acts on what is logged is heard.
        self._ending = asyncio.create_task(super().shutdown(sockets))
        logger.info("%s", self._farewell())
        await asyncio.wait([self._ending])
        if self._ending.cancelled():
            # What still runs is cancelled with the event loop; uvicorn would log each as an error.
            uvicorn_logger.disabled = True
            logger.warning("stopped at once")
        else:
            self._ending.result()

    def _farewell(self) -> str:
        replies = app_engine(self.config.application).statistics().producers
        if not replies:
            return "stopping"
        go_on = "1 reply goes on" if replies == 1 else f"{replies} replies go on"
        again = "Ctrl-C again" if signal.SIGINT in self._heard else "a second signal"
        return f"stopping: {go_on} for up to {GRACE} s; {again} stops at once"


def serve(listener: socket.socket, facts: ServerFacts) -> int:
    """Serve in this process until a signal ends it; the exit status."""
    server = Server(_config(), facts)
    server.run([listener])
    return int(server.force_exit)


def serve_reloading(listener: socket.socket, facts: ServerFacts) -> int:
    """Serve in a process that is started anew whenever a file of the package changes; the exit status.

    The socket is this process's, so that connections wait while there is no server.
    """
    config = _config(reload=True, reload_dirs=[str(PACKAGE)])
    _configure_logging()
    announce(facts)
    ChangeReload(config, target=Server(config).run, sockets=[listener]).run()
    return 0


def _configure_logging() -> None:
    configure_logging(ChatSettings.from_environment(os.environ).log_format)
    # What uvicorn would say of its start and end is said here.
    uvicorn_logger.setLevel(logging.WARNING)


def _config(**options: Any) -> Config:
    return Config(
        f"{create_app.__module__}:{create_app.__name__}",  # by its name, for the reloader's processes
        factory=True,
        lifespan="on",
        workers=1,
        access_log=False,  # each request has a record of its own
        log_config=None,
        timeout_graceful_shutdown=GRACEFUL_END,
        **options,
    )
