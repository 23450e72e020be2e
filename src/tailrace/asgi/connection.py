"""One connection that reads a log: the loop that sends."""

from __future__ import annotations

import asyncio
from typing import Any

from ..engine import Engine
from ..errors import LogReset, SlowReader
from ..events import DONE, Dropped, Notice, Reset
from ..log.base import Tail
from ..wire.base import Wire
from .disconnect import Send


class Connection:
    """Sends what a tail reads, a batch a message, until the end, a reset or a farewell. Run it in a task of its own."""

    __slots__ = ("_encoder", "_engine", "_idle", "_ping_due", "_send", "_sending", "_stalled", "_task", "tail")

    def __init__(self, engine: Engine, tail: Tail, wire: Wire, send: Send) -> None:
        self.tail = tail
        self._engine = engine
        self._encoder = tail.log.encoder(wire)
        self._send = send
        self._idle = True
        self._ping_due = False
        self._sending = False
        self._stalled = 0.0
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> bool:
        """Send the body; whether it came to a clean end. Cancelling it leaves the body broken off."""
        self._task = asyncio.current_task()
        engine = self._engine
        engine.join(self)
        slot = engine.pulse.join(self)
        try:
            if self._encoder.preamble and self.tail.position == 0:
                await self._body(self._encoder.preamble)
            return await self._read_on()
        except LogReset as reset:
            return await self._end(b"", Reset(reset.reason), reset.resume)
        except SlowReader:
            return await self._end(b"", engine.farewell("slow"), self._cursor())
        finally:
            slot.discard(self)
            engine.part(self)

    def beat(self) -> None:
        """Time has passed: give up a client that takes nothing, ping one that has heard nothing."""
        if self._sending:
            self._stalled += self._engine.pulse.interval
            if self._stalled >= self._engine.send_timeout and self._task is not None:
                self._task.cancel()
        elif self._idle:
            self._ping_due = bool(self._encoder.ping)
            self.tail.wake()
        self._idle = True

    def leave(self) -> None:
        self.tail.wake()

    async def _read_on(self) -> bool:
        tail, encoder, log = self.tail, self._encoder, self.tail.log
        while True:
            if entries := await tail.read():
                body = encoder.encode_shared(entries) if log.readers > 1 else encoder.encode(entries)
                if tail.dropped:
                    body = self._dropped(entries.offsets[0]) + body
                if tail.ended:
                    return await self._finish(body)
                self._idle = False
                await self._body(body)
                if tail.position < log.top:
                    # A server whose send never suspends would let nobody else run during a long history.
                    await asyncio.sleep(0)
            elif tail.ended:
                return await self._finish(b"")
            elif self._engine.draining and self._engine.leaving(log):
                return await self._end(b"", self._engine.farewell("shutdown"), self._cursor())
            elif self._ping_due:
                self._ping_due = False
                await self._body(encoder.ping)
            else:
                await tail.wait()

    async def _finish(self, body: bytes) -> bool:
        outcome = self.tail.log.outcome
        assert outcome is not None
        return await self._end(body, outcome, str(self.tail.log.end_cursor()), clean=outcome.state != "error")

    async def _end(self, body: bytes, notice: Notice, cursor: str, *, clean: bool = True) -> bool:
        """Say how it ends. What must not be taken for success, or cannot be said, is broken off."""
        encoder = self._encoder
        clean = clean and (encoder.spells_notices or notice == DONE)
        await self._body(body + encoder.notice(notice, cursor), more=not clean)
        return clean

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        self._sending = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending = False
        self._stalled = 0.0

    def _dropped(self, next_offset: int) -> bytes:
        cursor = str(self.tail.log.cursor(next_offset - 1))
        return self._encoder.notice(Dropped(self.tail.take_dropped()), cursor)

    def _cursor(self) -> str:
        return str(self.tail.log.cursor(self.tail.position))
