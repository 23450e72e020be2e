"""The task that runs an application's generator or job and writes its items to a log."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Final, Literal, TypeAlias

from pydantic_core import from_json

from .errors import EventError, LogClosed, LogFenced, StreamError
from .events import DONE, Encode, Outcome, Result, encode_data, encode_event
from .flow import Flow
from .iterators import THREADS, Items, Job, Threads, as_async, close_items
from .log.base import Log
from .log.writer import Writer

logger = logging.getLogger("tailrace")

OnDisconnect: TypeAlias = Literal["cancel", "detach"]
"""The fate of a generator without readers: `cancel` stops it after a grace, and `detach` lets it finish."""
Describe: TypeAlias = Callable[[Exception], Outcome]
"""A function from an exception to the outcome that clients see."""

CHECKPOINT = 256
"""The number of items after which other tasks get to run, even if the generator never suspends."""

UNTOLD = frozenset({"internal_error", "not_serializable"})
"""The codes of outcomes that hide the cause from clients. The server's log must have the cause."""

STOPPED = Outcome("cancelled", "stopped", "the stream was stopped")
DISCONNECTED = Outcome("cancelled", "disconnected", "every reader left")

_CANCELLED = Outcome("cancelled", "cancelled", "the producer was cancelled")
_INTERNAL_ERROR = Outcome("error", "internal_error", "Internal Server Error")


def describe_error(error: Exception) -> Outcome:
    """Return the outcome that clients see: the message of a StreamError, but nothing about any other exception."""
    if isinstance(error, StreamError):
        return Outcome("error", error.code, error.message)
    if isinstance(error, EventError):
        return Outcome("error", "not_serializable", "an event could not be encoded")
    return _INTERNAL_ERROR


class State(Enum):
    """The state of a producer. `TRANSITIONS` has the ways from one state to another."""

    RUNNING = auto()
    """The generator runs, and nobody wants it to end."""
    STOPPING = auto()
    """The generator was cancelled. Items that it yields within its patience are kept."""
    INSISTING = auto()
    """Like STOPPING, after a cancellation that arrived between two items and was passed on to the generator."""
    LINGERING = auto()
    """The application has said the end, which is stored. The generator goes on without its log."""
    CLOSING = auto()
    """The generator is closed. The end is being stored."""
    ENDED = auto()
    """Nothing is left to do."""
    STUCK = auto()
    """The generator was given up, because it ignored the cancellation. The log ends without it."""


class Cause(Enum):
    """An event in the life of a producer."""

    READERS = auto()
    """A reader joined or left, here or elsewhere."""
    STOP = auto()
    """Somebody asked for the end, in any process."""
    ABANDONED = auto()
    """Nobody has read the log for the grace."""
    LOST = auto()
    """The log has ended, or has another writer."""
    DECLARED = auto()
    """The application said the end, and its generator goes on."""
    INTERRUPTED = auto()
    """The task was cancelled while the producer paused between two items."""
    FINISHED = auto()
    """The generator ended by itself."""
    FAILED = auto()
    """The generator raised an exception, or yielded what cannot be encoded."""
    CANCELLED = auto()
    """The generator ended because of a cancellation."""
    UNBEGUN = auto()
    """The task was cancelled before its first step, so nobody has closed the items."""
    OVERDUE = auto()
    """The patience with a generator that should end is over."""
    STORED = auto()
    """The end is stored, or was told to the readers of this process alone."""


class Producer:
    """Owns a generator or a job and is the sole writer of its log.

    The task that ran the generator also closes it, whether it ends by itself, by an error, by a stop, or because all
    readers left. Readers always learn the outcome. `TRANSITIONS` is the whole life of a producer. There, and wherever
    a generator is mentioned, a job's function is meant too.
    """

    def __init__(
        self,
        writer: Writer,
        items: Items,
        *,
        encode: Encode = encode_event,
        describe: Describe = describe_error,
        flow: Flow | None = None,
        on_disconnect: OnDisconnect = "cancel",
        grace: float = 10.0,
        patience: float = 5.0,
        reports: bool = True,
        threads: Threads | None = None,
        on_finish: Callable[[Producer], None] | None = None,
    ) -> None:
        """Start the generator in a task.

        - `writer`: the lease of the log. The producer gives it back.
        - `encode`: a function from an item to its event name and its data as one line of JSON.
        - `describe`: a function from an exception to the outcome that clients see.
        - `flow`: `Flow.block` makes the generator wait for its readers. This is the default unless it is detached.
        - `on_disconnect`: `cancel` stops a generator without readers; `detach` lets it run.
        - `grace`: seconds without readers before `cancel` stops the generator.
        - `patience`: seconds that a cancelled generator may take to end, and that a store may take to store the end.
        - `reports`: whether to log an error that the outcome hides. Pass False if the request raises the error itself.
        - `threads`: the bound on sync generators that run at once. None means no bound.
        - `on_finish`: a function to call once, when the log has ended, and the generator has left or was given up.
        """
        self.log = log = writer.log
        self.fence = writer.fence
        self.state = State.RUNNING
        self.error: Exception | None = None
        self._writer = writer
        self._items = items.steps(self) if isinstance(items, Job) else as_async(items)
        self._encode = encode
        self._describe = describe
        self._detached = on_disconnect == "detach"
        flow = flow or (Flow.log() if self._detached else Flow.block())
        self._blocks = flow.policy == "block"
        self._high = flow.high if self._blocks else sys.maxsize
        self._grace = grace
        self._patience = patience
        self.reports = reports
        self._threads = threads
        self._on_finish = on_finish
        self._begun = False
        self._before = log.top  # the entries of earlier writers
        self._left = min(CHECKPOINT, self._high)  # how many items may be sent before the next checkpoint
        self._turns = asyncio.Lock()  # a log has one waiter for room at a time
        self._outcome: Outcome | None = None
        self._closed = False  # True from when the end is being stored, so that no item comes too late
        self._declared: asyncio.Task[Outcome | None] | None = None  # stores an end that the application said
        self._result: Any = None  # the data of the generator's Result
        self._timer: asyncio.TimerHandle | None = None
        self._apart: asyncio.Task[None] | None = None  # closes or ends what the producer's own task cannot
        self._finished = asyncio.Event()
        # Not by `create_task`: an eager task factory would run the generator before this producer is complete.
        loop = asyncio.get_running_loop()
        self.task = asyncio.Task(self._run(), loop=loop, name=f"tailrace producer {log.name}")
        self.task.add_done_callback(self._leave_unbegun)
        log.listen(self._heed)
        self._heed(log)

    @property
    def finished(self) -> bool:
        """True if the log has ended, and the generator has left or was given up."""
        return self._finished.is_set()

    @property
    def detached(self) -> bool:
        """True if the generator runs on without readers."""
        return self._detached

    @property
    def stuck(self) -> bool:
        """True if the generator was given up, because it ignored its cancellation."""
        return self.state is State.STUCK

    @property
    def begun(self) -> bool:
        """True once the log has an item of this producer, or after `begin`."""
        return self._begun or self.log.top > self._before

    def begin(self) -> None:
        """Let the response begin before the first item. From now on, readers are told of an error as of an end."""
        self._begun = True
        self.log.wake_readers()

    async def send(self, item: Any, *, last: Outcome | None = None) -> None:
        """Write an item, from any task of this event loop, as if the generator had yielded it.

        Where the generator would have to wait, wait first. If the wait is cancelled, nothing is written. After a stop,
        items are kept as long as the generator runs. With `last`, nothing may follow the item: the outcome ends the log
        as `finish` does.

        Raise EventError for data that is not JSON-able, LogFenced if the log belongs to another writer, and LogClosed
        after the end, or for a last item after a stop.
        """
        if type(item) is Result:
            self._keep_result(item)
            return
        event, json = self._encode(item)
        if self._left <= 0 or self.log.full:
            await self._wait_turn()
        if self._closed or (last is not None and self.state is not State.RUNNING):
            raise self._refusal()
        self._left -= 1
        self._writer.write(event, json)
        if last is not None:
            await self.finish(last)

    async def finish(self, outcome: Outcome = DONE) -> None:
        """Store the end now, after all that was written, and let the generator go on without its log.

        It may go on for `patience` seconds, and is stopped then. Further items are refused, and an error is logged
        instead of told. Do nothing if the end has been decided already: by an earlier `finish`, a stop or an error.

        If this is cancelled, the end is stored nevertheless.
        """
        self._happen(Cause.DECLARED, outcome)
        if self._declared is not None:
            await asyncio.shield(self._declared)

    def stop(self, outcome: Outcome = STOPPED) -> None:
        """Cancel the generator at its current or next `await`.

        The log keeps the items that the generator yields within `patience` seconds while it ends. A generator that
        never suspends is closed within 256 items, and one that has not begun is closed immediately.
        """
        self._happen(Cause.STOP, outcome)

    def hurry(self) -> None:
        """Drop the grace, because no reader can come back."""
        self._grace = 0.0
        self._heed(self.log)

    async def wait(self) -> None:
        """Wait until the log has ended, and the generator has left or was given up."""
        await self._finished.wait()

    # What happens to a producer

    def _happen(self, cause: Cause, outcome: Outcome | None = None) -> Awaitable[None] | None:
        """Make the transition for what happened, if there is one. Return what is left for the caller to await.

        The first cause that has an outcome decides it: `outcome`, or else the one in `OUTCOMES`.
        """
        if (transition := TRANSITIONS[self.state].get(cause)) is None:
            return None
        if self._outcome is None:
            self._outcome = outcome or OUTCOMES.get(cause)
        self.state, act = transition
        return act(self)

    def _heed(self, log: Log) -> None:
        """Take note of a change of the log or of what its store says about it."""
        if self._writer.lost:
            self._happen(Cause.LOST)
        elif log.control.stopping:
            self._happen(Cause.STOP)
        else:
            self._happen(Cause.READERS)

    def _leave_unbegun(self, _: object) -> None:
        """Note that the task was cancelled before its first step."""
        self._happen(Cause.STOP, _CANCELLED)  # unless a stop cancelled it
        self._happen(Cause.UNBEGUN)

    def _set_timer(self, delay: float | None, cause: Cause | None = None) -> None:
        """Let `cause` happen after a delay, in place of the cause that was to happen before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None and cause is not None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._happen, cause)

    # The generator

    async def _run(self) -> None:
        """Run the generator and close it, both in this task."""
        self.task.remove_done_callback(self._leave_unbegun)
        THREADS.set(self._threads)
        cause, outcome = Cause.FAILED, None
        try:
            try:
                if self.state is State.RUNNING:
                    await self._write_all()
            finally:
                await close_items(self._items)
            cause = Cause.FINISHED
        except asyncio.CancelledError as error:
            cause = Cause.CANCELLED
            if self.state in (State.RUNNING, State.LINGERING):
                if _is_cancelled():
                    raise
                cause, outcome = self._explain(_sent_by_nobody(error))
        except Exception as error:
            cause, outcome = self._explain(error)
        finally:
            if (end := self._happen(cause, outcome)) is not None:
                await end

    async def _write_all(self) -> None:
        log, write, encode = self.log, self._writer.write, self._encode
        count, checkpoint = 0, min(CHECKPOINT, self._high)
        async for item in self._items:
            if type(item) is Result:
                await self._take_result(item)
                break
            event, json = encode(item)
            if self._closed:
                raise self._refusal()
            write(event, json)
            count += 1
            if count >= checkpoint or log.full:
                count, checkpoint = await self._pause(count, checkpoint)

    async def _take_result(self, result: Result) -> None:
        self._keep_result(result)
        async for item in self._items:
            raise EventError(f"expected nothing after a Result, but got {item!r:.80}")

    def _keep_result(self, result: Result) -> None:
        if self._closed:
            raise self._refusal()
        # Keep the value as a client reads it from the wire, whatever its type in the application.
        self._result = from_json(encode_data(result.data))

    async def _pause(self, count: int, checkpoint: int) -> tuple[int, int]:
        """Let other tasks run, and wait while the readers or the store are too far behind.

        Take and return the number of items since the last checkpoint, and at which number the next one is.
        """
        if self.state is State.INSISTING and count < checkpoint:
            return count, checkpoint  # the generator may yet reach an `await`
        try:
            await asyncio.sleep(0)
            async with self._turns:
                await self._wait_room()
        except asyncio.CancelledError:
            if Cause.INTERRUPTED not in TRANSITIONS[self.state]:
                raise
            self._happen(Cause.INTERRUPTED)
        return 0, self._room()

    async def _wait_turn(self) -> None:
        """Do as `_pause` does, for a sender. Its cancellation is its own affair."""
        async with self._turns:
            if self._left > 0 and not self.log.full:
                return  # another sender has waited for this one, too
            await asyncio.sleep(0)
            await self._wait_room()
            self._left = self._room()

    async def _wait_room(self) -> None:
        # A stop changes how far the readers may be behind, and cancels only the generator.
        writer, alone = self._writer, not self._detached
        while not (self._closed or writer.has_room(self._high, without_readers=alone)):
            await self.log.wait_change()

    def _room(self) -> int:
        room = self._high - self._writer.lag()
        return min(CHECKPOINT, room) if room > 0 else CHECKPOINT

    def _refusal(self) -> LogClosed | LogFenced:
        log = self.log
        if log.outcome is None and log.lost is None and self._writer.lost:
            return LogFenced(log.name, log.control.fence)
        outcome = log.outcome or self._outcome
        assert outcome is not None, "only an end closes a producer"
        return LogClosed(log.name, outcome.state)

    def _explain(self, error: Exception) -> tuple[Cause, Outcome | None]:
        """Keep or log what the generator or the writer raised. Return what it means, and what clients see of it."""
        name = self.log.name
        # The generator may use other logs. Their errors are failures of the generator itself.
        refused = isinstance(error, (LogClosed, LogFenced)) and error.name == name
        if refused:
            self._happen(Cause.LOST)
        if self.state is not State.RUNNING:
            if not refused:
                when = "after its end was said" if self._declared is not None else "while it was stopped"
                logger.warning("log %s: the generator raised %s", name, when, exc_info=error)
            return Cause.FAILED, None
        self.error = error
        outcome = self._describe(error)
        if outcome.code not in UNTOLD:
            logger.info("log %s failed: %s (%s)", name, outcome.message, outcome.code)
        elif self.reports:
            logger.error("log %s: the generator raised", name, exc_info=error)
        return Cause.FAILED, outcome

    # What a transition does

    def _mind_readers(self) -> None:
        log, elsewhere = self.log, self.log.control.elsewhere > 0
        # A producer waits for readers in this process alone, because it does not know how far the others are.
        log.held = self._blocks and (log.readers > 0 or not (self._detached or elsewhere))
        if not self._detached:
            self._set_timer(None if log.readers or elsewhere else self._grace, Cause.ABANDONED)

    def _cancel(self) -> None:
        # From now on, wait for the store, but not for readers.
        self.log.held = False
        self._high = sys.maxsize
        self.log.make_room()
        self._set_timer(self._patience, Cause.OVERDUE)
        self.task.cancel()

    def _lose(self) -> None:
        if self.log.outcome is None:
            logger.warning("log %s: the lease is lost, so the generator is stopped", self.log.name)
        self._cancel()

    def _pass_on(self) -> None:
        self.task.uncancel()
        self.task.cancel()

    def _give_up(self) -> None:
        logger.error("log %s: the generator still runs %g s after it was cancelled", self.log.name, self._patience)
        self._end_apart()
        self.task.cancel()

    def _close_unbegun(self) -> None:
        self._apart = asyncio.create_task(self._run())

    def _linger(self) -> None:
        self._set_timer(self._patience, Cause.OVERDUE)
        self._declared = asyncio.create_task(self._close())

    def _end_apart(self) -> None:
        self._apart = asyncio.create_task(self._end())

    def _end(self) -> Coroutine[Any, Any, None]:
        self._set_timer(None)
        return self._store(self._declared or self._close())

    def _close(self) -> Coroutine[Any, Any, Outcome | None]:
        """Take no more items, and return what stores the end."""
        assert self._outcome is not None, "a cause that ends a producer has an outcome"
        self._closed = True
        self.log.make_room()
        outcome = self._outcome if self._result is None else replace(self._outcome, data=self._result)
        return self._writer.end(outcome, patience=self._patience)

    async def _store(self, end: Awaitable[object]) -> None:
        try:
            await end
        finally:
            self._happen(Cause.STORED)

    def _finish(self) -> None:
        self.log.unlisten(self._heed)
        self._finished.set()
        if self._on_finish is not None:
            self._on_finish(self)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _sent_by_nobody(cancellation: asyncio.CancelledError) -> RuntimeError:
    error = RuntimeError("the generator raised a CancelledError that nobody sent it")
    error.__cause__ = cancellation
    return error


# The life of a producer
# ======================
#
# Two things must end: the generator and its log. The generator ends first, because its last items belong in the log. So
# a producer runs the generator (RUNNING). When the generator has left and is closed, the producer stores the end
# (CLOSING), and is done (ENDED). All other states exist because the end may be wanted earlier.
#
# An earlier end cancels the generator, because only the generator knows what it must finish. It gets one
# CancelledError, at an `await` of its own, and some time: what it yields within its patience is kept (STOPPING). Stops,
# abandoned logs and lost logs are alike in this. A lost log takes no more items, and its end is somebody else's, but
# its generator must be closed just as gently. `Writer.end` leaves such a log as it is.
#
# A cancellation is raised where the task waits. That may be between two items, in a pause. The generator is suspended
# at a `yield` then, so it could only be closed, with no chance to yield more. So the pause sends the cancellation on to
# the generator's next `await`. It does so once (INSISTING): if the next pause gets the cancellation again, the
# generator has not waited for anything in between, and is closed at its `yield`. When somebody cancels the task of a
# producer that was not stopped, the pause does not send that on, because cancelling a task means that it must end.
#
# The application may say the end itself (DECLARED), while its generator still has something to do that no reader waits
# for. That end is stored at once, and by a task of its own, so that cancelling its caller does not interrupt it.
# The generator goes on without its log (LINGERING), for as long as a stopped one may, and is stopped then. Readers and
# the lease are of no concern to it any more, so they have no row. However it ends, the end that was said stays.
#
# A generator may catch its cancellation and go on. When the patience is over, the producer gives it up (STUCK): its log
# ends without it, all who wait are released, and it is cancelled once more. STUCK is final, like ENDED: such generators
# may run forever, so engines count them.
#
# Context variables, timeouts and task groups of a generator belong to the task that ran it. So that task also closes
# it. After RUNNING, it also stores the end, so that the task is done when the log has ended, and a cancellation
# interrupts all of it. After STOPPING, more cancellations may be under way, for example from a task group in the
# generator. They must not interrupt the end, so another task stores it (`_end_apart`). Items that were never begun need
# another task, too, because asyncio does not enter a coroutine that is cancelled before its first step (UNBEGUN). That
# task runs `_run`, which then only closes the items.
#
# Items have no row, because they change no state, and each would pay for a look into the table. The writer takes items
# until the log is lost, and raises then. So does the producer from when the end is being stored (`_close`), because its
# generator or other tasks may still give it items then. Nor is there a row for a store that refuses for good, because
# the writer ends the log in this process then: while the generator runs, the log is lost, and after that, the end
# counts as stored.
#
# The first cause that has an outcome decides it. Later ones do not: a generator that fails after a stop was stopped.
# The data of the generator's Result is added to any outcome.
#
# A cause without a row comes too late, and changes nothing.

_Act: TypeAlias = Callable[[Producer], Awaitable[None] | None]

OUTCOMES: Final[dict[Cause, Outcome]] = {
    Cause.STOP: STOPPED,  # or what `stop` was given
    Cause.ABANDONED: DISCONNECTED,
    Cause.LOST: _CANCELLED,  # the log has its own, or goes on with another writer
    Cause.FINISHED: DONE,
    Cause.FAILED: _INTERNAL_ERROR,  # or what `describe` says
    Cause.CANCELLED: _CANCELLED,
}

_LEAVING: Final[dict[Cause, tuple[State, _Act]]] = {
    Cause.OVERDUE: (State.STUCK, Producer._give_up),
    Cause.FINISHED: (State.CLOSING, Producer._end_apart),
    Cause.FAILED: (State.CLOSING, Producer._end_apart),
    Cause.CANCELLED: (State.CLOSING, Producer._end_apart),
}

TRANSITIONS: Final[dict[State, dict[Cause, tuple[State, _Act]]]] = {
    State.RUNNING: {
        Cause.READERS: (State.RUNNING, Producer._mind_readers),
        Cause.STOP: (State.STOPPING, Producer._cancel),
        Cause.ABANDONED: (State.STOPPING, Producer._cancel),
        Cause.LOST: (State.STOPPING, Producer._lose),
        Cause.DECLARED: (State.LINGERING, Producer._linger),
        Cause.FINISHED: (State.CLOSING, Producer._end),
        Cause.FAILED: (State.CLOSING, Producer._end),
        Cause.CANCELLED: (State.CLOSING, Producer._end),
    },
    State.STOPPING: {
        **_LEAVING,
        Cause.INTERRUPTED: (State.INSISTING, Producer._pass_on),
        Cause.UNBEGUN: (State.STOPPING, Producer._close_unbegun),
    },
    State.INSISTING: _LEAVING,
    State.LINGERING: {
        **_LEAVING,
        Cause.STOP: (State.STOPPING, Producer._cancel),
        Cause.OVERDUE: (State.STOPPING, Producer._cancel),
    },
    State.CLOSING: {
        Cause.STORED: (State.ENDED, Producer._finish),
    },
    State.STUCK: {
        Cause.UNBEGUN: (State.STUCK, Producer._close_unbegun),
        Cause.STORED: (State.STUCK, Producer._finish),
    },
    State.ENDED: {},
}
