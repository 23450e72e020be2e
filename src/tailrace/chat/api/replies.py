"""`/chat/stream`: send a message, then read, resume or stop the reply."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import AfterValidator

from ... import Cursor, Log, StreamResponse, StreamSettings, Wire, choose_wire
from ...client import Stopped
from ..access import KeyedRoute, Owner
from ..errors import (
    KeyReused,
    MessageTooLong,
    SessionBusy,
    SessionFull,
    SessionNotFound,
    StreamNotFound,
    TooManySessions,
    TurnNotLast,
    Unauthorized,
    refusals,
)
from ..objects import ChatRequest, FailedReply, Problem, Reply
from ..turns import PATH, Question
from ..wire import STREAMS, WIRES, read_reply, stream_content
from . import Chat

router = APIRouter(tags=["chat"], route_class=KeyedRoute)

PRIVATE = "no-cache, no-store, no-transform"

SETTINGS = {reasoning: StreamSettings(wires=wires, cache_control=PRIVATE) for reasoning, wires in STREAMS.items()}

STREAM_ID = "^[A-Za-z0-9_-]{22}$"
CURSOR = r"^([A-Za-z0-9_~-]{1,128}\.[A-Za-z0-9_-]{1,32}\.(0|[1-9][0-9]{0,14})(\.end)?)?$"
"""A pattern for cursors or the empty string, for the OpenAPI document only. `Cursor.parse` does the checking."""


def _check_stream_id(stream_id: str) -> str:
    """Answer 404 to an id that no stream can have, as to any unknown id."""
    if re.fullmatch(STREAM_ID, stream_id) is None:
        raise StreamNotFound(stream_id[:80])
    return stream_id


StreamId = Annotated[
    str,
    Path(json_schema_extra={"pattern": STREAM_ID}, description="The `stream_id` of `session_info`."),
    AfterValidator(_check_stream_id),
]
After = Annotated[
    str | None,
    Query(
        json_schema_extra={"pattern": CURSOR},
        description="A cursor, which is the `id` of an object. The reply continues after it. "
        "The header Last-Event-ID, which browsers send by themselves, takes precedence.",
    ),
]
LastEventId = Annotated[str | None, Header(include_in_schema=False)]
Streamed = Annotated[
    bool | None, Query(description="Whether to stream or to answer with one document. It takes precedence over Accept.")
]
Thinking = Annotated[
    bool, Query(description="Whether to include the model's reasoning, as objects of type `reasoning`.")
]
AsHTML = Annotated[
    bool,
    Query(description="Whether a chunk also has the `blocks` of HTML that it changes, if the server can render them."),
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A request that repeats an earlier key gets the earlier reply. The model is not asked again.",
    ),
]

_INVALID = ("HTTPValidationError", "FailedReply")

_FAILED: dict[int | str, dict[str, Any]] = {
    413: {
        "description": "The message is too long, or, for a document, the conversation.",
        "model": FailedReply | Problem,
    },
    422: {
        "description": "The request is invalid, or, for a document, the model refuses to answer.",
        "content": {
            "application/json": {"schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in _INVALID]}}
        },
    },
    500: {"description": "For a document: the server failed.", "model": FailedReply},
    502: {"description": "For a document: the model failed.", "model": FailedReply},
    503: {"description": "Try again soon.", "model": FailedReply | Problem},
}

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "The reply.", "model": Reply, "content": stream_content()},
    204: {"description": "The cursor is that of the end, so there is nothing to read."},
    400: {"description": "The cursor is invalid.", "model": Problem},
    406: {"description": "None of the accepted media types is available.", "model": Problem},
}


@router.post(
    PATH,
    summary="Send a message",
    response_class=Response,
    responses={
        **_STREAM,
        **refusals(
            Unauthorized,
            SessionNotFound,
            StreamNotFound,
            SessionBusy,
            TurnNotLast,
            SessionFull,
            TooManySessions,
            KeyReused,
            MessageTooLong,
        ),
        **_FAILED,
    },
)
async def chat(
    body: ChatRequest,
    request: Request,
    chat: Chat,
    owner: Owner,
    idempotency_key: Key = None,
    last_event_id: LastEventId = None,
    after: After = None,
    stream: Streamed = None,  # read by choose_wire
    reasoning: Thinking = False,
    html: AsHTML = False,
) -> Response:
    """Send a message and read the reply while it is generated. The response is NDJSON by default. The `Accept` header
    can select Server-Sent Events or one JSON document. If the connection is lost, the reply continues: resume it at
    `/chat/stream/{stream_id}?after=`.

    With `replace`, the message and its reply take the place of the session's last turn, which is deleted when the new
    one begins. The same message generates the reply again. Stop a reply in progress before you replace it.

    A `session_id` that does not exist begins that session, unless `create` is false. A request with a cursor resumes
    the reply that the cursor names.
    """
    wire = choose_wire(request, WIRES)
    cursor = _cursor(last_event_id, after)
    if cursor is not None:
        log = await chat.find(owner, cursor.stream)
    else:
        client = request.client.host if request.client is not None else ""
        transfer = "chunked" if wire.streaming else "one document"
        question = Question(
            owner, body.message, body.session_id, idempotency_key, client, body.create, transfer, body.replace
        )
        log = await chat.ask(question)
    return await _answer(log, wire, chat, cursor, reasoning=reasoning, html=html)


@router.get(
    PATH + "/{stream_id}",
    summary="Read or resume a reply",
    response_class=Response,
    responses={**_STREAM, **refusals(Unauthorized, StreamNotFound), **_FAILED},
)
async def resume(
    stream_id: StreamId,
    request: Request,
    chat: Chat,
    owner: Owner,
    last_event_id: LastEventId = None,
    after: After = None,
    stream: Streamed = None,
    reasoning: Thinking = False,
    html: AsHTML = False,
) -> Response:
    """Read a reply from its beginning or after a cursor, during or after generation. A document is always complete."""
    cursor = _cursor(last_event_id, after)  # a cursor of another stream gets a reset
    log, wire = await chat.find(owner, stream_id), choose_wire(request, WIRES)
    if request.method == "HEAD" and not wire.streaming:
        return _head_of_document()
    return await _answer(log, wire, chat, cursor, reasoning=reasoning, html=html)


@router.post(PATH + "/{stream_id}/stop", summary="Stop a reply", responses=refusals(Unauthorized, StreamNotFound))
async def stop(stream_id: StreamId, chat: Chat, owner: Owner) -> Stopped:
    """Stop the model. The server keeps the text so far. A reply that has ended does not change."""
    turn = await chat.stop(owner, stream_id)
    return Stopped(stream_id=turn.stream_id, session_id=turn.session_id, state=turn.state)


def _cursor(last_event_id: str | None, after: str | None) -> Cursor | None:
    return Cursor.parse(token) if (token := last_event_id or after) else None


async def _answer(
    reply: Log, wire: Wire, chat: Chat, cursor: Cursor | None, *, reasoning: bool, html: bool
) -> Response:
    if cursor is not None and cursor.ended:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    log = await chat.rendering.follow(reply) if html else reply
    if wire.streaming:
        return StreamResponse(log, SETTINGS[reasoning], engine=chat.engine, addressed=reply.name)
    return await read_reply(log, reasoning=reasoning)


def _head_of_document() -> Response:
    """Return the headers that are known before the reply ends, because HEAD does not wait for the end."""
    response = Response(media_type="application/json", headers={"Cache-Control": "no-store"})
    del response.headers["Content-Length"]
    return response
