"""Access to the server by API key, and the owners of sessions."""

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
    """Holds the digests of the server's keys. Without keys, all clients are one owner, who sees everything.

    An administrator's key also sees what belongs to no single owner, such as the statistics of all owners. If there is
    only one key, it is an administrator's.
    """

    def __init__(self, keys: Iterable[str] = (), admin_keys: Iterable[str] = ()) -> None:
        # Compare and store only digests, so that neither the timing nor the database reveals a key.
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
        """Return the owner that a key stands for. Raise Unauthorized if the key is not one of the server's."""
        if self.open:
            return ANYBODY
        owner = digest(key or "")
        if owner not in self._owners:
            raise Unauthorized
        return owner

    def sees(self, owner: str) -> str | None:
        """Return the owner whose numbers this owner sees, or None if those are everybody's."""
        return None if self.open or owner in self._admins else owner


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class KeyedRoute(APIRoute):
    """Checks the key before FastAPI reads the body. Dependencies run only after that."""

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
"""The type of a path function's parameter for the owner of the request."""
