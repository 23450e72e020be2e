"""Coroutines that begin outside of a task, and are left to a task if they have to wait.

Most of them never wait, so they need no task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any


def begin(awaitable: Awaitable[None]) -> Awaitable[None] | None:
    """Take the first step of a coroutine. Return None if that is all, or an awaitable of the rest or of its error."""
    coroutine: Any = awaitable  # an `async def` function has made it, as ASGI asks of `send`
    try:
        return _Rest(coroutine, coroutine.send(None))
    except StopIteration:
        return None
    except Exception as error:
        return _Failed(error)


class _Rest:
    """The rest of a coroutine that waits for something after its first step."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            done = yield self._waits_for
        except BaseException as error:  # the task is cancelled, and what it runs must hear of it
            yield from _thrown(self._coroutine, error)
        else:
            assert done is None, "a task continues its coroutine with None"
            yield from self._coroutine.__await__()


def _thrown(coroutine: Coroutine[Any, Any, None], error: BaseException) -> Generator[Any, Any, None]:
    """Raise an error in a coroutine where it waits, and run what it does then."""
    try:
        waits_for = coroutine.throw(error)
    except StopIteration:
        return
    finally:
        del error  # it may refer to this frame, and then only the garbage collector could free both
    yield from _Rest(coroutine, waits_for).__await__()


class _Failed:
    """An awaitable that raises the error of a coroutine."""

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            raise self._error
        finally:
            del self._error  # it refers to this frame, and then only the garbage collector could free both
        yield
