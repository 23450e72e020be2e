"""Which pages may use the server: those that it gave itself, and those of origins that it was told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from .errors import ForeignOrigin, Refused, UnknownHost
from .requests import Application, Receive, Scope, Send, header_of, send_problem
from .statistics import Statistics

ANY = "*"

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing, so that a page which cannot read the answer gains nothing by them."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
_PORTS = {"http": 80, "https": 443}


class OriginGuard:
    """ASGI middleware against pages of others in the browser of somebody who can reach the server.

    A page may send what needs no preflight anywhere: a method that is not safe, with an `Origin` that is neither the
    request's own host nor one of `origins`, gets 403 `foreign_origin`.

    A page may also let its own name lead to this machine, and then its origin is the request's host. So where `hosts`
    is not None, a `Host` that is neither an IP address nor `localhost` nor one of them gets 421 `unknown_host`. What
    has no Host or no Origin is no browser's page. `*` stands for all.
    """

    def __init__(
        self, app: Application, *, origins: Collection[str], hosts: Collection[str] | None, statistics: Statistics
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = None if hosts is None or ANY in hosts else frozenset(map(_plain, hosts))
        self._statistics = statistics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            self._statistics.refused(refusal.code)
            await send_problem(send, refusal.status, refusal.detail, refusal.code)

    def _refusal(self, scope: Scope) -> Refused | None:
        host = (header_of(scope, b"host") or b"").decode("latin-1")
        if host and self._hosts is not None and not self._knows(host):
            return UnknownHost(host)
        origin = header_of(scope, b"origin")
        if origin is None or scope["method"] in SAFE or self._admits(origin.decode("latin-1"), host):
            return None
        return ForeignOrigin(origin.decode("latin-1"))

    def _knows(self, host: str) -> bool:
        assert self._hosts is not None
        found = _HOST.fullmatch(host)
        name = _plain(found[1]) if found is not None else ""
        return name == "localhost" or name in self._hosts or _is_address(name)

    def _admits(self, origin: str, host: str) -> bool:
        return ANY in self._origins or origin in self._origins or _is_of(origin, host)


def _is_of(origin: str, host: str) -> bool:
    """Whether a page of this origin was asked for at this host. The scheme does not count: a proxy may speak TLS."""
    scheme, found, place = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    return bool(found) and _with_port(place, port) == _with_port(host.lower(), port)


def _with_port(place: str, port: int | None) -> str:
    return place if port is None or re.search(r":[0-9]+$", place) else f"{place}:{port}"


def _plain(host: str) -> str:
    """A name can be written in capitals, and with the dot of the root."""
    return host.strip("[]").lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
