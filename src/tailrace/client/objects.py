"""What the chat server answers. Members that a newer server adds are kept in `model_extra`."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DecodeError
from ..wire.base import Frame

M = TypeVar("M", bound=BaseModel)


class Answered(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


# The objects of a reply's stream


class ChatObject(Answered):
    """Any object of a reply. `id` is its cursor. A kind that this client does not know has only what is here."""

    type: str
    timestamp: datetime | None = None
    id: str | None = None


class SessionInfo(ChatObject):
    """The first: the session, and the stream under whose id the reply is resumed and stopped."""

    session_id: str
    stream_id: str
    model: str


class Status(ChatObject):
    """What the model is sent."""

    message: str
    context_messages: int = 0
    dropped_messages: int = 0


class Chunk(ChatObject):
    """A piece of the text."""

    text: str
    chunk_number: int
    is_final: bool = False


class Complete(ChatObject):
    """The last: how the reply ended, and how long it took, in seconds."""

    total_chunks: int
    processing_time: float
    message_count: int
    session_id: str
    state: str = "complete"


_KINDS: dict[str, type[ChatObject]] = {
    "session_info": SessionInfo,
    "status": Status,
    "chunk": Chunk,
    "complete": Complete,
}


def read_object(frame: Frame) -> ChatObject:
    """The object in an event; DecodeError if there is none."""
    data = frame.data
    if not isinstance(data, dict):
        raise DecodeError(f"expected an object of a reply, but got {data!r:.80}")
    kind = str(data.get("type", frame.event))
    model = _KINDS.get(kind, ChatObject)
    try:
        return model.model_validate({**data, "type": kind, "id": frame.id})
    except ValidationError as error:
        raise _unexpected(model, error) from None


def read_json(model: type[M], body: bytes) -> M:
    """An answer as its model; DecodeError if it is something else."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _unexpected(model, error) from None


def _unexpected(model: type[BaseModel], error: ValidationError) -> DecodeError:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    return DecodeError(f"expected {model.__name__} from the server, but in {place}: {first['msg']}")


# Answers


class Reply(Answered):
    """A whole reply. `state` is `complete` or `stopped`."""

    session_id: str
    stream_id: str
    model: str
    text: str
    state: str
    total_chunks: int
    processing_time: float
    message_count: int
    context_messages: int


class Stopped(Answered):
    """How a stopped reply ended."""

    stream_id: str
    session_id: str
    state: str


class Session(Answered):
    """A session in a list; `stream_id` names a reply that is being written."""

    session_id: str
    title: str = ""
    message_count: int
    created: datetime
    updated: datetime
    stream_id: str | None = None


class Message(Answered):
    """A message of a session; a reply also says how it ended and how long it took."""

    role: str
    text: str
    timestamp: datetime
    state: str | None = None
    stream_id: str | None = None
    model: str | None = None
    total_chunks: int | None = None
    processing_time: float | None = None
    error: str | None = None


class SessionDetails(Session):
    """A session and its newest messages; `earlier` is the token for those before them."""

    model: str
    messages: list[Message]
    earlier: str | None = None


class Deleted(Answered):
    session_id: str
    deleted: bool


class SessionPage(Answered):
    """Some sessions, the last used first; `next` is the token for the following ones."""

    sessions: list[Session]
    total: int
    next: str | None = None


class Health(Answered):
    """`status` is `healthy` or `unhealthy`, for a `reason`."""

    status: str
    reason: str | None = None
    active_streams: int
    active_connections: int
    database: str | None = None
    event_loop_lag: float | None = None
    uptime: float


class Requests(Answered):
    total: int
    successful: int
    failed: int


class Stats(Answered):
    """Since the server started; times are in seconds. `active_sessions` is None while its database is away."""

    uptime: float
    requests: Requests
    active_sessions: int | None
    active_streams: int
    sessions_created: int
    average_response_time: float
    chunks: int
    model: str
    framework: str


class ServerInformation(Answered):
    """What the server is, and its endpoints."""

    name: str
    version: str
    model: str
    framework: str
    endpoints: dict[str, str] = {}
