"""ASGI middleware for all HTTP requests: their ids, log records and metrics, and the bound of their bodies."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable
from uuid import uuid4

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import BodyTooLarge, InternalError, Refused
from .journal import printable, request_id
from .metrics import Metrics

logger = logging.getLogger("tailrace.chat.requests")

UNMATCHED = "unmatched"
"""The route for requests whose path matches no template."""

QUIET = frozenset({"/health", "/metrics", "/assets/{path:path}", "/js/{path:path}"})
"""Routes that machines request all the time, or in large numbers at once. They are logged at a lower level."""

MAX_PATH = 200
"""The most characters of a path in the log."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestAccounting:
    """Gives each HTTP request an id, and counts and logs the request when its response has ended.

    A request fails if its status is 400 or above, or if the server cuts its body short. A client that leaves early is
    no failure. An unhandled exception is logged with the id and answered with 500.

    Every response gets `nosniff`, and `no-store` unless it has its own `Cache-Control`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        token = request_id.set(exchange.id)
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # the last place that can answer
            await exchange.fail(error)
        finally:
            self._account(exchange)
            request_id.reset(token)

    def _account(self, exchange: _Exchange) -> None:
        method, route = exchange.scope["method"], route_of(exchange.scope)
        owner = exchange.scope.get("state", {}).get("owner", "")
        seconds = time.perf_counter() - exchange.began
        self._metrics.in_flight.dec()
        self._metrics.request_ended(method, route, exchange.status, exchange.ok, seconds, owner)
        level = logging.DEBUG if route in QUIET else logging.INFO
        if logger.isEnabledFor(level):
            path = _loggable(exchange.scope)
            client = exchange.scope.get("client")
            logger.log(
                level,
                "%s %s: %s, %s, %.3f s",
                method,
                printable(path),
                exchange.status or "no status",
                exchange.end,
                seconds,
                extra={
                    "event": "request_ended",
                    "method": method,
                    "route": route,
                    "path": path,
                    "status": exchange.status,
                    "end": exchange.end,
                    "seconds": round(seconds, 6),
                    "client": client and client[0],
                },
            )


class _Exchange:
    """One request, and the state of its response."""

    __slots__ = ("_receive", "_send", "began", "complete", "id", "left", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.id = _given_id(scope) or uuid4().hex
        self.began = time.perf_counter()
        self.status: int | None = None
        self.complete = False
        self.left = False
        self._receive = receive
        self._send = send

    @property
    def ok(self) -> bool:
        return (self.complete or self.left) and (self.status is None or self.status < 400)

    @property
    def end(self) -> str:
        """The end of the response, in words."""
        if self.complete:
            return "complete"
        return "client left" if self.left else "broken off"

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # This runs for each piece of a stream, so it is not a coroutine, and tests for the most frequent type first.
        if message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._headers(message)}
        elif message["type"] == "http.response.pathsend":
            self.complete = True
        return self._send(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
        names = {name.lower() for name, _ in headers}
        if b"x-content-type-options" not in names:
            headers.append((b"x-content-type-options", b"nosniff"))
        if b"cache-control" not in names:
            headers.append((b"cache-control", b"no-store"))
        return headers

    async def fail(self, error: Exception) -> None:
        """Log an unhandled exception, and answer if no response has begun. Otherwise the body is cut short."""
        logger.error(
            "%s %s raised %s",
            self.scope["method"],
            printable(_loggable(self.scope)),
            type(error).__name__,
            exc_info=error,
        )
        if self.status is None:
            await response_of(InternalError())(self.scope, self.receive, self.send)


class BodyLimit:
    """Refuses bodies of more than `max_body` bytes with 413, code `body_too_large`.

    A declared length is checked before the body is read. Without one, `receive` counts the bytes and raises
    BodyTooLarge. FastAPI wraps that in an error of its own, whose cause the application's handler reads.
    """

    def __init__(self, app: ASGIApp, max_body: int, metrics: Metrics) -> None:
        self._app = app
        self._max_body = max_body
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = _content_length(scope)
        if length is not None and length > self._max_body:
            await refuse(BodyTooLarge(self._max_body, length), self._metrics)(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._max_body:
                    raise BodyTooLarge(self._max_body, size, whole=not message.get("more_body", False))
            return message

        # The server makes sure that the body has the declared length.
        await self._app(scope, receive if length is not None else counted, send)


def refuse(refusal: Refused, metrics: Metrics) -> JSONResponse:
    """Count a refusal and return its response."""
    metrics.refuse(refusal.code)
    return response_of(refusal)


def response_of(refusal: Refused) -> JSONResponse:
    return JSONResponse(refusal.problem.model_dump(), refusal.status, refusal.headers)


def route_of(scope: Scope) -> str:
    """Return the template of the request's path, such as `/sessions/{session_id}`. There are few templates."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or UNMATCHED


def _loggable(scope: Scope) -> str:
    """Return as much of the path as a log needs, because clients can send paths of any length."""
    path: str = scope["path"]
    return path if len(path) <= MAX_PATH else path[: MAX_PATH - 1] + "…"


def _given_id(scope: Scope) -> str | None:
    """Return the client's own id for the request, if it is a valid one."""
    given = header_of(scope, b"x-request-id")
    return given.decode("ascii") if given is not None and _REQUEST_ID.fullmatch(given) else None


def _content_length(scope: Scope) -> int | None:
    length = header_of(scope, b"content-length")
    # If the value is no length, or too long for one, `receive` counts the bytes.
    return int(length) if length is not None and length.isdigit() and len(length) < 20 else None


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of the first header with a lower-case name."""
    value: bytes | None = next((value for key, value in scope["headers"] if key == name), None)
    return value
