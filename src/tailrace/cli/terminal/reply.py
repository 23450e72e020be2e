"""A reply: show the objects of its stream, and run the task that reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Literal

from ...client import ChatObject, Chunk, Complete, SessionInfo, Status, StreamLost
from ..text import count, short
from .server import ERRORS, PATIENT, Server
from .tty import interruptible, suspendable

if TYPE_CHECKING:
    from ...client import AsyncChat, Loss, Tail
    from .state import Message
    from .view import View

Ended = Literal["complete", "stopped", "failed", "left"]

Begin = Callable[["AsyncChat"], "Tail[ChatObject]"]
"""A function that requests a reply."""

SILENCE = 2.0
"""The seconds without text after which a sign of life appears."""


class Reply:
    """Shows each piece of the text once, even if a restarted server begins the stream again with its stored text."""

    def __init__(self, view: View, clock: Callable[[], float] = time.monotonic) -> None:
        self.info: SessionInfo | None = None
        self.complete: Complete | None = None
        self.chunks = 0
        self.lost = False
        """True if the connection is lost and the view has shown that."""
        self._view = view
        self._clock = clock
        self._began = self._heard = clock()
        self._is_begun = asyncio.Event()
        self._context: int | None = None
        self._shown = ""
        self._again: str | None = None  # the text that has arrived since a reset

    @property
    def seconds(self) -> float:
        """The seconds since the request."""
        return self._clock() - self._began

    async def stream_id(self) -> str:
        """Wait until the stream is known, and return its id."""
        await self._is_begun.wait()
        assert self.info is not None
        return self.info.stream_id

    def take(self, each: ChatObject) -> None:
        """Take the next object of the stream."""
        self._view.take(each)
        if each.type == "reset":
            self._reset()
            return
        self.lost = False
        if isinstance(each, Chunk):
            self._add(each.text)
        elif isinstance(each, SessionInfo):
            if self.info is None:
                self._view.begin(f"{short(each.session_id)} · {each.model}")
            self.info = each
            self._is_begun.set()
        elif isinstance(each, Status):
            # After a reset, the status describes the repetition, for which the model got no context.
            self._context = each.context_messages if self._context is None else self._context
            self.tick()
        elif isinstance(each, Complete):
            self.complete = each

    def tick(self) -> None:
        """Show a sign of life before the first text, and whenever no text has come for a while."""
        is_silent = self._clock() - self._heard >= SILENCE
        if self.lost or self.complete is not None:
            return
        if self.info is None:
            if is_silent:
                self._view.wait(f"waiting for the server · {self.seconds:.0f} s")
        elif is_silent or not self._shown:
            context = count(self._context or 0, "context message")
            self._view.wait(f"generating · {self.seconds:.0f} s · {context}")

    def lose(self, attempt: int, attempts: int, seconds: float, loss: Loss) -> bool:
        """Show that the connection is lost, and when the next attempt follows. Return True if the loss is new."""
        is_news, self.lost = not self.lost, True
        if is_news:
            self._view.note(_news_of(loss) if self.info is None else "connection lost; reconnecting …")
        self._view.wait(f"attempt {attempt} of {attempts} in {seconds:.1f} s")
        return is_news

    def degrade(self, degraded: bool) -> None:
        """Show that the server cannot reach its store. The text that follows shows when this is over."""
        if degraded:
            self._view.note("the server cannot reach its store; text may be late …")

    def summary(self, ended: Ended, reason: str = "") -> str:
        """Return the line below the reply."""
        seconds = self.seconds if self.complete is None else self.complete.processing_time
        facts = [ended, count(self.chunks, "chunk"), f"{seconds:.1f} s", count(self._context or 0, "context message")]
        line = " · ".join(facts)
        return f"{line}: {reason}" if reason else line

    def _reset(self) -> None:
        self.lost = True
        self._again = ""
        self._view.note("the server began this stream again; continuing with what it has kept …")

    def _add(self, text: str) -> None:
        if self._again is None:
            self._show(text)
            return
        self._again += text
        if self._again.startswith(self._shown):
            new, self._again = self._again[len(self._shown) :], None
            self._show(new)
        elif not self._shown.startswith(self._again):
            kept, self._again, self._shown = self._again, None, ""
            self._view.note("the server has kept a different text:")
            self._show(kept)

    def _show(self, text: str) -> None:
        self._shown += text
        if text:
            self._heard = self._clock()
            self.chunks += 1
            self._view.piece(text)


def _news_of(loss: Loss) -> str:
    """Return the line for a reply that has not begun."""
    return (
        "the server is not available; trying again …" if loss.kind == "unavailable" else "no connection; trying again …"
    )


class RunningReply:
    """Reads a reply to its end. The first Ctrl-C stops the model, and the second one leaves the reply.

    If the message has not been sent, nothing can be stopped, so the first Ctrl-C leaves the reply: at once, or as soon
    as an attempt to connect has failed.
    """

    def __init__(self, server: Server, view: View, message: Message | None = None) -> None:
        self.reply = Reply(view)
        self.message = message
        self.interrupted = False
        """True if Ctrl-C was pressed."""
        self.left = False
        self.reconnections = 0
        self.cursor: str | None = None
        self._server = server
        self._view = view
        self._tasks: list[asyncio.Task[None]] = []

    async def read(self, begin: Begin) -> Exception | None:
        """Read until the reply ends or the user leaves it. Return the server's error, if any."""
        reading = asyncio.create_task(self._read(begin))
        ticking = asyncio.create_task(self._tick())
        self._tasks = [reading]
        try:
            with interruptible(self._interrupt), suspendable(self._view.hide, self._view.show):
                await asyncio.wait([reading])
        finally:
            for task in (*self._tasks, ticking):
                task.cancel()
            ends = await asyncio.gather(*self._tasks, ticking, return_exceptions=True)
        self.left = reading.cancelled()
        return self._known(next((end for end in ends if isinstance(end, Exception)), None))

    def _known(self, error: Exception | None) -> Exception | None:
        """Return the error if it comes from the server or the connection. Raise any other error."""
        if error is not None and not isinstance(error, ERRORS):
            raise error
        if isinstance(error, StreamLost) and self.message is not None:
            self.message.miss(error.loss, inf)
        return error

    async def _read(self, begin: Begin) -> None:
        trouble = self._server.trouble
        trouble.tell_lost, trouble.tell_degraded = self._reconnect, self.reply.degrade
        async with begin(self._server.patient) as objects:
            try:
                async for each in objects:
                    self.reply.take(each)
            finally:
                self.cursor = objects.cursor

    async def _tick(self) -> None:
        """Call the reply's `tick` at each full second."""
        while True:
            await asyncio.sleep(1.0 - self.reply.seconds % 1.0)
            self.reply.tick()

    def _interrupt(self) -> None:
        self.interrupted = True
        has_arrived = self.message is None or self.message.may_have_arrived
        if len(self._tasks) == 1 and has_arrived:
            self._tasks.append(asyncio.create_task(self._stop()))
        else:
            self._tasks[0].cancel()

    async def _stop(self) -> None:
        """Stop the model as soon as the stream is known."""
        if self.reply.info is None:
            self._view.note("stopping when the reply begins; press Ctrl-C again to leave it")
        try:
            await self._server.chat.stop(await self.reply.stream_id())
        except ERRORS as error:
            why = self._server.wording.sentence(error)
            self._view.note(f"cannot stop the model: {why}; press Ctrl-C again to leave the reply")

    def _reconnect(self, attempt: int, seconds: float, loss: Loss) -> None:
        if self.message is not None:
            self.message.miss(loss, seconds)
            if self.interrupted and not self.message.may_have_arrived:
                self._tasks[0].cancel()
                return
        self.reconnections += self.reply.lose(attempt, PATIENT.limit, seconds, loss)
