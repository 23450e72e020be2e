"""Who may use the server, and whose a session is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .errors import Unauthorized

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
