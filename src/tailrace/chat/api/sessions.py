"""`/sessions`: what was said, kept."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query

from ...client import Deleted, Session, SessionDetails, SessionPage
from ..access import Owner
from ..errors import BadPage, SessionNotFound, StorageFailed, TooManySessions, Unauthorized, refusals
from ..objects import details, summary
from .state import Chat

router = APIRouter(prefix="/sessions", tags=["sessions"], responses=refusals(Unauthorized, StorageFailed))

Limit = Annotated[int, Query(ge=1, le=200)]
Token = Annotated[str | None, Query(description="A token from an earlier page.")]


@router.post("/new", summary="New session", responses=refusals(TooManySessions))
async def create_session(chat: Chat, owner: Owner) -> Session:
    """Begin a session. A message without a `session_id` does so, too."""
    return summary(await chat.create(owner))


@router.api_route("/new", methods=["GET", "HEAD", "DELETE"], include_in_schema=False)
async def refuse_new() -> None:
    """Which would else be taken for a session's id."""
    raise HTTPException(405)


@router.get("", summary="Sessions", responses=refusals(BadPage))
async def list_sessions(chat: Chat, owner: Owner, limit: Limit = 50, after: Token = None) -> SessionPage:
    """The sessions, the last used first."""
    page = await chat.store.sessions(owner, limit=limit, after=after)
    sessions = [summary(session, chat.stream_of(session.id)) for session in page.items]
    return SessionPage(sessions=sessions, total=await chat.store.count(owner), next=page.next)


@router.get("/{session_id}", summary="A session and its history", responses=refusals(SessionNotFound, BadPage))
async def show_session(
    session_id: UUID, chat: Chat, owner: Owner, limit: Limit = 100, before: Token = None
) -> SessionDetails:
    """A session and its newest messages, two for each of at most `limit` turns, in order of time.

    A reply that is being written has its `stream_id`: read it there.
    """
    session = await chat.session(owner, str(session_id))
    page = await chat.store.turns(session.id, limit=limit, before=before)
    return details(session, page.items, page.next, model=chat.model.name, stream_id=chat.stream_of(session.id))


@router.delete("/{session_id}", summary="Delete a session", responses=refusals(SessionNotFound))
async def delete_session(session_id: UUID, chat: Chat, owner: Owner) -> Deleted:
    """Delete a session and all that was said. A reply that is being written is stopped first."""
    await chat.delete(owner, str(session_id))
    return Deleted(session_id=str(session_id))


@router.post("/{session_id}/clear", summary="Empty a session", responses=refusals(SessionNotFound))
async def clear_session(session_id: UUID, chat: Chat, owner: Owner) -> Session:
    """Empty a session's history. A reply that is being written is stopped first."""
    await chat.clear(owner, str(session_id))
    return summary(await chat.session(owner, str(session_id)))
