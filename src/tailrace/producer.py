"""The one task that runs an application's generator into a log."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import anyio
import anyio.to_thread
from pydantic_core import from_json

from .errors import EventError, LogClosed, StreamError
from .events import DONE, Encode, Outcome, Result, encode_data, encode_event
from .flow import Flow
from .log.base import Log

logger = logging.getLogger("tailrace")

Items: TypeAlias = AsyncIterable[Any] | Iterable[Any]
OnDisconnect = Literal["cancel", "detach"]
Describe: TypeAlias = Callable[[Exception], Outcome]

CHECKPOINT = 256
"""Items after which a generator that never suspends lets others run."""

UNTOLD = frozenset({"internal_error", "not_serializable"})
"""Codes of outcomes that hide from the client what happened, so that the server's log has to tell."""

STOPPED = Outcome("cancelled", "stopped", "the stream was stopped")

_CANCELLED = Outcome("cancelled", "cancelled", "the producer was cancelled")

_INTERNAL_ERROR = Outcome("error", "internal_error", "Internal Server Error")

_EXHAUSTED = object()


def describe_error(error: Exception) -> Outcome:
    """What a client may know of an exception: a StreamError's words, of any other only that it happened."""
    if isinstance(error, StreamError):
        return Outcome("error", error.code, error.message)
    if isinstance(error, EventError):
        return Outcome("error", "not_serializable", "an event could not be encoded")
    return _INTERNAL_ERROR


class Producer:
    """Owns a generator and is the sole writer of its log.

    The generator is closed in the task that ran it, on every way out: the end, an error, a stop, no reader left.
    """

    def __init__(
        self,
        log: Log,
        items: Items,
        *,
        encode: Encode = encode_event,
        describe: Describe = describe_error,
        flow: Flow | None = None,
        on_disconnect: OnDisconnect = "cancel",
        grace: float = 10.0,
        patience: float = 5.0,
        reports: bool = True,
        on_finish: Callable[[Producer], None] | None = None,
    ) -> None:
        """The generator starts at once, in a task.

        - `grace`: seconds without a reader after which `cancel` cancels.
        - `patience`: seconds that a cancelled generator may take.
        - `reports`: log an error that its outcome hides; a request that raises it does not need that.
        """
        self.log = log
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
        self._on_finish = on_finish
        self._outcome: Outcome | None = None  # from a stop, or else from the end, on
        self._result: Any = None  # the data of the generator's Result
        self._passed_on = False  # whether a stop that found it in a pause was passed on to the generator
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"tailrace producer {log.name}")
        self.task.add_done_callback(self._ensure_end)
        log.on_readers = self._readers_changed
        self._readers_changed()

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def stop(self, outcome: Outcome = STOPPED) -> None:
        """Cancel the generator at an `await` of its own, the one it is at or its next.

        What it still yields while it ends, within `patience` seconds, is kept. One that never suspends is closed
        within 256 items, and one that has not begun is closed at once.
        """
        if self._outcome is None:
            self._outcome = outcome
            self.log.held = False
            self._set_timer(self._patience, self._lose_patience)
            self.task.cancel()

    def hurry(self) -> None:
        """From now on there is no grace without readers, because none can come back."""
        self._grace = 0.0
        self._readers_changed()

    async def wait(self) -> None:
        """Until the producer is done, or its generator has been given up."""
        await self._finished.wait()

    async def _run(self) -> None:
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
                outcome = self._fail(RuntimeError("the generator let a CancelledError out that nobody sent it"), error)
        except Exception as error:
            outcome = self._fail(error)
        finally:
            if self._outcome is None:
                await self._end(outcome)
            elif self._ending is None:
                # Another cancellation may be on its way here, from a task group for one; it must not break off the end.
                self._set_timer(None)
                self._ending = asyncio.create_task(self._end(outcome))

    async def _end(self, outcome: Outcome) -> None:
        self._set_timer(None)
        self._outcome = self._outcome or outcome
        if self._result is not None:
            self._outcome = replace(self._outcome, data=self._result)
        try:
            await self.log.close(self._outcome)
        finally:
            self._finish()

    def _ensure_end(self, _: object) -> None:
        """A task that is cancelled before its first step runs nothing of its coroutine."""
        if not self.finished and self._ending is None:
            self._ending = asyncio.create_task(self._end_unrun())

    async def _end_unrun(self) -> None:
        try:
            await close_items(self._items)
        finally:
            await self._end(_CANCELLED)

    async def _write_all(self) -> None:
        log, write, encode = self.log, self.log.write, self._encode
        pause_at = log.top + min(CHECKPOINT, self._high)
        async for item in self._items:
            if type(item) is Result:
                await self._take_result(item)
                break
            event, json = encode(item)
            write(event, json)
            if log.top >= pause_at or log.full:
                await self._pause()
                room = self._high - log.lag()
                pause_at = log.top + (min(CHECKPOINT, room) if room > 0 else CHECKPOINT)
        await log.flush()

    async def _take_result(self, result: Result) -> None:
        # The value that a client reads from the wire, whatever type the application gave it.
        self._result = from_json(encode_data(result.data))
        async for item in self._items:
            raise EventError(f"expected nothing after a Result, but got {item!r:.80}")

    async def _pause(self) -> None:
        """Let others run, and wait while the readers are too far behind."""
        try:
            await self.log.flush()
            await asyncio.sleep(0)
            if self._outcome is None:
                await self.log.wait_room(self._high, without_readers=not self._detached)
        except asyncio.CancelledError:
            if self._outcome is None or self._passed_on:
                raise
            # A stop is for the generator, which could yield nothing more if it were closed at its `yield`.
            # Only once: one that never suspends comes by here again.
            self._passed_on = True
            self.task.uncancel()
            self.task.cancel()

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

    def _readers_changed(self) -> None:
        if self._outcome is not None:
            return
        read = self.log.readers > 0
        self.log.held = self._blocks and (read or not self._detached)
        if not self._detached:
            self._set_timer(None if read else self._grace, self._abandon)

    def _abandon(self) -> None:
        self.stop(Outcome("cancelled", "disconnected", "every reader left"))

    def _lose_patience(self) -> None:
        """The generator ignores its cancellation: let everybody go who waits for it, and ask it again."""
        logger.error("log %s: the generator still runs %g s after it was cancelled", self.log.name, self._patience)
        self.stuck = True
        self._ending = asyncio.create_task(self._end(STOPPED))
        self.task.cancel()

    def _finish(self) -> None:
        if not self._finished.is_set():
            self._finished.set()
            self.log.on_readers = None
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


def as_async(items: Items) -> AsyncIterator[Any]:
    """The iterator over items, which is what must be closed; sync ones are taken in worker threads."""
    return aiter(items) if isinstance(items, AsyncIterable) else iterate_in_thread(items)


async def close_items(items: AsyncIterator[Any]) -> None:
    """Close a generator; an iterator that is none has nothing to close."""
    if (aclose := getattr(items, "aclose", None)) is not None:
        try:
            await aclose()
        except BaseExceptionGroup as group:
            # What a task group around a `yield` makes of the GeneratorExit.
            if (failures := group.split(GeneratorExit)[1]) is not None:
                raise failures from None


async def iterate_in_thread(items: Iterable[Any]) -> AsyncIterator[Any]:
    """The items of a sync iterable, each taken in a worker thread; a generator is closed in one too."""
    iterator = iter(items)
    # Cancelling the wait leaves its thread in `next`, and a generator cannot be closed while it runs.
    running = threading.Lock()

    def take() -> Any:
        with running:
            return next(iterator, _EXHAUSTED)

    def close() -> None:
        with running:
            iterator.close()  # type: ignore[attr-defined]

    try:
        while (item := await anyio.to_thread.run_sync(take)) is not _EXHAUSTED:
            yield item
    finally:
        if hasattr(iterator, "close"):
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(close)
