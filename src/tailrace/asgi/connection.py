"""A connection that reads a log as a stream: batch after batch, with pings, notices and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.types import Send

from ..errors import LogReset, SlowReader, StoreUnavailable
from ..events import Degraded, Dropped, Entries, Farewell, Notice, Outcome, Reset
from ..producer import UNTOLD
from ..wire.sharing import Spell
from .reading import Reading
from .reply import Header
from .wrappers import Relay, is_server, past_wrappers, relay_of, spell_part

MAX_SEND = 1 << 18
"""The most bytes of one ASGI message. `send_timeout` applies to each message, and a single event may be larger."""


class Connection:
    """Sends a log's entries, one batch per message, until the end, a reset or a farewell.

    Run it in a task of its own. Cancelling the task cuts the body short.
    """

    __slots__ = (
        "_encoder", "_engine", "_farewell", "_headers", "_idle", "_onward", "_ping_due", "_reading", "_relay", "_send",
        "_sending", "_spell", "_status", "_tail", "_task",
    )  # fmt: skip

    def __init__(self, reading: Reading, send: Send, status: int, headers: Sequence[Header]) -> None:
        self._reading = reading
        self._engine = reading.engine
        self._tail = reading.tail
        self._encoder = reading.tail.log.encoder(reading.request.wire)
        self._send = send
        self._status = status
        self._headers = headers
        self._idle = True
        self._farewell: Farewell | None = None  # the one that is due
        self._ping_due = False
        self._onward = send  # past the relay, if there is one
        self._relay: Relay | None = None
        self._spell: Spell = spell_part
        self._sending = 0  # the number of beats during the current send, from 1; 0 between sends
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Send the response. The generator's error is sent as a notice, and also raised if the notice hides it."""
        self._task = asyncio.current_task()
        engine, tail, encoder = self._engine, self._tail, self._encoder
        log, news = tail.log, tail.news
        engine.readers.join(self)
        slot = engine.pulse.join(self)
        if self._reading.seat is not None:
            self._reading.seat.give(self.dismiss)
        self.leave()  # the server may be shutting down already
        try:
            await self._start()
            send = self._send = past_wrappers(self._send)
            self._find_way(send)
            degraded = stalled = False
            # Keep this loop in one coroutine: each delivery resumes every frame between here and `send`.
            while True:
                if tail.position < log.top and not stalled:
                    if (entries := tail.read_nowait()) is None and (entries := await self._fetch()) is None:
                        stalled = True
                        continue
                    body = self._encode(entries)
                    if log.outcome is not None and tail.ended:
                        return await self._finish(body)
                    self._idle = False
                    if len(body) > MAX_SEND:
                        body = await self._send_but_last(body)
                    self._sending = 1
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    self._sending = 0
                    if tail.position < log.top:
                        # Some servers' `send` never suspends, and a long history would then block the event loop.
                        await asyncio.sleep(0)
                        if self._replaced:
                            return await self._say_farewell()
                elif log.outcome is not None and not stalled:
                    return await self._finish(b"")
                elif self._farewell is not None:
                    return await self._say_farewell()
                elif self._ping_due:
                    self._ping_due = False
                    await self._body(encoder.ping)
                elif log.degraded is not degraded:
                    degraded = log.degraded
                    stalled = stalled and degraded
                    await self._body(encoder.notice(Degraded(degraded), str(tail.cursor())))
                else:
                    await news
                    if news.rest is not None:
                        rest, news.rest, self._sending = news.rest, None, 1
                        await (rest if self._relay is None else self._relay.see_out(rest))
                        self._sending = 0
        except LogReset as reset:
            await self._end(b"", Reset(reset.reason), reset.resume)
        except SlowReader:
            self._farewell = engine.readers.farewell("slow")
            await self._say_farewell()
        finally:
            slot.discard(self)
            engine.readers.part(self)

    def _find_way(self, send: Send) -> None:
        """Find out whether parts of the body can go to the server in no task, and past the relay if there is one."""
        self._relay = relay = relay_of(send)
        self._onward = send if relay is None else relay.onward
        if is_server(self._onward):
            self._spell = spell_part if relay is None else relay.spell
            self._tail.news.act = self._send_news

    def _send_news(self) -> Awaitable[None] | None:
        """Return what sends the news in place of the task, or None if the task must wake.

        An error is raised in the task, which answers it as one of its own.
        """
        tail = self._tail
        if tail.log.outcome is not None:
            return None
        self._idle = False
        if (message := tail.take_encoded(self._encoder, self._spell)) is not None:
            return self._onward(message)
        if not (entries := tail.read_nowait()):
            return None
        body = self._encode(entries)
        if tail.position < tail.log.top:
            tail.wake()  # and this was but the first batch
        return self._body(body)

    async def _fetch(self) -> Entries | None:
        """Return history that only the store has, or None while the store is out of reach."""
        tail = self._tail
        if tail.log.degraded:
            return None
        try:
            return await tail.read()
        except StoreUnavailable:
            if not tail.log.degraded:
                raise
            return None

    def _encode(self, entries: Entries) -> bytes:
        tail, encoder = self._tail, self._encoder
        if tail.log.readers == 1:
            body = encoder.encode(entries)
        else:
            body = encoder.encode_shared(entries)
            if len(body) <= MAX_SEND and (message := self._spell(body)) is not None:
                tail.share_encoded(entries, encoder, self._spell, message)
        return self._dropped(entries.offsets[0]) + body if tail.dropped else body

    def beat(self) -> None:
        """Abandon a client that reads nothing, and ping one that was sent nothing. Called once an interval."""
        if self._sending:
            interval = self._engine.pulse.interval
            # Do not let a replaced reader that is stalled, or gone, keep the stream alive.
            timeout = min(interval, self._engine.send_timeout) if self._replaced else self._engine.send_timeout
            # The first beat may come right after the send began, so it does not count.
            if (self._sending - 1) * interval >= timeout:
                self.abandon()
            self._sending += 1
        if self._idle and self._encoder.ping:
            self._ping_due = True
            self._tail.wake()
        self._idle = True

    def leave(self) -> None:
        """Send a farewell if the log can continue elsewhere, because the server is shutting down."""
        if self._farewell is None and self._engine.leaving(self._tail.log):
            self.dismiss(self._engine.readers.farewell("shutdown"))

    def dismiss(self, farewell: Farewell) -> None:
        """Send a farewell, and end the connection."""
        self._farewell = farewell
        self._tail.wake()

    def abandon(self) -> None:
        """Cut the body short, because the server cannot wait for a client that reads nothing."""
        assert self._task is not None, "only a connection that runs is among the engine's readers"
        self._task.cancel()

    @property
    def _replaced(self) -> bool:
        """True if another connection reads the log in place of this one, which then need not send what is there."""
        return self._farewell is not None and self._farewell.reason == "replaced"

    async def _start(self) -> None:
        # Do not keep the headers while the client waits: they are a tenth of what it takes.
        headers, self._headers = self._headers, ()
        await self._send({"type": "http.response.start", "status": self._status, "headers": headers})
        if self._encoder.preamble and self._tail.position == 0:
            await self._body(self._encoder.preamble)
        elif self._tail.position == self._tail.log.top:
            # Some servers (Granian) and middleware (GZip) hold the headers back until the body begins.
            await self._body(b"")

    async def _finish(self, body: bytes) -> None:
        log = self._tail.log
        assert log.outcome is not None
        clean = self._encoder.is_whole(log.outcome)
        await self._end(body, log.outcome, str(log.end_cursor()), clean=clean)
        producer = self._reading.producer
        if log.outcome.code in UNTOLD and producer is not None and producer.error is not None:
            raise producer.error

    async def _say_farewell(self) -> None:
        assert self._farewell is not None
        await self._end(b"", self._farewell, str(self._tail.cursor()))

    async def _end(self, body: bytes, notice: Notice, cursor: str, *, clean: bool = True) -> None:
        """Send the end of the stream. Cut the body short after a failure, or if the wire cannot express this end."""
        encoder = self._encoder
        clean = clean and (encoder.spells_notices or (isinstance(notice, Outcome) and notice.state == "done"))
        await self._body(body + encoder.notice(notice, cursor), more=not clean)

    async def _send_but_last(self, body: bytes) -> bytes:
        """Send a large body in pieces, so that a slow client shows progress. Return the last piece unsent."""
        *starts, last = range(0, len(body), MAX_SEND)
        for start in starts:
            await self._body(body[start : start + MAX_SEND])
        return body[last:]

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        if len(body) > MAX_SEND:
            body = await self._send_but_last(body)
        self._sending = 1
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending = 0

    def _dropped(self, next_offset: int) -> bytes:
        cursor = str(self._tail.log.cursor(next_offset - 1))
        return self._encoder.notice(Dropped(self._tail.take_dropped()), cursor)
