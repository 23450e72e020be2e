"""HTTP by httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from ..errors import DecodeError
from .commands import Ended, Failed, Flow, Open, Opened, T
from .transport import AsyncTransport, SyncTransport, hopeless

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_ENDED = Ended()
_MISLED = (httpx.TooManyRedirects, httpx.UnsupportedProtocol)
_NO_ADDRESS = (UnicodeError, OverflowError, ExceptionGroup)
"""What comes of a host or a port that cannot be. The first address was checked: these are of a redirection."""
_NO_HTTP = "illegal status line"
"""So h11 begins to say what it got from a server of something else, as it does of one that begins with TLS."""


HTTPClient = httpx.Client | httpx.AsyncClient


def _timeout(request: Open) -> httpx.Timeout:
    return httpx.Timeout(request.idle, connect=request.connect, pool=request.connect)


def _request(client: httpx.Client | httpx.AsyncClient, request: Open) -> httpx.Request:
    try:
        # An id is sent back as it came, in UTF-8: the HTML standard, "Last-Event-ID".
        headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        return client.build_request(
            request.method, request.url, headers=headers, content=request.content, timeout=_timeout(request)
        )
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise ValueError(f"expected a request that HTTP allows, but got: {error}") from error


def _opened(response: httpx.Response) -> Opened:
    asked = response.history[0].url if response.history else response.url
    # Several lines of one header are one, with commas: httpx joins them.
    headers = response.headers
    is_framed = "content-length" in headers or "transfer-encoding" in headers or response.http_version == "HTTP/2"
    return Opened(response.status_code, dict(headers), str(response.url), str(asked), is_framed)


def _is_plain(response: httpx.Response) -> bool:
    """Whether its bytes are read as they come, with less to do for each piece."""
    # A response that is in memory already, as of a test's transport, can only be had decoded.
    return "content-encoding" not in response.headers and not response.is_stream_consumed


def _failed(error: httpx.RequestError) -> Failed:
    if isinstance(error, httpx.LocalProtocolError):
        raise ValueError(f"expected a request that HTTP allows, but got: {error}") from error
    if isinstance(error, httpx.DecodingError):
        raise DecodeError(f"expected a body as its Content-Encoding says, but got: {error}") from error
    word = _WORDS.get(type(error), "the connection failed")
    said = "" if isinstance(error, httpx.TimeoutException) else str(error).rstrip(".")
    why = hopeless(error)
    final = why is not None or isinstance(error, _MISLED) or said.startswith(_NO_HTTP)
    reason = why or (f"{word}: {said}" if said else word)
    return Failed(reason, sent=not isinstance(error, _NEVER_SENT), final=final)


def _misled(error: Exception) -> Failed:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return Failed(f"the server redirects to where nobody can be: {error}", final=True)


_WORDS: dict[type[httpx.RequestError], str] = {
    httpx.ConnectError: "no connection",
    httpx.ConnectTimeout: "no connection in time",
    httpx.PoolTimeout: "none of the client's connections was free in time",
    httpx.ReadTimeout: "the server has been silent for too long",
    httpx.WriteTimeout: "the server has taken nothing for too long",
    httpx.TooManyRedirects: "the server redirects without an end",
    httpx.UnsupportedProtocol: "the server redirects to where HTTP does not lead",
}


class AsyncHTTP(AsyncTransport):
    """By a caller's client, which stays open, or by one of its own."""

    def __init__(self, client: HTTPClient | None = None) -> None:
        if client is not None and not isinstance(client, httpx.AsyncClient):
            raise TypeError(f"expected an httpx.AsyncClient here, but got {type(client).__qualname__}")
        super().__init__()
        self._is_own = client is None
        self.client = httpx.AsyncClient(follow_redirects=True) if client is None else client
        self._response: httpx.Response | None = None
        self._pieces: Any = None

    async def leave(self) -> None:
        await super().leave()
        if self._is_own:
            await self.client.aclose()

    def beside(self) -> AsyncHTTP:
        return AsyncHTTP(self.client)

    async def converse(self, flow: Flow[T]) -> T:
        try:
            return await super().converse(flow)
        finally:
            await self.close()

    async def open(self, request: Open) -> Opened | Failed:
        sent = _request(self.client, request)
        try:
            async with asyncio.timeout(request.within):
                self._response = await self.client.send(sent, stream=True)
        except TimeoutError:
            return Failed("no answer in time")
        except httpx.RequestError as error:
            return _failed(error)
        except _NO_ADDRESS as error:
            return _misled(error)
        self._pieces = self._response.aiter_raw() if _is_plain(self._response) else self._response.aiter_bytes()
        return _opened(self._response)

    async def read(self, within: float | None) -> bytes | Ended | Failed:
        pieces: AsyncIterator[bytes] = self._pieces
        try:
            if within is None:
                return await anext(pieces, _ENDED)
            async with asyncio.timeout(within):
                return await anext(pieces, _ENDED)
        except TimeoutError:
            return Failed("nothing came in time")
        except httpx.RequestError as error:
            return _failed(error)

    async def close(self) -> None:
        if self._response is not None:
            response, self._response = self._response, None
            try:
                if not self._pieces.ag_running:  # else another task is reading, and that ends with the response
                    await self._pieces.aclose()
            finally:
                await response.aclose()


class SyncHTTP(SyncTransport):
    """By a caller's client, which stays open, or by one of its own."""

    def __init__(self, client: HTTPClient | None = None) -> None:
        if client is not None and not isinstance(client, httpx.Client):
            raise TypeError(f"expected an httpx.Client here, but got {type(client).__qualname__}")
        super().__init__()
        self._is_own = client is None
        self.client = httpx.Client(follow_redirects=True) if client is None else client
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def leave(self) -> None:
        super().leave()
        if self._is_own:
            self.client.close()

    def beside(self) -> SyncHTTP:
        return SyncHTTP(self.client)

    def converse(self, flow: Flow[T]) -> T:
        try:
            return super().converse(flow)
        finally:
            self.close()

    def open(self, request: Open) -> Opened | Failed:
        sent = _request(self.client, request)
        try:
            self._response = self.client.send(sent, stream=True)
        except httpx.RequestError as error:
            return _failed(error)
        except _NO_ADDRESS as error:
            return _misled(error)
        self._pieces = self._response.iter_raw() if _is_plain(self._response) else self._response.iter_bytes()
        return _opened(self._response)

    def read(self, within: float | None) -> bytes | Ended | Failed:
        try:
            return next(self._pieces, _ENDED)
        except httpx.RequestError as error:
            return _failed(error)

    def close(self) -> None:
        if self._response is not None:
            response, self._response = self._response, None
            response.close()
