"""A turn that is being answered: the generator that a producer runs into the log of the reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal

from .. import StreamError
from .context import Context
from .models.base import Model, Reasoning, Usage
from .objects import Complete, Error, SessionInfo, Status, StreamObject, chunk
from .observer import TurnWatch
from .sessions import Turn, TurnState

logger = logging.getLogger("tailrace.chat")

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

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
        self._room = max_reply
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

    async def objects(self) -> AsyncGenerator[StreamObject | dict[str, Any], None]:
        turn, context = self.turn, self._context
        yield SessionInfo(session_id=turn.session_id, stream_id=turn.stream_id, model=turn.model)
        yield Status(
            message=context.describe(), context_messages=len(context.messages), dropped_messages=context.dropped
        )
        try:
            if not self._stopping:  # which may be before it has begun
                async with aclosing(self._model.reply(context.messages)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Usage):
                            self._usage = piece
                        elif not isinstance(piece, Reasoning):
                            for item in self._chunks(piece):
                                yield item
                if self._half:
                    for item in self._bounded(REPLACEMENT):
                        yield item
                if not self._texts:
                    raise StreamError("the model answered nothing", code="model_empty")
        except asyncio.CancelledError:
            if not self._stopping:
                await self.end("interrupted")
                raise
        except Exception as error:
            if not self._stopping:
                yield await self._fail(error)
                return
            # A model that fails because it is stopped has been stopped.
            logger.info("stream %s: the model raised while it was stopped", turn.stream_id, exc_info=error)
        yield self._chunk("", is_final=True)
        try:
            await self.end("stopped" if self._stopping else "complete")
        except StreamError as error:
            if not self._stopping:
                raise
            yield _error(error)  # which the end does not say any more
            return
        yield complete(self.turn, self._message_count)

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

    async def _fail(self, error: Exception) -> Error:
        """Settle a turn that failed, and raise its failure.

        If a stop comes meanwhile, the stream ends as stopped, which is no failure: then it is to be said before.
        """
        failure = error
        try:
            await self.end("failed", *_told(error))
        except StreamError as unstored:
            failure = unstored
        if not self._stopping:
            raise failure
        return _error(failure)

    async def end_unheard(self) -> None:
        """Settle a turn whose generator was closed before it could do so itself."""
        await self.end("stopped" if self._stopping else "interrupted")

    def _chunks(self, piece: object) -> Iterator[dict[str, Any]]:
        """The chunk of a piece, if it has one; TypeError for what is no text, which is for a model's author."""
        if not isinstance(piece, str):
            raise TypeError(
                f"expected model {self.turn.model} to yield str, Reasoning or Usage, but got {type(piece).__name__}"
            )
        if self._half or not piece.isascii():
            piece = self._join(piece)
        return self._bounded(piece)

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
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _chunk(self, text: str, *, is_final: bool = False) -> dict[str, Any]:
        self._texts.append(text)
        self._room -= len(text)
        number = len(self._texts)
        if not is_final:  # that one is the server's, not the model's
            self._watch.chunk(number)
        return chunk(text, number, is_final=is_final)


def _told(error: Exception) -> tuple[str, str]:
    """The code and the message that a user may know."""
    if isinstance(error, StreamError):
        return error.code, error.message
    return "internal_error", "Internal Server Error"


def _error(error: Exception) -> Error:
    code, message = _told(error)
    return Error(code=code, message=message)


def complete(turn: Turn, message_count: int) -> Complete:
    """The last object of a turn that has ended well."""
    state: Literal["complete", "stopped"] = "stopped" if turn.state == "stopped" else "complete"
    return Complete(
        total_chunks=turn.chunks,
        processing_time=turn.seconds,
        message_count=message_count,
        session_id=turn.session_id,
        state=state,
    )
