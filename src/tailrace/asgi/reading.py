"""A request that reads a log, and the wait for its first event, which decides the status."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from ..engine.engine import Engine
from ..engine.readers import Seat
from ..log.base import Log, Tail
from ..producer import Producer
from ..wire.base import Wire
from ..wire.text import Text
from .decision import StreamRequest
from .disconnect import Disconnected, Work

_FIELDS = (b'"data:', b'"event:', b'"id:', b'"retry:', b'": ')


@dataclass(slots=True)
class Reading:
    """A request's reader, its seat if the log has one reader at a time, and the producer if the request started it."""

    engine: Engine
    wire: Wire
    tail: Tail
    seat: Seat | None = None
    producer: Producer | None = None

    def close(self) -> None:
        """Leave the log, and give back the seat."""
        self.tail.close()
        if self.seat is not None:
            self.engine.readers.free(self.seat)

    async def first_failure(self, status_wait: float) -> Exception | None:
        """Wait until the producer has begun, at most `status_wait` seconds. Return the error that came instead."""
        tail, producer = self.tail, self.producer
        assert producer is not None, "only a request that started its stream waits for the first event"
        timer = asyncio.get_running_loop().call_later(status_wait, tail.wake)
        try:
            if not producer.begun:
                await tail.wait()
        finally:
            timer.cancel()
        return None if producer.begun else producer.error


def warn_of_frames(request: StreamRequest, log: Log) -> None:
    """Warn if a stream's first entry is text that is framed already."""
    if isinstance(request.wire, Text):
        return  # plain text may contain any framing
    first = log.read_nowait(0, 1) if log.base == 0 else None
    if first and first.json[0].startswith(_FIELDS) and first.json[0].endswith(b'\\n\\n"'):
        warnings.warn(
            f"the stream at {request.route} yields text that is framed as Server-Sent Events already, and "
            "it is framed again: yield the data alone, as tailrace frames it for every client",
            stacklevel=1,
        )


class Delivery(Work[None]):
    """Work that sends what a request reads. It closes the reading at its end."""

    __slots__ = ("_reading",)

    def __init__(self, reading: Reading, work: Coroutine[Any, Any, None]) -> None:
        self._reading = reading
        super().__init__(work)

    async def _close(self) -> None:
        try:
            await super()._close()
        finally:
            self._reading.close()

    def _result(self) -> None:
        try:
            super()._result()
        except OSError as error:
            # Servers raise it from `send` when the client has left (ASGI 2.4). The generator may raise its own.
            producer = self._reading.producer
            if producer is not None and error is producer.error:
                raise
            raise Disconnected from error
