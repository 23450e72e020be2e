"""What a client sends and gets: the objects of a reply's stream, and the bodies of requests and answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from .. import encode_data
from .sessions import Session, Turn, TurnState

INTERRUPTED = "the server shut down before the reply was whole"
"""What is said of a reply that the end of the server cut, at once and later."""


def now() -> datetime:
    return datetime.now(UTC)


class StreamObject(BaseModel):
    """One object of a reply's stream. On the wire it also has an `id`, its cursor."""

    type: str
    timestamp: datetime = Field(default_factory=now)


class SessionInfo(StreamObject):
    """The first object: where the reply belongs, and under which id its stream is resumed and stopped."""

    type: Literal["session_info"] = "session_info"
    session_id: str
    stream_id: str
    model: str


class Status(StreamObject):
    """What the model is about to be sent. `dropped_messages` of the oldest did not fit."""

    type: Literal["status"] = "status"
    message: str
    context_messages: int
    dropped_messages: int


class Chunk(StreamObject):
    """A piece of the reply. The last one says so; its text may be empty."""

    type: Literal["chunk"] = "chunk"
    text: str
    chunk_number: int
    is_final: bool


class Complete(StreamObject):
    """The last object of a reply that came to its end, or was stopped. It has been stored."""

    type: Literal["complete"] = "complete"
    total_chunks: int
    processing_time: float = Field(description="Seconds.")
    message_count: int = Field(description="Of the session, this reply included.")
    session_id: str
    state: Literal["complete", "stopped"]


class Error(StreamObject):
    """The last object of a reply that failed. What came before it has been stored."""

    type: Literal["error"] = "error"
    code: str
    message: str


def chunk(text: str, number: int, *, is_final: bool) -> dict[str, Any]:
    """A Chunk as it is encoded: one is made for each piece of each reply, and a model is not built only for that."""
    return {
        "type": "chunk",
        "timestamp": datetime.now(UTC),
        "text": text,
        "chunk_number": number,
        "is_final": is_final,
    }


def encode_object(item: StreamObject | dict[str, Any]) -> tuple[None, bytes]:
    """An object as an entry of a log: without an event name, as JSON."""
    return None, encode_data(item)


AnyObject = Annotated[SessionInfo | Status | Chunk | Complete | Error, Field(discriminator="type")]
"""Every object that a client has to expect, for the OpenAPI document."""


def _check_message(message: str) -> str:
    if not message or message.isspace():
        raise PydanticCustomError("blank", "expected a message that is not blank")
    if "\x00" in message:
        raise PydanticCustomError("nul", "expected a message without NUL, but got one")
    try:
        message.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("half", "expected a message of whole characters, but got half of one") from None
    return message


Message = Annotated[
    str,
    Field(json_schema_extra={"pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"}, description="Not blank."),
    AfterValidator(_check_message),
]


class ChatRequest(BaseModel):
    """A message; without a `session_id` it begins a new session. Other fields are refused, as a mistyped one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message": "What is a log?"}]})

    message: Message
    session_id: UUID | None = None


class Reply(BaseModel):
    """A whole reply as one document."""

    session_id: str
    stream_id: str
    model: str
    text: str
    state: Literal["complete", "stopped"]
    total_chunks: int
    processing_time: float = Field(description="Seconds.")
    message_count: int
    context_messages: int
    data: list[AnyObject] = Field(description="The objects of the stream.")


class FailedReply(BaseModel):
    """Why there is no whole reply, and what there is of it."""

    detail: str
    code: str
    data: list[AnyObject] = Field(description="The objects of the stream; the first has its `session_id`.")


class StopResult(BaseModel):
    """How the stopped reply ended."""

    stream_id: str
    session_id: str
    state: TurnState


class SessionSummary(BaseModel):
    """A session in a list. `stream_id` names the stream of a reply that is being written."""

    session_id: str
    title: str = Field(description="The beginning of its first message.")
    message_count: int
    created: datetime
    updated: datetime
    stream_id: str | None = None

    @classmethod
    def of(cls, session: Session, stream_id: str | None = None) -> SessionSummary:
        return cls(**_summary(session, stream_id))


class SessionMessage(BaseModel):
    """A message of a session's history; a reply also says how it ended and how long it took."""

    role: Literal["user", "assistant"]
    text: str
    timestamp: datetime
    state: TurnState | None = None
    stream_id: str | None = None
    model: str | None = None
    total_chunks: int | None = None
    processing_time: float | None = None
    error: str | None = None

    @classmethod
    def both(cls, turn: Turn) -> tuple[SessionMessage, SessionMessage]:
        """The two messages of a turn."""
        asked = cls(role="user", text=turn.message, timestamp=from_unix(turn.created))
        answered = cls(
            role="assistant",
            text=turn.reply,
            timestamp=from_unix(turn.created + turn.seconds),
            state=turn.state,
            stream_id=turn.stream_id,
            model=turn.model,
            total_chunks=turn.chunks,
            processing_time=turn.seconds,
            error=turn.error_message,
        )
        return asked, answered


class SessionDetails(SessionSummary):
    """A session with its history, or the newest part of it; `earlier` is the token that gets what was before."""

    model: str
    messages: list[SessionMessage]
    earlier: str | None

    @classmethod
    def with_history(
        cls, session: Session, turns: Sequence[Turn], earlier: str | None, *, model: str, stream_id: str | None
    ) -> SessionDetails:
        messages = [message for turn in turns for message in SessionMessage.both(turn)]
        return cls(**_summary(session, stream_id), model=model, messages=messages, earlier=earlier)


class SessionList(BaseModel):
    """A page of sessions, the last used first; `next` is the token that gets the following ones."""

    sessions: list[SessionSummary]
    total: int
    next: str | None


class Deleted(BaseModel):
    session_id: str
    deleted: Literal[True] = True


class Problem(BaseModel):
    """Why a request was refused: `detail` for people, `code` for programs."""

    detail: str
    code: str


class BusyProblem(Problem):
    """The session is answering: resume or stop that stream."""

    session_id: str
    stream_id: str


def from_unix(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _summary(session: Session, stream_id: str | None) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "title": session.title,
        "message_count": 2 * session.turns,
        "created": from_unix(session.created),
        "updated": from_unix(session.updated),
        "stream_id": stream_id,
    }
