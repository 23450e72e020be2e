"""The hooks of a session, and the dependencies that give them."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAlias, get_origin

import anyio
import anyio.to_thread
from fastapi import Depends

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
    def of(
        cls, connect: Hook | None, packet: Hook | None, disconnect: Hook | None, threads: anyio.CapacityLimiter
    ) -> Hooks:
        """Make coroutine functions of the hooks. Sync ones take one of `threads`. Raise TypeError for other things."""
        return cls(*(_as_async(hook, threads) for hook in (connect, packet, disconnect)))


class Given:
    """A router's own dependency, in place of one of the dependencies above.

    For FastAPI, it equals the dependency that it replaces. So `app.dependency_overrides[on_packet]` works for all
    routers, and then the router's own dependency does not run.
    """

    def __init__(self, default: Dependency, own: Dependency) -> None:
        if any(map(_is_hooks_own, _parameters(own))):
            raise TypeError(
                f"expected {default.__name__} to be a dependency that returns the hook, such as `lambda: hook`, "
                f"but got {own!r}, which seems to be the hook itself"
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


def _is_hooks_own(parameter: inspect.Parameter) -> bool:
    """Tell whether a parameter is one that the router passes to hooks, and nothing that FastAPI can solve."""
    is_solved = parameter.default is not parameter.empty or get_origin(parameter.annotation) is Annotated
    is_own = parameter.name in ("session", "packet") or _OWN_TYPES.search(_spelled(parameter.annotation)) is not None
    return is_own and not is_solved


def _parameters(call: Dependency) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(call, eval_str=True).parameters.values()
    except (NameError, AttributeError, TypeError):  # an annotation may be for type checkers alone
        return inspect.signature(call).parameters.values()


_OWN_TYPES = re.compile(r"\b(?:ClientSession|SocketPacket)\b")


def _spelled(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _as_async(hook: Hook | None, threads: anyio.CapacityLimiter) -> Callable[..., Awaitable[object]]:
    if hook is None:
        return _nothing
    if not callable(hook):
        raise TypeError(f"expected a dependency to give a hook that can be called, but got {hook!r:.80}")
    if inspect.isasyncgenfunction(hook) or inspect.isgeneratorfunction(hook):
        raise TypeError(f"expected a hook that sends its packets, but {hook!r:.80} yields")
    call = getattr(hook, "__call__", hook)  # noqa: B004 - an object's method, which may be a coroutine function
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call):
        return hook
    return partial(_in_thread, hook, threads)


async def _in_thread(hook: Hook, threads: anyio.CapacityLimiter, *arguments: Any) -> object:
    """Call a sync hook. A thread cannot be cancelled, so a cancellation waits for it. No other hook runs meanwhile."""
    call = asyncio.ensure_future(anyio.to_thread.run_sync(hook, *arguments, limiter=threads))
    try:
        returned = await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.gather(call)  # until the next cancellation, when the producer's patience is over
        raise
    return await returned if inspect.isawaitable(returned) else returned


async def _nothing(*_: object) -> None:
    """Take the place of a hook that nobody gave."""
