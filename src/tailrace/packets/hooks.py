"""The hooks of a session, and the dependencies that give them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from fastapi import Depends
from starlette.concurrency import run_in_threadpool

Hook: TypeAlias = Callable[..., Any]
"""A function of the session, or of the session and a packet. Sync functions run in a worker thread."""

Dependency: TypeAlias = Callable[..., Any]
"""A dependency of FastAPI that gives a hook, or None for none."""

# The dependencies here are async, because FastAPI calls sync ones in worker threads. Measured: one thread hop takes a
# quarter of the time of a request with one packet.


async def on_connect() -> Hook | None:
    """Give the hook that is called with a new session, before anything else. Override it or pass your own."""
    return None


async def on_packet() -> Hook | None:
    """Give the hook that is called with the session and each packet. Override it or pass your own."""
    return None


async def on_disconnect() -> Hook | None:
    """Give the hook that is called with a session that ends, after everything else. Override it or pass your own."""
    return None


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one session, as coroutine functions."""

    connect: Callable[..., Awaitable[object]]
    packet: Callable[..., Awaitable[object]]
    disconnect: Callable[..., Awaitable[object]]

    @classmethod
    def of(cls, connect: Hook | None, packet: Hook | None, disconnect: Hook | None) -> Hooks:
        """Take what the dependencies gave. Raise TypeError if it cannot be called."""
        return cls(_as_async(connect), _as_async(packet), _as_async(disconnect))


class Given:
    """A router's own dependency, in place of one of the dependencies above.

    For FastAPI, it equals the dependency that it replaces. So `app.dependency_overrides[on_packet]` works for all
    routers, and then the router's own dependency does not run.
    """

    def __init__(self, default: Dependency, own: Dependency) -> None:
        if set(inspect.signature(own).parameters) & {"session", "packet"}:
            raise TypeError(
                f"expected as {default.__name__} a dependency that gives the hook, such as `lambda: hook`, "
                f"but got {own!r}, which seems to be the hook"
            )
        self._default = default
        parameter = inspect.Parameter("hook", inspect.Parameter.KEYWORD_ONLY, default=Depends(own))
        self.__signature__ = inspect.Signature([parameter])

    async def __call__(self, *, hook: Any) -> Any:
        return hook

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._default

    def __hash__(self) -> int:
        return hash(self._default)


def _as_async(hook: Hook | None) -> Callable[..., Awaitable[object]]:
    if hook is None:
        return _nothing
    if not callable(hook):
        raise TypeError(f"expected a dependency to give a hook that can be called, but got {hook!r:.80}")
    call = getattr(hook, "__call__", hook)  # noqa: B004 - an object's method, which may be a coroutine function
    return hook if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call) else partial(_in_thread, hook)


async def _in_thread(hook: Hook, *arguments: Any) -> object:
    """Call a sync hook. A thread cannot be cancelled, so a cancellation waits for it. No other hook runs meanwhile."""
    call = asyncio.ensure_future(run_in_threadpool(hook, *arguments))
    try:
        returned = await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.gather(call)  # until the next cancellation, when the producer's patience is over
        raise
    return await returned if inspect.isawaitable(returned) else returned


async def _nothing(*_: object) -> None:
    """Do as a hook that was not given."""
