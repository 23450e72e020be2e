"""The account of HTTP requests: an id for each, its place in the statistics, a log record, and a bound on its body."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

from fastapi import HTTPException

from .printable import printable
from .statistics import Statistics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("tailrace.chat.requests")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered, also in the tasks that it has started."""

session_id: ContextVar[str | None] = ContextVar("session_id", default=None)
"""The session that is being talked with, where whoever begins its turn has said so."""

UNMATCHED = "unmatched"
"""The route of requests to paths that no template stands for."""

QUIET = frozenset({"/health", "/metrics", "/assets/{path:path}"})
"""Routes that machines ask all the time, or many at once."""

MAX_PATH = 200
"""Characters of a path in the log."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestAccounting:
    """ASGI middleware that gives each HTTP request an id, and counts and logs it when its response has ended.

    A request failed if its status was 400 or above, or if the server broke its body off; that the client left before
    its end is no failure. What the application did not foresee is logged with the id and answered with 500. Scopes
    other than HTTP pass.
    """

    def __init__(self, app: Application, statistics: Statistics) -> None:
        self._app = app
        self._statistics = statistics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        token = request_id.set(exchange.id)
        self._statistics.request_started()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # the last one who can answer
            await exchange.fail(error)
        finally:
            self._account(exchange)
            request_id.reset(token)

    def _account(self, exchange: _Exchange) -> None:
        method, route = exchange.scope["method"], route_of(exchange.scope)
        seconds = time.perf_counter() - exchange.began
        self._statistics.request_ended(method, route, exchange.status, exchange.ok, seconds)
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
    """One request and what has become of its response."""

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
        """How the response ended, in words."""
        if self.complete:
            return "complete"
        return "client left" if self.left else "broken off"

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # Called for each piece of a stream: no coroutine of its own, and the body is asked for first.
        if message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", self.id.encode())]}
        elif message["type"] == "http.response.pathsend":
            self.complete = True
        return self._send(message)

    async def fail(self, error: Exception) -> None:
        """Log what nobody caught, and answer if nothing was said yet; else the body stays broken off."""
        logger.error(
            "%s %s raised %s",
            self.scope["method"],
            printable(_loggable(self.scope)),
            type(error).__name__,
            exc_info=error,
        )
        if self.status is None:
            await send_problem(self.send, 500, "Internal Server Error", "internal_error")


class BodyTooLarge(HTTPException):
    """A body is larger than the server takes. `got` is its size, or as much of it as has been read."""

    code = "body_too_large"

    def __init__(self, limit: int, got: int, *, whole: bool = True) -> None:
        at_least = "" if whole else "at least "
        super().__init__(413, f"expected a body of at most {limit} bytes, but got {at_least}{got}")
        self.limit = limit
        self.got = got


class BodyLimit:
    """ASGI middleware that refuses bodies of more than `max_body` bytes with 413, code `body_too_large`.

    A length that the request says is judged before the body; else what arrives is counted, and the application gets
    BodyTooLarge from `receive`. The answer is the same, whatever the application makes of that.
    """

    def __init__(self, app: Application, max_body: int, statistics: Statistics) -> None:
        self._app = app
        self._max_body = max_body
        self._statistics = statistics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = _content_length(scope)
        if length is None:
            await self._count(scope, receive, send)
        elif length > self._max_body:
            await self._refuse(send, BodyTooLarge(self._max_body, length))
        else:
            # The server holds the client to what it has said.
            await self._app(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _CountedBody(self._max_body, receive, send)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:  # whatever the application makes of the refusal that `receive` has raised
            if body.refusal is None or body.started:
                raise
        if body.refusal is not None and not body.started:
            await self._refuse(send, body.refusal)

    async def _refuse(self, send: Send, refusal: BodyTooLarge) -> None:
        self._statistics.refused(refusal.code)
        await send_problem(send, refusal.status_code, refusal.detail, refusal.code)


class _CountedBody:
    """A body whose size nobody has said."""

    __slots__ = ("_limit", "_receive", "_send", "_size", "refusal", "started")

    def __init__(self, limit: int, receive: Receive, send: Send) -> None:
        self._limit = limit
        self._size = 0
        self._receive = receive
        self._send = send
        self.refusal: BodyTooLarge | None = None
        self.started = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._limit:
                self.refusal = BodyTooLarge(self._limit, self._size, whole=not message.get("more_body", False))
                raise self.refusal
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if self.started:
            return self._send(message)
        if self.refusal is not None:
            return _swallow()
        self.started = True
        return self._send(message)


def route_of(scope: Scope) -> str:
    """The template of the request's path, `/sessions/{session_id}`: few, whatever clients ask for."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or UNMATCHED


def _loggable(scope: Scope) -> str:
    """The path, as much of it as a log needs: clients make them as long as they like."""
    path: str = scope["path"]
    return path if len(path) <= MAX_PATH else path[: MAX_PATH - 1] + "…"


async def send_problem(send: Send, status: int, detail: str, code: str) -> None:
    """Answer with the server's usual object of an error."""
    body = json.dumps({"detail": detail, "code": code}, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _swallow() -> None:
    """What the application answers in place of the refusal goes nowhere."""


def _given_id(scope: Scope) -> str | None:
    """The client's own id of the request, if it can be one."""
    given = header_of(scope, b"x-request-id")
    return given.decode("ascii") if given is not None and _REQUEST_ID.fullmatch(given) else None


def _content_length(scope: Scope) -> int | None:
    length = header_of(scope, b"content-length")
    # What is no length, or none that an integer is made of, is found out by counting.
    return int(length) if length is not None and length.isdigit() and len(length) < 20 else None


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this name, which is in small letters."""
    value: bytes | None = next((value for key, value in scope["headers"] if key == name), None)
    return value
