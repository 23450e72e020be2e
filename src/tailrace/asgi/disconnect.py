"""Work that ends when its client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Disconnected(Exception):
    """The client has gone before the work was done."""


async def run_until_disconnect(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Run `work` in a task of its own while this one waits for the client to go; then Disconnected.

    The work is not run here because it would be resumed through every frame of the application's stack.
    """
    this = asyncio.current_task()
    assert this is not None
    task = asyncio.create_task(work)
    waiting = True
    interrupted = False

    def interrupt(_: object) -> None:
        # What asyncio.timeout() does: a task cannot wait for `receive` and for another task without a third one.
        nonlocal interrupted
        if waiting:
            interrupted = True
            this.cancel()

    task.add_done_callback(interrupt)
    try:
        while not task.done() and (await receive())["type"] != "http.disconnect":
            pass
    except asyncio.CancelledError:
        if not interrupted or this.uncancel() > 0:
            raise
    finally:
        waiting = False
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        raise Disconnected
    return task.result()
