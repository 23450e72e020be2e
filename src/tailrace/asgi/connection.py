"""A connection that reads a log as a stream: batch after batch, with pings, notices and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias

from starlette.types import Message, Send

from ..errors import LogReset, SlowReader, StoreUnavailable
from ..events import Degraded, Dropped, Entries, Farewell, Notice, Outcome, Reset
from ..producer import UNTOLD
from ..pulse import Member
from ..wire.sharing import Spell
from .reading import Delivery, Reading
from .wrappers import is_server, past_wrappers, relay_of, spell_part

MAX_SEND = 1 << 18
"""The most bytes of one ASGI message. `send_timeout` applies to each message, and a single event may be larger."""

Ready: TypeAlias = Callable[[], Awaitable[bool]]
"""A function that does what comes before the entries. It returns False if none are to be sent."""


class Connection(Delivery):
    """Sends a log's entries, one batch per message, until the end, a reset or a farewell.

    It has a task as long as it sends. While it waits for news, it needs none if others read the log too and only the
    server's own `send` is on the way.
    """

    __slots__ = (
        "_degraded", "_encoder", "_farewell", "_idle", "_onward", "_ping_due", "_send", "_sending", "_slot", "_spell",
        "_stalled", "_tail",
    )  # fmt: skip

    def __init__(self, reading: Reading, send: Send, start: Message, ready: Ready | None = None) -> None:
        """Begin to send the response.

        - `start`: the message with the status and the headers.
        - `ready`: what to await before it. If it returns False, it has sent another response instead.
        """
        self._tail = reading.tail
        self._encoder = reading.tail.log.encoder(reading.wire)
        self._send = send
        self._idle = True
        self._farewell: Farewell | None = None  # the one that is due
        self._ping_due = False
        self._degraded = False  # as the client was told
        self._stalled = False  # True while history cannot be fetched
        self._onward = send  # past the relay, if there is one
        self._spell: Spell = spell_part
        self._sending = 0  # the number of beats during the current send, from 1; 0 between sends
        self._slot: set[Member] | None = None
        super().__init__(reading, self._proceed(partial(self._begin, start, ready)))

    async def _begin(self, start: Message, ready: Ready | None) -> bool:
        """Begin the response. Return False if another one was sent instead."""
        if ready is not None and not await ready():
            return False
        engine = self._reading.engine
        engine.readers.join(self)
        self._slot = engine.pulse.join(self)
        if self._reading.seat is not None:
            self._reading.seat.give(self.dismiss)
        self.leave()  # the server may be shutting down already
        await self._send(start)
        if self._encoder.preamble and self._tail.position == 0:
            await self._body(self._encoder.preamble)
        elif self._tail.position == self._tail.log.top:
            # Some servers (Granian) and middleware (GZip) hold the headers back until the body begins.
            await self._body(b"")
        self._find_way()
        return True

    async def _proceed(self, ready: Ready) -> None:
        """Send what there is until the end, or until the connection can wait for news without a task.

        The generator's error is sent as a notice, and also raised if the notice hides it.
        """
        try:
            if not await ready():
                return None
            del ready  # each reader that waits below would keep it
            tail, encoder, send = self._tail, self._encoder, self._send
            log, news = tail.log, tail.news
            # Keep this loop in one coroutine: each delivery resumes every frame between here and `send`.
            while True:
                if tail.position < log.top and not self._stalled:
                    if (entries := tail.read_nowait()) is None and (entries := await self._fetch()) is None:
                        self._stalled = True
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
                elif log.outcome is not None and not self._stalled:
                    return await self._finish(b"")
                elif self._farewell is not None:
                    return await self._say_farewell()
                elif log.degraded is not self._degraded:
                    # Note this before anything else is sent: if the store came back meanwhile, history would stall.
                    self._degraded = log.degraded
                    self._stalled = self._stalled and self._degraded
                    await self._body(encoder.notice(Degraded(self._degraded), str(tail.cursor())))
                elif self._ping_due:
                    await self._ping()
                elif news.act is None or log.readers == 1:
                    # Measured: waking a task takes a tenth less than acting, if it is the only one to wake.
                    await news
                    if news.rest is not None:
                        await self._send_rest()
                else:
                    # Measured: a task that waits takes 0.9 KB, a twelfth of what a reader takes in all.
                    self._task = None
                    news.add_done_callback(self._resume, context=copy_context())
                    break
        except LogReset as reset:
            await self._end(b"", Reset(reset.reason), reset.resume)
        except SlowReader:
            self._farewell = self._reading.engine.readers.farewell("slow")
            await self._say_farewell()

    def _resume(self, _: object) -> None:
        """Send in a new task what `_send_news` cannot. Called in the context of the one before."""
        if not self._over:
            self._go_on(self._proceed(self._send_rest))

    async def _send_rest(self) -> bool:
        """Send the rest of a message that `_send_news` began, or raise its error."""
        news = self._tail.news
        if news.rest is not None:
            rest, news.rest, self._sending = news.rest, None, 1
            relay = relay_of(self._send)
            await (rest if relay is None else relay.see_out(rest))
            self._sending = 0
        return True

    async def _close(self) -> None:
        self._tail.news.act = None  # otherwise only the garbage collector could free this
        if self._slot is not None:
            self._slot.discard(self)
            self._reading.engine.readers.part(self)
        await super()._close()

    def _find_way(self) -> None:
        """Find out whether parts of the body can go to the server in no task, and past the relay if there is one."""
        self._send = send = past_wrappers(self._send)
        relay = relay_of(send)
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
            return self._ping() if self._ping_due and entries is not None else None
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
            engine = self._reading.engine
            interval = engine.pulse.interval
            # Do not let a replaced reader that is stalled, or gone, keep the stream alive.
            timeout = min(interval, engine.send_timeout) if self._replaced else engine.send_timeout
            # The first beat may come right after the send began, so it does not count.
            if (self._sending - 1) * interval >= timeout:
                self.abandon()
            self._sending += 1
        self._ping_due = self._idle and bool(self._encoder.ping)
        if self._ping_due:
            self._tail.news.nudge()
        self._idle = True

    def leave(self) -> None:
        """Send a farewell if the log can continue elsewhere, because the server is shutting down."""
        engine = self._reading.engine
        if self._farewell is None and engine.leaving(self._tail.log):
            self.dismiss(engine.readers.farewell("shutdown"))

    def dismiss(self, farewell: Farewell) -> None:
        """Send a farewell, and end the connection."""
        self._farewell = farewell
        self._tail.wake()

    def abandon(self) -> None:
        """Cut the body short, because the server cannot wait for a client that reads nothing."""
        self._tail.news.act = None  # the news may be due already
        self._give_up()

    @property
    def _replaced(self) -> bool:
        """True if another connection reads the log in place of this one, which then need not send what is there."""
        return self._farewell is not None and self._farewell.reason == "replaced"

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

    def _ping(self) -> Coroutine[Any, Any, None]:
        self._ping_due = False
        return self._body(self._encoder.ping)

    def _dropped(self, next_offset: int) -> bytes:
        cursor = str(self._tail.log.cursor(next_offset - 1))
        return self._encoder.notice(Dropped(self._tail.take_dropped()), cursor)
