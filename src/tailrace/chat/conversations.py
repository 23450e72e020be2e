"""Sessions that are talked with: who asks, what runs, and what is stored of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

from .. import Engine, Log, Producer, Retention, StreamError
from .context import fit_context
from .errors import (
    KeyReused,
    MessageTooLong,
    SessionBusy,
    SessionNotFound,
    ShuttingDown,
    StreamNotFound,
    TooManyStreams,
)
from .models.base import Model
from .objects import encode_object
from .observer import Observer
from .replay import replay
from .requests import session_id as logged_session
from .sessions import Session, Turn
from .settings import ChatSettings
from .store import NewTurn, Store, StoreError
from .turns import RunningTurn
from .unstored import Unstored

logger = logging.getLogger("tailrace.chat")

PATH = "/chat/stream"

CHECKPOINT = 1.0
"""Seconds of a reply that a sudden death of the server can lose, at most."""

# A reply is as long as its model makes it; what could not be read from its beginning would be lost to a reload.
KEEP_ALL = Retention(count=None, size=None)


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks; `session_id` None begins a new session, `client` is its address."""

    owner: str
    message: str
    session_id: str | None = None
    idempotency_key: str | None = None
    client: str = ""

    def check_repeats(self, message: str, session_id: str) -> None:
        """That it is the question of the turn that has its idempotency key. KeyReused if it asks something else."""
        if message != self.message or self.session_id not in (None, session_id):
            raise KeyReused


@dataclass(slots=True)
class Live:
    """A reply that is being written: its log, and the turn from the moment that it is stored.

    Nobody else reads the log before `begun`, because the turn may not come to be.
    """

    question: Question
    session_id: str
    log: Log
    turn: RunningTurn | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stream_id(self) -> str:
        return self.log.name.rpartition("/")[2]


class Conversations:
    """One for a server: the sole owner of the turns that run in it."""

    def __init__(self, engine: Engine, store: Store, model: Model, observer: Observer, settings: ChatSettings) -> None:
        self.engine = engine
        self.store = store
        self.model = model
        self._observer = observer
        self._settings = settings
        self._live: dict[str, Live] = {}  # by session: one turn at a time
        self._streams: dict[str, Live] = {}  # those that have begun
        self._unstored = Unstored(store)
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing is left `generating` by an earlier server, nor by this one. End the engine inside of this."""
        if interrupted := await self.store.interrupt_turns():
            logger.warning("interrupted by the last end of the server: %d replies", interrupted)
        checkpoints = asyncio.create_task(self._checkpoint(), name="tailrace chat checkpoints")
        try:
            yield
        finally:
            await asyncio.gather(*self._tasks)
            checkpoints.cancel()
            await asyncio.wait([checkpoints])
            await self._unstored.store_all()

    # Turns

    @property
    def active(self) -> int:
        """How many replies are being written."""
        return len(self._streams)

    async def ask(self, question: Question) -> Log:
        """The log of the reply, which has begun when this returns. A Refused if it cannot.

        A question that repeats another's idempotency key gets that one's reply.
        """
        if (same := await self._repeated(question)) is not None:
            return same
        self._check_limits(question)
        session_id = question.session_id or str(uuid4())
        live = Live(question, session_id, self.engine.new_stream(PATH, retention=KEEP_ALL))
        self._live[session_id] = live
        try:
            known = await self._begin(live)
        finally:
            if live.turn is None:
                self._give_up(live)
        if known is None:
            return live.log
        question.check_repeats(known.message, known.session_id)
        return await self.find(question.owner, known.stream_id)

    async def find(self, owner: str, stream_id: str) -> Log:
        """The log of a reply, made again from the store if it has been forgotten. StreamNotFound."""
        if (live := self._streams.get(stream_id)) is not None and live.question.owner == owner:
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
        if (live := self._streams.get(stream_id)) is not None and live.question.owner == owner:
            await self._stop(live)
        return await self._stored(owner, stream_id)

    # Sessions

    async def create(self, owner: str) -> Session:
        session = await self.store.create_session(str(uuid4()), owner, time.time(), limit=self._settings.max_sessions)
        self._observer.session_created()
        return session

    async def session(self, owner: str, session_id: str) -> Session:
        """SessionNotFound, also for another owner's."""
        if (session := await self.store.session(session_id, owner)) is None:
            raise SessionNotFound(session_id)
        return session

    async def clear(self, owner: str, session_id: str) -> None:
        """Stop the session's reply, if it is writing one, and remove all turns."""
        await self._stop_session(owner, session_id)
        if not await self.store.clear(session_id, owner):
            raise SessionNotFound(session_id)

    async def delete(self, owner: str, session_id: str) -> None:
        """The same, and remove the session itself."""
        await self._stop_session(owner, session_id)
        if not await self.store.delete(session_id, owner):
            raise SessionNotFound(session_id)
        # A message may have come in between; nobody can read its reply any more.
        await self._stop_session(owner, session_id)

    def stream_of(self, session_id: str) -> str | None:
        """The id of the stream that a session is answering with."""
        live = self._live.get(session_id)
        return live.stream_id if live is not None and live.turn is not None else None

    # How a turn runs

    async def _repeated(self, question: Question) -> Log | None:
        """The log of a running reply to the same question. SessionBusy if it answers another."""
        if question.session_id is None:
            return None
        while (live := self._live.get(question.session_id)) is not None and live.turn is None:
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
        if len(self._live) >= settings.max_streams:
            raise TooManyStreams(settings.max_streams)

    async def _begin(self, live: Live) -> Turn | None:
        """Store the message, then ask the model. Answers the turn that the idempotency key stands for already."""
        question, settings = live.question, self._settings
        begun = await self.store.begin_turn(
            NewTurn(
                session_id=live.session_id,
                stream_id=live.stream_id,
                idempotency_key=question.idempotency_key,
                message=question.message,
                model=self.model.name,
                created=time.time(),
            ),
            question.owner,
            new_session=question.session_id is None,
            session_limit=settings.max_sessions,
            turn_limit=settings.max_turns,
            context_turns=settings.context_messages // 2,
        )
        if begun.known is not None:
            return begun.known
        if question.session_id is None:
            self._observer.session_created()
        turns = begun.session.turns
        context = fit_context(
            begun.context,
            question.message,
            earlier=turns - 1,
            max_messages=settings.context_messages,
            max_characters=settings.context_characters,
        )
        logged_session.set(live.session_id)  # in this request, and in the task of its turn
        watch = self._observer.turn_started(begun.turn, question.client)
        live.turn = turn = RunningTurn(begun.turn, context, self.model, watch, self._settle, message_count=2 * turns)
        self._streams[live.stream_id] = live
        self._busy.set()
        producer = self.engine.produce(live.log, turn.objects(), encode=encode_object)
        self._keep(asyncio.create_task(self._see_out(live, turn, producer), name=f"tailrace turn {live.stream_id}"))
        live.begun.set()
        return None

    async def _settle(self, turn: RunningTurn) -> None:
        """Store how a turn ended; from now on its session can be asked again."""
        live = self._streams[turn.turn.stream_id]
        storing = asyncio.create_task(self._store_end(live, turn), name=f"tailrace end of turn {live.stream_id}")
        self._keep(storing)
        while not storing.done():
            # A stop, or the end of the server, comes too late to undo the end; who sent it waits for just that.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([storing])
        storing.result()

    async def _store_end(self, live: Live, turn: RunningTurn) -> None:
        try:
            await self.store.end_turn(turn.turn)
        except StoreError as error:
            logger.error("stream %s: the reply could not be stored: %s", live.stream_id, error)
            failure = StreamError("the reply could not be stored", code="storage_failed")
            self._unstored.add(turn.turn)
            turn.turn = replace(turn.turn, state="failed", error_code=failure.code, error_message=failure.message)
            raise failure from error
        finally:
            self._observer.turn_ended(turn.turn)
            self._forget(live)

    async def _see_out(self, live: Live, turn: RunningTurn, producer: Producer) -> None:
        """The end of a turn whose generator did not come so far: it never ran, or ignores its cancellation."""
        await producer.wait()
        with suppress(StreamError):  # logged where it was raised
            await turn.end_unheard()
        live.ended.set()

    def _give_up(self, live: Live) -> None:
        """A turn that does not begin."""
        self._forget(live)
        self.engine.forget(live.log)
        live.begun.set()
        live.ended.set()

    def _forget(self, live: Live) -> None:
        del self._live[live.session_id]
        self._streams.pop(live.stream_id, None)
        self._rest()

    def _rest(self) -> None:
        if not self._live and not self._unstored:
            self._busy.clear()

    async def _stop(self, live: Live) -> None:
        await live.begun.wait()
        if live.turn is not None:
            live.turn.stop()
            # A producer that is cancelled before its first step closes a log without a word; it takes that step here.
            await asyncio.sleep(0)
            await self.engine.stop(live.log)
        await live.ended.wait()

    async def _stop_session(self, owner: str, session_id: str) -> None:
        if (live := self._live.get(session_id)) is not None and live.question.owner == owner:
            await self._stop(live)

    async def _stored(self, owner: str, stream_id: str) -> Turn:
        if (turn := await self.store.find_turn(stream_id, owner)) is None:
            raise StreamNotFound(stream_id)
        return turn

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _checkpoint(self) -> None:
        """Store what there is of the replies that are being written, all in one transaction."""
        stored: dict[int, int] = {}
        while True:
            await self._busy.wait()
            await asyncio.sleep(CHECKPOINT)
            turns = [live.turn for live in self._live.values() if live.turn is not None]
            grown = [turn for turn in turns if turn.chunks > stored.get(turn.turn.number, 0)]
            stored = {turn.turn.number: turn.chunks for turn in turns}
            try:
                await self.store.checkpoint([(turn.turn.number, turn.text, turn.chunks) for turn in grown])
            except StoreError as error:
                logger.error("%d replies could not be stored in between: %s", len(grown), error)
            await self._unstored.store_all()
            self._rest()
