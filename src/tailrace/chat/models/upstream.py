"""The connection to a model server: its proxy and certificates, and the bounds of its responses.

The vendors' libraries read without bounds. Measured: a server that never ended a line made this process grow from
138 MB to 1,540 MB in ten seconds. Anthropic's library also copies an event again for each of its lines. The libraries
differ in their parsers too: Google's fails at a comment, and at U+2028 within a text. So every response passes through
a Sieve first, which gives the libraries whole events of bounded size and nothing else.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from ipaddress import ip_address
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from .spec import UnusableModel

MAX_EVENT = 1 << 20
"""The most bytes of one event, or of a whole body that is not a stream."""

MAX_LINES = 1_000
"""The most lines of one event."""

MAX_STREAM = 256 << 20
"""The most bytes of all events of a response. No reply needs more, but the libraries keep more than its text."""

# Escapes of the same characters in JSON, which all vendors stream. httpx would take the raw characters as line ends.
_ESCAPES = {"\u2028".encode(): rb"\u2028", "\u2029".encode(): rb"\u2029", "\x85".encode(): rb"\u0085"}

# The timeout between the vendors' libraries and the network is this generous because the exchange has its own timer.
# Google's library also sends it to the server, as the bound for the whole reply.
TIMEOUT = httpx2.Timeout(1200.0, connect=30.0)
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100)


class UpstreamFault(Exception):
    """The server sent something that no model server needs to send. The host's name goes in front of the message."""


class Listener(Protocol):
    """The object on whose behalf a request is sent."""

    def opened(self, response: httpx2.Response) -> None:
        """Note the server's response."""

    def heard(self) -> None:
        """Note that the server has finished a line and so is alive. A comment counts too, since that is its purpose."""

    def give_up(self, fault: UpstreamFault) -> None:
        """Note why the response is given up, because the library may turn `fault` into another exception."""


listener: ContextVar[Listener] = ContextVar("listener")
"""The listener for requests in the current context."""


class Proxy(NamedTuple):
    """A proxy, and the environment variable that names it."""

    url: str
    variable: str


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that the environment names for a URL, but None for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    names = (name for kind in (parts.scheme, "all") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY"))
    variable = next((name for name in names if os.environ.get(name)), "the system's settings")
    return Proxy(proxy if "://" in proxy else f"http://{proxy}", variable)


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def tls_for(url: str) -> ssl.SSLContext:
    """Return a TLS context with the certificates to trust. For an http:// URL, load none."""
    if urlsplit(url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        # httpx2 looks in the same order.
        name = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
        where = f"{name}={os.environ[name]}" if name else "the system"
        raise UnusableModel(f"cannot read the certificates of {where}: {error}") from None


def open_client(url: str, tls: ssl.SSLContext, proxy: Proxy | None) -> httpx2.AsyncClient:
    """Return an HTTP client for the vendors' libraries. Raise UnusableModel if its proxy cannot be used."""
    try:
        inner = httpx2.AsyncHTTPTransport(verify=tls, limits=LIMITS, proxy=proxy and proxy.url)
    except ImportError:
        assert proxy is not None, "only SOCKS needs more than httpx2 has"
        raise UnusableModel(
            f"{proxy.variable} names a SOCKS proxy, which needs another package: pip install socksio. "
            f"Or name {urlsplit(url).hostname} in NO_PROXY"
        ) from None
    except ValueError as error:
        assert proxy is not None, "only a proxy's URL is checked here"
        raise UnusableModel(f"cannot use the proxy in {proxy.variable}: {error}") from None
    # The sieve counts bytes as they arrive. A few compressed bytes could become gigabytes.
    headers = {"accept-encoding": "identity"}
    return httpx2.AsyncClient(transport=Transport(inner), timeout=TIMEOUT, headers=headers)


class Transport(httpx2.AsyncBaseTransport):
    """Sends requests, and passes each response through its own sieve."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        listening = listener.get()
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Sifted(response, response.stream, listening)
        listening.opened(response)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Sifted(httpx2.AsyncByteStream):
    """The body of a response, as the sieve lets it pass."""

    def __init__(self, response: httpx2.Response, body: httpx2.AsyncByteStream, listening: Listener) -> None:
        self._body = body
        self._listener = listening
        self._coding = response.headers.get("content-encoding", "identity")
        self._is_success = response.is_success

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._coding != "identity":
                raise UpstreamFault(f"compressed its response ({self._coding:.20}), although it was asked not to")
            body = aiter(self._body)
            first = await anext(body, b"")
            if not self._is_success:
                yield await self._read_whole(first, body)
            elif first.lstrip()[:1] in (b"{", b"["):
                # No event begins like this. LM Studio may answer a request for a stream with an error as plain JSON.
                document = await self._read_whole(first, body)
                yield b"data: %b\n\n" % document.replace(b"\r", b" ").replace(b"\n", b" ")
            else:
                async for events in self._read_events(first, body):
                    yield events
        except UpstreamFault as fault:
            self._listener.give_up(fault)
            raise

    async def _read_events(self, data: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        sieve, size = Sieve(), 0
        while data:
            if b"\n" in data or b"\r" in data:
                self._listener.heard()
            if events := sieve.feed(data):
                size += len(events)
                if size > MAX_STREAM:
                    raise UpstreamFault(f"sent more than {MAX_STREAM:,} bytes for one reply")
                yield events
            data = await anext(body, b"")
        if rest := sieve.close():
            yield rest

    async def _read_whole(self, first: bytes, body: AsyncIterator[bytes]) -> bytes:
        whole = bytearray(first)
        async for data in body:
            whole += data
            if len(whole) > MAX_EVENT:
                raise UpstreamFault(f"sent a document of more than {MAX_EVENT:,} bytes in place of a stream")
        return bytes(whole)

    async def aclose(self) -> None:
        await self._body.aclose()


class Sieve:
    """Rewrites Server-Sent Events so that all vendors' libraries can read them.

    Its output has whole events, no comments, and \\n as line end. See
    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._event: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """Return the events that `data` completes. Raise UpstreamFault for an event that is too large."""
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        if data:
            self._after_cr = data.endswith(b"\r")
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        whole: list[bytes] = []
        for line in lines:
            if self._line:
                line = bytes(self._line) + line
                self._line.clear()
            if line:
                self._add(line)
            else:
                whole += self._take()
        self._line += rest
        self._check()
        return b"".join(whole)

    def close(self) -> bytes:
        """Return the event that the end of the body cut. The vendors' libraries decide what it means."""
        if self._line:
            self._add(bytes(self._line))
        return b"".join(self._event)

    def _add(self, line: bytes) -> None:
        if line.startswith(b"error:"):
            # llama.cpp sent errors in this field until 2025.
            line = b'data: {"error":%b}' % line.removeprefix(b"error:")
        elif not line.startswith((b"data", b"event")):
            return
        for raw, escaped in _ESCAPES.items():
            line = line.replace(raw, escaped)
        self._event.append(line + b"\n")
        self._size += len(line)
        self._check()

    def _take(self) -> list[bytes]:
        event, self._event, self._size = self._event, [], 0
        return [*event, b"\n"] if event else []

    def _check(self) -> None:
        if self._size + len(self._line) > MAX_EVENT:
            raise UpstreamFault(f"sent an event of more than {MAX_EVENT:,} bytes")
        if len(self._event) > MAX_LINES:
            raise UpstreamFault(f"sent an event of more than {MAX_LINES:,} lines")
