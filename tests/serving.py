"""Real servers for tests: uvicorn in the test's own event loop, or any server as a process."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx
import uvicorn

from tests.raw import BOUND

ROOT = Path(__file__).parent.parent

PROCESSES = 16
"""The number of test processes that have ports of their own."""


def listening_socket() -> socket.socket:
    """A socket that already accepts, so that no test has to wait for its server."""
    # asyncio sends small pieces at once only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    return listener


@asynccontextmanager
async def serving(app: Any, **config: Any) -> AsyncIterator[str]:
    """The base URL of `app` on uvicorn in this event loop; the server has ended when the block has."""
    listener = listening_socket()
    options = {"log_level": "critical", "timeout_graceful_shutdown": 5, **config}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 30)
        listener.close()


def http_client(url: str, **options: Any) -> httpx.AsyncClient:
    """A client of a server without TLS. It loads no certificates: that would take longer than most tests."""
    return httpx.AsyncClient(**{"base_url": url, "timeout": BOUND, "verify": False, **options})


def free_port() -> int:
    """Return a port for a server that starts later, or again.

    The system gives it to no connection, and to no server that asks for any port: it has higher ones for them
    (`ip_local_port_range`), and so for the bus of a Redis Cluster, whose port is greater by 10,000. Each process of
    pytest-xdist has ports of its own. Otherwise, two could choose the same one before a server has it. Browsers refuse
    the port 10,080, so all are above it.
    """
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    while True:
        port = 10_096 + secrets.randbelow(12_000 // PROCESSES) * PROCESSES + own
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def process(
    command: Sequence[str], *, stdout: IO[bytes] | int = subprocess.PIPE, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process of its own, ended with the block, and so are the processes that it has started."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment}
    server = subprocess.Popen(
        [sys.executable, "-m", *command], env=env, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield server
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        if server.stdout is not None:
            server.stdout.close()


async def accepting(port: int) -> None:
    """Wait until a process accepts connections at a port."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
