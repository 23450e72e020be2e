"""Workers as processes of their own, and HTTP clients that go from one to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from tailrace import NDJSON, Degraded, Farewell, Frame, Outcome, Reset
from tailrace.cursor import Cursor
from tailrace.wire.base import read_notice
from tests.raw import Exchange
from tests.system.servers import UVICORN, Running, running

from .oracle import Client

APP = "tests.reliability.worker:app"


@asynccontextmanager
async def workers(*urls: str) -> AsyncIterator[list[Running]]:
    """Start a worker for each URL of Redis, all at once."""
    with ExitStack() as stack:
        starting = [running(UVICORN, APP, REDIS_URL=url) for url in urls]
        yield await asyncio.gather(*(asyncio.to_thread(stack.enter_context, each) for each in starting))


class HttpClient(Client):
    """A client that reads NDJSON. When it has lost its connection, it goes to the next worker with its cursor."""

    def __init__(self, served: Sequence[Running], path: str, *about: Any) -> None:
        super().__init__(*about)
        self.path = path
        self._served = served
        self._at = 0
        self._writer: asyncio.StreamWriter | None = None

    def leave(self) -> None:
        """Break the connection, and go to the next worker."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def follow(self) -> None:
        while not self.ended:
            try:
                await self._connect(self._served[self._at % len(self._served)])
            except (ConnectionError, asyncio.IncompleteReadError):
                self._lose()

    async def _connect(self, worker: Running) -> None:
        query = "" if self.cursor is None else f"?after={self.cursor}"
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        self._writer = writer
        try:
            lines = f"GET {self.path}{query} HTTP/1.1", f"Host: 127.0.0.1:{worker.port}", "Accept: application/x-ndjson"
            writer.write("\r\n".join([*lines, "", ""]).encode())
            response = Exchange(reader, writer)
            await response.read_head()
            if response.status in (204, 404):
                self.finish("gone")
            elif response.status == 200:
                self.path = urlsplit(response.headers.get("content-location", self.path)).path
                await self._read(response)
            else:
                assert response.status == 503, f"expected a stream, but got status {response.status}"
                self._told("unavailable")
        finally:
            writer.close()

    async def _read(self, response: Exchange) -> None:
        decoder = NDJSON().decoder()
        while chunk := await response.chunk():
            self._take(decoder.feed(chunk))
        if not (self.ended or response.whole):
            self._lose()

    def _lose(self) -> None:
        self._at += 1
        self.degrade(False)  # it was the connection's state
        self._told("connection lost")

    def _take(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            match read_notice(frame):
                case Outcome() as outcome:
                    self.finish(outcome.code or outcome.state)
                case Reset(reason):
                    self.cursor = frame.id
                    self.reset(reason)
                case Degraded(degraded):
                    self.degrade(degraded)
                case Farewell():
                    self._at += 1
                case None:
                    assert frame.id is not None
                    self.cursor = frame.id
                    place = Cursor.parse(frame.id)
                    self.take(place.epoch, [(place.offset, frame.data)])
