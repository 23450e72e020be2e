"""The turns that are being answered: each from the message that is stored to the end that is stored."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from .. import Engine, Producer, StreamError
from .context import fit_context
from .live import Live
from .models.base import Model
from .objects import encode_object
from .observer import Observer
from .requests import session_id as logged_session
from .sessions import Turn
from .settings import ChatSettings
from .store import Begun, NewTurn, Store, StoreError
from .turns import RunningTurn
from .unstored import Unstored

logger = logging.getLogger("tailrace.chat")

CHECKPOINT = 1.0
"""Seconds of a reply that a sudden death of the server can lose, at most."""


class Answers:
    """One for a server: the sole owner of the turns that run in it, one at a time in a session."""

    def __init__(self, engine: Engine, store: Store, model: Model, observer: Observer, settings: ChatSettings) -> None:
        self._engine = engine
        self._store = store
        self._model = model
        self._observer = observer
        self._settings = settings
        self._live: dict[str, Live] = {}  # by session
        self._streams: dict[str, Live] = {}  # those that have begun
        self._unstored = Unstored(store)
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing is left `generating` by an earlier server, nor by this one. End the engine inside of this."""
        if interrupted := await self._store.interrupt_turns():
            logger.warning("replies interrupted by the last end of the server: %d", interrupted)
        checkpoints = asyncio.create_task(self._checkpoint(), name="tailrace chat checkpoints")
        try:
            yield
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)  # which log what they raise
            checkpoints.cancel()
            await asyncio.wait([checkpoints])
            await self._unstored.store_all()

    def __len__(self) -> int:
        """How many have begun."""
        return len(self._streams)

    @property
    def places_taken(self) -> int:
        """The same, with those that are about to begin."""
        return len(self._live)

    def of_session(self, session_id: str) -> Live | None:
        return self._live.get(session_id)

    def of_stream(self, stream_id: str, owner: str) -> Live | None:
        """None for another owner's, too."""
        live = self._streams.get(stream_id)
        return live if live is not None and live.question.owner == owner else None

    async def begin(self, live: Live) -> Turn | None:
        """Store the message, then ask the model. Answers the turn that the idempotency key stands for already."""
        self._live[live.session_id] = live
        try:
            begun = await self._store_question(live)
            if begun.known is None:
                self._start(live, begun)
        finally:
            if live.turn is None:
                self._give_up(live)
        return begun.known

    async def stop(self, live: Live) -> None:
        """Stop the model, and wait until the end is stored."""
        await live.begun.wait()
        if live.turn is not None:
            live.turn.stop()
            # A producer that is cancelled before its first step closes a log without a word; it takes that step here.
            await asyncio.sleep(0)
            await self._engine.stop(live.log)
        await live.ended.wait()

    async def _store_question(self, live: Live) -> Begun:
        question, settings = live.question, self._settings
        return await self._store.begin_turn(
            NewTurn(
                session_id=live.session_id,
                stream_id=live.stream_id,
                idempotency_key=question.idempotency_key,
                message=question.message,
                model=self._model.name,
                created=time.time(),
            ),
            question.owner,
            new_session=question.session_id is None,
            session_limit=settings.max_sessions,
            turn_limit=settings.max_turns,
            context_turns=settings.context_messages // 2,
        )

    def _start(self, live: Live, begun: Begun) -> None:
        question, settings = live.question, self._settings
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
        live.turn = turn = RunningTurn(
            begun.turn,
            context,
            self._model,
            watch,
            self._settle,
            message_count=2 * turns,
            max_reply=settings.max_reply,
        )
        self._streams[live.stream_id] = live
        self._busy.set()
        producer = self._engine.produce(live.log, turn.objects(), encode=encode_object)
        self._keep(asyncio.create_task(self._see_out(live, turn, producer), name=f"tailrace turn {live.stream_id}"))
        live.begun.set()

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
            await self._store.end_turn(turn.turn)
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
        try:
            await producer.wait()
            with suppress(StreamError):  # logged where it was raised
                await turn.end_unheard()
        except Exception:  # nobody else would say so
            logger.exception("stream %s: the end of the reply raised", live.stream_id)
        finally:
            live.ended.set()

    def _give_up(self, live: Live) -> None:
        """A turn that does not begin."""
        self._forget(live)
        self._engine.forget(live.log)
        live.begun.set()
        live.ended.set()

    def _forget(self, live: Live) -> None:
        del self._live[live.session_id]
        self._streams.pop(live.stream_id, None)
        self._rest()

    def _rest(self) -> None:
        if not self._live and not self._unstored:
            self._busy.clear()

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
            chunks = {turn.turn.number: turn.chunks for turn in turns}
            try:
                await self._store.checkpoint([(turn.turn.number, turn.text, turn.chunks) for turn in grown])
                stored = chunks
                await self._unstored.store_all()
            except StoreError as error:
                logger.error("%d replies could not be stored in between: %s", len(grown), error)
            except Exception:  # a reason of one moment must not be the end of all later checkpoints
                logger.exception("%d replies could not be stored in between", len(grown))
            self._rest()
