"""The frameworks' wrappers around `send`, and the way past them to the server.

Starlette and FastAPI wrap `send` several times per request to note that the response has begun. Once it has, the
wrappers only pass messages on. A broadcast to thousands of connections would go through them for each one, and through
a step of each connection's task, which takes a quarter of its time (measured: 25 µs per WebSocket, 18.5 without).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from starlette.types import Send

from ..stepping import begin

Deliver: TypeAlias = Callable[[bytes], Awaitable[None] | None]
"""Sends a part of a body, as far as that takes no waiting. Returns what is left to await, or None."""

_WRAPPERS = frozenset(
    {
        ("starlette.middleware.errors", "ServerErrorMiddleware.__call__.<locals>._send"),
        ("starlette._exception_handler", "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender"),
    }
)
"""Functions that only look at the start of a response, by module and name. Each has the next one as its `send`."""

_SERVERS = frozenset(
    {
        ("uvicorn.protocols.http.h11_impl", "RequestResponseCycle.send"),
        ("uvicorn.protocols.http.httptools_impl", "RequestResponseCycle.send"),
        ("uvicorn.protocols.websockets.websockets_sansio_impl", "WebSocketsSansIOProtocol.send"),
        ("uvicorn.protocols.websockets.wsproto_impl", "WSProtocol.send"),
    }
)
"""The servers whose `send` depends neither on the current task nor on its context."""


class Deliverer:
    """An object that acts as the server of an application. Its `send` has another way, for what follows the head."""

    __slots__ = ("deliver",)

    deliver: Deliver | None
    """Does as `send` does, in no task. None if the message needs one on its way."""


def past_wrappers(send: Send) -> Send:
    """Return what a response that has begun may call instead of `send`, with the same effect.

    A wrapper of anybody else, such as a middleware, stays, with all that is below it.
    """
    while _name_of(send) in _WRAPPERS:
        wrapper = cast("Any", send)
        cells = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__, strict=True))
        send = cells["send"].cell_contents
    return send


def is_server(send: Send) -> bool:
    """Tell whether `send` is that of a server which may be called in any task, or in none."""
    return _name_of(send) in _SERVERS


def deliver_of(send: Send) -> Deliver | None:
    """Return a function that sends a part of a body in no task, or None if `send` must be awaited in its own task."""
    if is_server(send):
        return lambda body: begin(send({"type": "http.response.body", "body": body, "more_body": True}))
    owner = getattr(send, "__self__", None)
    return owner.deliver if isinstance(owner, Deliverer) else None


def _name_of(send: Send) -> tuple[str | None, str | None]:
    return getattr(send, "__module__", None), getattr(send, "__qualname__", None)
