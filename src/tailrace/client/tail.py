"""`tail`: follow a stream."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Generic

from pydantic_core import to_json

from ..wire.base import MAX_FRAME_BYTES, Frame
from .core import Following
from .driving import T
from .events import AsyncEvents, Events
from .http import AsyncHTTP, HTTPClient, SyncHTTP
from .links import check_url, with_parameters
from .plan import Plan
from .settings import OnReconnect, OnReset, Retry, Timeouts
from .socket import AsyncSocket, SyncSocket


def tail(
    url: str,
    *,
    after: str | None = None,
    method: str | None = None,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    content: str | bytes | None = None,
    idempotency_key: str | bool | None = None,
    retry: Retry | None = None,
    timeouts: Timeouts | None = None,
    on_reset: OnReset = "raise",
    on_reconnect: OnReconnect | None = None,
    allow_gaps: bool = False,
    max_bytes: int = MAX_FRAME_BYTES,
    client: HTTPClient | None = None,
) -> Tail[Frame]:
    """Follow a stream: `async with tail(url) as events: async for event in events`, or both without `async`.

    An event has `data`, `event` (its name or None) and `id`. The method is POST where there is a body, else GET.
    `after` is the id to go on after, `idempotency_key` a name for the request under which the server starts it only
    once (True makes one), `max_bytes` the bound of one event, `client` one of your own, which is not closed.
    With `on_reset="restart"` a reset is given as an event of that name, and what is kept follows; with `allow_gaps`
    a stream whose events have no ids is connected again, too. The errors are those of ClientError, and DecodeError.
    """
    if json is not None and content is not None:
        raise TypeError("expected json or content, but got both")
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    if json is not None:
        sent.setdefault("content-type", "application/json")
        content = to_json(json)
    body = content.encode() if isinstance(content, str) else content
    plan = Plan(
        url=with_parameters(url, params),
        method=(method or ("GET" if body is None else "POST")).upper(),
        headers=sent,
        content=body,
        key=new_key() if idempotency_key is True else idempotency_key or None,
        after=after,
        retry=retry or Retry(),
        timeouts=timeouts or Timeouts(),
        on_reset=on_reset,
        on_reconnect=on_reconnect,
        allow_gaps=allow_gaps,
        max_bytes=max_bytes,
    )
    return Tail(plan, None, client)


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return secrets.token_urlsafe(16)


class Tail(Generic[T]):
    """A stream to follow. Entering it connects."""

    def __init__(self, plan: Plan, convert: Callable[[Frame], T] | None, client: HTTPClient | None) -> None:
        if client is not None and plan.is_socket:
            raise TypeError("expected no httpx client for a WebSocket, but got one")
        check_url(plan.url, is_whole=client is None)
        self._plan = plan
        self._convert = convert
        self._client = client
        self._entered: AsyncEvents[T] | Events[T] | None = None

    async def __aenter__(self) -> AsyncEvents[T]:
        plan = self._plan
        transport = AsyncSocket(plan.max_bytes) if plan.is_socket else AsyncHTTP(self._client)
        self._entered = events = AsyncEvents(Following(plan), self._convert, transport)
        await events.start()
        return events

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        assert isinstance(self._entered, AsyncEvents), self._entered
        await self._entered.close()

    def __enter__(self) -> Events[T]:
        plan = self._plan
        transport = SyncSocket(plan.max_bytes) if plan.is_socket else SyncHTTP(self._client)
        self._entered = events = Events(Following(plan), self._convert, transport)
        events.start()
        return events

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        assert isinstance(self._entered, Events), self._entered
        self._entered.close()
