"""The frameworks' wrappers around `send`, and the way past them to the server.

Starlette and FastAPI wrap `send` several times per request to note that the response has begun. Once it has, the
wrappers only pass messages on. A broadcast to thousands of connections would go through them for each one, and through
a step of each connection's task.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

from starlette.types import Message, Send

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
"""The servers whose `send` depends neither on the current task nor on its context, and keeps messages as they are."""


class Relay:
    """An object that acts as an application's server, and passes what it is sent on to another server."""

    __slots__ = ("onward",)

    onward: Send
    """The `send` of the other server. Once the response has begun, messages may go there past this relay."""

    @staticmethod
    def spell(part: bytes) -> Message | None:
        """Return the message that the other server is sent for a part of a body. See `sharing.Spell`."""
        raise NotImplementedError

    async def see_out(self, rest: Awaitable[None]) -> None:
        """Await the rest of an onward message. Handle its error as if the message had passed this relay."""
        raise NotImplementedError


def past_wrappers(send: Send) -> Send:
    """Return what a response that has begun may call instead of `send`, with the same effect.

    A wrapper of anybody else, such as a middleware, stays, with all that is below it.
    """
    while _name_of(send) in _WRAPPERS:
        wrapper = cast("Any", send)
        cells = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__, strict=True))
        send = cells["send"].cell_contents
    return send


def relay_of(send: Send) -> Relay | None:
    """Return the relay to which `send` belongs, if it belongs to one."""
    owner = getattr(send, "__self__", None)
    return owner if isinstance(owner, Relay) else None


def is_server(send: Send) -> bool:
    """Tell whether `send` is that of a server. It may be called in any task, or in none, and changes no message."""
    return _name_of(send) in _SERVERS


def spell_part(part: bytes) -> Message:
    """Return the message with a part of a body."""
    return {"type": "http.response.body", "body": part, "more_body": True}


def _name_of(send: Send) -> tuple[str | None, str | None]:
    return getattr(send, "__module__", None), getattr(send, "__qualname__", None)
