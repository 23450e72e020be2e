"""Run work until its client leaves, while the application may still read the request's body."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from starlette.types import Message, Receive, Scope

T = TypeVar("T")

logger = logging.getLogger("tailrace")

MAX_KEPT = 64 << 10
"""The most bytes of a body to buffer for the application while waiting for the disconnect. uvicorn's bound is equal."""

READ_WITHIN = 10.0
"""The seconds in which the application must begin to read a body that exceeds MAX_KEPT."""

_KEY = "tailrace.receive"


class Disconnected(Exception):
    """Raised when the client leaves before the work is done."""


class SharedReceive:
    """Shares a connection's `receive` between an application and its response.

    The application calls this in place of `receive` and can read the body at any time. Meanwhile, the response
    waits in `wait_disconnect`, which keeps the body for the application. A body that exceeds MAX_KEPT and stays unread
    for READ_WITHIN seconds is dropped, because the disconnect arrives after it.
    """

    __slots__ = ("_dropped", "_gone", "_kept", "_receive", "_room", "_size", "_turn")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._size = 0
        self._gone: Message | None = None
        self._dropped = False
        self._turn = asyncio.Lock()  # held by the side that is receiving
        self._room: asyncio.Future[None] | None = None

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> SharedReceive:
        """Return what a connection shares. The first call makes it."""
        shared: SharedReceive | None = scope.get(_KEY)
        if shared is None:
            shared = scope[_KEY] = cls(receive)
        return shared

    async def __call__(self) -> Message:
        while not self._kept:
            if self._gone is not None:
                return self._gone
            if self._dropped:
                raise RuntimeError(f"expected a body of this size to be read within {READ_WITHIN:g} s, but it was not")
            async with self._turn:
                if not self._kept and self._gone is None:
                    self._keep(await self._receive())
        message = self._kept.pop(0)
        self._size -= len(message.get("body", b""))
        self._make_room()
        return message

    async def wait_disconnect(self) -> None:
        # Each idle connection waits here, so save memory: use one frame, and no asyncio.timeout().
        while self._gone is None:
            if self._size > MAX_KEPT:
                # Receiving more would defeat the server's own backpressure.
                loop = asyncio.get_running_loop()
                self._room = loop.create_future()
                timer = loop.call_later(READ_WITHIN, self._drop)
                try:
                    await self._room
                finally:
                    timer.cancel()
            else:
                known = len(self._kept)
                async with self._turn:
                    if self._gone is None and len(self._kept) <= known:
                        self._keep(await self._receive())

    def _keep(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._gone = message
        elif not self._dropped:
            self._kept.append(message)
            self._size += len(message.get("body", b""))

    def _drop(self) -> None:
        self._dropped = True
        self._kept.clear()
        self._size = 0
        self._make_room()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _warn_of_body(scope: Scope) -> None:
    logger.warning(
        "%s: the body of a request arrived after its response began, and a generator cannot read it any more; "
        "read the body before you return the response, or serve the generator by a StreamRouter",
        scope["path"],
    )


class Work(Generic[T]):
    """Runs work in a task of its own while the current task waits for its client to leave, until either happens.

        return await Work(work()).run(scope, receive)

    In the current task, each resumption of the work would go through every frame of the application's stack.
    """

    __slots__ = ("_came_first", "_cancelled", "_task", "_waiting")

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._waiting = waiting = asyncio.current_task()  # None when the wait is over
        assert waiting is not None, "expected to be made in the task that will wait"
        self._cancelled = waiting.cancelling()  # earlier cancellations, which the application has caught
        self._came_first = False
        self._task: asyncio.Task[T] | None = None  # None while the work has paused
        self._go_on(work)

    async def run(self, scope: Scope, receive: Receive) -> T:
        """Return the work's result, or raise its error. Raise Disconnected if the client leaves before."""
        # Each idle connection waits here, so save memory: this is the only frame.
        try:
            if (shared := scope.get(_KEY)) is not None:
                await shared.wait_disconnect()
            else:
                warned = False
                while (message := await receive())["type"] != "http.disconnect":
                    if message.get("body") and not warned:
                        warned = True
                        _warn_of_body(scope)
                    del message
        except asyncio.CancelledError:
            if not self._cancelled_alone():
                raise
        finally:
            self._waiting = None
            await self._close()
        return self._result()

    async def _close(self) -> None:
        """Cancel the work, if it is not done, and see it end."""
        if (task := self._task) is not None:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if task.cancelled():
                self._task = None  # its error refers to this, and only the garbage collector could free both
            else:
                task.exception()  # known now, even if nobody asks for the result

    def _result(self) -> T:
        task, self._task = self._task, None
        if task is None:
            raise Disconnected
        try:
            return task.result()
        finally:
            del task  # its error refers to this frame

    def _cancelled_alone(self) -> bool:
        """Tell whether nobody but this has cancelled the wait, and undo that."""
        return self._came_first and self._waiting is not None and self._waiting.uncancel() <= self._cancelled

    @property
    def _over(self) -> bool:
        """True once the wait is over, or is about to be."""
        return self._came_first or self._waiting is None

    def _go_on(self, work: Coroutine[Any, Any, T]) -> None:
        """Run the work, or the next part of work that has paused."""
        # Not by `create_task`: an eager task factory would run the work, which may pause, before this has its task.
        self._task = asyncio.Task(work, loop=asyncio.get_running_loop(), name="tailrace connection")
        self._task.add_done_callback(self._ran)

    def _give_up(self) -> None:
        """Cancel the work, or end the wait if the work has paused."""
        if self._task is not None:
            self._task.cancel()
        elif not self._over:
            self._interrupt()

    def _ran(self, task: object) -> None:
        if task is self._task and self._waiting is not None:
            self._interrupt()

    def _interrupt(self) -> None:
        # This cancels the wait as asyncio.timeout() does. To wait for both in asyncio.wait() would need a third task.
        assert self._waiting is not None
        self._came_first = True
        self._waiting.cancel()
