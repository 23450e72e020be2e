"""One connection that reads a log, as a stream or as one document."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..engine.engine import Engine
from ..engine.readers import Seat
from ..errors import LogReset, SlowReader, StoreUnavailable, StreamError
from ..events import Degraded, Dropped, Entries, Farewell, Notice, Outcome, Reset
from ..log.base import Tail
from ..producer import UNTOLD, Producer
from ..wire.batch import Batch, document
from ..wire.sharing import Spell
from ..wire.text import Text
from .decision import StreamRequest
from .reply import Header, refusal_of
from .settings import StreamSettings
from .wrappers import Relay, is_server, past_wrappers, relay_of, spell_part

MAX_SEND = 1 << 18
"""The most bytes of one ASGI message. `send_timeout` applies to each message, and a single event may be larger."""

_FIELDS = (b'"data:', b'"event:', b'"id:', b'"retry:', b'": ')


@dataclass(slots=True)
class Reading:
    """A request's reader, its seat if the log has one reader at a time, and the producer if the request started it."""

    engine: Engine
    request: StreamRequest
    settings: StreamSettings
    tail: Tail
    seat: Seat | None = None
    producer: Producer | None = None

    async def first_failure(self) -> Exception | None:
        """Wait until the producer has begun, at most `status_wait` seconds. Return the error that came instead."""
        tail, producer = self.tail, self.producer
        assert producer is not None, "only a request that started its stream waits for the first event"
        timer = asyncio.get_running_loop().call_later(self.settings.status_wait, tail.wake)
        try:
            if not producer.begun:
                await tail.wait()
        finally:
            timer.cancel()
        if not producer.begun:
            return producer.error
        self._warn_of_frames()
        return None

    def _warn_of_frames(self) -> None:
        if isinstance(self.request.wire, Text):
            return  # plain text may contain any framing
        first = self.tail.log.read_nowait(0, 1) if self.tail.log.base == 0 else None
        if first and first.json[0].startswith(_FIELDS) and first.json[0].endswith(b'\\n\\n"'):
            warnings.warn(
                f"the stream at {self.request.route} yields text that is framed as Server-Sent Events already, and "
                "it is framed again: yield the data alone, as tailrace frames it for every client",
                stacklevel=1,
            )


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
        if engine.draining:
            self.leave()
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
                    if notice := encoder.notice(Degraded(degraded), str(tail.cursor())):
                        await self._body(notice)
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
        """Return what sends the news in place of the task, which waits for it, or None if the task must wake."""
        tail = self._tail
        if tail.log.outcome is not None:
            return None
        if (message := tail.take_encoded(self._encoder, self._spell)) is not None:
            self._idle = False
            return self._onward(message)
        if not (body := self._take_news()):
            return None
        self._idle = False
        if tail.position < tail.log.top:
            tail.wake()  # and this was but the first batch
        return self._body(body)

    def _take_news(self) -> bytes:
        """Return what is new, encoded. Return nothing if the task must fetch it, or will find an error in its place."""
        tail = self._tail
        if tail.position < tail.log.base:
            return b""
        try:
            entries = tail.read_nowait()
        except SlowReader:
            return b""
        return self._encode(entries) if entries else b""

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


class Document:
    """A response with a log as one JSON document.

    If the request started the stream, the document has all entries, or the response is the stream's failure. For any
    other log, the document has the entries that exist now.
    """

    __slots__ = ("_headers", "_reading", "_status", "_tail", "_wire")

    def __init__(self, reading: Reading, status: int, headers: Iterable[Header]) -> None:
        assert isinstance(reading.request.wire, Batch)
        self._reading = reading
        self._tail = reading.tail
        self._wire = reading.request.wire
        self._status = status
        self._headers = headers

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the document. Raise the error of the application's generator, unless it is a StreamError."""
        response = await self._response()
        await response(scope, receive, send)

    async def _response(self) -> Response:
        tail, started = self._tail, self._reading.producer is not None
        first = tail.position
        try:
            data = await self._collect()
        except (LogReset, StreamError) as error:
            return refusal_of(error)
        outcome = tail.log.outcome if tail.ended else None
        if started and outcome is not None and outcome.state != "done":
            return self._failed(outcome, data)
        after = str(tail.log.cursor(first)) if first > 0 and self._reading.request.cursor is None else None
        response = Response(document(data, outcome, str(tail.cursor()), after), self._status)
        response.raw_headers += self._headers
        return response

    def _failed(self, outcome: Outcome, data: bytes) -> Response:
        """Refuse with the partial data, so that no client mistakes it for a complete document."""
        assert self._reading.producer is not None
        failure = self._reading.producer.error or StreamError(
            outcome.message or "", code=outcome.code or "cancelled", status=503
        )
        if not isinstance(failure, StreamError):
            raise failure
        return refusal_of(failure, data=data)

    async def _collect(self) -> bytes:
        """Return the entries as a JSON list. Raise StreamError if they exceed the wire's bound."""
        tail, wire = self._tail, self._wire
        encoder = tail.log.encoder(wire)
        parts: list[bytes] = []
        size = 0
        while True:
            if entries := await tail.read():
                parts.append(encoder.encode(entries))
                size += len(parts[-1])
                if size > wire.max_bytes:
                    raise StreamError(
                        f"expected at most {wire.max_bytes} bytes in a document, but there are more: ask for a stream",
                        code="document_too_large",
                    )
            elif tail.ended or self._reading.producer is None:
                return b"[" + b",".join(parts) + b"]"
            else:
                await tail.wait()
