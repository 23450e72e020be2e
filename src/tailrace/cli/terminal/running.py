"""A reply while it is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from ...client import StreamLost
from .quiet import interruptible, suspendable
from .reply import Ended, Reply
from .server import ERRORS, PATIENT, Server

if TYPE_CHECKING:
    from ...client import AsyncChat, ChatObject, Loss, Tail
    from .message import Message
    from .view import View

Begin = Callable[["AsyncChat"], "Tail[ChatObject]"]
"""How a reply is asked for."""


class RunningReply:
    """Reads a reply to its end. The first Ctrl-C stops the model, the second one leaves the reply.

    Only the second one is needed where there is nothing to stop, because the message has not been sent.
    """

    def __init__(self, server: Server, view: View, message: Message | None = None) -> None:
        self.reply = Reply(view)
        self.message = message
        self.interrupted = False
        """Whether Ctrl-C was pressed."""
        self.left = False
        self.reconnections = 0
        self.cursor: str | None = None
        self._server = server
        self._view = view
        self._seconds = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def read(self, begin: Begin) -> Exception | None:
        """Until it is over or left; what went wrong with the server."""
        began = time.monotonic()
        reading = asyncio.create_task(self._read(begin))
        self._tasks = [reading]
        try:
            with interruptible(self._interrupt), suspendable(self._view.hide, self._view.show):
                await asyncio.wait([reading])
        finally:
            self._seconds = time.monotonic() - began
            for task in self._tasks:
                task.cancel()
            ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.left = reading.cancelled()
        return self._known(next((end for end in ends if isinstance(end, Exception)), None))

    def _known(self, error: Exception | None) -> Exception | None:
        """The error, if it is one of talking with a server."""
        if error is not None and not isinstance(error, ERRORS):
            raise error
        if isinstance(error, StreamLost) and self.message is not None:
            self.message.miss(error.loss, inf)
        return error

    def summary(self, ended: Ended, reason: str = "") -> str:
        """The line below it."""
        return self.reply.summary(self._seconds, ended, reason)

    async def _read(self, begin: Begin) -> None:
        self._server.lost.tell = self._reconnect
        async with begin(self._server.patient) as objects:
            try:
                async for each in objects:
                    self.reply.take(each)
            finally:
                self.cursor = objects.cursor

    def _interrupt(self) -> None:
        self.interrupted = True
        has_arrived = self.message is None or self.message.may_have_arrived
        if len(self._tasks) == 1 and has_arrived:
            self._tasks.append(asyncio.create_task(self._stop()))
        else:
            self._tasks[0].cancel()

    async def _stop(self) -> None:
        """Stop the model as soon as it is known where."""
        if self.reply.info is None:
            self._view.note("stopping as soon as the reply begins; Ctrl-C again leaves it")
        try:
            await self._server.chat.stop(await self.reply.stream_id())
        except ERRORS as error:
            why = self._server.wording.sentence(error)
            self._view.note(f"cannot stop the model: {why}; Ctrl-C again leaves the reply")

    def _reconnect(self, attempt: int, seconds: float, loss: Loss) -> None:
        if self.message is not None:
            self.message.miss(loss, seconds)
        self.reconnections += self.reply.lose(attempt, PATIENT.limit, seconds)
