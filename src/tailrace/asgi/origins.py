"""Refuse requests from the web pages of other sites, except those of allowed origins."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .reply import refusal

ANY = "*"

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The safe methods (RFC 9110, section 9.2.1). A page that cannot read the answer gains nothing by sending one."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
_PORTS = {"http": 80, "https": 443}


def is_admitted(scope: Scope, origins: Collection[str]) -> bool:
    """Tell whether a request comes from a page of the same host or of one of `origins`, or from no page at all.

    An origin is a scheme, a host and a port (RFC 6454), or `null`. The scheme is ignored, because a proxy may add TLS.
    A request without an `Origin` header does not come from a page.
    """
    origin = header_of(scope, b"origin")
    if origin is None or ANY in origins or origin in origins:
        return True
    scheme, found, place = origin.lower().partition("://")
    port, host = _PORTS.get(scheme), header_of(scope, b"host") or ""
    return bool(found) and _with_port(place, port) == _with_port(host.lower(), port)


class OriginGuard:
    """ASGI middleware that refuses requests from other sites' pages in the browsers of your users.

    A page can send any request that needs no preflight to any host. So a request with an unsafe method, or a WebSocket,
    gets 403 `foreign_origin` if its `Origin` is neither the request's own host nor one of `origins`.

    A page can also make its own name resolve to this machine (DNS rebinding). Its origin is then the request's host. So
    if you give `hosts`, a request gets 421 `unknown_host` unless its `Host` is an IP address, `localhost` or one of
    them. `*` admits all. `on_refusal` is called with the code of each refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        origins: Collection[str] = (),
        hosts: Collection[str] | None = None,
        on_refusal: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = None if hosts is None or ANY in hosts else frozenset(map(_plain, hosts))
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        code = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if code is None:
            await self._app(scope, receive, send)
            return
        if self._on_refusal is not None:
            self._on_refusal(code)
        if scope["type"] == "http":
            await self._response(scope, code)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": code})

    def _refusal(self, scope: Scope) -> str | None:
        host = header_of(scope, b"host")
        if host and self._hosts is not None and not self._knows(host):
            return "unknown_host"
        if scope.get("method") in SAFE or is_admitted(scope, self._origins):
            return None
        return "foreign_origin"

    def _knows(self, host: str) -> bool:
        assert self._hosts is not None
        found = _HOST.fullmatch(host)
        name = _plain(found[1]) if found is not None else ""
        return name == "localhost" or name in self._hosts or _is_address(name)

    def _response(self, scope: Scope, code: str) -> Response:
        if code == "unknown_host":
            host = header_of(scope, b"host") or ""
            return refusal(421, f"expected Host to be an address or a name of this server, but got {host[:80]!r}", code)
        origin = header_of(scope, b"origin") or ""
        return refusal(403, f"expected a page of this server or of an allowed origin, but got {origin[:80]!r}", code)


def header_of(scope: Scope, name: bytes) -> str | None:
    """Return the value of the first header with a name, or None."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _with_port(place: str, port: int | None) -> str:
    return place if port is None or re.search(r":[0-9]+$", place) else f"{place}:{port}"


def _plain(host: str) -> str:
    """Return a host's name in lower case, without brackets and without the dot of the DNS root."""
    return host.strip("[]").lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
