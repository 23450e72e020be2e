"""The task that runs an application's generator and writes its items to a log."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from pydantic_core import from_json

from .errors import EventError, LogClosed, StreamError
from .events import DONE, Encode, Outcome, Result, encode_data, encode_event
from .flow import Flow
from .iterators import THREADS, Items, Threads, as_async, close_items
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
LOST = Outcome("error", "producer_lost", "the stream has another producer")

_CANCELLED = Outcome("cancelled", "cancelled", "the producer was cancelled")
_INTERNAL_ERROR = Outcome("error", "internal_error", "Internal Server Error")


def describe_error(error: Exception) -> Outcome:
    """Return the outcome that clients see: the message of a StreamError, but nothing about any other exception."""
    if isinstance(error, StreamError):
        return Outcome("error", error.code, error.message)
    if isinstance(error, EventError):
        return Outcome("error", "not_serializable", "an event could not be encoded")
    return _INTERNAL_ERROR


class Producer:
    """Owns a generator and is the sole writer of its log.

    The task that ran the generator also closes it, whether it ends by itself, by an error, by a stop, or because all
    readers left. Readers always learn the outcome.
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

        - `encode`: a function from an item to its event name and its data as one line of JSON.
        - `describe`: a function from an exception to the outcome that clients see.
        - `flow`: `Flow.block` makes the generator wait for its readers. This is the default unless it is detached.
        - `on_disconnect`: `cancel` stops a generator without readers; `detach` lets it run.
        - `grace`: seconds without readers before `cancel` stops the generator.
        - `patience`: seconds that a cancelled generator may take to end, and that a store may take to store the end.
        - `reports`: whether to log an error that the outcome hides. Pass False if the request raises the error itself.
        - `threads`: the bound on sync generators that run at once. None means no bound.
        - `on_finish`: a function to call once, when the log has ended.
        """
        self._writer = writer
        self.log = log = writer.log
        self.error: Exception | None = None
        self.stuck = False
        self._items = as_async(items)
        self._encode = encode
        self._describe = describe
        self._detached = on_disconnect == "detach"
        flow = flow or (Flow.log() if self._detached else Flow.block())
        self._blocks = flow.policy == "block"
        self._high = flow.high if self._blocks else sys.maxsize
        self._grace = grace
        self._patience = patience
        self._reports = reports
        self._threads = threads
        self._on_finish = on_finish
        self._outcome: Outcome | None = None  # set by a stop or by the end, whichever is first
        self._result: Any = None  # the data of the generator's Result
        self._passed_on = False  # True once a stop that arrived during a pause was passed on to the generator
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"tailrace producer {log.name}")
        self.task.add_done_callback(self._close_unrun)
        log.listen(self._readers_changed)
        self._readers_changed(log)

    @property
    def finished(self) -> bool:
        """True if the log has ended or the generator was given up."""
        return self._finished.is_set()

    def stop(self, outcome: Outcome = STOPPED) -> None:
        """Cancel the generator at its current or next `await`.

        The log keeps the items that the generator yields within `patience` seconds while it ends. A generator that
        never suspends is closed within 256 items, and one that has not begun is closed immediately.
        """
        if self._outcome is None:
            self._outcome = outcome
            self.log.held = False
            self._set_timer(self._patience, self._lose_patience)
            self.task.cancel()

    def hurry(self) -> None:
        """Drop the grace, because no reader can come back."""
        self._grace = 0.0
        self._readers_changed(self.log)

    async def wait(self) -> None:
        """Wait until the log has ended or the generator was given up."""
        await self._finished.wait()

    # The generator

    async def _run(self) -> None:
        THREADS.set(self._threads)
        outcome = _INTERNAL_ERROR
        try:
            try:
                await self._write_all()
            finally:
                await close_items(self._items)
            outcome = DONE
        except asyncio.CancelledError as error:
            if self._outcome is None:
                if _is_cancelled():
                    outcome = _CANCELLED
                    raise
                outcome = self._fail(RuntimeError("the generator raised a CancelledError that nobody sent it"), error)
        except Exception as error:
            outcome = self._fail(error)
        finally:
            if self._outcome is None:
                await self._end(outcome)
            else:
                # Another cancellation may follow, for example from a task group. It must not interrupt the end.
                self._end_apart(outcome)

    async def _write_all(self) -> None:
        log, write, encode = self.log, self._writer.write, self._encode
        count, pause_at = 0, min(CHECKPOINT, self._high)
        async for item in self._items:
            if type(item) is Result:
                await self._take_result(item)
                break
            event, json = encode(item)
            write(event, json)
            count += 1
            if count >= pause_at or log.full:
                count, pause_at = 0, await self._pause()
        await self._writer.flush()

    async def _take_result(self, result: Result) -> None:
        # Keep the value as a client reads it from the wire, whatever its type in the application.
        self._result = from_json(encode_data(result.data))
        async for item in self._items:
            raise EventError(f"expected nothing after a Result, but got {item!r:.80}")

    async def _pause(self) -> int:
        """Let other tasks run, and wait while the readers are too far behind. Return how many items may follow."""
        try:
            await asyncio.sleep(0)
            if self._outcome is None:
                await self._writer.wait_room(self._high, without_readers=not self._detached)
        except asyncio.CancelledError:
            if self._outcome is None or self._passed_on:
                raise
            # The stop is meant for the generator. Raised here, it would close the generator at its `yield`, with no
            # chance to yield more. Pass it on only once, because a generator that never suspends gets here again.
            self._passed_on = True
            self.task.uncancel()
            self.task.cancel()
        room = self._high - self._writer.lag()
        return min(CHECKPOINT, room) if room > 0 else CHECKPOINT

    def _fail(self, error: Exception, cause: BaseException | None = None) -> Outcome:
        name = self.log.name
        if self._outcome is not None:
            if not isinstance(error, LogClosed):
                logger.warning("log %s: the generator raised while it was stopped", name, exc_info=error)
            return self._outcome
        if cause is not None:
            error.__cause__ = cause
        self.error = error
        outcome = self._describe(error)
        if outcome.code not in UNTOLD:
            logger.info("log %s failed: %s (%s)", name, outcome.message, outcome.code)
        elif self._reports:
            logger.error("log %s: the generator raised", name, exc_info=error)
        return outcome

    # Readers

    def _readers_changed(self, log: Log) -> None:
        if self._outcome is not None:
            return
        if log.control.stopping:
            self.stop()
            return
        if self._writer.lost:
            self.stop(log.outcome or LOST)
            return
        read = log.readers + log.control.elsewhere > 0
        log.held = self._blocks and (read or not self._detached)
        if not self._detached:
            self._set_timer(None if read else self._grace, self._abandon)

    def _abandon(self) -> None:
        self.stop(DISCONNECTED)

    # The end

    def _close_unrun(self, _: object) -> None:
        """Close items that never ran. A task that is cancelled before its first step never enters its coroutine."""
        if not self.finished and self._ending is None:
            self._closing = asyncio.create_task(self._end_unrun())

    async def _end_unrun(self) -> None:
        try:
            await close_items(self._items)
        finally:
            self._end_apart(_CANCELLED)

    def _lose_patience(self) -> None:
        """Give up a generator that ignores its cancellation. Release all who wait for it, and cancel it again."""
        logger.error("log %s: the generator still runs %g s after it was cancelled", self.log.name, self._patience)
        self.stuck = True
        self._end_apart(STOPPED)
        self.task.cancel()

    def _end_apart(self, outcome: Outcome) -> None:
        """End the log in a task of its own."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(outcome))

    async def _end(self, outcome: Outcome) -> None:
        self._set_timer(None)
        self._outcome = self._outcome or outcome
        if self._result is not None:
            self._outcome = replace(self._outcome, data=self._result)
        try:
            await self._writer.end(self._outcome, patience=self._patience)
        finally:
            self.log.unlisten(self._readers_changed)
            self._finished.set()
            if self._on_finish is not None:
                self._on_finish(self)

    def _set_timer(self, delay: float | None, action: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None and action is not None:
            self._timer = asyncio.get_running_loop().call_later(delay, action)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
