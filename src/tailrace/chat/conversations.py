"""Sessions and their replies: check a question, and find or make the log of its reply."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from .. import Engine, Log, LogExists
from .answers import WORKER_LOST, Answers
from .changes import Changes
from .errors import (
    MessageTooLong,
    SessionBusy,
    SessionNotFound,
    ShuttingDown,
    StreamNotFound,
    TooManyStreams,
)
from .journal import session_id as logged_session
from .metrics import Observer
from .models.base import Model
from .objects import encode_object
from .rendering import KEEP_ALL, Rendering
from .settings import ChatSettings
from .store import Page, Session, Store, Turn
from .turns import PATH, Live, Question, replay
from .workers import Figures


class Conversations:
    """The sessions of one server. Each call is for one owner, and never shows what belongs to another."""

    def __init__(self, engine: Engine, store: Store, model: Model, observer: Observer, settings: ChatSettings) -> None:
        self.engine = engine
        self.store = store
        self.model = model
        self.rendering = Rendering(engine)
        self._observer = observer
        self._settings = settings
        self.changes = Changes(engine)
        self._answers = Answers(engine, store, model, observer, self.changes, settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run turns in this block, and close the engine within it. Raise StoreError at the end if replies are lost."""
        async with self.rendering.running(), self._answers.running():
            yield

    def sharing(self) -> AbstractAsyncContextManager[None]:
        """End the turns of workers that die, while the block runs. The engine must be open in it."""
        return self._answers.workers.running()

    # Turns

    @property
    def active(self) -> int:
        """The number of replies in progress in this process."""
        return len(self._answers)

    def elsewhere(self) -> list[Figures]:
        """Return what other workers have counted, about a second ago."""
        return self._answers.workers.elsewhere()

    async def ask(self, question: Question) -> Log:
        """Begin a reply and return its log. Raise a Refused if it cannot begin.

        A question with the idempotency key of an earlier one gets the earlier reply.
        """
        if (same := await self._repeated(question)) is not None:
            return same
        self._check_limits(question)
        session_id = question.session_id or str(uuid4())
        live = Live(question, session_id)
        if (known := await self._answers.begin(live)) is None:
            return live.log
        return await self._known(question, known)

    async def find(self, owner: str, stream_id: str) -> Log:
        """Return the log of a reply. Make it again from the store if it was forgotten. Raise StreamNotFound."""
        if (live := self._answers.of_stream(stream_id, owner)) is not None:
            logged_session.set(live.session_id)
            return live.log
        turn = await self._stored(owner, stream_id)
        session = await self.session(owner, turn.session_id)
        log = await self.engine.find(f"{PATH}/{stream_id}")
        if log is not None and _is_abandoned(log, turn):
            await self.engine.forget(log)
            log = None
        if turn.state == "generating":  # elsewhere, and if its stream is lost, nothing more will come
            turn = replace(turn, state="interrupted")
        while log is None:
            try:
                log = await self.engine.new_stream(PATH, stream_id=stream_id, retention=KEEP_ALL)
            except LogExists:  # another caller was faster
                if (log := await self.engine.find(f"{PATH}/{stream_id}")) is None:
                    raise  # the producer of a forgotten log has yet to end
            else:
                await self.engine.produce(log, replay(turn, 2 * session.turns), encode=encode_object)
        return log

    async def stop(self, owner: str, stream_id: str) -> Turn:
        """Stop the model if it is still writing, and return the stored turn. Raise StreamNotFound."""
        if (live := self._answers.of_stream(stream_id, owner)) is not None:
            await self._answers.stop(live)
        turn = await self._stored(owner, stream_id)
        if turn.state == "generating" and await self._answers.stop_elsewhere(stream_id):
            turn = await self._stored(owner, stream_id)
        return turn

    # Sessions

    async def create(self, owner: str) -> Session:
        session = await self.store.create_session(str(uuid4()), owner, time.time(), limit=self._settings.max_sessions)
        logged_session.set(session.id)
        self._observer.session_created(owner)
        await self.changes.session("created", session)
        return session

    async def rename(self, owner: str, session_id: str, title: str) -> Session:
        """Give a session a title. Raise SessionNotFound."""
        if (session := await self.store.rename(session_id, owner, title)) is None:
            raise SessionNotFound(session_id)
        logged_session.set(session_id)
        await self.changes.session("renamed", session, await self.stream_of(owner, session_id))
        return session

    async def session(self, owner: str, session_id: str) -> Session:
        """Return a session. Raise SessionNotFound."""
        if (session := await self.store.session(session_id, owner)) is None:
            raise SessionNotFound(session_id)
        logged_session.set(session_id)
        return session

    async def turns(self, owner: str, session_id: str, *, limit: int, before: str | None = None) -> Page[Turn]:
        """Return a page of a session's newest turns in order of time. Raise BadToken."""
        page = await self.store.turns(session_id, owner, limit=limit, before=before)
        if any(self._answers.is_stale(turn, owner) for turn in page.items):
            # A turn may have ended while the store read it.
            page = await self.store.turns(session_id, owner, limit=limit, before=before)
        return Page([self._as_it_is(owner, turn) for turn in page.items], page.next)

    async def clear(self, owner: str, session_id: str) -> Session:
        """Stop the session's reply in progress, if any, and delete all turns. Raise SessionNotFound."""
        await self._stop_session(owner, session_id)
        if (cleared := await self.store.clear(session_id, owner)) is None:
            raise SessionNotFound(session_id)
        session, orphans = cleared
        logged_session.set(session_id)
        await self.changes.session("cleared", session)
        if await self._stop_orphans(owner, session_id, orphans):
            await self.changes.session("cleared", session)
        return session

    async def delete(self, owner: str, session_id: str) -> None:
        """Clear a session, then delete it. Raise SessionNotFound."""
        await self._stop_session(owner, session_id)
        if (orphans := await self.store.delete(session_id, owner)) is None:
            raise SessionNotFound(session_id)
        logged_session.set(session_id)
        await self.changes.deleted(owner, session_id)
        if await self._stop_orphans(owner, session_id, orphans):
            await self.changes.deleted(owner, session_id)

    async def stream_of(self, owner: str, session_id: str) -> str | None:
        """Return the id of the session's stream in progress, or None."""
        return (await self.streams_of(owner, [session_id])).get(session_id)

    async def streams_of(self, owner: str, session_ids: Sequence[str]) -> dict[str, str]:
        """Return the ids of the streams in progress of some sessions, by session."""
        lives = [self._answers.of_session(session_id, owner) for session_id in session_ids]
        streams = {live.session_id: live.stream_id for live in lives if live is not None and live.turn is not None}
        return {**await self._running_elsewhere(owner), **streams}

    # Checks

    async def _repeated(self, question: Question) -> Log | None:
        """Return the log of an earlier reply to the same question. Raise SessionBusy if the session answers another.

        If the session is not busy, return None: the store finds the earlier reply when it begins the turn.
        """
        if question.session_id is None:
            return None
        session_id, key = question.session_id, question.idempotency_key
        while (live := self._answers.of_session(session_id, question.owner)) is not None and live.turn is None:
            await live.begun.wait()  # also set if the turn is given up, so check again
        if live is None:
            return None
        if key is not None and key == live.question.idempotency_key:
            question.check_repeats(live.question.message, live.session_id, live.question.replace)
            return live.log
        if key is not None and (known := await self.store.known_turn(key, question.owner)) is not None:
            return await self._known(question, known)
        raise SessionBusy(live.session_id, live.stream_id)

    async def _known(self, question: Question, known: Turn) -> Log:
        question.check_repeats(known.message, known.session_id, known.replaces)
        return await self.find(question.owner, known.stream_id)

    def _check_limits(self, question: Question) -> None:
        settings = self._settings
        if (length := len(question.message)) > settings.max_message:
            raise MessageTooLong(settings.max_message, length)
        if self.engine.draining:
            raise ShuttingDown
        if self._answers.places_taken >= settings.max_streams:
            raise TooManyStreams(settings.max_streams)

    async def _stop_session(self, owner: str, session_id: str) -> None:
        if (live := self._answers.of_session(session_id, owner)) is not None:
            await self._answers.stop(live)
        elif (stream_id := (await self._running_elsewhere(owner)).get(session_id)) is not None:
            await self._answers.stop_elsewhere(stream_id)

    async def _running_elsewhere(self, owner: str) -> dict[str, str]:
        """Return the streams in progress at other workers, by session."""
        workers = self._answers.workers
        if not workers.shared:
            return {}
        running = await self.store.running(owner)
        return {turn.session_id: turn.stream_id for turn in running if turn.worker != workers.own}

    async def _stop_orphans(self, owner: str, session_id: str, stream_ids: Sequence[str]) -> bool:
        """Stop replies that began in the meantime and whose turns were deleted, so that they cannot be stored.

        Return whether there was one. If so, clients were told of a turn that began, so they must be told again what
        became of the session.
        """
        stopped = False
        for stream_id in stream_ids:
            live = self._answers.of_session(session_id, owner)
            if live is not None and live.stream_id == stream_id:
                await self._answers.stop(live)
                stopped = True
            elif self._answers.workers.shared:
                stopped |= await self._answers.stop_elsewhere(stream_id)
        return stopped

    async def _stored(self, owner: str, stream_id: str) -> Turn:
        turn = await self.store.find_turn(stream_id, owner)
        if turn is not None and self._answers.is_stale(turn, owner):
            turn = await self.store.find_turn(stream_id, owner)  # the turn may have ended while the store read it
        if turn is None:
            raise StreamNotFound(stream_id)
        logged_session.set(turn.session_id)
        return self._as_it_is(owner, turn)

    def _as_it_is(self, owner: str, turn: Turn) -> Turn:
        return self._answers.as_it_ended(turn) if self._answers.is_stale(turn, owner) else turn


def _is_abandoned(log: Log, turn: Turn) -> bool:
    """Tell whether a log ended because its worker died while it repeated a stored reply. It can be made again."""
    lost = log.outcome is not None and log.outcome.code == WORKER_LOST.code
    return lost and turn.state not in ("generating", "interrupted")
