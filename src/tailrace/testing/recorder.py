"""Records what an ASGI application receives and sends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message that an application received or sent, with its time by `time.monotonic()`."""

    time: float
    direction: Literal["received", "sent"]
    message: Message


@dataclass(slots=True, eq=False)
class Exchange:
    """The messages between an application and one request or WebSocket."""

    scope: Message
    records: list[Recorded] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the application has returned or raised."""
    error: BaseException | None = None

    @property
    def received(self) -> list[Message]:
        return [record.message for record in self.records if record.direction == "received"]

    @property
    def sent(self) -> list[Message]:
        return [record.message for record in self.records if record.direction == "sent"]

    @property
    def status(self) -> int | None:
        """The HTTP status, or None before the response started."""
        return self._start.get("status")

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers. For a header that was sent several times, the last value."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._start.get("headers", ())}

    @property
    def batches(self) -> list[bytes]:
        """The pieces of the body as they were sent, without the empty ones."""
        bodies = [message.get("body", b"") for message in self.sent if message["type"] == "http.response.body"]
        return [body for body in bodies if body]

    @property
    def body(self) -> bytes:
        return b"".join(self.batches)

    @property
    def ended(self) -> bool:
        """True if the application ended the body cleanly."""
        return any(
            message["type"] == "http.response.body" and not message.get("more_body", False) for message in self.sent
        )

    @property
    def _start(self) -> Message:
        return next((message for message in self.sent if message["type"] == "http.response.start"), {})


class Recorder:
    """An ASGI application that runs another, and records the messages of each request and WebSocket."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.exchanges: list[Exchange] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope)
        self.exchanges.append(exchange)

        async def recorded_receive() -> Any:
            message = await receive()
            exchange.records.append(Recorded(time.monotonic(), "received", message))
            return message

        async def recorded_send(message: Any) -> None:
            exchange.records.append(Recorded(time.monotonic(), "sent", message))
            await send(message)

        try:
            await self.app(scope, recorded_receive, recorded_send)
        except BaseException as error:
            exchange.error = error
            raise
        finally:
            exchange.done.set()
