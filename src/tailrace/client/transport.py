"""The commands of a core without I/O to its driver, and the common part of the drivers.

A core is a generator that yields commands and gets their replies. HTTP and WebSocket each have a transport with asyncio
and one without.
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

    Timeouts are in seconds. `idle` bounds each read, and `within` bounds everything until the head of the response. A
    foreign request goes to an origin that the caller did not mean, so it must have nothing from the caller's client.
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
    """Read more, for at most `within` seconds. The reply is bytes, Ended or Failed."""

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
    """Give frames to the application, and continue when it wants more. No frames mean that the stream is open."""

    frames: Sequence[Frame]


Command: TypeAlias = Open | Read | Say | Close | Sleep | Give

# Replies


@dataclass(frozen=True, slots=True)
class Opened:
    """The head of a response, with header names in lower case. `asked` is the URL before redirections.

    Unless `is_framed`, the body ends with the connection, complete or not. `follows` tells whether the client follows
    redirections, and `through` names the proxy that the response came through.
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
    """The connection is lost.

    If `final`, repeating does not help. If `ours`, the application interrupted it, which is not a failure. `error` is
    set
    if the cause is the caller's environment.
    """

    loss: Loss
    final: bool = False
    ours: bool = False
    error: UnusableEnvironment | None = None

    @property
    def sent(self) -> bool:
        """True if the server may have seen the request."""
        return self.loss.kind != "unsent"


T = TypeVar("T")

Flow: TypeAlias = Generator[Command, Any, T]
"""A conversation with a driver: commands out, replies in, and a result."""

# Drivers

NOTHING_IN_TIME = Failed(Loss("silent", "nothing came in time"))
NO_HEAD_IN_TIME = Failed(Loss("silent", "no answer in time"))
NOT_CONNECTED = Failed(Loss("broken", "there is no connection now"))


def hopeless(error: BaseException | None) -> str | None:
    """Return why repeating does not help, if this is a permanent error of TLS; otherwise None."""
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
        """Close all of this transport's own resources, and end any wait."""
        self._left.set()
        await self.close()

    @abstractmethod
    def beside(self) -> AsyncTransport:
        """Return another transport, for a request while this one is being read."""

    async def say(self, text: str) -> Failed | None:
        raise NotImplementedError("only sockets have something to say")

    async def perform(self, command: Command) -> Any:
        """Carry out a command and return the reply."""
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
        """Carry out all commands of a flow and return its result."""
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
        """Close all of this transport's own resources, and end any wait."""
        self._left.set()
        self.close()

    @abstractmethod
    def beside(self) -> SyncTransport: ...

    def say(self, text: str) -> Failed | None:
        raise NotImplementedError("only sockets have something to say")

    def perform(self, command: Command) -> Any:
        """Carry out a command and return the reply."""
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
        """Carry out all commands of a flow and return its result."""
        reply = None
        try:
            while True:
                reply = self.perform(flow.send(reply))
        except StopIteration as end:
            result: T = end.value
            return result
