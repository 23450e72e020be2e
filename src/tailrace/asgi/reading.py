"""A request that reads a log, and the wait for its first event, which decides the status."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass

from ..engine.engine import Engine
from ..engine.readers import Seat
from ..log.base import Tail
from ..producer import Producer
from ..wire.text import Text
from .decision import StreamRequest
from .settings import StreamSettings

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
