"""The iteration over a stream, with asyncio and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from ..wire.base import Frame
from .commands import Give, Read
from .core import Following
from .driving import Reading, T
from .transport import AsyncTransport, SyncTransport


class AsyncEvents(Reading[T], Generic[T]):
    """A stream's events by `async for`, across as many connections as it takes."""

    def __init__(self, core: Following, convert: Callable[[Frame], T] | None, transport: AsyncTransport) -> None:
        super().__init__(core, convert)
        self._transport = transport

    def __aiter__(self) -> AsyncEvents[T]:
        return self

    async def __anext__(self) -> T:
        while not self._pending:
            if not await self._fill():
                raise StopAsyncIteration
        return self._pop()

    async def start(self) -> None:
        """Connect; whatever keeps the server from giving the stream is raised here."""
        try:
            await self._fill()
        except BaseException:  # nobody else has the connection yet
            await self.close()
            raise

    async def close(self) -> None:
        """Leave the stream, which goes on without this reader. Whoever waits for its next event finds the end."""
        self._is_left = True
        await self._transport.leave()

    async def stop(self) -> None:
        """Stop the stream itself, for all its readers; the iteration then ends, and `outcome` says so."""
        await self._transport.beside().converse(self._stopping())

    async def _fill(self) -> bool:
        """Go on until there is something to give or the stream is open; False at the end."""
        self._begin()
        try:
            while (command := self._next_command()) is not None:
                if isinstance(command, Give):
                    self._take(command.frames)
                    return True
                if isinstance(command, Read):
                    self._reply = await self._transport.read(command.within)
                else:
                    self._reply = await self._transport.perform(command)
        except BaseException as error:  # of the stream, or a cancellation: in both cases the connection is done with
            self._break_off(error)
            await self._transport.close()
            raise
        finally:
            self._is_busy = False
        await self._transport.close()  # which may have been opened while the stream was left
        return False


class Events(Reading[T], Generic[T]):
    """A stream's events by `for`, across as many connections as it takes."""

    def __init__(self, core: Following, convert: Callable[[Frame], T] | None, transport: SyncTransport) -> None:
        super().__init__(core, convert)
        self._transport = transport

    def __iter__(self) -> Events[T]:
        return self

    def __next__(self) -> T:
        while not self._pending:
            if not self._fill():
                raise StopIteration
        return self._pop()

    def start(self) -> None:
        """Connect; whatever keeps the server from giving the stream is raised here."""
        try:
            self._fill()
        except BaseException:  # nobody else has the connection yet
            self.close()
            raise

    def close(self) -> None:
        """Leave the stream, which goes on without this reader.

        Another thread that waits for its next event finds the end, but where it reads only when that has an answer.
        """
        self._is_left = True
        self._transport.leave()

    def stop(self) -> None:
        """Stop the stream itself, for all its readers; the iteration then ends, and `outcome` says so."""
        self._transport.beside().converse(self._stopping())

    def _fill(self) -> bool:
        self._begin()
        try:
            while (command := self._next_command()) is not None:
                if isinstance(command, Give):
                    self._take(command.frames)
                    return True
                if isinstance(command, Read):
                    self._reply = self._transport.read(command.within)
                else:
                    self._reply = self._transport.perform(command)
        except BaseException as error:  # of the stream, or Ctrl-C: in both cases the connection is done with
            self._break_off(error)
            self._transport.close()
            raise
        finally:
            self._is_busy = False
        self._transport.close()
        return False
