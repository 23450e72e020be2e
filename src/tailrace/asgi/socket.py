"""A stream over WebSocket, answered by the application's own HTTP route.

The bridge calls the application with an HTTP scope made from the WebSocket's scope. So the route's dependencies,
security and error handlers apply, and so does the application's HTTP middleware. Each NDJSON line becomes a message. A
client's `{"event": "stop"}` becomes a POST to the stop address that the response names.

If the application is mounted in another one, the outer one's HTTP middleware does not apply: it never sees a WebSocket.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import DecodeError
from ..wire.base import Frame, frame_members
from ..wire.ndjson import NDJSON
from ..wire.websocket import INTERNAL_ERROR, NORMAL, POLICY_VIOLATION, Command, Messages, read_command
from .origins import is_admitted

logger = logging.getLogger("tailrace")

_KEPT = ("app", "asgi", "http_version", "server", "client", "root_path", "app_root_path", "state")
# Headers of the WebSocket handshake, and headers that would change the response that the bridge reads.
_LEFT_OUT = re.compile(rb"accept|accept-encoding|connection|upgrade|sec-websocket-.*|content-.*|transfer-encoding")
_TOLD = frozenset({b"content-location", b"link", b"tailrace-cursor"})
_STOP = re.compile(rb'<([^>]+)>; rel="stop"')


async def serve_socket(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, method: str = "GET", origins: Collection[str] = ()
) -> None:
    """Answer a WebSocket with the stream that `method` gets at its path.

    If the method has a body, the client sends the body first, as one message of JSON. A web page must come from the
    same host or from one of `origins`, because CORS does not restrict WebSockets.
    """
    await receive()
    if not is_admitted(scope, origins):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "expected an allowed Origin"})
        return
    bridge = _Bridge(app, scope, receive, send, method)
    await bridge.run()


class _Bridge:
    """Acts as the server of an HTTP application, and as the application of a WebSocket server."""

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, method: str) -> None:
        self._app = app
        self._scope = scope
        self._receive_socket = receive
        self._send_socket = send
        self._method = method
        self._body_read = False
        self._accepted = False
        self._closed = False
        self._status = 0
        self._headers: Iterable[tuple[bytes, bytes]] = ()
        self._refusal = b""
        self._stop_url: str | None = None
        self._stop_asked = False
        self._stop: asyncio.Task[None] | None = None
        self._messages = Messages()
        self._ended = False

    async def run(self) -> None:
        if self._method != "GET":
            # The body comes as a message, so the socket must be open first.
            await self._accept([])
        try:
            query = self._scope.get("query_string", b"")
            await self._app(self._http_scope(self._method, self._scope["path"], query), self._receive, self._send)
        except Exception:  # any error: answer the client, then let the server log it
            if self._status == 0:
                # A server gives an HTTP client this answer too.
                self._status, self._refusal = 500, b"Internal Server Error"
                await self._refuse()
            raise
        finally:
            code = self._messages.close_code
            await self._close(INTERNAL_ERROR if code == NORMAL and not self._ended else code)
            if self._stop is not None:
                await asyncio.wait([self._stop])

    def _http_scope(self, method: str, path: str, query: bytes) -> dict[str, Any]:
        kept = {key: self._scope[key] for key in _KEPT if key in self._scope}
        headers = [pair for pair in self._scope["headers"] if not _LEFT_OUT.fullmatch(pair[0])]
        headers += [(b"accept", NDJSON.media_type.encode()), (b"content-type", b"application/json")]
        scheme = "https" if self._scope.get("scheme") == "wss" else "http"
        address = {"path": path, "raw_path": quote(path).encode(), "query_string": query}
        return {
            **kept,
            **address,
            "type": "http",
            "method": method,
            "scheme": scheme,
            "headers": headers,
            "extensions": {},
        }

    # Messages to the HTTP application

    async def _receive(self) -> dict[str, Any]:
        if not self._body_read:
            self._body_read = True
            if self._method == "GET":
                return {"type": "http.request", "body": b"", "more_body": False}
            if (text := await self._next_text()) is not None:
                return {"type": "http.request", "body": text.encode(), "more_body": False}
        while not self._closed and (text := await self._next_text()) is not None:
            try:
                command = read_command(text)
            except DecodeError as error:
                await self._close(POLICY_VIOLATION, str(error))
            else:
                await self._obey(command)
        return {"type": "http.disconnect"}

    async def _next_text(self) -> str | None:
        """Return the next message, or None when the client has left. A binary message counts as empty text."""
        try:
            message = await self._receive_socket()
        except asyncio.CancelledError:
            # The application stopped waiting for its client. Do not close earlier: some servers (Granian) hold a close
            # back while a receive is pending.
            if self._ended:
                await self._close(self._messages.close_code)
            raise
        if message["type"] == "websocket.disconnect":
            self._closed = True
            return None
        return message.get("text") or ""

    async def _obey(self, command: Command) -> None:
        assert command == "stop", command
        self._stop_asked = True
        if self._stop_url is None and self._status:
            await self._close(POLICY_VIOLATION, "this stream cannot be stopped by its reader")
        elif self._stop_url is not None and self._stop is None:
            # Stop in a task of its own. The stream's end cancels the task that waits here, and that must not interrupt
            # the teardown of the stop's dependencies.
            url = urlsplit(self._stop_url)
            scope = self._http_scope("POST", unquote(url.path), url.query.encode())
            self._stop = asyncio.create_task(self._request_stop(scope), name="tailrace stop")

    async def _request_stop(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, _receive_nothing, _send_nowhere)
        except Exception:  # an error in a dependency: the stream continues, and the client is not told
            logger.exception("%s: the stop that a WebSocket asked for failed", scope["path"])

    # Messages from the HTTP application

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = message.get("headers", ())
            if self._status < 300:
                await self._accept(self._headers)
                if self._stop_asked:  # the stop came before the headers with its address
                    await self._obey("stop")
        elif self._status < 300:
            await self._pass_on(message.get("body", b""), message.get("more_body", False))
        else:
            self._refusal += message.get("body", b"")
            if not message.get("more_body", False):
                await self._refuse()

    async def _accept(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        told = [pair for pair in headers if pair[0] in _TOLD]
        if (stop := _STOP.search(dict(told).get(b"link", b""))) is not None:
            self._stop_url = stop[1].decode()
        if not self._accepted:
            self._accepted = True
            await self._send_open({"type": "websocket.accept", "headers": told})

    async def _pass_on(self, body: bytes, more: bool) -> None:
        texts = self._messages.feed(body)
        if not more:
            texts += self._messages.close()
        for text in texts:
            await self._send_open({"type": "websocket.send", "text": text})
        self._ended = not more

    async def _refuse(self) -> None:
        """Send the HTTP response instead of the upgrade or, if the socket is open already, an event that sums it up."""
        if self._accepted:
            frame = Frame(_gist(self._status, self._refusal), "error")
            await self._send_open({"type": "websocket.send", "text": frame_members(frame).decode()})
            await self._close(POLICY_VIOLATION if self._status < 500 else INTERNAL_ERROR, f"HTTP {self._status}")
        elif "websocket.http.response" in self._scope.get("extensions", {}):
            start = {"type": "websocket.http.response.start", "status": self._status, "headers": list(self._headers)}
            await self._send_open(start)
            await self._send_open({"type": "websocket.http.response.body", "body": self._refusal})
            self._closed = True
        else:
            await self._close(POLICY_VIOLATION, f"HTTP {self._status}")

    async def _close(self, code: int, reason: str = "") -> None:
        # A close frame has room for 123 bytes of reason (RFC 6455, section 5.5).
        reason = reason.encode()[:123].decode(errors="ignore")
        await self._send_open({"type": "websocket.close", "code": code, "reason": reason})
        self._closed = True

    async def _send_open(self, message: Message) -> None:
        if not self._closed:
            try:
                await self._send_socket(message)
            except OSError:
                # Servers raise this when the client has left (ASGI 2.4).
                self._closed = True
            except asyncio.CancelledError:
                # The engine abandoned the client, which reads nothing and would not read a close message either.
                self._closed = True
                raise


def _gist(status: int, body: bytes) -> dict[str, Any]:
    """Return the data of an `error` event for an HTTP error. FastAPI's `detail` is a string or a list of errors."""
    try:
        members = from_json(body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        members = {"detail": body.decode("utf-8", "replace")}
    detail = members.get("detail", "")
    told = {"message": detail} if isinstance(detail, str) else {"message": f"HTTP {status}", "detail": detail}
    return {"code": members.get("code", f"http_{status}"), "status": status, **told}


async def _receive_nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send_nowhere(message: Message) -> None:
    """Drop the response to the stop, because the stream itself tells how it ended."""
