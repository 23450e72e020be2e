"""What a core without I/O asks of its driver, and the drivers' common part.

A core is a generator: it yields commands and is sent their replies. HTTP and WebSocket each have a transport with
asyncio and one without.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from ..wire.base import Frame
from .errors import UnusableEnvironment
from .settings import Loss

# Commands


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request. The reply is Opened or Failed.

    Timeouts are in seconds: `idle` bounds each read, `within` all until the head of the response. A foreign request
    goes to another origin than the caller meant: nothing that belongs to the caller's client may go with it.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None
    connect: float
    idle: float
    within: float
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Read on, for at most `within` seconds. The reply is bytes, Ended or Failed."""

    within: float | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """Send a text over a socket. The reply is None or Failed."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Drop the response, read or not."""


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(slots=True)
class Give:
    """Hand these frames to the application, and go on when it wants more. No frames mean that the stream is open."""

    frames: Sequence[Frame]


Command: TypeAlias = Open | Read | Say | Close | Sleep | Give

# Replies


@dataclass(frozen=True, slots=True)
class Opened:
    """The head of a response; header names are in lower case. `asked` is the URL before redirections.

    Unless `is_framed`, the end of the connection is the end of the body, complete or not. `follows` says whether the
    client follows redirections, `through` by which proxy the response came.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    asked: str
    is_framed: bool = True
    follows: bool = False
    through: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The body is complete, or the server closed the socket with `code`."""

    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is gone.

    `final` says that repeating does not help, `ours` that the application interrupted it, which is no failure. `error`
    is given where the caller's environment is to blame.
    """

    loss: Loss
    final: bool = False
    ours: bool = False
    error: UnusableEnvironment | None = None

    @property
    def sent(self) -> bool:
        """Whether the server may have seen the request."""
        return self.loss.kind != "unsent"


T = TypeVar("T")

Flow: TypeAlias = Generator[Command, Any, T]
"""A conversation with a driver: commands out, replies in, and a result."""

# Drivers

NOTHING_IN_TIME = Failed(Loss("silent", "nothing came in time"))
NO_HEAD_IN_TIME = Failed(Loss("silent", "no answer in time"))
NOT_CONNECTED = Failed(Loss("broken", "there is no connection now"))


def hopeless(error: BaseException | None) -> str | None:
    """Why repeating does not help after this error, if it is an error of TLS that does not heal."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the server's certificate cannot be verified: {error.verify_message}"
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return "what is at this address does not speak TLS"
        error = error.__cause__ or error.__context__
    return None


class AsyncTransport(ABC):
    """One connection at a time, with asyncio."""

    def __init__(self) -> None:
        self._left = asyncio.Event()

    @abstractmethod
    async def open(self, request: Open) -> Opened | Failed: ...
    @abstractmethod
    async def read(self, within: float | None) -> bytes | Ended | Failed: ...
    @abstractmethod
    async def close(self) -> None: ...
    async def leave(self) -> None:
        """Close everything that is this transport's own, and end any wait."""
        self._left.set()
        await self.close()

    @abstractmethod
    def beside(self) -> AsyncTransport:
        """Another transport, for a request while this one is read from."""

    async def say(self, text: str) -> Failed | None:
        raise NotImplementedError("only sockets have something to say")

    async def perform(self, command: Command) -> Any:
        """Obey a command and return the reply."""
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
        """Obey all commands of a flow and return its result."""
        reply = None
        try:
            while True:
                reply = await self.perform(flow.send(reply))
        except StopIteration as end:
            result: T = end.value
            return result


class SyncTransport(ABC):
    """One connection at a time, without asyncio."""

    def __init__(self) -> None:
        self._left = threading.Event()

    @abstractmethod
    def open(self, request: Open) -> Opened | Failed: ...
    @abstractmethod
    def read(self, within: float | None) -> bytes | Ended | Failed: ...
    @abstractmethod
    def close(self) -> None: ...
    def leave(self) -> None:
        """Close everything that is this transport's own, and end any wait."""
        self._left.set()
        self.close()

    @abstractmethod
    def beside(self) -> SyncTransport: ...

    def say(self, text: str) -> Failed | None:
        raise NotImplementedError("only sockets have something to say")

    def perform(self, command: Command) -> Any:
        """Obey a command and return the reply."""
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
        """Obey all commands of a flow and return its result."""
        reply = None
        try:
            while True:
                reply = self.perform(flow.send(reply))
        except StopIteration as end:
            result: T = end.value
            return result
