"""The answers of a chat server: the objects of a reply's stream, and the bodies of its other responses.

The server builds these models, and the client reads them. The client keeps members that a newer server adds in
`model_extra`. For the same reason, a state is a plain `str`. The schema has its known values.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field


def now() -> datetime:
    return datetime.now(UTC)


def _known(*values: str) -> Any:
    return Field(json_schema_extra={"enum": list(values)})


ReplyState: TypeAlias = Annotated[str, _known("complete", "stopped")]
TurnState: TypeAlias = Annotated[str, _known("generating", "complete", "stopped", "failed", "interrupted")]


class Answered(BaseModel):
    """The base class of all answers of a chat server."""

    model_config = ConfigDict(extra="allow", frozen=True)


# The objects of a reply's stream


class ChatObject(Answered):
    """One object of a reply's stream. `id` is its cursor.

    An object of a type that this client does not know is a plain `ChatObject`.
    """

    type: str
    timestamp: datetime = Field(default_factory=now)
    id: str | None = None


class SessionInfo(ChatObject):
    """The first object. It names the session and the stream. Resume or stop the reply by its `stream_id`."""

    type: Literal["session_info"] = "session_info"
    session_id: str
    stream_id: str
    model: str


class Status(ChatObject):
    """The context that the model gets. The oldest `dropped_messages` messages of the session did not fit."""

    type: Literal["status"] = "status"
    message: str
    context_messages: int = 0
    dropped_messages: int = 0


class HTMLBlock(Answered):
    """A block of the reply as HTML. It replaces the block with its number, if there is one. It may be empty."""

    number: int = Field(description="Counts from 1.")
    html: str


Blocks: TypeAlias = Annotated[
    list[HTMLBlock] | None,
    Field(description="The blocks that change, with `?html=true`, if the server can render."),
]


class Chunk(ChatObject):
    """A piece of the reply's text. The final chunk may be empty."""

    type: Literal["chunk"] = "chunk"
    text: str
    chunk_number: int
    is_final: bool = False
    blocks: Blocks = None


class Reasoning(ChatObject):
    """A piece of the model's reasoning before it answers. It is not part of the reply's text."""

    type: Literal["reasoning"] = "reasoning"
    text: str


class Complete(ChatObject):
    """The last object of a reply that is complete or was stopped. The server has stored the reply."""

    type: Literal["complete"] = "complete"
    total_chunks: int
    processing_time: float = Field(description="Seconds.")
    message_count: int = Field(description="Messages in the session, including this reply.")
    session_id: str
    state: ReplyState = "complete"


class Error(ChatObject):
    """The last object of a reply that failed. The server has stored the text before it."""

    type: Literal["error"] = "error"
    code: str
    message: str
    blocks: Blocks = None


class SessionChange(ChatObject):
    """A change to one of your sessions, in the stream of changes.

    A session that was created, renamed or cleared, or whose turn began, has its `title` and `message_count`. A turn
    that began or ended has its `stream_id`, and one that ended has its `state`.
    """

    type: Literal["session"] = "session"
    change: Annotated[str, _known("created", "renamed", "cleared", "deleted", "turn_began", "turn_ended")]
    session_id: str
    updated: datetime
    created: datetime | None = None
    title: str | None = None
    message_count: int | None = None
    stream_id: str | None = None
    state: TurnState | None = None


KINDS: dict[str, type[ChatObject]] = {
    "session_info": SessionInfo,
    "status": Status,
    "reasoning": Reasoning,
    "chunk": Chunk,
    "complete": Complete,
    "error": Error,
    "session": SessionChange,
}
"""The known objects of a stream, by `type`."""


# Responses


class Reply(Answered):
    """A whole reply."""

    session_id: str
    stream_id: str
    model: str
    text: str
    state: ReplyState
    total_chunks: int
    processing_time: float = Field(description="Seconds.")
    message_count: int = Field(description="Messages in the session, including this reply.")
    context_messages: int = Field(description="Messages sent to the model.")


class Stopped(Answered):
    """The end of a stopped reply."""

    stream_id: str
    session_id: str
    state: TurnState


class Session(Answered):
    """A session in a list."""

    session_id: str
    title: str = Field(default="", description="The one that you gave it, or the beginning of its first message.")
    message_count: int
    created: datetime
    updated: datetime
    stream_id: str | None = Field(default=None, description="The stream of a reply that is being generated.")


class Message(Answered):
    """A message of a session. A message and its reply have the same `stream_id`, the reply's stream.

    A reply also has its state, its model and its duration.
    """

    role: Annotated[str, _known("user", "assistant")]
    text: str
    timestamp: datetime
    state: TurnState | None = None
    stream_id: str | None = None
    model: str | None = None
    total_chunks: int | None = None
    processing_time: float | None = Field(default=None, description="Seconds.")
    error: str | None = None
    html: str | None = Field(default=None, description="The text of a reply as HTML, if it was asked for.")


class SessionDetails(Session):
    """A session and its newest messages."""

    model: str
    messages: list[Message]
    earlier: str | None = Field(default=None, description="The token that gets the messages before these.")


class SessionPage(Answered):
    """A page of sessions, the most recently used first."""

    sessions: list[Session]
    total: int | None = Field(description="The number of your sessions. null for a search, which does not count.")
    next: str | None = Field(default=None, description="The token that gets the next page.")


class Deleted(Answered):
    """Confirms that a session was deleted."""

    session_id: str
    deleted: bool = True


class Health(Answered):
    """The health of the server. An unhealthy server answers with status 503."""

    status: Annotated[str, _known("healthy", "unhealthy")]
    reason: str | None = Field(default=None, description="Why the server is unhealthy.")
    active_streams: int = Field(description="Replies being generated.")
    active_connections: int = Field(description="Connections that read a reply or follow the changes of sessions.")
    database: Annotated[str, _known("reachable", "unreachable")] | None = Field(
        default=None, description="Whether the database can be written to."
    )
    last_write: float | None = Field(default=None, description="Seconds since the database was last written to.")
    event_loop_lag: float | None = Field(
        default=None, description="Seconds that one iteration of the event loop takes."
    )
    uptime: float = Field(description="Seconds.")
    html: bool = Field(default=False, description="Whether the server renders replies as HTML.")


class Requests(Answered):
    """Counts of requests. Requests in progress are neither successful nor failed."""

    total: int
    successful: int
    failed: int


class Stats(Answered):
    """The server's statistics since it started."""

    uptime: float = Field(description="Seconds.")
    requests: Requests
    active_sessions: int | None = Field(description="Stored sessions; null while the database is unreachable.")
    active_streams: int = Field(description="Replies being generated.")
    sessions_created: int
    average_response_time: float = Field(description="Seconds, over the replies that have ended.")
    chunks: int = Field(description="Chunks of the replies that have ended.")
    model: str
    framework: str


class ServerInformation(Answered):
    """A description of the server and its endpoints."""

    name: str = "tailrace"
    version: str
    model: str
    framework: str
    multi_turn: bool = True
    streaming: bool = True
    endpoints: dict[str, str] = Field(default={}, description="What each endpoint does.")
    streaming_endpoints: list[str] = Field(default=[], description="The endpoints that stream.")
