"""WebSocket by websockets."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    SecurityError,
    WebSocketException,
)
from websockets.http11 import Response
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect as connect_sync

from ..errors import FrameTooLarge
from .commands import Ended, Failed, Open, Opened
from .decoding import SOCKET
from .transport import AsyncTransport, SyncTransport, hopeless

# What websockets logs, a client's errors say better; where nobody has set logging up, it is not for the terminal.
_LOGGER = logging.getLogger("tailrace.client")
_LOGGER.addHandler(logging.NullHandler())

_CLOSE_TIMEOUT = 1
_TOO_BIG = 1009
_NOT_OPENED = (OSError, TimeoutError, EOFError, WebSocketException)
# Addresses that the server redirects to, or that are a proxy's in the environment.
_MISLED = (InvalidURI, InvalidProxy, SecurityError, OverflowError, ValueError)
_NOT_OF_A_HANDSHAKE = frozenset({"accept", "accept-encoding", "cache-control", "content-length", "content-type"})


def _options(request: Open, max_bytes: int) -> dict[str, Any]:
    """Pings of our own stand for the server's: a connection without an answer to them is silent for too long."""
    headers = {name: value for name, value in request.headers.items() if name not in _NOT_OF_A_HANDSHAKE}
    return {
        "additional_headers": headers,
        "open_timeout": request.connect,
        "close_timeout": _CLOSE_TIMEOUT,
        "ping_interval": request.idle / 3,
        "ping_timeout": request.idle * 2 / 3,
        "max_size": max_bytes,
        "logger": _LOGGER,
    }


def _opened(url: str, response: Response | None) -> Opened:
    assert response is not None
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    if response.status_code == 101:
        return Opened(200, {**headers, "content-type": SOCKET}, url, url)
    return Opened(response.status_code, headers, url, url)


def _ended(closed: ConnectionClosed, max_bytes: int) -> Ended | Failed:
    """How the socket ended; FrameTooLarge if that is for a message which is too large for this client."""
    if closed.sent is not None and closed.sent.code == _TOO_BIG and not closed.rcvd_then_sent:
        raise FrameTooLarge(max_bytes, max_bytes + 1)
    if closed.rcvd is None:
        return Failed(f"the connection failed: {closed}")
    return Ended(closed.rcvd.code, closed.rcvd.reason)


def _unopened(error: Exception) -> Failed:
    # Nothing of the application runs before the handshake has succeeded, or has been refused with a status.
    why, said = hopeless(error), str(error)
    reason = why or (f"no connection: {said}" if said else "no connection")
    is_no_http = isinstance(error, InvalidMessage) and isinstance(error.__cause__, ValueError)
    return Failed(reason, sent=False, final=why is not None or is_no_http or isinstance(error, _MISLED))


class AsyncSocket(AsyncTransport):
    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._connection: ClientConnection | None = None
        self._refusal: list[bytes] = []

    def beside(self) -> AsyncSocket:
        return self

    async def open(self, request: Open) -> Opened | Failed:
        try:
            self._connection = connection = await connect(request.url, **_options(request, self._max_bytes))
        except InvalidStatus as refused:
            self._refusal = [bytes(refused.response.body or b"")]
            return _opened(request.url, refused.response)
        except (*_NOT_OPENED, *_MISLED) as error:
            return _unopened(error)
        failed = None if request.content is None else await self.say(request.content.decode())
        return failed or _opened(request.url, connection.response)

    async def read(self, within: float | None) -> bytes | Ended | Failed:
        if self._connection is None:
            return self._refusal.pop() if self._refusal else Ended()
        try:
            async with asyncio.timeout(within):
                return await self._connection.recv(decode=False)
        except TimeoutError:
            return Failed("nothing came in time")
        except ConnectionClosed as closed:
            return _ended(closed, self._max_bytes)

    async def say(self, text: str) -> Failed | None:
        if self._connection is None:
            return Failed("there is no connection now")
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            return Failed(f"the connection failed: {closed}")
        return None

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


class SyncSocket(SyncTransport):
    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._connection: SyncConnection | None = None
        self._connected = ExitStack()
        self._refusal: list[bytes] = []

    def beside(self) -> SyncSocket:
        return self

    def open(self, request: Open) -> Opened | Failed:
        try:
            connecting = connect_sync(request.url, **_options(request, self._max_bytes))
            self._connection = connection = self._connected.enter_context(connecting)
        except InvalidStatus as refused:
            self._refusal = [bytes(refused.response.body or b"")]
            return _opened(request.url, refused.response)
        except (*_NOT_OPENED, *_MISLED) as error:
            return _unopened(error)
        failed = None if request.content is None else self.say(request.content.decode())
        return failed or _opened(request.url, connection.response)

    def read(self, within: float | None) -> bytes | Ended | Failed:
        if self._connection is None:
            return self._refusal.pop() if self._refusal else Ended()
        try:
            return self._connection.recv(timeout=within, decode=False)
        except TimeoutError:
            return Failed("nothing came in time")
        except ConnectionClosed as closed:
            return _ended(closed, self._max_bytes)

    def say(self, text: str) -> Failed | None:
        if self._connection is None:
            return Failed("there is no connection now")
        try:
            self._connection.send(text)
        except ConnectionClosed as closed:
            return Failed(f"the connection failed: {closed}")
        return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection = None
            self._connected.close()
