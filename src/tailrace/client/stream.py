"""`tail`: follow a stream."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Generic

from pydantic_core import PydanticSerializationError, to_json

from ..wire.base import MAX_FRAME_BYTES, Frame
from .core import Following
from .driving import T
from .events import AsyncEvents, Events
from .http import AsyncHTTP, HTTPClient, SyncHTTP
from .links import check_url, with_parameters
from .plan import Plan
from .position import can_be_sent
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
        content = encode(json)
    body = _in_utf8(content) if isinstance(content, str) else content
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


def encode(value: Any) -> bytes:
    """As JSON; ValueError for what cannot be."""
    try:
        return to_json(value)
    except PydanticSerializationError as error:
        raise ValueError(f"expected what JSON can say, but got {value!r:.80}: {error}") from None


def _in_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"expected a text that UTF-8 can say, but got {text[:80]!r}: {error.reason}") from None


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return secrets.token_urlsafe(16)


class Tail(Generic[T]):
    """A stream to follow. Entering it connects; it can be entered again when it was left."""

    def __init__(self, plan: Plan, convert: Callable[[Frame], T] | None, client: HTTPClient | None) -> None:
        if plan.is_socket:
            _check_socket(plan, client)
        check_url(plan.url, is_whole=client is None)
        if plan.after is not None and not can_be_sent(plan.after):
            raise ValueError(f"expected an id that a header can hold as `after`, but got {plan.after[:80]!r}")
        self._plan = plan
        self._convert = convert
        self._client = client
        self._entered: AsyncEvents[T] | Events[T] | None = None

    async def __aenter__(self) -> AsyncEvents[T]:
        self._check_left()
        plan = self._plan
        transport = AsyncSocket(plan.max_bytes) if plan.is_socket else AsyncHTTP(self._client)
        self._entered = events = AsyncEvents(Following(plan), self._convert, transport)
        try:
            await events.start()
        except BaseException:  # it is not entered, whatever the reason
            self._entered = None
            raise
        return events

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        events, self._entered = self._entered, None
        assert isinstance(events, AsyncEvents), events
        await events.close()

    def __enter__(self) -> Events[T]:
        self._check_left()
        plan = self._plan
        transport = SyncSocket(plan.max_bytes) if plan.is_socket else SyncHTTP(self._client)
        self._entered = events = Events(Following(plan), self._convert, transport)
        try:
            events.start()
        except BaseException:  # it is not entered, whatever the reason
            self._entered = None
            raise
        return events

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        events, self._entered = self._entered, None
        assert isinstance(events, Events), events
        events.close()

    def _check_left(self) -> None:
        if self._entered is not None:
            raise RuntimeError("expected one `with` at a time, but this stream is being read: call tail() once more")


def _check_socket(plan: Plan, client: HTTPClient | None) -> None:
    if client is not None:
        raise TypeError("expected no httpx client for a WebSocket, but got one")
    try:
        (plan.content or b"").decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected a text as a WebSocket's message, but got bytes that are none: {error}") from None
