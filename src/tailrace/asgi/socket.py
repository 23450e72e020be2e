"""A stream over WebSocket, answered by the application's own HTTP route.

The bridge calls the application with an HTTP scope made from the WebSocket's scope. So the route's dependencies,
security and error handlers apply, and so does the application's HTTP middleware. Each NDJSON line becomes a message.
What the client sends becomes POSTs to the addresses that the response names in its `Link` header: `{"event": "stop"}`
to the one with `rel="stop"`, and any other message to the one with `rel="send"`.

If the application is mounted in another one, the outer one's HTTP middleware does not apply: it never sees a WebSocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..wire.websocket import (
    INTERNAL_ERROR,
    NORMAL,
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    UNSUPPORTED_DATA,
    Messages,
    is_stop,
    texts_of,
)
from .exchange import LINES, Answer, http_scope, post
from .origins import is_admitted
from .posts import Posts
from .reply import Header
from .wrappers import Relay, past_wrappers

_TOLD = frozenset({b"content-location", b"link", b"tailrace-cursor"})


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


class _Bridge(Relay):
    """Acts as the server of an HTTP application, and as the application of a WebSocket server."""

    __slots__ = (
        "_accepted", "_answer", "_app", "_body_read", "_closed", "_ended", "_messages", "_method", "_mute", "_posts",
        "_receive_socket", "_scope", "_send_url", "_stop", "_stop_asked", "_stop_url",
    )  # fmt: skip

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, method: str) -> None:
        self._app = app
        self._scope = scope
        self._receive_socket = receive
        self.onward = send
        self._method = method
        self._body_read = False
        self._accepted = False
        self._closed = False  # by either side: nothing that the client says matters any more
        self._mute = False  # nothing can be sent any more, but what the client has sent before may still come
        self._answer = Answer()
        self._messages = Messages()
        self._ended = False
        self._stop_url: str | None = None
        self._stop_asked = False
        self._stop: asyncio.Task[Answer] | None = None
        self._send_url: str | None = None
        self._posts: Posts | None = None  # made for the first message

    async def run(self) -> None:
        if self._method != "GET":
            # The body comes as a message, so the socket must be open first.
            await self._accept([])
        query = self._scope.get("query_string", b"")
        scope = http_scope(self._scope, self._method, self._scope["path"], query)
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:  # any error: answer the client, then let the server log it
            if self._answer.status == 0:
                # A server gives an HTTP client this answer too.
                self._answer = Answer(500, body=b"Internal Server Error")
                await self._refuse()
            raise
        finally:
            code = self._messages.close_code
            await self._close(INTERNAL_ERROR if code == NORMAL and not self._ended else code)
            if self._posts is not None:
                await self._posts.close()
            if self._stop is not None:
                await asyncio.wait([self._stop])

    # Messages to the HTTP application

    async def _receive(self) -> dict[str, Any]:
        if not self._body_read:
            self._body_read = True
            if self._method == "GET":
                return {"type": "http.request", "body": b"", "more_body": False}
            if (text := await self._next_text()) is not None:
                return {"type": "http.request", "body": text.encode(), "more_body": False}
        while not self._closed and (text := await self._next_text()) is not None:
            # `_obey` would take three coroutines for each message.
            if self._posts is None or is_stop(text) or not self._posts.put_nowait(text):
                await self._obey(text)
        if self._posts is not None:
            # The client sent these messages before it left, so the application gets them first.
            await self._posts.drain()
        return {"type": "http.disconnect"}

    async def _next_text(self) -> str | None:
        """Return the next message, or None if the socket is closed."""
        try:
            message = await self._receive_socket()
        except asyncio.CancelledError:
            # The application stopped waiting for its client. Do not close earlier: some servers (Granian) hold a close
            # back while a receive is pending.
            if self._ended:
                await self._close(self._messages.close_code)
            raise
        if message["type"] == "websocket.disconnect":
            self._closed = self._mute = True
            return None
        text: str | None = message.get("text")
        if text is None:
            await self._close(UNSUPPORTED_DATA, "expected a text message, but got a binary one")
        return text

    async def _obey(self, text: str) -> None:
        """Do what a message after the body asks for. Before the response begins, its addresses are unknown."""
        if is_stop(text):
            self._stop_asked = True
            if self._answer.status:
                await self._stop_stream()
        elif self._answer.status and self._send_url is None:
            await self._refuse_message(text)
        else:
            await self._post(text)

    async def _stop_stream(self) -> None:
        if self._stop_url is None:
            await self._close(POLICY_VIOLATION, "this stream cannot be stopped by its reader")
        elif self._stop is None:
            # Stop in a task of its own. The stream's end cancels the task that waits here, and that must not interrupt
            # the teardown of the stop's dependencies. The answer does not matter: the stream itself tells how it ended.
            self._stop = asyncio.create_task(self._ask(self._stop_url), name="tailrace stop")

    async def _post(self, text: str) -> None:
        if self._posts is None:
            self._posts = Posts(self._ask_lines, self._tell)
            if self._send_url is not None:
                self._posts.begin()
        try:
            await self._posts.put(text)
        except TimeoutError as error:
            await self._close(TRY_AGAIN_LATER, str(error))

    async def _ask_lines(self, body: bytes, key: bytes) -> Answer:
        assert self._send_url is not None, "only a response that names an address begins the posts"
        return await self._ask(self._send_url, body, media_type=LINES, key=key)

    async def _ask(self, url: str, body: bytes = b"", **options: Any) -> Answer:
        return await post(self._scope.get("app", self._app), self._scope, url, body, **options)

    async def _refuse_message(self, text: str) -> None:
        await self._close(POLICY_VIOLATION, f'expected {{"event": "stop"}}, but got {text!r:.80}')

    # Messages from the HTTP application

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._answer.status >= 300:
            await self._collect_refusal(message)
        else:
            texts = self._messages.feed(message.get("body", b""))
            if not message.get("more_body", False):
                self._ended = True
                texts = (*texts, *self._messages.close())
            await self.see_out(self._send_all(texts))

    async def _send_all(self, texts: Iterable[str]) -> None:
        for text in texts:
            if self._mute:
                break
            await self.onward(_message(text))

    @staticmethod
    def spell(part: bytes) -> Message | None:
        texts = texts_of(part)
        return _message(texts[0]) if len(texts) == 1 else None

    async def see_out(self, rest: Awaitable[None]) -> None:
        try:
            await rest
        except (OSError, RuntimeError):
            # Servers raise OSError when the client has left (ASGI 2.4). uvicorn raises RuntimeError if it has closed
            # the socket itself, because of a malformed frame.
            self._mute = True
        except asyncio.CancelledError:
            # The engine abandoned the client, which reads nothing and would not read a close message either.
            self._mute = True
            raise

    async def _begin(self, start: Message) -> None:
        answer = self._answer = Answer(start["status"], start.get("headers", ()))
        if answer.status >= 300:
            return
        self._stop_url, self._send_url = answer.link("stop"), answer.link("send")
        await self._accept(answer.headers)
        if self._stop_asked:
            await self._stop_stream()
        if self._posts is not None and self._send_url is not None:
            self._posts.begin()
        elif self._posts is not None:
            await self._refuse_message(self._posts.first)
            await self._posts.close()

    async def _accept(self, headers: Iterable[Header]) -> None:
        if not self._accepted:
            self._accepted = True
            told = [pair for pair in headers if pair[0] in _TOLD]
            await self._send_open({"type": "websocket.accept", "headers": told})
            self.onward = past_wrappers(self.onward)

    async def _collect_refusal(self, message: Message) -> None:
        self._answer.body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._refuse()

    async def _refuse(self) -> None:
        """Send the HTTP response instead of the upgrade or, if the socket is open already, a message in its place."""
        answer = self._answer
        if self._accepted:
            await self._tell(answer.as_message("error"))
            await self._close(POLICY_VIOLATION if answer.status < 500 else INTERNAL_ERROR, f"HTTP {answer.status}")
        elif "websocket.http.response" in self._scope.get("extensions", {}):
            start = {"type": "websocket.http.response.start", "status": answer.status, "headers": list(answer.headers)}
            await self._send_open(start)
            await self._send_open({"type": "websocket.http.response.body", "body": answer.body})
            self._closed = self._mute = True
        else:
            await self._close(POLICY_VIOLATION, f"HTTP {answer.status}")

    async def _tell(self, text: str) -> None:
        """Send a message that is not the stream's. Nothing follows the stream's end."""
        if not self._ended:
            await self._send_open(_message(text))

    async def _close(self, code: int, reason: str = "") -> None:
        # Nothing may follow a close, not even while the server waits for room for it.
        mute, self._closed, self._mute = self._mute, True, True
        if not mute:
            # A close frame has room for 123 bytes of reason (RFC 6455, section 5.5).
            reason = reason.encode()[:123].decode(errors="ignore")
            with suppress(OSError):
                await self.onward({"type": "websocket.close", "code": code, "reason": reason})

    async def _send_open(self, message: Message) -> None:
        if not self._mute:
            try:
                await self.onward(message)
            except OSError:
                self._mute = True


def _message(text: str) -> Message:
    return {"type": "websocket.send", "text": text}
