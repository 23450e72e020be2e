"""The producers that write an engine's logs."""

from __future__ import annotations

import asyncio
import logging
from typing import TypedDict, Unpack

from ..errors import LogFenced
from ..events import Encode, Outcome
from ..flow import Flow
from ..iterators import Items, Threads
from ..log.base import Log
from ..log.store import LogStore
from ..producer import Describe, OnDisconnect, Producer

logger = logging.getLogger("tailrace")

STOP_PATIENCE = 5.0
"""Seconds to wait for a stream that another process ends."""

SHUTDOWN = Outcome("cancelled", "shutdown", "the server shut down")


class ProducerOptions(TypedDict, total=False):
    """How a generator is run. `Producer` has the defaults.

    - `encode`: a function from an item to its event name and its data as one line of JSON.
    - `describe`: a function from an exception to the outcome that clients see.
    - `flow`: `Flow.block` makes the generator wait for its readers. This is the default unless it is detached.
    - `on_disconnect`: `detach` lets the generator run without readers; `cancel` stops it.
    - `grace`: seconds without readers before `cancel` stops the generator.
    - `patience`: seconds that a cancelled generator may take to end, and that the store may take to store the end.
    - `reports`: whether to log an error that the outcome hides. Pass False if the request raises the error itself.
    """

    encode: Encode
    describe: Describe
    flow: Flow | None
    on_disconnect: OnDisconnect
    grace: float
    patience: float
    reports: bool


class Producers:
    """The running producers of this process, by the names of their logs."""

    def __init__(self, store: LogStore, threads: int) -> None:
        """`threads` is how many sync generators may run at once."""
        self._store = store
        self.threads = Threads(threads)
        self._running: dict[str, Producer] = {}
        self._stuck: set[asyncio.Task[None]] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._running)

    @property
    def stuck(self) -> int:
        """How many producers ignored their cancellation and still run."""
        return len(self._stuck)

    def find(self, name: str) -> Producer | None:
        """Return the running producer of a log, or None."""
        return self._running.get(name)

    async def start(self, log: Log, items: Items, **options: Unpack[ProducerOptions]) -> Producer:
        """Lease a log and run a generator into it. Raise LogFenced if it has a writer, or one here has yet to end."""
        if (running := self._running.get(log.name)) is not None:  # perhaps without its lease, or of a forgotten log
            raise LogFenced(log.name, running.fence)
        writer = await self._store.lease(log)
        try:
            producer = Producer(writer, items, threads=self.threads, on_finish=self._finished, **options)
        except BaseException:  # bad items, or an unknown option
            await writer.release()
            raise
        self._running[log.name] = producer
        if self._stopping:
            producer.stop(SHUTDOWN)
        return producer

    async def stop(self, log: Log) -> Outcome | None:
        """Stop the log's producer, in whichever process it is. Return the outcome, or None if the log is still open."""
        await log.stop()
        if log.outcome is not None:
            pass  # its generator may go on without it
        elif (producer := self._running.get(log.name)) is not None:
            await producer.wait()
        elif log.control.leased:
            try:
                async with asyncio.timeout(STOP_PATIENCE):
                    await log.wait_end()
            except TimeoutError:
                logger.warning("log %s: asked to stop, but not ended within %g s", log.name, STOP_PATIENCE)
        return log.outcome

    def hurry(self) -> None:
        """Drop the graces of all producers, because no reader can come back."""
        for producer in tuple(self._running.values()):
            producer.hurry()

    def stop_all(self) -> None:
        """Stop all producers, and any that starts later."""
        self._stopping = True
        for producer in tuple(self._running.values()):
            producer.stop(SHUTDOWN)

    async def wait_none(self) -> None:
        """Wait until all producers have ended or were given up. New ones may start afterwards."""
        for producer in tuple(self._running.values()):
            await producer.wait()
        for task in tuple(self._stuck):
            logger.error("%s is left running", task.get_name())
        self._stopping = False

    def _finished(self, producer: Producer) -> None:
        del self._running[producer.log.name]
        if producer.stuck:
            self._stuck.add(producer.task)
            producer.task.add_done_callback(self._stuck.discard)
