"""The workers of a chat server: the processes that share its streams and its database.

Each worker has a life, a log whose lease it holds. Each turn in the database names the life of its worker. If a worker
dies, the store ends its life, as it ends any stream whose producer is lost. Each worker tells the others of its life in
one log, and waits for the ends of theirs, to end the turns that they leave.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from secrets import token_urlsafe
from typing import Any

from .. import Engine, Log, LogClosed, LogReset, Retention, StoreUnavailable, Writer, encode_data
from .journal import without_secrets
from .store import Store, StoreError, Streams

logger = logging.getLogger("tailrace.chat")

PATH = "/chat/workers"

RETENTION = Retention(count=256, size=64 << 10)

AGAIN = 1.0
"""Seconds before the next attempt, if the database or the store of the streams does not answer."""

FIGURES = Retention(count=1)
"""A life has the newest figures of its worker, and perhaps some before."""

TELL = 1.0
"""Seconds after which the others know the figures of a worker."""

Figures = Mapping[str, Any]

Died = Callable[[str | None], Awaitable[None]]
"""A function that ends the turns of a worker whose life has ended."""


async def streams_of(engine: Engine, url: str | None) -> Streams | None:
    """Return where an engine keeps its streams, for the database. Return None if they are not shared.

    Raise StoreUnavailable if their store does not answer.
    """
    if not engine.store.shared:
        return None
    place = (url or "another store").partition("?")[0]  # an option may be a password
    return Streams(await _identity_of(engine), without_secrets(place))


async def _identity_of(engine: Engine) -> bytes:
    """Return bytes that are equal for all processes with the same store, and do not reveal its secret."""
    return hmac.digest(await engine.store.secret(), b"tailrace chat", "sha256")


class Workers:
    """The life of this worker, and those of the others. If streams are not shared, there are no workers."""

    def __init__(self, engine: Engine, store: Store, died: Died, figures: Callable[[], Figures]) -> None:
        self._engine = engine
        self._store = store
        self._died = died
        self._figures = figures
        self._lives: dict[str, Log] = {}
        self._life: Writer | None = None
        self._beginning = asyncio.Lock()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._ending = False  # True once nobody would wait for another watch
        self.own: str | None = None
        """The name of this worker. It has another one after the others took it for dead."""

    @property
    def shared(self) -> bool:
        """True if there may be other workers."""
        return self._engine.store.shared

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Live in this block, within the engine's. Raise StoreUnavailable if that cannot begin."""
        if not self.shared:
            yield
            return
        await self.live()
        following = asyncio.create_task(self._follow(), name="tailrace chat workers")
        telling = asyncio.create_task(self._tell(), name="tailrace chat figures")
        try:
            yield
        finally:
            self._ending = True
            tasks = [following, telling, *self._watching.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def live(self) -> str | None:
        """Return the name of this worker, which lives at this moment. Return None if streams are not shared.

        Make the stream of a reply before you call this. If the store loses its data in between, it has neither, and the
        reply is interrupted only if its stream is lost as well.
        """
        if self.shared:
            if self._life is not None:
                # If the store has just lost its data, the others know before this worker is told.
                await self._life.log.catch_up()
            async with self._beginning:
                if self._life is None or self._life.lost:
                    name = token_urlsafe(9)
                    await self._store.renew(await _identity_of(self._engine))
                    life = await self._engine.store.lease(await self._log_of(name))
                    await self._announce(name)
                    self._life, self.own = life, name
                    self.watch(name)
        return self.own

    def elsewhere(self) -> list[Figures]:
        """Return the latest figures of the other workers."""
        found = []
        for worker, life in self._lives.items():
            if worker != self.own and life.top and (entries := life.read_nowait(life.top - 1, 1)):
                found += [entry.data for entry in entries]
        return found

    async def _log_of(self, worker: str) -> Log:
        return await self._engine.log(f"{PATH}/{worker}", retention=FIGURES)

    async def _tell(self) -> None:
        """Write the figures of this worker to its life when they have changed."""
        told: tuple[str | None, Figures] | None = None
        while True:
            news = self.own, self._figures()
            if news != told and self._life is not None and not self._life.lost:
                self._life.write(None, encode_data(news[1]))
                told = news
            await asyncio.sleep(TELL)

    async def _announce(self, name: str) -> None:
        log = await self._engine.log(PATH, retention=RETENTION)
        await log.catch_up()
        if log.lost is not None:  # together with the life before
            log = await self._engine.log(PATH, retention=RETENTION)
        await log.append(name)

    async def _follow(self) -> None:
        """Watch all workers that live, and those that left turns before this one lived."""
        while True:
            try:
                for worker in await self._store.workers():
                    if worker is None:  # a server that did not share its streams, so it is not there any more
                        await self._died(None)
                    else:
                        self.watch(worker)
                await self._read_announcements()
            except LogReset:  # the store has lost its data, and others may have told the new log before this one
                logger.warning("the streams of all workers are lost: their store has forgotten them")
            except Exception as error:  # nobody else would try again
                await self._try_again("cannot watch the other workers", error)

    async def _read_announcements(self) -> None:
        log = await self._engine.log(PATH, retention=RETENTION)
        with log.tail() as tail:
            if (name := await self.live()) is not None:
                await self._announce(name)
            async for entries in tail:
                strangers = {entry.data for entry in entries} - self._watching.keys()
                for worker in strangers:
                    self.watch(worker)
                if strangers and self.own is not None:
                    await self._announce(self.own)  # what it said before may be trimmed

    def watch(self, worker: str) -> None:
        """End the turns of a worker once it is dead, unless this one ends first."""
        if worker not in self._watching and not self._ending:
            task = asyncio.create_task(self._see_out(worker), name=f"tailrace chat worker {worker}")
            self._watching[worker] = task
            task.add_done_callback(lambda _: self._watching.pop(worker))

    async def _see_out(self, worker: str) -> None:
        """Wait until a worker is dead, and end its turns. It may be this one, if the others took it for dead."""
        while True:
            try:
                if (life := await self._engine.find(f"{PATH}/{worker}")) is not None:
                    self._lives[worker] = life
                    await life.wait_end()
                self._lives.pop(worker, None)
                await self._died(worker)
                await self.live()
                return
            except Exception as error:  # nobody else would try again
                await self._try_again(f"the turns of worker {worker} are still in progress", error)

    async def _try_again(self, what: str, error: Exception) -> None:
        foreseen = isinstance(error, LogClosed | StoreUnavailable | StoreError)
        logger.warning("%s: %s", what, error, exc_info=None if foreseen else error)
        await asyncio.sleep(AGAIN)
