"""Sessions that are talked with: who may ask what, and which log has the reply."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from uuid import uuid4

from .. import Engine, Log, Retention
from .answers import Answers
from .errors import (
    MessageTooLong,
    SessionBusy,
    SessionNotFound,
    ShuttingDown,
    StreamNotFound,
    TooManyStreams,
)
from .live import Live, Question
from .models.base import Model
from .objects import encode_object
from .observer import Observer
from .replay import replay
from .requests import session_id as logged_session
from .sessions import Session, Turn
from .settings import ChatSettings
from .store import Store

PATH = "/chat/stream"

# A reply is as long as its model makes it; what could not be read from its beginning would be lost to a reload.
KEEP_ALL = Retention(count=None, size=None)


class Conversations:
    """One for a server. Everything is done in the name of an owner, who sees nothing of another's."""

    def __init__(self, engine: Engine, store: Store, model: Model, observer: Observer, settings: ChatSettings) -> None:
        self.engine = engine
        self.store = store
        self.model = model
        self._observer = observer
        self._settings = settings
        self._answers = Answers(engine, store, model, observer, settings)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Turns can run inside of this, where the engine has to end, too."""
        return self._answers.running()

    # Turns

    @property
    def active(self) -> int:
        """How many replies are being written."""
        return len(self._answers)

    async def ask(self, question: Question) -> Log:
        """The log of the reply, which has begun when this returns. A Refused if it cannot.

        A question that repeats another's idempotency key gets that one's reply.
        """
        if (same := await self._repeated(question)) is not None:
            return same
        self._check_limits(question)
        session_id = question.session_id or str(uuid4())
        live = Live(question, session_id, self.engine.new_stream(PATH, retention=KEEP_ALL))
        if (known := await self._answers.begin(live)) is None:
            return live.log
        question.check_repeats(known.message, known.session_id)
        return await self.find(question.owner, known.stream_id)

    async def find(self, owner: str, stream_id: str) -> Log:
        """The log of a reply, made again from the store if it has been forgotten. StreamNotFound."""
        if (live := self._answers.of_stream(stream_id, owner)) is not None:
            logged_session.set(live.session_id)
            return live.log
        turn = await self._stored(owner, stream_id)
        session = await self.session(owner, turn.session_id)
        # Nothing may be awaited after this: of two who ask, the second has to find the log of the first.
        if (log := await self.engine.find(f"{PATH}/{stream_id}")) is None:
            log = self.engine.new_stream(PATH, stream_id=stream_id, retention=KEEP_ALL)
            self.engine.produce(log, replay(turn, 2 * session.turns), encode=encode_object)
        return log

    async def stop(self, owner: str, stream_id: str) -> Turn:
        """Stop the model, if it is still writing; the turn as it is stored then. StreamNotFound."""
        if (live := self._answers.of_stream(stream_id, owner)) is not None:
            await self._answers.stop(live)
        return await self._stored(owner, stream_id)

    # Sessions

    async def create(self, owner: str) -> Session:
        session = await self.store.create_session(str(uuid4()), owner, time.time(), limit=self._settings.max_sessions)
        logged_session.set(session.id)
        self._observer.session_created()
        return session

    async def session(self, owner: str, session_id: str) -> Session:
        """SessionNotFound, also for another owner's."""
        if (session := await self.store.session(session_id, owner)) is None:
            raise SessionNotFound(session_id)
        logged_session.set(session_id)
        return session

    async def clear(self, owner: str, session_id: str) -> None:
        """Stop the session's reply, if it is writing one, and remove all turns."""
        await self._stop_session(owner, session_id)
        if not await self.store.clear(session_id, owner):
            raise SessionNotFound(session_id)
        logged_session.set(session_id)
        # A message may have come in between; its turn is gone, and its reply can be stored nowhere.
        if (live := self._answers.of_session(session_id)) is not None and live.question.owner == owner:
            await live.begun.wait()
            if await self.store.find_turn(live.stream_id, owner) is None:
                await self._answers.stop(live)

    async def delete(self, owner: str, session_id: str) -> None:
        """The same, and remove the session itself."""
        await self._stop_session(owner, session_id)
        if not await self.store.delete(session_id, owner):
            raise SessionNotFound(session_id)
        logged_session.set(session_id)
        # A message may have come in between; nobody can read its reply any more.
        await self._stop_session(owner, session_id)

    def stream_of(self, session_id: str) -> str | None:
        """The id of the stream that a session is answering with."""
        live = self._answers.of_session(session_id)
        return live.stream_id if live is not None and live.turn is not None else None

    # What stands in the way

    async def _repeated(self, question: Question) -> Log | None:
        """The log of a running reply to the same question. SessionBusy if it answers another."""
        if question.session_id is None:
            return None
        while (live := self._answers.of_session(question.session_id)) is not None and live.turn is None:
            await live.begun.wait()  # or given up: then the next one tries
        if live is None:
            return None
        if live.question.owner != question.owner:
            raise SessionNotFound(question.session_id)
        key = question.idempotency_key
        if key is None or key != live.question.idempotency_key:
            raise SessionBusy(live.session_id, live.stream_id)
        question.check_repeats(live.question.message, live.session_id)
        return live.log

    def _check_limits(self, question: Question) -> None:
        settings = self._settings
        if (length := len(question.message)) > settings.max_message:
            raise MessageTooLong(settings.max_message, length)
        if self.engine.draining:
            raise ShuttingDown
        if self._answers.places_taken >= settings.max_streams:
            raise TooManyStreams(settings.max_streams)

    async def _stop_session(self, owner: str, session_id: str) -> None:
        if (live := self._answers.of_session(session_id)) is not None and live.question.owner == owner:
            await self._answers.stop(live)

    async def _stored(self, owner: str, stream_id: str) -> Turn:
        if (turn := await self.store.find_turn(stream_id, owner)) is None:
            raise StreamNotFound(stream_id)
        logged_session.set(turn.session_id)
        return turn
