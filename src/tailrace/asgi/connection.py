"""One connection that reads a log: the loop that sends."""

from __future__ import annotations

import asyncio
from typing import Any

from ..errors import LogReset, SlowReader, StreamError
from ..events import Dropped, Notice, Outcome, Reset
from ..producer import UNTOLD
from .disconnect import Send
from .headers import Header
from .opening import Opening
from .reply import send_refusal


class Connection:
    """Sends what a tail reads, a batch a message, until the end, a reset or a farewell.

    Run it in a task of its own: cancelling it leaves the body broken off.
    """

    __slots__ = (
        "_encoder", "_engine", "_headers", "_idle", "_opening", "_ping_due",
        "_send", "_sending", "_stalled", "_status", "_tail", "_task",
    )  # fmt: skip

    def __init__(self, opening: Opening, send: Send, status: int, headers: list[Header]) -> None:
        self._opening = opening
        self._engine = opening.engine
        self._tail = opening.tail
        self._encoder = opening.tail.log.encoder(opening.request.wire)
        self._send = send
        self._status = status
        self._headers = headers
        self._idle = True
        self._ping_due = False
        self._sending = False
        self._stalled = 0.0
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Send the response. What goes wrong before the first event is raised, or refused; later it is said in band."""
        if (failure := await self._early_failure()) is not None:
            if not isinstance(failure, StreamError):
                raise failure
            await send_refusal(self._send, failure)
            return None
        self._task = asyncio.current_task()
        engine, tail, encoder, send = self._engine, self._tail, self._encoder, self._send
        log = tail.log
        engine.join(self)
        slot = engine.pulse.join(self)
        try:
            await self._start()
            # All in one frame: whatever lies between an entry and `send` is resumed for every delivery.
            while True:
                if tail.position < log.top:
                    if (entries := tail.read_nowait()) is None:
                        entries = await tail.read()
                    body = encoder.encode_shared(entries) if log.readers > 1 else encoder.encode(entries)
                    if tail.dropped:
                        body = self._dropped(entries.offsets[0]) + body
                    if log.outcome is not None and tail.ended:
                        return await self._finish(body)
                    self._idle = False
                    self._sending = True
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    self._sending = False
                    if tail.position < log.top:
                        # A server whose send never suspends would let nobody else run during a long history.
                        await asyncio.sleep(0)
                elif log.outcome is not None:
                    return await self._finish(b"")
                elif engine.draining and engine.leaving(log):
                    return await self._end(b"", engine.farewell("shutdown"), self._cursor())
                elif self._ping_due:
                    self._ping_due = False
                    await self._body(encoder.ping)
                else:
                    await tail.arrival()
        except LogReset as reset:
            await self._end(b"", Reset(reset.reason), reset.resume)
        except SlowReader:
            await self._end(b"", engine.farewell("slow"), self._cursor())
        finally:
            slot.discard(self)
            engine.part(self)

    def beat(self) -> None:
        """Time has passed: give up a client that takes nothing, ping one that has heard nothing."""
        if not self._sending:
            self._stalled = 0.0
        else:
            self._stalled += self._engine.pulse.interval
            if self._stalled >= self._engine.send_timeout:
                self.abandon()
        if self._idle and self._encoder.ping:
            self._ping_due = True
            self._tail.wake()
        self._idle = True

    def leave(self) -> None:
        """The server leaves."""
        self._tail.wake()

    def abandon(self) -> None:
        """Leave the body broken off: the server cannot wait for a client that takes nothing."""
        assert self._task is not None, "only a connection that runs is among the engine's readers"
        self._task.cancel()

    async def _early_failure(self) -> Exception | None:
        """What went wrong before the first event, if that came to light soon enough to become a status."""
        tail, producer = self._tail, self._opening.producer
        if producer is None:
            return None
        timer = asyncio.get_running_loop().call_later(self._opening.settings.status_wait, tail.wake)
        try:
            await tail.wait()
        finally:
            timer.cancel()
        return producer.error if tail.log.top == 0 else None

    async def _start(self) -> None:
        await self._send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        if self._encoder.preamble and self._tail.position == 0:
            await self._body(self._encoder.preamble)
        elif self._tail.position == self._tail.log.top:
            # Some servers (Granian) and middleware (GZip) keep the headers until there is a body.
            await self._body(b"")

    async def _finish(self, body: bytes) -> None:
        log = self._tail.log
        assert log.outcome is not None
        clean = self._encoder.is_whole(log.outcome)
        await self._end(body, log.outcome, str(log.end_cursor()), clean=clean)
        producer = self._opening.producer
        if log.outcome.code in UNTOLD and producer is not None and producer.error is not None:
            raise producer.error

    async def _end(self, body: bytes, notice: Notice, cursor: str, *, clean: bool = True) -> None:
        """Say how it ends. What must not be taken for success, or cannot be said, leaves the body broken off."""
        encoder = self._encoder
        clean = clean and (encoder.spells_notices or (isinstance(notice, Outcome) and notice.state == "done"))
        await self._body(body + encoder.notice(notice, cursor), more=not clean)

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        self._sending = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending = False

    def _dropped(self, next_offset: int) -> bytes:
        cursor = str(self._tail.log.cursor(next_offset - 1))
        return self._encoder.notice(Dropped(self._tail.take_dropped()), cursor)

    def _cursor(self) -> str:
        return str(self._tail.log.cursor(self._tail.position))
