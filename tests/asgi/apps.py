"""Plain ASGI applications of StreamResponses, without FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, WebSocketRoute

from tailrace import Batch, Engine, StreamResponse, lifespan
from tailrace.asgi.decision import StreamRequest
from tailrace.cursor import Cursor
from tailrace.modes import DEFAULT_WIRES
from tailrace.wire.base import Wire

SSE_HEADERS = {"Accept": "text/event-stream"}
TEXT_HEADERS = {"Accept": "text/plain"}
ACCEPTED = [wire.media_type for wire in DEFAULT_WIRES]
STREAMED = [wire.media_type for wire in DEFAULT_WIRES if not isinstance(wire, Batch)]


def small_engine(**options: Any) -> Engine:
    """An engine that nobody waits for at the end."""
    return Engine(**{"shutdown_grace": 0.0, "reconnect": (0.001, 0.002), **options})


class Served:
    """An application that remembers what it raised to its server, and when it has left a request."""

    def __init__(self, engine: Engine | None = None, /, **endpoints: Any) -> None:
        """An endpoint by its path without the slash; a function is called for each request."""
        routes: list[BaseRoute] = [Route(f"/{name}", endpoint) for name, endpoint in endpoints.items()]
        routes += [WebSocketRoute(f"/{name}", endpoint) for name, endpoint in endpoints.items()]
        self._app = Starlette(routes=routes, lifespan=lifespan)
        self.engine = engine or small_engine()
        self._app.state.tailrace_engine = self.engine
        self.raised: list[Exception] = []
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            self.raised.append(error)
            raise
        finally:
            if scope["type"] != "lifespan":
                self.left.set()


class Server:
    """A server of ASGI 2.4 for one request, in the hands of a test."""

    def __init__(self, *, path: str = "/x", headers: Iterable[tuple[bytes, bytes]] = (), query: bytes = b"") -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "method": "GET",
            "path": path,
            "query_string": query,
            "headers": [(b"accept", b"text/event-stream"), *headers],
        }
        self.messages: list[MutableMapping[str, Any]] = []
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        # Like uvicorn's with room in its buffer, this never suspends.
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def whole(self) -> bool:
        return self.messages[-1].get("more_body") is False


def request(wire: Wire, cursor: str | None = None, path: str = "/x") -> StreamRequest:
    return StreamRequest("GET", path, wire, Cursor.parse(cursor) if cursor else None)


def of(*items: Any, **options: Any) -> StreamResponse:
    """A response that streams these items anew for each request."""

    async def source() -> Any:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    return StreamResponse(source, **{"websocket": True, **options})
