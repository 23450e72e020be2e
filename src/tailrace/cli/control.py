"""Mission control's process: the checks before its start, and uvicorn as `tailrace rover` runs it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from .. import Engine, StoreUnavailable
from ..rover import UnusableImage, check_image, create_app, panorama_path
from .command import CommandError, UsageError, say
from .protocol import BoundedProtocol

GRACEFUL_END = 5
"""The seconds in which connections must close. Readers are sent away at once, so only stuck clients need them."""

COMMAND = "tailrace rover"


def check(image: Path | None, streams: str | None) -> Path:
    """Open the streams once, and return the image to serve. Paint the panorama if none is given and none is there.

    Raise UsageError if an option is wrong or a package is missing, and CommandError if the streams cannot be opened or
    the panorama cannot be kept.
    """
    try:
        asyncio.run(_open(Engine(streams or "memory://")))
    except (ModuleNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from None
    except StoreUnavailable as error:
        raise CommandError(f"cannot use the streams: {error.reason}") from None
    try:
        if image is not None:
            check_image(image)
            return image
    except UnusableImage as error:
        raise UsageError(str(error)) from None
    try:
        return panorama_path(tell=lambda line: say(f"{COMMAND}: {line}"))
    except UnusableImage as error:
        raise CommandError(str(error)) from None


async def _open(engine: Engine) -> None:
    try:
        await engine.derive_id("")  # which needs the store's secret
    finally:
        await engine.aclose()


def serve(listener: socket.socket, address: str, settings: Mapping[str, Any]) -> int:
    """Serve until a signal arrives, and return the exit status."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{COMMAND}: %(message)s"))
    for name in ("tailrace", "uvicorn"):
        logging.getLogger(name).handlers = [handler]
    Server(create_app(**settings), address, settings["image"]).run([listener])
    return 0


class Server(uvicorn.Server):
    """A server that says what it serves, and ends at once when it is asked to."""

    def __init__(self, app: Any, address: str, image: Path) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                access_log=False,
                log_config=None,
                lifespan="off",  # see startup
                timeout_graceful_shutdown=GRACEFUL_END,
            )
        )
        self._app = app
        self._address = address
        self._image = image
        self._running = AsyncExitStack()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own lifespan ends only after all connections have.
        await self._running.enter_async_context(self._app.router.lifespan_context(self._app))
        await super().startup(sockets)
        for line in banner(self._address, self._image):
            say(line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own method would raise the signal again at the end, which is not an error here.
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        say(f"{COMMAND}: stopping")
        await super().shutdown(sockets)
        await self._running.aclose()


def banner(address: str, image: Path) -> list[str]:
    """Return the lines that list the addresses."""
    size = f"{image.stat().st_size / 1e6:.1f} MB"
    return [
        f"{COMMAND}: mission control is ready, press Ctrl-C to stop",
        f"  dashboard  {address}/",
        f"  image      {address}/stream/rover-image ({size})",
        f"  telemetry  {address}/stream/rover-telemetry",
        f"  channels   {address.replace('http', 'ws', 1)}/ws/comms/flight?name=ada",
    ]
