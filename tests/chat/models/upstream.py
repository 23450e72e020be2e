"""Servers that answer as the providers do, over a socket, and that tell what was asked and whether the peer left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refuse(NamedTuple):
    """An answer instead of a stream: bytes, or what becomes JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


class Hold(NamedTuple):
    """Waits until the test says `upstream.release.set()` or the peer has left; as the first step without headers."""


class Break(NamedTuple):
    """The connection ends in the middle of the body."""


class Pause(NamedTuple):
    """Lets so many seconds pass."""

    seconds: float


Step = bytes | Refuse | Hold | Break | Pause


@dataclass(frozen=True)
class Dialect:
    """How a provider spells what a model says.

    - `model`, `environment`: how the server is told to ask it; `environment` takes the URL of the upstream.
    - `path`: where it is asked.
    - `sides`: who said what, out of the body of a request.
    - `begin`, `text`, `thought`: the frames before the first piece, of a piece, of a piece of thinking.
    - `ends`: the frames of each way to end, with 7 tokens read and 11 written: `whole`, `length`, `refused`, `odd`.
    - `refusals`: the answers with which a request fails: see CASES.
    - `error`: the frame of a failure in the middle.
    """

    model: str
    environment: Callable[[str], Mapping[str, str]]
    path: str
    sides: Callable[[Any], list[tuple[str, str]]]
    begin: bytes
    text: Callable[[str], bytes]
    thought: Callable[[str], bytes]
    ends: Mapping[str, bytes]
    refusals: Mapping[str, Refuse]
    error: bytes


@dataclass
class Request:
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Upstream:
    """An ASGI application that takes `steps` for each request, and keeps what was asked in `requests`.

    `held` says that a request has come to a Hold, `left` that its peer has gone, and `release` lets it go on.
    """

    steps: Sequence[Step]

    def __post_init__(self) -> None:
        self.play(self.steps)

    def play(self, steps: Sequence[Step]) -> None:
        """Take other steps from now on, with nothing asked yet."""
        self.steps = steps
        self.requests: list[Request] = []
        self.held, self.left, self.release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the test runs servers with lifespan='off'"
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append(Request(scope["path"], headers, json.loads(await _body(receive))))
        if isinstance(first := self.steps[0], Refuse):
            head = {"content-type": "application/json", **first.headers}
            await _start(send, first.status, head)
            body = first.body if isinstance(first.body, bytes) else json.dumps(first.body).encode()
            await send({"type": "http.response.body", "body": body})
            return
        started = False
        for step in self.steps:
            if not started and not isinstance(step, Hold):
                await _start(send, 200, {"content-type": "text/event-stream"})
                started = True
            if isinstance(step, bytes):
                await send({"type": "http.response.body", "body": step, "more_body": True})
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Hold):
                if await self._hold(receive):
                    return
            else:
                raise ConnectionResetError("the test breaks the connection")
        await send({"type": "http.response.body", "body": b""})

    async def _hold(self, receive: Receive) -> bool:
        """Whether the peer has left."""
        self.held.set()
        leaving = asyncio.create_task(_left(receive))
        released = asyncio.create_task(self.release.wait())
        await asyncio.wait([leaving, released], return_when=asyncio.FIRST_COMPLETED)
        if gone := leaving.done():
            self.left.set()
        for task in (leaving, released):
            task.cancel()
        await asyncio.gather(leaving, released, return_exceptions=True)
        return gone


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    return body


async def _left(receive: Receive) -> None:
    assert (await receive())["type"] == "http.disconnect"


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def data(value: Any, event: str | None = None) -> bytes:
    """A frame of Server-Sent Events."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()
