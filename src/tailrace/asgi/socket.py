"""A stream over WebSocket, as the HTTP request that it would be otherwise.

The application is called with an HTTP scope made from the WebSocket's, so that dependencies, security, middleware and
errors are those of the HTTP route. Its NDJSON lines become messages, a client's `{"event": "stop"}` becomes a POST to
the stop address that the response names.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any
from urllib.parse import quote, unquote

from pydantic_core import from_json

from ..errors import DecodeError
from ..wire.base import Frame, frame_members
from ..wire.ndjson import NDJSON
from ..wire.websocket import INTERNAL_ERROR, NORMAL, POLICY_VIOLATION, Command, Messages, read_command
from .disconnect import Message, Receive, Send

ASGIApp = Callable[[Any, Receive, Send], Awaitable[None]]

_KEPT = ("app", "asgi", "http_version", "server", "client", "query_string", "root_path", "app_root_path", "state")
# What belongs to the WebSocket handshake, or would change what the bridge reads.
_LEFT_OUT = re.compile(rb"accept|accept-encoding|connection|upgrade|sec-websocket-.*|content-.*|transfer-encoding")
_TOLD = frozenset({b"content-location", b"link", b"tailrace-cursor"})
_STOP = re.compile(rb'<([^>]+)>; rel="stop"')


async def serve_socket(
    app: ASGIApp, scope: Any, receive: Receive, send: Send, *, method: str = "GET", origins: Collection[str] = ()
) -> None:
    """Answer a WebSocket with the stream of `method` at its path.

    For a method with a body the first message is the body, as JSON. A browser's page must come from the same host or
    from one of `origins`, because WebSockets are not held back by CORS.
    """
    await receive()
    if not _is_same_origin(scope, origins):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "expected an allowed Origin"})
        return
    bridge = _Bridge(app, scope, receive, send, method)
    await bridge.run()


def _is_same_origin(scope: Any, origins: Collection[str]) -> bool:
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    host = headers.get(b"host", b"").decode("latin-1")
    # An origin is scheme, host and port (RFC 6454), or "null", which is no host's.
    return not origin or origin in origins or origin.partition("://")[2] == host


class _Bridge:
    """Looks like a server to the HTTP application and like an application to the WebSocket server."""

    def __init__(self, app: ASGIApp, scope: Any, receive: Receive, send: Send, method: str) -> None:
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
        self._stop_path: str | None = None
        self._messages = Messages()
        self._ended = False

    async def run(self) -> None:
        if self._method != "GET":
            # The body has to come as a message, and for that the socket must be open.
            await self._accept([])
        try:
            await self._app(self._http_scope(self._method, self._scope["path"]), self._receive, self._send)
        except Exception:  # whatever it is: the client is answered, and the server still gets to log it
            if self._status == 0:
                # What a server answers to an HTTP request in this case.
                self._status, self._refusal = 500, b"Internal Server Error"
                await self._refuse()
            raise
        finally:
            code = self._messages.close_code
            await self._close(INTERNAL_ERROR if code == NORMAL and not self._ended else code)

    def _http_scope(self, method: str, path: str) -> dict[str, Any]:
        kept = {key: self._scope[key] for key in _KEPT if key in self._scope}
        headers = [pair for pair in self._scope["headers"] if not _LEFT_OUT.fullmatch(pair[0])]
        headers += [(b"accept", NDJSON.media_type.encode()), (b"content-type", b"application/json")]
        scheme = "https" if self._scope.get("scheme") == "wss" else "http"
        address = {"method": method, "scheme": scheme, "path": path, "raw_path": quote(path).encode()}
        return {**kept, **address, "type": "http", "headers": headers, "extensions": {}}

    # What the HTTP application receives

    async def _receive(self) -> Message:
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
        """The next message, or None when the client is gone; a binary one is no message of this protocol."""
        try:
            message = await self._receive_socket()
        except asyncio.CancelledError:
            # The application waits for its client no longer: only now, because there are servers (Granian) that hold
            # a close back while something is being received.
            if self._ended:
                await self._close(self._messages.close_code)
            raise
        if message["type"] == "websocket.disconnect":
            self._closed = True
            return None
        return message.get("text") or ""

    async def _obey(self, command: Command) -> None:
        assert command == "stop", command
        if self._stop_path is None:
            await self._close(POLICY_VIOLATION, "this stream cannot be stopped by its reader")
            return
        await self._app(self._http_scope("POST", self._stop_path), _receive_nothing, _send_nowhere)

    # What the HTTP application sends

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = message.get("headers", ())
            if self._status < 300:
                await self._accept(self._headers)
        elif self._status < 300:
            await self._pass_on(message.get("body", b""), message.get("more_body", False))
        else:
            self._refusal += message.get("body", b"")
            if not message.get("more_body", False):
                await self._refuse()

    async def _accept(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        told = [pair for pair in headers if pair[0] in _TOLD]
        if (stop := _STOP.search(dict(told).get(b"link", b""))) is not None:
            self._stop_path = unquote(stop[1].decode())
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
        """The HTTP answer instead of the upgrade or, where the socket is open already or cannot carry it, its gist."""
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
        # RFC 6455, section 5.5: a close frame has room for 123 bytes of reason.
        reason = reason.encode()[:123].decode(errors="ignore")
        await self._send_open({"type": "websocket.close", "code": code, "reason": reason})
        self._closed = True

    async def _send_open(self, message: Message) -> None:
        if not self._closed:
            try:
                await self._send_socket(message)
            except OSError:
                # How servers say that the client has gone.
                self._closed = True
            except asyncio.CancelledError:
                # Given up on a client that takes nothing, which would hold up a close message just as well.
                self._closed = True
                raise


def _gist(status: int, body: bytes) -> dict[str, Any]:
    """A refusal as the data of an error: FastAPI's `detail` is a text, or says more than one."""
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
    """The stop's own answer is for nobody: the stream itself says how it ended."""
