"""Asking a server, reading the reply to its end, and what can get in between."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ...client import ChatObject, SessionBusy, Tail
from .quiet import interruptible
from .reply import Ended, Reply
from .server import ERRORS, Server, code_of, sentence
from .state import State

if TYPE_CHECKING:
    from .view import View


class Conversation:
    """With the session of a state, or with one that the first message begins."""

    def __init__(self, server: Server, view: View, state: State) -> None:
        self.state = state
        self.interrupted = False
        """Whether Ctrl-C was pressed in the last reply."""
        self._server = server
        self._view = view
        self._reply: Reply | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def ask(self, message: str, *, join: bool = True) -> Ended:
        """Send a message and show the reply. If the session is answering already, `join` reads that reply."""
        chat = await self._server.streams(self._reconnect)
        self.state.unsent = ""
        try:
            return await self._follow(chat.stream(message, self.state.session_id, on_reset="restart"), message)
        except SessionBusy as busy:
            if not join:
                return self._give_up(Reply(self._view), 0.0, busy)
            self.state.unsent = message
            self._view.note("This session is answering already. Your message was not sent; here is the reply so far:")
            return await self.join(busy.stream_id)

    async def join(self, stream_id: str) -> Ended:
        """Show a reply that is being written, from its beginning to its end."""
        chat = await self._server.streams(self._reconnect)
        return await self._follow(chat.resume(stream_id, on_reset="restart"))

    def interrupt(self) -> None:
        """The first time stop the model, the second time leave the reply."""
        assert self._reading is not None
        self.interrupted = True
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        else:
            self._reading.cancel()

    async def _follow(self, stream: Tail[ChatObject], message: str | None = None) -> Ended:
        reply = self._reply = Reply(self._view)
        self.interrupted = False
        began = time.monotonic()
        reading = self._reading = asyncio.create_task(self._read(stream, reply))
        try:
            with interruptible(self.interrupt):
                await asyncio.wait([reading])
            self._count(reply, message)
            return self._conclude(reply, reading, time.monotonic() - began)
        finally:
            await _end(reading)
            if self._stopping is not None:
                await _end(self._stopping)
            self._reply = self._reading = self._stopping = None

    async def _read(self, stream: Tail[ChatObject], reply: Reply) -> None:
        async with stream as objects:
            async for each in objects:
                reply.take(each)

    async def _stop(self) -> None:
        """Stop the model as soon as it is known where."""
        assert self._reply is not None
        if not self._reply.begun.is_set():
            self._view.note("stopping as soon as the reply begins; Ctrl-C again leaves it")
            await self._reply.begun.wait()
        assert self._reply.info is not None
        try:
            await self._server.chat.stop(self._reply.info.stream_id)
        except ERRORS as error:
            self._view.note(f"cannot stop the model: {sentence(error)}; Ctrl-C again leaves the reply")

    def _reconnect(self, attempt: int, seconds: float, reason: str) -> None:
        if self._reply is not None and self._reply.lose(reason):
            self.state.statistics.reconnections += 1

    # The end

    def _count(self, reply: Reply, message: str | None) -> None:
        self.state.statistics.chunks += reply.chunks
        if reply.info is None:
            return
        if message is not None:
            self.state.statistics.messages += 1
            self.state.statistics.sessions_created += self.state.session_id is None
        self.state.session_id = reply.info.session_id

    def _conclude(self, reply: Reply, reading: asyncio.Task[None], seconds: float) -> Ended:
        if reading.cancelled():
            self.state.statistics.stopped += 1
            self._view.end(reply.summary(seconds, "left", "the server may still be writing; the next message reads on"))
            return "left"
        error = reading.exception()
        if isinstance(error, SessionBusy):
            raise error
        if isinstance(error, ERRORS):
            return self._give_up(reply, seconds, error)
        if error is not None:
            raise error
        if reply.complete is not None and reply.complete.state == "complete":
            self.state.statistics.succeed(reply.chunks, reply.complete.processing_time)
            self._view.end(reply.summary(seconds, "complete"))
            return "complete"
        self.state.statistics.stopped += 1
        self._view.end(reply.summary(seconds, "stopped", "what there is of it was kept"))
        return "stopped"

    def _give_up(self, reply: Reply, seconds: float, error: Exception) -> Ended:
        self.state.statistics.failed += reply.info is not None
        line = sentence(error)
        self._view.take(ChatObject.model_validate({"type": "error", "code": code_of(error), "message": line}))
        self._view.fail(reply.summary(seconds, "failed", line) if reply.info is not None else line)
        return "failed"


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, *ERRORS):
        await task
