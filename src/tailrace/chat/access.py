"""Who may chat, and whose a session is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .errors import Unauthorized

ANYBODY = ""
"""The owner of every session where there are no keys."""

_bearer = HTTPBearer(auto_error=False, description="One of the server's API keys, where it has any.")


class Access:
    """The digests of the keys that open the server; without any, everybody is the same owner."""

    def __init__(self, keys: Iterable[str]) -> None:
        # A digest is what is compared and stored: neither its timing nor the database tells the key.
        self._owners = frozenset(map(digest, keys))

    @property
    def open(self) -> bool:
        return not self._owners

    def owner(self, key: str | None) -> str:
        """Whose sessions a key opens. Unauthorized if it opens none."""
        if self.open:
            return ANYBODY
        owner = digest(key or "")
        if owner not in self._owners:
            raise Unauthorized
        return owner


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class KeyedRoute(APIRoute):
    """Asks for a key before anything of the body is read, which FastAPI does before it asks what it depends on."""

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
    return access.owner(credentials.credentials if credentials is not None else None)


Owner = Annotated[str, Depends(_owner)]
"""A path function's parameter: whose sessions the request is about."""
