"""A turn that is being answered: the generator that a producer runs into the log of the reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from .. import Result, StreamError
from ..client import ChatObject, Complete, Error, SessionInfo, Status
from .context import Context
from .models.base import Model, Reasoning, Usage
from .objects import INTERRUPTED, chunk, members, reasoning
from .observer import TurnWatch
from .sessions import Turn, TurnState

logger = logging.getLogger("tailrace.chat")

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

INTERRUPTION = StreamError(INTERRUPTED, code="interrupted")
"""The failure of a turn that the end of the server cuts. It is compared by identity, and never raised."""

Settle = Callable[["RunningTurn"], Awaitable[None]]


class RunningTurn:
    """Asks the model and yields the objects of the reply's stream. However it ends, `settle` has stored it by then."""

    def __init__(
        self,
        turn: Turn,
        context: Context,
        model: Model,
        watch: TurnWatch,
        settle: Settle,
        *,
        message_count: int,
        max_reply: int,
    ) -> None:
        """`max_reply` is how many characters the model may write; with the next one the turn fails."""
        self.turn = turn
        self.settled = False
        self._context = context
        self._model = model
        self._watch = watch
        self._settle = settle
        self._message_count = message_count
        self._stopping = False
        self._texts: list[str] = []
        self._room = self._thinking_room = max_reply
        self._usage: Usage | None = None
        self._half = ""

    @property
    def chunks(self) -> int:
        return len(self._texts)

    @property
    def text(self) -> str:
        """The reply so far."""
        return "".join(self._texts)

    def stop(self) -> None:
        """From now on a cancellation is what the user asked for."""
        self._stopping = True

    async def objects(self) -> AsyncGenerator[ChatObject | dict[str, Any] | Result, None]:
        """Yield the objects of the stream, the last one as its Result. Then raise the failure, if there was one."""
        turn, context = self.turn, self._context
        yield SessionInfo(session_id=turn.session_id, stream_id=turn.stream_id, model=turn.model)
        yield Status(
            message=context.describe(), context_messages=len(context.messages), dropped_messages=context.dropped
        )
        failure: Exception | None = None
        try:
            if not self._stopping:  # a stop can come before the first step
                async with aclosing(self._model.reply(context.messages)) as pieces:
                    async for piece in pieces:
                        for item in self._read(piece):
                            yield item
                for item in self._close():
                    yield item
        except asyncio.CancelledError:
            if not self._stopping:
                failure = INTERRUPTION
        except Exception as error:
            if self._stopping:
                # A model that fails because it is being stopped was stopped.
                logger.info("stream %s: the model raised while it was stopped", turn.stream_id, exc_info=error)
            else:
                failure = error
        if failure is None:
            yield self._chunk("", is_final=True)
        failure = await self._finish(failure)
        yield Result(members(_error(failure) if failure is not None else complete(self.turn, self._message_count)))
        # The end of a stream that was stopped, by its user or with the server, is told already.
        if failure is not None and failure is not INTERRUPTION and not self._stopping:
            raise failure

    async def end(self, state: TurnState, code: str | None = None, message: str | None = None) -> None:
        """Settle the turn, once."""
        if self.settled:
            return
        self.settled = True
        self.turn = replace(
            self.turn,
            state=state,
            reply=self.text,
            chunks=self.chunks,
            seconds=round(self._watch.seconds, 3),
            context_messages=len(self._context.messages),
            usage=self._usage,
            error_code=code,
            error_message=message,
        )
        await self._settle(self)

    async def _finish(self, failure: Exception | None) -> Exception | None:
        """Settle the turn. Returns how its stream fails, if it does: storing the turn can fail, too."""
        try:
            if failure is None:
                await self.end("stopped" if self._stopping else "complete")
            elif failure is INTERRUPTION:
                await self.end("interrupted")
            else:
                await self.end("failed", *_told(failure))
        except StreamError as unstored:
            return unstored
        return failure

    async def end_unheard(self) -> None:
        """Settle a turn whose generator was closed before it could do so itself."""
        await self.end("stopped" if self._stopping else "interrupted")

    def _read(self, piece: object) -> Iterator[dict[str, Any]]:
        """Yield the objects of a piece. Raises TypeError for one that no model may yield."""
        if isinstance(piece, str):
            yield from self._bounded(self._join(piece) if self._half or not piece.isascii() else piece)
        elif isinstance(piece, Reasoning):
            self._thinking_room -= len(piece.text)
            if self._thinking_room < 0:
                raise StreamError("the model thought longer than a reply may be", code="model_truncated")
            yield reasoning(_whole(piece.text))
        elif isinstance(piece, Usage):
            self._usage = piece
        else:
            got = type(piece).__name__
            raise TypeError(f"expected model {self.turn.model} to yield str, Reasoning or Usage, but got {got}")

    def _close(self) -> Iterator[dict[str, Any]]:
        """Yield what is left when the model has ended. Raises StreamError if it said nothing."""
        if self._half:
            yield from self._bounded(REPLACEMENT)
        if not self._texts:
            raise StreamError("the model answered nothing", code="model_empty")

    def _bounded(self, text: str) -> Iterator[dict[str, Any]]:
        """The chunk of as much of a text as there is room for; StreamError if that is not all."""
        if kept := text[: self._room]:
            yield self._chunk(kept)
        if len(kept) < len(text):
            raise StreamError("the model reached the length that a reply may have", code="model_truncated")

    def _join(self, piece: str) -> str:
        """What can be sent of a piece: some servers cut a character in two, and its first half waits for the other."""
        text, self._half = self._half + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _whole(text)

    def _chunk(self, text: str, *, is_final: bool = False) -> dict[str, Any]:
        self._texts.append(text)
        self._room -= len(text)
        number = len(self._texts)
        if not is_final:  # that one is the server's, not the model's
            self._watch.chunk(number)
        return chunk(text, number, is_final=is_final)


def _whole(text: str) -> str:
    """The text with a replacement for each half of a character, which no wire can carry."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _told(error: Exception) -> tuple[str, str]:
    """The code and the message that a user may know."""
    if isinstance(error, StreamError):
        return error.code, error.message
    return "internal_error", "Internal Server Error"


def _error(error: Exception) -> Error:
    code, message = _told(error)
    return Error(code=code, message=message)


def complete(turn: Turn, message_count: int) -> Complete:
    """The last object of a turn that ended well."""
    return Complete(
        total_chunks=turn.chunks,
        processing_time=turn.seconds,
        message_count=message_count,
        session_id=turn.session_id,
        state="stopped" if turn.state == "stopped" else "complete",
    )
