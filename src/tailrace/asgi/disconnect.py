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


def disconnect_of(scope: Scope, receive: Receive) -> Coroutine[Any, Any, None]:
    """Return a coroutine that ends when the client has left."""
    shared: SharedReceive | None = scope.get(_KEY)
    return shared.wait_disconnect() if shared is not None else _receive_disconnect(scope, receive)


async def _receive_disconnect(scope: Scope, receive: Receive) -> None:
    warned = False
    while (message := await receive())["type"] != "http.disconnect":
        if message.get("body") and not warned:
            warned = True
            logger.warning(
                "%s: the body of a request arrived after its response began, and a generator cannot read it any more; "
                "read the body before you return the response, or serve the generator by a StreamRouter",
                scope["path"],
            )
        del message  # each idle connection waits here, and would keep it


class Work(Generic[T]):
    """Runs work in a task of its own while the current task waits for something else, until either is done.

        async with Work(run()) as work:
            await client_has_left()
        return work.result()

    In the current task, each resumption of the work would go through every frame of the application's stack.
    """

    # Each idle connection has one of these, so it takes no frame of a coroutine while it waits.
    __slots__ = ("_came_first", "_task", "_waiting")

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._waiting = asyncio.current_task()  # None when the wait is over
        self._came_first = False
        self._task = asyncio.create_task(work, name="tailrace connection")
        self._task.add_done_callback(self._interrupt)

    def result(self) -> T:
        """Return the work's result, or raise its error. Raise Disconnected if the work was not done in time."""
        if self._task.cancelled():
            raise Disconnected
        return self._task.result()

    async def __aenter__(self) -> Work[T]:
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # known now, even if nobody asks for the result
        return isinstance(error, asyncio.CancelledError) and self._came_first and waiting.uncancel() == 0

    def _interrupt(self, task: object) -> None:
        # This cancels the wait as asyncio.timeout() does. To wait for both in asyncio.wait() would need a third task.
        if self._waiting is not None:
            self._came_first = True
            self._waiting.cancel()
