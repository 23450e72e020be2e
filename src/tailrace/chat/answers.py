"""The turns in progress, each from the moment its message is stored until its end is stored."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from .. import Engine, Outcome, Producer, StreamError, TailraceError
from .changes import Changes
from .journal import session_id as logged_session
from .metrics import Observer
from .models.base import Model
from .objects import encode_object
from .rendering import KEEP_ALL
from .settings import ChatSettings
from .store import Begun, NewTurn, SessionRunning, Store, StoreError, Turn
from .turns import PATH, Live, RunningTurn, as_written, fit_context
from .workers import Workers

logger = logging.getLogger("tailrace.chat")

CHECKPOINT = 1.0
"""The most seconds of a reply that are lost if the server dies."""

MAX_UNSTORED = 1_000
"""The most turns that wait for the database. If there are more, the oldest ones are lost, except their checkpoints."""

WORKER_LOST = Outcome("error", "producer_lost", "the process that produced the stream is gone")
"""The end of a reply whose worker died. The store of the streams says the same."""

STORAGE_FAILED = StreamError("the reply could not be stored", code="storage_failed")


class Answers:
    """The sole owner of the turns that run in this process. A session has at most one, in any process."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        model: Model,
        observer: Observer,
        changes: Changes,
        settings: ChatSettings,
    ) -> None:
        self._engine = engine
        self._store = store
        self._model = model
        self._observer = observer
        self._changes = changes
        self._settings = settings
        self.workers = Workers(engine, store, self._see_out_worker, observer.figures)
        self._live: dict[tuple[str, str], Live] = {}  # by owner and session
        self._streams: dict[str, Live] = {}  # by stream; only turns that have begun
        self._unstored = Unstored(store)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run turns in this block. Close the engine within it.

        No turn of this server remains `generating`, nor one of an earlier server, unless workers share the database:
        they end the turns of those that died. Raise StoreError at the end if the database has not accepted all
        replies.
        """
        if not self.workers.shared and (interrupted := await self._store.interrupt_turns()):
            logger.warning("replies that the last end of the server interrupted: %d", interrupted)
        checkpoints = asyncio.create_task(self._checkpoint(), name="tailrace chat checkpoints")
        try:
            yield
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)  # they log their errors themselves
            checkpoints.cancel()
            await asyncio.wait([checkpoints])
            await self._unstored.store_last()

    def __len__(self) -> int:
        """Return how many turns have begun."""
        return len(self._streams)

    @property
    def places_taken(self) -> int:
        """The number of turns that have begun or are about to begin."""
        return len(self._live)

    def of_session(self, session_id: str, owner: str) -> Live | None:
        return self._live.get((owner, session_id))

    def of_stream(self, stream_id: str, owner: str) -> Live | None:
        live = self._streams.get(stream_id)
        return live if live is not None and live.question.owner == owner else None

    def is_stale(self, turn: Turn, owner: str) -> bool:
        """Tell whether a turn of this worker is `generating` in the database but not in progress here."""
        live = self.of_session(turn.session_id, owner)
        own = turn.state == "generating" and turn.worker == self.workers.own
        return own and (live is None or live.stream_id != turn.stream_id)

    def as_it_ended(self, turn: Turn) -> Turn:
        """Return a stale turn with the end that its readers saw, although the database has not accepted it."""
        return self._unstored.find(turn) or replace(turn, state="interrupted")

    async def begin(self, live: Live) -> Turn | None:
        """Store the message, then ask the model. If a turn with its idempotency key exists, only return that turn.

        The session must be free. It is taken before anything is awaited, so that no other request takes it, too.

        If the request is cancelled meanwhile, the reply begins all the same: a stored message without one would keep
        its session busy.
        """
        self._live[live.place] = live
        beginning = asyncio.create_task(self._begin(live), name="tailrace begin of a turn")
        self._keep(beginning)
        known = await asyncio.shield(beginning)
        logged_session.set(live.session_id)
        return known

    async def _begin(self, live: Live) -> Turn | None:
        try:
            live.write_to(await self._engine.new_stream(PATH, retention=KEEP_ALL))
            begun = await self._store_question(live)
            if begun.known is None:
                await self._start(live, begun)
        except SessionRunning as running:
            # If that worker died, its turn may have been stored after all others had ended the turns that it left.
            self.workers.watch(running.worker)
            raise
        finally:
            if live.turn is None:
                await self._give_up(live)
        return begun.known

    async def stop(self, live: Live) -> None:
        """Stop the model, and wait until the end is stored."""
        await live.begun.wait()
        if live.turn is not None:
            live.turn.stop()
            # Let the producer take its first step. Cancelled before that, it would close the log without a result.
            await asyncio.sleep(0)
            await self._engine.stop(live.log)
        await live.ended.wait()

    async def stop_elsewhere(self, stream_id: str) -> bool:
        """Stop the model at another worker, and wait until the end is stored. Return whether the reply was in progress.

        A worker that has just died cannot store an end. Others do, as soon as they know.
        """
        log = await self._engine.find(f"{PATH}/{stream_id}")
        if log is None or log.outcome is not None:
            return False
        await self._engine.stop(log)
        return True

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
                replaces=question.replace,
                worker=await self.workers.live(),
            ),
            question.owner,
            create=question.session_id is None or (question.create and settings.sessions_on_demand),
            session_limit=settings.max_sessions,
            turn_limit=settings.max_turns,
            context_turns=settings.context_messages // 2,
        )

    async def _start(self, live: Live, begun: Begun) -> None:
        question, settings = live.question, self._settings
        if begun.new_session:
            self._observer.session_created(question.owner)
        turns = begun.session.turns
        context = fit_context(
            begun.context,
            question.message,
            earlier=turns - 1,
            max_messages=settings.context_messages,
            max_characters=settings.context_characters,
        )
        logged_session.set(live.session_id)  # for the task of the turn
        watch = self._observer.turn_started(begun.turn, question.owner, question.client, question.transfer)
        turn = RunningTurn(
            begun.turn,
            context,
            self._model,
            watch,
            self._settle,
            message_count=2 * turns,
            max_reply=settings.max_reply,
        )
        live.turn = turn
        self._streams[live.stream_id] = live
        live.log.listen(live.heed)  # before the producer does, because it cancels the turn at a stop
        try:
            producer = await self._engine.produce(live.log, turn.objects(), encode=encode_object)
        except TailraceError as error:
            await self._fail(live, turn, error)
            raise
        self._busy.set()
        self._keep(asyncio.create_task(self._see_out(live, turn, producer), name=f"tailrace turn {live.stream_id}"))
        live.begun.set()
        if begun.new_session:
            await self._changes.session("created", begun.session)
        await self._changes.session("turn_began", begun.session, live.stream_id)

    async def _fail(self, live: Live, turn: RunningTurn, error: TailraceError) -> None:
        """Store the failure of a turn whose stream cannot begin."""
        logger.error("stream %s: the reply cannot begin: %s", live.stream_id, error)
        with suppress(StreamError):  # logged already
            await turn.end("failed", "streams_unavailable", "the stream of the reply could not begin")
        with suppress(TailraceError):
            await self._engine.forget(live.log)
        live.begun.set()
        live.ended.set()

    async def _see_out_worker(self, worker: str | None) -> None:
        """Interrupt the turns that a dead worker left. Other workers do the same, and the database decides who did."""
        for owner, turn in await self._store.left_by(worker):
            if turn.stream_id not in self._streams:  # this worker itself may have been taken for dead
                await self._interrupt(owner, turn)

    async def _interrupt(self, owner: str, turn: Turn) -> None:
        if (log := await self._engine.find(f"{PATH}/{turn.stream_id}")) is not None:
            await log.close(WORKER_LOST)  # in case that it had no producer yet
            turn = await as_written(turn, log)
        turn = replace(turn, state="interrupted")
        if await self._store.interrupt_turn(turn):
            logger.warning("stream %s: interrupted after %d chunks: its worker died", turn.stream_id, turn.chunks)
            await self._changes.turn_ended(owner, turn)

    async def _settle(self, turn: RunningTurn) -> None:
        """Store the end of a turn. After that, its session accepts another message."""
        live = self._streams[turn.turn.stream_id]
        storing = asyncio.create_task(self._store_end(live, turn), name=f"tailrace end of turn {live.stream_id}")
        self._keep(storing)
        while not storing.done():
            # A stop or the server's shutdown comes too late to change this end, so it must wait.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([storing])
        storing.result()

    async def _store_end(self, live: Live, turn: RunningTurn) -> None:
        try:
            await self._store.end_turn(turn.turn)
        except StoreError as error:
            logger.error("stream %s: the reply could not be stored: %s", live.stream_id, error)
            self._unstored.add(turn.turn)
            turn.turn = unstored(turn.turn)
            raise StreamError(STORAGE_FAILED.message, code=STORAGE_FAILED.code) from error
        finally:
            turn.watch.ended(turn.turn)
            self._forget(live)
            await self._changes.turn_ended(live.question.owner, turn.turn)

    async def _see_out(self, live: Live, turn: RunningTurn, producer: Producer) -> None:
        """Settle a turn whose generator did not, because it never ran or because it ignores its cancellation."""
        try:
            await producer.wait()
            with suppress(StreamError):  # logged already
                await turn.end_unheard()
        except Exception:  # nobody else would log it
            logger.exception("stream %s: the end of the reply raised", live.stream_id)
        finally:
            live.ended.set()

    async def _give_up(self, live: Live) -> None:
        """Forget a turn that did not begin."""
        del self._live[live.place]
        self._rest()
        if live.stream_id:
            with suppress(TailraceError):  # a stream that nobody writes ends by itself
                await self._engine.forget(live.log)
        live.begun.set()
        live.ended.set()

    def _forget(self, live: Live) -> None:
        del self._live[live.place]
        del self._streams[live.stream_id]
        live.log.unlisten(live.heed)
        self._rest()

    def _rest(self) -> None:
        if not self._live and not self._unstored:
            self._busy.clear()

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _checkpoint(self) -> None:
        """Store the partial text of all replies in progress, in one transaction per second."""
        stored: dict[int, int] = {}
        named = self.workers.own
        while True:
            await self._busy.wait()
            await asyncio.sleep(CHECKPOINT)
            turns = [live.turn for live in self._live.values() if live.turn is not None]
            worker = self.workers.own  # another one after this worker was taken for dead
            known = stored if worker == named else {}
            grown = [turn for turn in turns if turn.chunks > known.get(turn.turn.number, -1)]
            chunks = {turn.turn.number: turn.chunks for turn in turns}
            try:
                await self._store.checkpoint([(turn.turn.number, turn.text, turn.chunks) for turn in grown], worker)
                stored, named = chunks, worker
                await self._unstored.store_all()
            except StoreError as error:
                logger.error("the checkpoint of %d replies failed: %s", len(grown), error)
            except Exception:  # one failure must not end all later checkpoints
                logger.exception("the checkpoint of %d replies failed", len(grown))
            self._rest()


class Unstored:
    """Keeps turns until the database accepts their ends. It may be full or unavailable for a while."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: dict[int, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, turn: Turn) -> None:
        self._turns[turn.number] = turn
        if len(self._turns) > MAX_UNSTORED:
            lost = self._turns.pop(next(iter(self._turns)))
            logger.error("stream %s: the reply is lost, because the database does not accept it", lost.stream_id)

    def find(self, turn: Turn) -> Turn | None:
        """Return the turn with the end that its readers saw, if it is kept here."""
        kept = self._turns.get(turn.number)
        return kept and unstored(kept)

    async def store_all(self) -> None:
        """Try to store all turns, until one attempt fails."""
        for number, turn in tuple(self._turns.items()):
            try:
                await self._store.end_turn(turn)
            except StoreError:  # logged at the first attempt
                return
            # Another task may have dropped the turn in the meantime to make room.
            self._turns.pop(number, None)
            logger.info("stream %s: the reply is stored now", turn.stream_id)

    async def store_last(self) -> None:
        """Try once more, at the server's shutdown. Raise StoreError if replies are lost."""
        await self.store_all()
        if self._turns:
            streams = ", ".join(turn.stream_id for turn in self._turns.values())
            raise StoreError(f"{self._store.place}: did not take {len(self._turns)} replies, which are lost: {streams}")


def unstored(turn: Turn) -> Turn:
    """Return a turn with the end that its readers see if the database does not accept it."""
    return replace(turn, state="failed", error_code=STORAGE_FAILED.code, error_message=STORAGE_FAILED.message)
