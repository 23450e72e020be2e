"""The way to a server, made behind the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from ...client import Session
    from .server import Server

COMPLETION_SECONDS = 2.0
"""For which a completion may ask the server."""


class Connection:
    """Imports what talking with a server takes, which nobody waits for who has not typed yet, and makes the server."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._key = key
        self._stack = AsyncExitStack()
        self._making: asyncio.Task[Server] | None = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._making is not None:
            # A thread that imports cannot be told to stop.
            await asyncio.wait([self._making])
        await self._stack.aclose()

    def begin(self) -> None:
        """Make it, unless that has begun."""
        if self._making is None:
            self._making = asyncio.create_task(self._make())

    async def server(self) -> Server:
        """The one and only, as soon as it can be asked."""
        self.begin()
        assert self._making is not None
        # Who gives up waiting takes it from nobody else.
        return await asyncio.shield(self._making)

    async def sessions(self) -> AsyncIterator[Session]:
        """As many as the server says at once, the last used first."""
        server = await self.server()
        from .server import ERRORS

        found: list[Session] = []
        with suppress(TimeoutError, *ERRORS):
            async with asyncio.timeout(COMPLETION_SECONDS):
                async for session in server.sessions():
                    found.append(session)  # noqa: PERF401 - so that those stay that came in time
        for session in found:
            yield session

    async def _make(self) -> Server:
        await asyncio.to_thread(_import)
        from .server import connected

        return await self._stack.enter_async_context(connected(self._url, self._key))


def _import() -> None:
    from . import conversation, markdown, view  # noqa: F401
