"""`/sessions`: the stored conversations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Response

from ... import StreamResponse, StreamSettings
from ...client import Deleted, Session, SessionChange, SessionDetails, SessionPage
from ..access import KeyedRoute, Owner
from ..errors import BadPage, SessionNotFound, StorageFailed, TooManySessions, Unauthorized, refusals
from ..objects import Problem, Renaming, SessionId, details, summary
from ..wire import STREAMS, stream_content
from . import Chat
from .replies import PRIVATE, After, LastEventId

router = APIRouter(
    prefix="/sessions", tags=["sessions"], route_class=KeyedRoute, responses=refusals(Unauthorized, StorageFailed)
)

Id = Annotated[SessionId, Path()]
Limit = Annotated[int, Query(ge=1, le=200)]
AsHTML = Annotated[bool, Query(description="Whether a reply also has its text as `html`, if the server can render it.")]
Searched = Annotated[str, Query(max_length=200, description="A text to search for, in upper or lower case.")]
Token = Annotated[str | None, Query(description="A token from an earlier page.")]

DESTRUCTIVE: dict[str, Any] = {"x-destructive": True}
"""Tells a page that shows the API to ask before it sends this."""

FOLLOWING = StreamSettings(wires=STREAMS[False][::-1], cache_control=PRIVATE)

_CHANGES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The changes.", "content": stream_content(SessionChange)},
    204: {"description": "The cursor is that of an end, so there is nothing to read."},
    400: {"description": "The cursor is invalid.", "model": Problem},
    406: {"description": "None of the accepted media types is available.", "model": Problem},
}


_UNREADABLE: dict[int | str, dict[str, Any]] = {400: {"description": "The body cannot be read.", "model": Problem}}


@router.post("/new", summary="New session", responses=refusals(TooManySessions))
async def create_session(chat: Chat, owner: Owner) -> Session:
    """Begin a session. Sending a message to a session that does not exist also begins one."""
    return summary(await chat.create(owner))


@router.get("/changes", summary="Changes of sessions", response_class=Response, responses=_CHANGES)
async def follow_changes(chat: Chat, owner: Owner, last_event_id: LastEventId = None, after: After = None) -> Response:
    """Follow what happens to your sessions from now on, or after a cursor. The stream is Server-Sent Events by default.
    The `Accept` header can select NDJSON. It never ends by itself.

    Follow the changes first and then read the list, so that you miss nothing. After a `reset`, read the list again.
    """
    return StreamResponse(await chat.changes.log(owner), FOLLOWING, engine=chat.engine, history=0)


@router.api_route("/new", methods=["GET", "HEAD", "PATCH", "DELETE"], include_in_schema=False)
@router.api_route("/changes", methods=["PATCH", "DELETE"], include_in_schema=False)
async def refuse_method() -> None:
    """Refuse other methods for these names, which would otherwise match `{session_id}`."""
    raise HTTPException(405)


@router.get("", summary="Sessions", responses=refusals(BadPage))
async def list_sessions(
    chat: Chat, owner: Owner, limit: Limit = 50, after: Token = None, q: Searched = ""
) -> SessionPage:
    """List your sessions, the most recently used first. With `q`, list those whose title or messages have that text.

    A search takes about a second at most. Its page may then have few sessions, or none, and `next` goes on searching.
    """
    if text := q.strip():
        page, total = await chat.store.search(owner, text, limit=limit, after=after), None
    else:
        page, total = await chat.store.sessions(owner, limit=limit, after=after), await chat.store.count(owner)
    streams = await chat.streams_of(owner, [session.id for session in page.items])
    sessions = [summary(session, streams.get(session.id)) for session in page.items]
    return SessionPage(sessions=sessions, total=total, next=page.next)


@router.get("/{session_id}", summary="A session and its history", responses=refusals(SessionNotFound, BadPage))
async def show_session(
    session_id: Id, chat: Chat, owner: Owner, limit: Limit = 100, before: Token = None, html: AsHTML = False
) -> SessionDetails:
    """Show a session and its newest messages in order of time: two for each of at most `limit` turns.

    A reply in progress has a `stream_id`. Read the reply from that stream.
    """
    session = await chat.session(owner, session_id)
    page = await chat.turns(owner, session_id, limit=limit, before=before)
    rendered = await chat.rendering.html_of([turn.reply for turn in page.items]) if html else None
    stream_id = await chat.stream_of(owner, session_id)
    return details(session, page.items, page.next, model=chat.model.name, stream_id=stream_id, html=rendered)


@router.patch("/{session_id}", summary="Rename a session", responses={**_UNREADABLE, **refusals(SessionNotFound)})
async def rename_session(session_id: Id, body: Renaming, chat: Chat, owner: Owner) -> Session:
    """Give a session a title of your own, which its messages no longer change. Spaces around it are removed."""
    session = await chat.rename(owner, session_id, body.title)
    return summary(session, await chat.stream_of(owner, session_id))


@router.delete(
    "/{session_id}", summary="Delete a session", responses=refusals(SessionNotFound), openapi_extra=DESTRUCTIVE
)
async def delete_session(session_id: Id, chat: Chat, owner: Owner) -> Deleted:
    """Delete a session and its messages. This stops a reply in progress first."""
    await chat.delete(owner, session_id)
    return Deleted(session_id=session_id)


@router.post(
    "/{session_id}/clear", summary="Empty a session", responses=refusals(SessionNotFound), openapi_extra=DESTRUCTIVE
)
async def clear_session(session_id: Id, chat: Chat, owner: Owner) -> Session:
    """Delete the messages of a session. This stops a reply in progress first."""
    return summary(await chat.clear(owner, session_id))
