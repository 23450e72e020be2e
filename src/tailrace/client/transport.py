"""What a driver has to do for a core; HTTP and WebSocket do it, with asyncio and without."""

from __future__ import annotations

import asyncio
import ssl
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

from .commands import Close, Command, Ended, Failed, Flow, Open, Opened, Read, Say, Sleep, T


def hopeless(error: BaseException | None) -> str | None:
    """Why no repetition helps after this error, if it is one of TLS that does not heal."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the server's certificate cannot be verified: {error.verify_message}"
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return "what is at this address does not speak TLS"
        error = error.__cause__ or error.__context__
    return None


class AsyncTransport(ABC):
    """One connection at a time."""

    def __init__(self) -> None:
        self._left = asyncio.Event()

    @abstractmethod
    async def open(self, request: Open) -> Opened | Failed: ...
    @abstractmethod
    async def read(self, within: float | None) -> bytes | Ended | Failed: ...
    @abstractmethod
    async def close(self) -> None: ...
    async def leave(self) -> None:
        """Close whatever is this transport's own, and wait for nothing any more."""
        self._left.set()
        await self.close()

    @abstractmethod
    def beside(self) -> AsyncTransport:
        """Another one for a request while this one is read from."""

    async def say(self, text: str) -> Failed | None:
        raise NotImplementedError("only sockets have something to say")

    async def perform(self, command: Command) -> Any:
        """Do as told, and return the reply."""
        if isinstance(command, Read):
            return await self.read(command.within)
        if isinstance(command, Open):
            return await self.open(command)
        if isinstance(command, Sleep):
            return await self._sleep(command.seconds)
        if isinstance(command, Say):
            return await self.say(command.text)
        assert isinstance(command, Close), command
        return await self.close()

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._left.wait()

    async def converse(self, flow: Flow[T]) -> T:
        """Perform all commands of a flow, and return its result."""
        reply = None
        try:
            while True:
                reply = await self.perform(flow.send(reply))
        except StopIteration as end:
            result: T = end.value
            return result


class SyncTransport(ABC):
    """The same without asyncio."""

    def __init__(self) -> None:
        self._left = threading.Event()

    @abstractmethod
    def open(self, request: Open) -> Opened | Failed: ...
    @abstractmethod
    def read(self, within: float | None) -> bytes | Ended | Failed: ...
    @abstractmethod
    def close(self) -> None: ...
    def leave(self) -> None:
        self._left.set()
        self.close()

    @abstractmethod
    def beside(self) -> SyncTransport: ...

    def say(self, text: str) -> Failed | None:
        raise NotImplementedError("only sockets have something to say")

    def perform(self, command: Command) -> Any:
        if isinstance(command, Read):
            return self.read(command.within)
        if isinstance(command, Open):
            return self.open(command)
        if isinstance(command, Sleep):
            self._left.wait(command.seconds)
            return None
        if isinstance(command, Say):
            return self.say(command.text)
        assert isinstance(command, Close), command
        return self.close()

    def converse(self, flow: Flow[T]) -> T:
        reply = None
        try:
            while True:
                reply = self.perform(flow.send(reply))
        except StopIteration as end:
            result: T = end.value
            return result
