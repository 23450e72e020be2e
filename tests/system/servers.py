"""The servers that the tests run on, each as a process of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import httpx

from tailrace import NDJSON, SSE, Frame, Wire
from tests.serving import free_port, http_client, process

PATIENCE = 30.0
"""Seconds after which no test waits any more."""


@dataclass(frozen=True)
class Kind:
    """A way to serve an application; `{port}` and `{app}` stand for what they say."""

    name: str
    command: str

    def __str__(self) -> str:
        return self.name


_UVICORN = "uvicorn --port {port} --no-access-log {app}"

UVICORN = Kind("uvicorn", _UVICORN)
UVICORNS = [
    Kind(f"uvicorn-{loop}-{http}", f"{_UVICORN} --loop {loop} --http {http}")
    for loop in ("asyncio", "uvloop")
    for http in ("httptools", "h11")
]
GRANIAN = Kind("granian", "granian --interface asgi --port {port} {app}")
HYPERCORN = Kind("hypercorn", "hypercorn --bind 127.0.0.1:{port} {app}")
# Without a process for its worker, the application hears the signals that end the server.
HYPERCORN_ALONE = Kind("hypercorn-alone", "hypercorn --workers 0 --bind 127.0.0.1:{port} {app}")

KINDS = [*UVICORNS, GRANIAN, HYPERCORN]


@dataclass
class Running:
    """A server that accepts connections."""

    kind: Kind
    port: int
    process: subprocess.Popen[bytes]
    _output: IO[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx.AsyncClient:
        return http_client(self.url, **options)

    def output(self) -> str:
        """What the server has said so far."""
        self._output.seek(0)
        return self._output.read().decode()

    async def exit_status(self) -> int:
        """How the process ends, which must be soon."""
        return await asyncio.to_thread(self.process.wait, PATIENCE)


@contextmanager
def running(kind: Kind, app: str = "tests.system.app:app", port: int = 0, **environment: str) -> Iterator[Running]:
    """A server as a process, which has ended when the block has. By default, the system chooses its port."""
    port = port or free_port()
    command = kind.command.format(port=port, app=app).split()
    # A file, because nobody would empty a pipe.
    with tempfile.TemporaryFile() as output, process(command, stdout=output, **environment) as server:
        instance = Running(kind, port, server, output)
        _wait_until_accepting(instance)
        yield instance


def _wait_until_accepting(server: Running) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            assert server.process.poll() is None, server.output()
            assert time.monotonic() < deadline, server.output()
            time.sleep(0.02)
        else:
            return


class Reader:
    """The frames of a streamed response, as they come, but `degraded`: a busy machine may keep Redis waiting."""

    def __init__(self, response: httpx.Response, wire: Wire) -> None:
        self.response = response
        self.raw = b""
        self._decoder = wire.decoder()
        self._chunks = response.aiter_bytes()
        self._frames: list[Frame] = []

    @classmethod
    def of(cls, response: httpx.Response) -> Reader:
        """A reader for the response's own media type."""
        media_type = response.headers["content-type"].partition(";")[0]
        return cls(response, {wire.media_type: wire for wire in (SSE(), NDJSON())}[media_type])

    async def next(self) -> Frame:
        """The next frame. EOFError at a clean end; httpx.RemoteProtocolError at any other."""
        async with asyncio.timeout(PATIENCE):
            while not self._frames:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    self._decoder.close()
                    raise EOFError
                self.raw += chunk
                self._frames += [frame for frame in self._decoder.feed(chunk) if frame.event != "degraded"]
        return self._frames.pop(0)

    async def rest(self) -> list[Frame]:
        """All frames up to the clean end."""
        frames = []
        try:
            while True:
                frames.append(await self.next())
        except EOFError:
            return frames
