"""The bodies of requests and responses. `tailrace.client` defines the objects of a reply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from .. import encode_data
from ..client import ChatObject, Chunk, Complete, Error, Reasoning, SessionDetails, SessionInfo, Status
from ..client import Message as SessionMessage
from ..client import Reply as PlainReply
from ..client import Session as SessionSummary
from .store import Session, Turn

INTERRUPTED = "the server could not complete the reply"
"""The error message of an interrupted reply, both live and when it is read later. Its server has shut down or died, or
its stream is lost."""

REASONING = "reasoning"
"""The event name of reasoning in a log. Wires use it to omit reasoning for readers who did not ask for it."""

AnyObject = Annotated[
    SessionInfo | Status | Reasoning | Chunk | Complete | Error,
    Field(discriminator="type"),
]
"""All objects of a reply's stream, for the OpenAPI document."""


# The objects of a stream


def now() -> datetime:
    return datetime.now(UTC)


def chunk(text: str, number: int, *, is_final: bool) -> dict[str, Any]:
    """Return a Chunk as a plain dict, because building a pydantic model for each piece would be slow."""
    return {"type": "chunk", "timestamp": now(), "text": text, "chunk_number": number, "is_final": is_final}


def reasoning(text: str) -> dict[str, Any]:
    """Return a Reasoning as a plain dict."""
    return {"type": REASONING, "timestamp": now(), "text": text}


def members(item: ChatObject) -> dict[str, Any]:
    """Return the members of an object, without those that are added later: by the wire, and by the renderer."""
    return item.model_dump(exclude={"id", "blocks"})


def encode_object(item: ChatObject | dict[str, Any]) -> tuple[str | None, bytes]:
    """Encode an object for a log. Only reasoning has an event name there."""
    fields = item if isinstance(item, dict) else members(item)
    return REASONING if fields["type"] == REASONING else None, encode_data(fields)


# Requests


MAX_TITLE = 200

_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_UNFIT = re.compile(f"[{_CONTROL}\ud800-\udfff]")
_TITLE = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"


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


def _check_session_id(session_id: str) -> str:
    if session_id in ("new", "changes"):
        raise PydanticCustomError(
            "reserved", "expected an id of a session, but got {got}, which is part of an address", {"got": session_id}
        )
    return session_id


SessionId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$"),
    AfterValidator(_check_session_id),
]
"""The id of a session. Clients may choose it. Ids are unique only among the sessions of one key."""


class ChatRequest(BaseModel):
    """A message. Unknown fields are refused, because they are probably mistyped."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"message": "What is a log?", "session_id": "abc123"}],
            "anyOf": [
                {"properties": {"replace": {"type": "null"}}},
                {"properties": {"session_id": {"type": "string"}}, "required": ["session_id"]},
            ],
        },
    )

    message: Message
    session_id: SessionId | None = Field(
        None, description="The session to continue or to begin. Without one, the server begins a session with a UUID."
    )
    create: StrictBool = Field(True, description="Begin the session if it does not exist. If false, answer 404.")
    replace: str | None = Field(
        None,
        description="The stream of the session's last turn, in whose place this message and its reply come. "
        "It needs the `session_id`.",
    )

    @model_validator(mode="after")
    def _check_replace(self) -> ChatRequest:
        if self.replace is not None and self.session_id is None:
            raise PydanticCustomError("session", "expected the session_id of the turn to replace, but got none")
        return self


def _check_title(title: str) -> str:
    if _UNFIT.search(title := title.strip()):
        raise PydanticCustomError("control", "expected a title on one line, without control characters")
    if not 0 < len(title) <= MAX_TITLE:
        raise PydanticCustomError(
            "length", "expected a title of 1 to 200 characters, but got {got}", {"got": len(title)}
        )
    return title


class Renaming(BaseModel):
    """A new title."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Logs and cursors"}]})

    title: Annotated[
        str,
        Field(json_schema_extra={"pattern": _TITLE, "maxLength": MAX_TITLE}, description="One line, not blank."),
        AfterValidator(_check_title),
    ]


# Responses


class Reply(PlainReply):
    """A whole reply as one document."""

    data: list[AnyObject] = Field(description="The objects of the stream.")


class FailedReply(BaseModel):
    """The reason why a reply is incomplete, and the part that exists."""

    detail: str
    code: str
    data: list[AnyObject] = Field(description="The objects of the stream. The first one has the `session_id`.")


class Problem(BaseModel):
    """The reason why a request was refused: `detail` for people, `code` for programs."""

    detail: str
    code: str


class BusyProblem(Problem):
    """The session is already answering. Resume or stop that stream."""

    session_id: str
    stream_id: str


class LastTurnProblem(Problem):
    """The turn to replace is not the last one. `stream_id` is the stream of the session's last turn, if it has one."""

    stream_id: str | None


def summary(session: Session, stream_id: str | None = None) -> SessionSummary:
    """Return a session as a list shows it. `stream_id` is the stream of its reply in progress, if any."""
    return SessionSummary(**facts(session, stream_id))


def details(
    session: Session,
    turns: Sequence[Turn],
    earlier: str | None,
    *,
    model: str,
    stream_id: str | None,
    html: Sequence[str | None] | None = None,
) -> SessionDetails:
    """Return a session with the messages of these turns. `earlier` is the token of the page before them.

    `html` has the HTML of their replies.
    """
    rendered = html or [None] * len(turns)
    messages = [message for turn, reply in zip(turns, rendered, strict=True) for message in messages_of(turn, reply)]
    return SessionDetails(**facts(session, stream_id), model=model, messages=messages, earlier=earlier)


def messages_of(turn: Turn, html: str | None = None) -> tuple[SessionMessage, SessionMessage]:
    """Return the message of a turn, and its reply."""
    asked = SessionMessage(role="user", text=turn.message, timestamp=from_unix(turn.created), stream_id=turn.stream_id)
    answered = SessionMessage(
        role="assistant",
        text=turn.reply,
        html=html,
        timestamp=from_unix(turn.created + turn.seconds),
        state=turn.state,
        stream_id=turn.stream_id,
        model=turn.model,
        total_chunks=turn.chunks,
        processing_time=turn.seconds,
        error=turn.error_message,
    )
    return asked, answered


def from_unix(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def facts(session: Session, stream_id: str | None) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "title": session.title,
        "message_count": 2 * session.turns,
        "created": from_unix(session.created),
        "updated": from_unix(session.updated),
        "stream_id": stream_id,
    }
