"""The HTTP transports, with httpx."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

import certifi
import httpx

from ..errors import DecodeError
from .environment import Proxy, proxy_for, tls_context
from .settings import Loss, LossKind
from .transport import (
    NO_HEAD_IN_TIME,
    NOTHING_IN_TIME,
    AsyncTransport,
    Ended,
    Failed,
    Flow,
    Open,
    Opened,
    SyncTransport,
    T,
    hopeless,
)

HTTPClient: TypeAlias = httpx.Client | httpx.AsyncClient

_ENDED = Ended()
_NO_HTTP = "illegal status line"
"""The beginning of h11's error message if the server speaks another protocol, such as TLS."""

_NO_LOCATION = "Invalid URL in location header"
"""The beginning of httpx's error message for a bad Location, which it reads even without following redirections.

Some values raise UnicodeError instead.
"""

_UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_UNSENT = (*_UNCONNECTED, httpx.PoolTimeout)
_SILENT = (httpx.ReadTimeout, httpx.WriteTimeout)
_WORDS: dict[type[httpx.RequestError], str] = {
    httpx.ConnectError: "no connection",
    httpx.ConnectTimeout: "no connection in time",
    httpx.PoolTimeout: "none of the client's connections was free in time",
    httpx.ReadTimeout: "the server has been silent for too long",
    httpx.WriteTimeout: "the server has accepted nothing for too long",
}

# Clients

C = TypeVar("C", httpx.Client, httpx.AsyncClient)


class Clients(Generic[C]):
    """The caller's client, or our own clients, each made on demand: one per proxy, with and without TLS.

    If httpx read the environment itself, it would make all of them at once, and fail for certificates and proxies that
    no request uses.
    """

    def __init__(self, kind: type[C], given: HTTPClient | None, **options: Any) -> None:
        _check_kind(kind, type(given) if given is not None else kind)
        self.kind: type[C] = kind
        self._make: Callable[..., C] = partial(kind, trust_env=False, **options)
        self._given: C | None = cast("C | None", given)
        self._own: dict[tuple[bool, str | None], C] = {}
        self._is_closed = False
        self._tls: ssl.SSLContext | None = None

    @property
    def follows(self) -> bool:
        """True if the client should follow redirections. A caller's client decides that itself."""
        return self._given is None or self._given.follow_redirects

    def of(self, url: str) -> tuple[C, Proxy | None]:
        """Return the client for a URL, and its proxy. Raise UnusableEnvironment if the environment prevents that."""
        if self._given is not None:
            return self._given, None
        if self._is_closed:
            raise RuntimeError("expected to make requests inside of the block, but it was left")
        proxy, is_tls = proxy_for(url), urlsplit(url).scheme == "https"
        if proxy is not None:
            proxy.check("socksio", "pip install 'httpx[socks]'")
        key = (is_tls, None if proxy is None else proxy.url)
        if key not in self._own:
            # Without TLS, do not load certificates.
            verify = self._context() if is_tls else False
            self._own[key] = self._make(verify=verify, proxy=None if proxy is None else self._proxy(proxy))
        return self._own[key], proxy

    def drain(self) -> list[C]:
        """Remove our own clients and return them, so that the caller can close them."""
        own, self._own = list(self._own.values()), {}
        self._is_closed = True
        return own

    def _proxy(self, proxy: Proxy) -> httpx.Proxy:
        return httpx.Proxy(proxy.url, ssl_context=self._context() if proxy.url.startswith("https:") else None)

    def _context(self) -> ssl.SSLContext:
        self._tls = self._tls or tls_context(certifi.where())
        return self._tls


AnyClients: TypeAlias = HTTPClient | Clients[httpx.Client] | Clients[httpx.AsyncClient] | None
"""A caller's client, clients that several requests share, or None for new clients."""


def _clients(kind: type[C], given: AnyClients, **options: Any) -> Clients[C]:
    if not isinstance(given, Clients):
        return Clients(kind, given, **options)
    _check_kind(kind, given.kind)
    return cast("Clients[C]", given)


def _check_kind(expected: type[HTTPClient], got: type[HTTPClient]) -> None:
    if not issubclass(got, expected):
        raise TypeError(f"expected an httpx.{expected.__name__} here, but got {got.__qualname__}")


# Requests, responses and failures


def _request(client: HTTPClient, request: Open) -> httpx.Request:
    timeout = httpx.Timeout(request.idle, connect=request.connect, pool=request.connect)
    try:
        # Send an id back as it came, in UTF-8 (HTML standard, "Last-Event-ID").
        headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        if request.is_foreign:
            # `build_request` would add the client's headers, cookies and parameters, which also belong to the caller.
            extensions = {"timeout": timeout.as_dict()}
            return httpx.Request(
                request.method, request.url, headers=headers, content=request.content, extensions=extensions
            )
        return client.build_request(
            request.method, request.url, headers=headers, content=request.content, timeout=timeout
        )
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise ValueError(f"expected a request that HTTP allows, but got: {error}") from error


def _options(request: Open) -> dict[str, Any]:
    return {"stream": True, "follow_redirects": False, **({"auth": None} if request.is_foreign else {})}


def _opened(response: httpx.Response, follows: bool, proxy: Proxy | None) -> Opened | Failed:
    if response.status_code == 407 and proxy is not None:
        return _failed_proxy("it asks for credentials (407)", response.request, proxy)
    # httpx joins several lines of one header with commas (RFC 9110, section 5.3).
    headers, url = response.headers, str(response.url)
    is_framed = "content-length" in headers or "transfer-encoding" in headers or response.http_version == "HTTP/2"
    through = "" if proxy is None else f"it came through the proxy {proxy.shown} of {proxy.variable}"
    return Opened(response.status_code, dict(headers), url, url, is_framed, follows, through)


def _is_plain(response: httpx.Response) -> bool:
    """Tell whether to read the bytes as they come, which costs less per piece."""
    # A response that is already in memory, such as that of a test's transport, is only available decoded.
    return "content-encoding" not in response.headers and not response.is_stream_consumed


def _failed(error: httpx.RequestError, proxy: Proxy | None = None) -> Failed:
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        raise ValueError(f"expected a request that HTTP allows, but got: {error}") from error
    if isinstance(error, httpx.DecodingError):
        raise DecodeError(f"expected a body as its Content-Encoding says, but got: {error}") from error
    kind: LossKind = "unsent" if isinstance(error, _UNSENT) else "silent" if isinstance(error, _SILENT) else "broken"
    if (why := hopeless(error)) is not None:
        return Failed(Loss(kind, why), final=True)
    word = _WORDS.get(type(error), "the connection failed")
    said = "" if isinstance(error, httpx.TimeoutException) else str(error).rstrip(".")
    if proxy is not None and isinstance(error, _UNCONNECTED):
        verb = "does not connect" if isinstance(error, httpx.ProxyError) else "does not answer"
        return _failed_proxy(f"it {verb} ({said or word})", error.request, proxy)
    if said.startswith(_NO_LOCATION):
        return _misled(error)
    return Failed(Loss(kind, word, said), final=said.startswith(_NO_HTTP))


def _misled(error: Exception) -> Failed:
    return Failed(Loss("misled", "the server redirects to an impossible address", str(error)), final=True)


def _failed_proxy(reason: str, request: httpx.Request, proxy: Proxy) -> Failed:
    loss = Loss("unsent", f"the proxy {proxy.shown} of {proxy.variable} failed", reason)
    return Failed(loss, error=proxy.failed(reason, request.url.host))


class AsyncHTTP(AsyncTransport):
    """HTTP with asyncio. It uses the caller's client, which stays open, or its own clients."""

    def __init__(self, clients: AnyClients = None) -> None:
        super().__init__()
        self.clients = _clients(httpx.AsyncClient, clients)
        self._is_own = self.clients is not clients
        self._response: httpx.Response | None = None
        self._pieces: Any = None

    async def leave(self) -> None:
        await super().leave()
        if self._is_own:
            for client in self.clients.drain():
                await client.aclose()

    def beside(self) -> AsyncHTTP:
        return AsyncHTTP(self.clients)

    async def converse(self, flow: Flow[T]) -> T:
        try:
            return await super().converse(flow)
        finally:
            await self.close()

    async def open(self, request: Open) -> Opened | Failed:
        client, proxy = self.clients.of(request.url)
        sent = _request(client, request)
        try:
            async with asyncio.timeout(request.within):
                self._response = await client.send(sent, **_options(request))
        except TimeoutError:
            return NO_HEAD_IN_TIME
        except httpx.RequestError as error:
            return _failed(error, proxy)
        except UnicodeError as error:
            return _misled(error)
        self._pieces = self._response.aiter_raw() if _is_plain(self._response) else self._response.aiter_bytes()
        return _opened(self._response, self.clients.follows, proxy)

    async def read(self, within: float | None) -> bytes | Ended | Failed:
        pieces: AsyncIterator[bytes] = self._pieces
        try:
            if within is None:
                return await anext(pieces, _ENDED)
            async with asyncio.timeout(within):
                return await anext(pieces, _ENDED)
        except TimeoutError:
            return NOTHING_IN_TIME
        except httpx.RequestError as error:
            return _failed(error)

    async def close(self) -> None:
        if self._response is not None:
            response, self._response = self._response, None
            try:
                if not self._pieces.ag_running:  # otherwise another task reads, until the response is closed
                    await self._pieces.aclose()
            finally:
                await response.aclose()


class SyncHTTP(SyncTransport):
    """HTTP without asyncio. It uses the caller's client, which stays open, or its own clients."""

    def __init__(self, clients: AnyClients = None) -> None:
        super().__init__()
        # Use each connection only once, because httpcore gives `Watch` the socket only when it connects.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.clients = _clients(httpx.Client, clients, limits=limits)
        self._is_own = self.clients is not clients
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._idle = 0.0

    def leave(self) -> None:
        super().leave()
        if self._is_own:
            for client in self.clients.drain():
                client.close()

    def beside(self) -> SyncHTTP:
        return SyncHTTP(self.clients)

    def converse(self, flow: Flow[T]) -> T:
        try:
            return super().converse(flow)
        finally:
            self.close()

    def open(self, request: Open) -> Opened | Failed:
        client, proxy = self.clients.of(request.url)
        sent = _request(client, request)
        self._idle = request.idle
        with Watch(request.within) as watch:
            sent.extensions["trace"] = watch.trace
            try:
                self._response = client.send(sent, **_options(request))
            except httpx.RequestError as error:
                return NO_HEAD_IN_TIME if watch.is_over else _failed(error, proxy)
            except UnicodeError as error:
                return _misled(error)
        self._pieces = self._response.iter_raw() if _is_plain(self._response) else self._response.iter_bytes()
        return _opened(self._response, self.clients.follows, proxy)

    def read(self, within: float | None) -> bytes | Ended | Failed:
        try:
            if within is None or within >= self._idle or self._response is None:
                return next(self._pieces, _ENDED)
            with Watch(within, self._response.extensions.get("network_stream")) as watch:
                piece = next(self._pieces, _ENDED)
                # If the watch has shut the socket, a body without a length looks complete.
                return NOTHING_IN_TIME if watch.is_over and piece is _ENDED else piece
        except httpx.RequestError as error:
            return NOTHING_IN_TIME if within is not None and within < self._idle else _failed(error)

    def close(self) -> None:
        if self._response is not None:
            response, self._response = self._response, None
            response.close()


class Watch:
    """Shuts a request's socket when its time is over. That wakes the thread that reads from the socket.

    Without asyncio, httpx bounds each read, but not all reads together.
    """

    def __init__(self, seconds: float, stream: Any = None) -> None:
        self.is_over = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True
        if stream is not None:
            self._watch(stream)

    def __enter__(self) -> Watch:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._forget()

    def trace(self, name: str, info: dict[str, Any]) -> None:
        """Keep a new connection's socket. httpcore calls this: https://www.encode.io/httpcore/extensions/#trace."""
        if name in ("connection.connect_tcp.complete", "socks.connect_tcp.complete"):
            self._watch(info["return_value"])

    def _watch(self, stream: Any) -> None:
        connected = stream.get_extra_info("socket")
        if connected is None:  # a caller's transport may have no socket
            return
        with self._lock:
            self._forget()
            # Keep a duplicate, because TLS takes the socket itself over.
            with suppress(OSError):
                self._socket = socket.socket(fileno=socket.dup(connected.fileno()))
        if self.is_over:
            self._shut()

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _shut(self) -> None:
        self.is_over = True
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
