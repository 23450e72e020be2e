"""The WebSocket transports, with websockets."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    SecurityError,
    WebSocketException,
)
from websockets.http11 import Response
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import reconnect

from ..errors import FrameTooLarge
from .environment import Proxy, proxy_for, tls_context
from .settings import Loss
from .sorting import SOCKET
from .transport import (
    NOT_CONNECTED,
    NOTHING_IN_TIME,
    AsyncTransport,
    Ended,
    Failed,
    Open,
    Opened,
    SyncTransport,
    hopeless,
)

# The client's errors tell more than the records of websockets, which would reach the terminal without logging set up.
_LOGGER = logging.getLogger("tailrace.client")
_LOGGER.addHandler(logging.NullHandler())

_CLOSE_TIMEOUT = 1
_TOO_BIG = 1009
_NOT_OPENED = (OSError, TimeoutError, EOFError, WebSocketException)
_IMPOSSIBLE = (InvalidURI, InvalidProxy, SecurityError, OverflowError, ValueError)
_NOT_OF_A_HANDSHAKE = frozenset({"accept", "accept-encoding", "cache-control", "content-length", "content-type"})


# The client follows redirections itself, as for HTTP, because websockets would pass on all headers it does not know.
class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class _ConnectSync(reconnect):
    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def _options(request: Open, max_bytes: int, proxy: Proxy | None) -> dict[str, Any]:
    """Return the options of a connection. The client sends pings, and drops a connection that does not answer them."""
    headers = {name: value for name, value in request.headers.items() if name not in _NOT_OF_A_HANDSHAKE}
    tls = {"ssl": tls_context(None)} if urlsplit(request.url).scheme == "wss" else {}
    return {
        "additional_headers": headers,
        "open_timeout": min(request.connect, request.within),
        "close_timeout": _CLOSE_TIMEOUT,
        "ping_interval": request.idle / 3,
        "ping_timeout": request.idle * 2 / 3,
        "max_size": max_bytes,
        "logger": _LOGGER,
        "proxy": None if proxy is None else proxy.url,
        **tls,
    }


def _proxy(request: Open) -> Proxy | None:
    proxy = proxy_for(request.url)
    if proxy is not None:
        proxy.check("python_socks", "pip install 'python-socks[asyncio]'")
    return proxy


def _opened(url: str, response: Response | None) -> Opened:
    assert response is not None
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    if response.status_code == 101:
        return Opened(200, {**headers, "content-type": SOCKET}, url, url)
    return Opened(response.status_code, headers, url, url, follows=True)


def _ended(closed: ConnectionClosed, max_bytes: int) -> Ended | Failed:
    """Return the reply for the end of a socket. Raise FrameTooLarge if a message was too large for this client."""
    if closed.sent is not None and closed.sent.code == _TOO_BIG and not closed.rcvd_then_sent:
        raise FrameTooLarge(max_bytes, max_bytes + 1)
    if closed.rcvd is None:
        return _broken(closed)
    return Ended(closed.rcvd.code, closed.rcvd.reason)


def _broken(closed: ConnectionClosed) -> Failed:
    return Failed(Loss("broken", "the connection failed", str(closed)))


def _unopened(error: Exception, request: Open, proxy: Proxy | None) -> Failed:
    # The server runs nothing of its application before the handshake succeeds or is refused with a status.
    if (why := hopeless(error)) is not None:
        return Failed(Loss("unsent", why), final=True)
    loss = Loss("unsent", "no connection", str(error))
    if proxy is not None and isinstance(error, ProxyError | OSError):
        failed = proxy.failed(f"it does not connect ({error})", urlsplit(request.url).hostname or "")
        return Failed(loss, error=failed)
    is_no_http = isinstance(error, InvalidMessage) and isinstance(error.__cause__, ValueError)
    return Failed(loss, final=is_no_http or isinstance(error, _IMPOSSIBLE))


class AsyncSocket(AsyncTransport):
    """A WebSocket with asyncio."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._connection: ClientConnection | None = None
        self._refusal: list[bytes] = []

    def beside(self) -> AsyncSocket:
        return self

    async def open(self, request: Open) -> Opened | Failed:
        proxy = _proxy(request)
        try:
            self._connection = connection = await _Connect(request.url, **_options(request, self._max_bytes, proxy))
        except InvalidStatus as refused:
            self._refusal = [bytes(refused.response.body or b"")]
            return _opened(request.url, refused.response)
        except (*_NOT_OPENED, *_IMPOSSIBLE) as error:
            return _unopened(error, request, proxy)
        failed = None if request.content is None else await self.say(request.content.decode())
        return failed or _opened(request.url, connection.response)

    async def read(self, within: float | None) -> bytes | Ended | Failed:
        if self._connection is None:
            return self._refusal.pop() if self._refusal else Ended()
        try:
            async with asyncio.timeout(within):
                return await self._connection.recv(decode=False)
        except TimeoutError:
            return NOTHING_IN_TIME
        except ConnectionClosed as closed:
            return _ended(closed, self._max_bytes)

    async def say(self, text: str) -> Failed | None:
        if self._connection is None:
            return NOT_CONNECTED
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            return _broken(closed)
        return None

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


class SyncSocket(SyncTransport):
    """A WebSocket without asyncio."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._connection: SyncConnection | None = None
        self._connected = ExitStack()
        self._refusal: list[bytes] = []

    def beside(self) -> SyncSocket:
        return self

    def open(self, request: Open) -> Opened | Failed:
        proxy = _proxy(request)
        try:
            connecting = _ConnectSync(request.url, **_options(request, self._max_bytes, proxy))
            self._connection = connection = self._connected.enter_context(connecting)
        except InvalidStatus as refused:
            self._refusal = [bytes(refused.response.body or b"")]
            return _opened(request.url, refused.response)
        except (*_NOT_OPENED, *_IMPOSSIBLE) as error:
            return _unopened(error, request, proxy)
        failed = None if request.content is None else self.say(request.content.decode())
        return failed or _opened(request.url, connection.response)

    def read(self, within: float | None) -> bytes | Ended | Failed:
        if self._connection is None:
            return self._refusal.pop() if self._refusal else Ended()
        try:
            return self._connection.recv(timeout=within, decode=False)
        except TimeoutError:
            return NOTHING_IN_TIME
        except ConnectionClosed as closed:
            return _ended(closed, self._max_bytes)

    def say(self, text: str) -> Failed | None:
        if self._connection is None:
            return NOT_CONNECTED
        try:
            self._connection.send(text)
        except ConnectionClosed as closed:
            return _broken(closed)
        return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection = None
            self._connected.close()
