"""What a core without I/O asks of its driver, and what it is told in reply."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from ..wire.base import Frame

# Commands


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request. Replied with Opened or Failed.

    Timeouts are in seconds: `idle` is that of each read, `within` that of all until the head of the answer.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None
    connect: float
    idle: float
    within: float | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Read on, for at most `within` seconds. Replied with bytes, Ended or Failed."""

    within: float | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """Send a text to the server, over a socket. Replied with None or Failed."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """The response is needed no longer."""


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(slots=True)
class Give:
    """Hand these to the application, and go on when it wants more. Empty ones say that the stream is open."""

    frames: Sequence[Frame]


Command: TypeAlias = Open | Read | Say | Close | Sleep | Give

# Replies


@dataclass(frozen=True, slots=True)
class Opened:
    """The head of a response; header names are in lower case. `asked` is the URL before redirections.

    Unless `is_framed`, the end of the connection is the end of the body, whole or not.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    asked: str
    is_framed: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """The body is complete, or the socket was closed by the server with `code`."""

    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is gone. Unless `sent`, it is certain that the server never saw the request.

    `final` says that no repetition helps, `ours` that the application interrupted it, which is nobody's failure.
    """

    reason: str
    sent: bool = True
    final: bool = False
    ours: bool = False


T = TypeVar("T")

Flow: TypeAlias = Generator[Command, Any, T]
"""A conversation with a driver: commands out, replies in, and a result."""
