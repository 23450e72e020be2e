"""A turn: the question, the model's context, the generator that writes the reply's log, and the replay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from .. import Log, LogReset, Result, StreamError
from ..client import ChatObject, Complete, Error, SessionInfo, Status
from .errors import KeyReused
from .metrics import TurnWatch
from .models.base import Message, Model, Reasoning, Usage
from .objects import INTERRUPTED, chunk, members, reasoning
from .store import Turn, TurnState

logger = logging.getLogger("tailrace.chat")

PATH = "/chat/stream"
"""The streams of replies are below this path."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

INTERRUPTION = StreamError(INTERRUPTED, code="interrupted")
"""The failure of a turn that the server's shutdown interrupts. It is compared by identity, and never raised."""

Settle = Callable[["RunningTurn"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Question:
    """A client's question.

    - `session_id`: None begins a new session.
    - `create`: whether to begin a session with a `session_id` that does not exist.
    - `replace`: the stream of the session's last turn, if the question takes the place of that one.
    - `client`: the client's address.
    - `transfer`: the transfer of the reply, for the log.
    """

    owner: str
    message: str
    session_id: str | None = None
    idempotency_key: str | None = None
    client: str = ""
    create: bool = True
    transfer: str = "chunked"
    replace: str | None = None

    def check_repeats(self, message: str, session_id: str, replaced: str | None) -> None:
        """Raise KeyReused unless this repeats the earlier question with the same idempotency key."""
        if (message, replaced) != (self.message, self.replace) or self.session_id not in (None, session_id):
            raise KeyReused


@dataclass(slots=True)
class Live:
    """A reply in progress: its log once that is made, and its turn once that is stored.

    Until `begun` is set, the turn may still be refused, so nobody reads the log.
    """

    question: Question
    session_id: str
    log: Log = field(init=False)
    stream_id: str = field(init=False, default="")
    turn: RunningTurn | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def write_to(self, log: Log) -> None:
        self.log, self.stream_id = log, log.name.rpartition("/")[2]

    @property
    def place(self) -> tuple[str, str]:
        """The owner and the session's id, because another owner may have a session with the same id."""
        return self.question.owner, self.session_id

    def heed(self, log: Log) -> None:
        """Note that somebody asked for a stop, perhaps another worker."""
        if log.control.stopping and self.turn is not None:
            self.turn.stop()


@dataclass(frozen=True, slots=True)
class Context:
    """The messages for the model, the new one last. `dropped` is the number of older messages that did not fit."""

    messages: Sequence[Message]
    dropped: int

    def describe(self) -> str:
        """Return one line for the user."""
        kept = len(self.messages)
        dropped = f"; the {self.dropped} oldest did not fit" if self.dropped else ""
        return f"Generating response… ({kept} message{'s' if kept > 1 else ''} in context{dropped})"


def fit_context(
    turns: Sequence[Turn], message: str, *, earlier: int, max_messages: int, max_characters: int
) -> Context:
    """Choose as many of the newest turns as fit beside the message, which is always sent. Turns are never split.

    `turns` are the newest of all `earlier` turns, in order of time. A reply without text is left out.
    """
    messages: list[Message] = []
    size, used = len(message), 0
    for turn in reversed(turns):
        both = _messages(turn)
        size += sum(len(each.text) for each in both)
        if size > max_characters or len(messages) + len(both) + 1 > max_messages:
            break
        messages[:0] = both
        used += 1
    return Context([*messages, Message("user", message)], 2 * (earlier - used))


def _messages(turn: Turn) -> list[Message]:
    asked = Message("user", turn.message)
    return [asked, Message("assistant", turn.reply)] if turn.reply else [asked]


class RunningTurn:
    """Asks the model and yields the objects of the reply's stream. At the end, it calls `settle` to store the turn."""

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
        """Prepare a turn. It fails if its model writes more than `max_reply` characters."""
        self.turn = turn
        self.settled = False
        self._context = context
        self._model = model
        self.watch = watch
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
        """Treat cancellations as a stop by the user from now on."""
        self._stopping = True

    async def objects(self) -> AsyncGenerator[ChatObject | dict[str, Any] | Result, None]:
        """Yield the objects of the stream, the last one as its Result. Then raise the failure, if any."""
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
        except Exception as error:  # a model may raise anything
            if self._stopping:
                # An error that a stop causes in the model does not count as a failure.
                logger.info("stream %s: the model raised while it was stopped", turn.stream_id, exc_info=error)
            else:
                failure = error
        if failure is None:
            yield self._chunk("", is_final=True)
        failure = await self._finish(failure)
        yield Result(members(_error(failure) if failure is not None else complete(self.turn, self._message_count)))
        # If the user or the server's shutdown stopped the stream, its outcome is set already.
        if failure is not None and failure is not INTERRUPTION and not self._stopping:
            raise failure

    async def end(self, state: TurnState, code: str | None = None, message: str | None = None) -> None:
        """Settle the turn. Further calls do nothing."""
        if self.settled:
            return
        self.settled = True
        self.turn = replace(
            self.turn,
            state=state,
            reply=self.text,
            chunks=self.chunks,
            seconds=round(self.watch.seconds, 3),
            context_messages=len(self._context.messages),
            usage=self._usage,
            error_code=code,
            error_message=message,
        )
        await self._settle(self)

    async def _finish(self, failure: Exception | None) -> Exception | None:
        """Settle the turn. Return the failure of its stream, if any, because storing the turn can fail too."""
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
        """Yield the objects of a piece. Raise TypeError for a piece that models must not yield."""
        if isinstance(piece, str):
            yield from self._bounded(self._join(piece) if self._half or not piece.isascii() else piece)
        elif isinstance(piece, Reasoning):
            self._thinking_room -= len(piece.text)
            if self._thinking_room < 0:
                raise StreamError("the model's reasoning is longer than the server allows", code="model_truncated")
            yield reasoning(_whole(piece.text))
        elif isinstance(piece, Usage):
            self._usage = piece
        else:
            got = type(piece).__name__
            raise TypeError(f"expected model {self.turn.model} to yield str, Reasoning or Usage, but got {got}")

    def _close(self) -> Iterator[dict[str, Any]]:
        """Yield the rest when the model has ended. Raise StreamError if it wrote no text."""
        if self._half:
            yield from self._bounded(REPLACEMENT)
        if not self._texts:
            raise StreamError("the model answered without any text", code="model_empty")

    def _bounded(self, text: str) -> Iterator[dict[str, Any]]:
        """Yield a chunk with as much of the text as there is room for. Raise StreamError if that is not all."""
        if kept := text[: self._room]:
            yield self._chunk(kept)
        if len(kept) < len(text):
            raise StreamError("the reply is longer than the server allows", code="model_truncated")

    def _join(self, piece: str) -> str:
        """Return the whole characters of a piece. Keep the first half of a character that a server cut in two."""
        text, self._half = self._half + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _whole(text)

    def _chunk(self, text: str, *, is_final: bool = False) -> dict[str, Any]:
        self._texts.append(text)
        self._room -= len(text)
        number = len(self._texts)
        if is_final:  # this chunk comes from the server, not from the model
            self.watch.final_chunk(number)
        else:
            self.watch.chunk(number, text)
        return chunk(text, number, is_final=is_final)


def _whole(text: str) -> str:
    """Replace each half of a surrogate pair, because no wire can carry one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _told(error: Exception) -> tuple[str, str]:
    """Return the code and the message that users see."""
    if isinstance(error, StreamError):
        return error.code, error.message
    return "internal_error", "Internal Server Error"


def _error(error: Exception) -> Error:
    code, message = _told(error)
    return Error(code=code, message=message)


def complete(turn: Turn, message_count: int) -> Complete:
    """Return the last object of a turn that ended well."""
    return Complete(
        total_chunks=turn.chunks,
        processing_time=turn.seconds,
        message_count=message_count,
        session_id=turn.session_id,
        state="stopped" if turn.state == "stopped" else "complete",
    )


async def replay(turn: Turn, message_count: int) -> AsyncGenerator[ChatObject | dict[str, Any] | Result, None]:
    """Yield the objects of a stored turn, with its text in one piece. The stream ends as the turn did."""
    yield SessionInfo(session_id=turn.session_id, stream_id=turn.stream_id, model=turn.model)
    yield Status(
        message=f"This reply was stored: {turn.state}.", context_messages=turn.context_messages, dropped_messages=0
    )
    good = turn.state in ("complete", "stopped")
    if turn.reply or good:
        yield chunk(turn.reply, 1, is_final=good)
    if not good:
        code, message = turn.error_code or turn.state, turn.error_message or INTERRUPTED
        yield Result(members(Error(code=code, message=message)))
        raise StreamError(message, code=code)
    yield Result(members(complete(replace(turn, chunks=1), message_count)))


async def as_written(turn: Turn, log: Log) -> Turn:
    """Return a turn with the text in the log of its reply, which has ended, if that is more than what was stored."""
    texts: list[str] = []
    read = 0
    with suppress(LogReset), log.tail() as tail:
        async for entries in tail:
            for entry in entries:
                if (item := entry.data)["type"] == "chunk":
                    texts.append(item["text"])
                elif item["type"] == "status":
                    read = item["context_messages"]
    if len(texts) < turn.chunks:
        return turn
    return replace(turn, reply="".join(texts), chunks=len(texts), context_messages=read)
