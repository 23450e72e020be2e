"""Who may use the server: owners of keys, and pages of origins that it knows."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ForeignOrigin, Refused, Unauthorized, UnknownHost
from .metrics import Metrics
from .requests import header_of, refuse

ANYBODY = ""
"""The owner of every session if the server has no keys."""

_bearer = HTTPBearer(auto_error=False, description="One of the server's API keys, if it has any.")


class Access:
    """The digests of the keys that open the server. Without any, everybody is the same owner, who sees everything.

    An administrator's key also sees what belongs to no owner in particular, such as the statistics of all. A key that
    is the only one is an administrator's.
    """

    def __init__(self, keys: Iterable[str] = (), admin_keys: Iterable[str] = ()) -> None:
        # Digests are compared and stored, so neither the timing nor the database tells a key.
        admins = frozenset(map(digest, admin_keys))
        self._owners = admins | frozenset(map(digest, keys))
        self._admins = admins or (self._owners if len(self._owners) == 1 else frozenset())

    @property
    def open(self) -> bool:
        return not self._owners

    @property
    def owners(self) -> Collection[str]:
        return self._owners or (ANYBODY,)

    def owner(self, key: str | None) -> str:
        """Return whose sessions a key opens. Raises Unauthorized if it opens none."""
        if self.open:
            return ANYBODY
        owner = digest(key or "")
        if owner not in self._owners:
            raise Unauthorized
        return owner

    def sees(self, owner: str) -> str | None:
        """Return whose numbers an owner sees: None stands for everybody's."""
        return None if self.open or owner in self._admins else owner


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class KeyedRoute(APIRoute):
    """Checks the key before the body is read. FastAPI reads the body before it solves dependencies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_key(request: Request) -> Response:
            await _owner(request, await _bearer(request))
            return await handle(request)

        return handle_with_key


async def _owner(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    access: Access = request.app.state.access
    request.state.owner = owner = access.owner(credentials.credentials if credentials is not None else None)
    return owner


Owner = Annotated[str, Depends(_owner)]
"""A parameter of a path function: whose sessions the request is about."""


ANY = "*"

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing. A page that cannot read the response gains nothing by them."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
_PORTS = {"http": 80, "https": 443}


class OriginGuard:
    """ASGI middleware against foreign pages in the browser of somebody who can reach the server.

    A page may send simple requests anywhere without a preflight. So a request with a method that is not safe, and with
    an `Origin` that is neither its own host nor one of `origins`, gets 403 `foreign_origin`.

    A page may also point its own name at this machine (DNS rebinding); then its origin is the request's host. So if
    `hosts` is not None, a `Host` that is not an IP address, `localhost` or one of `hosts` gets 421 `unknown_host`.

    A request without `Host` or `Origin` is no browser's. `*` stands for all.
    """

    def __init__(
        self, app: ASGIApp, *, origins: Collection[str], hosts: Collection[str] | None, metrics: Metrics
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = None if hosts is None or ANY in hosts else frozenset(map(_plain, hosts))
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        app = self._app if refusal is None else refuse(refusal, self._metrics)
        await app(scope, receive, send)

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
    """Whether a page of this origin came from this host. The scheme does not count: a proxy may speak TLS."""
    scheme, found, place = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    return bool(found) and _with_port(place, port) == _with_port(host.lower(), port)


def _with_port(place: str, port: int | None) -> str:
    return place if port is None or re.search(r":[0-9]+$", place) else f"{place}:{port}"


def _plain(host: str) -> str:
    """Return a name without capitals, brackets and the dot of the root."""
    return host.strip("[]").lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
