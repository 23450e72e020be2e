"""Runs `tailrace tail`, against streams of tailrace and others."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from tests.cli.served import PATIENCE
from tests.client.apps import tailrace_app
from tests.serving import ROOT

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ended]]


def make_app() -> FastAPI:
    """Streams of tailrace, and endpoints that show the request or answer in rare ways."""
    app = tailrace_app()

    @app.api_route("/echo", methods=["GET", "POST", "PATCH"])
    async def echo(request: Request) -> Response:
        said = {"method": request.method, "body": (await request.body()).decode(), **request.headers}
        return Response(json.dumps(said) + "\n", media_type=NDJSON)

    @app.get("/numbers")
    async def numbers() -> Response:
        return StreamingResponse((b"%d\n" % number for number in range(3)), media_type=NDJSON)

    @app.get("/half")
    async def half() -> Response:
        return Response('{"id": "7", "data": 1}\n{"id": ', media_type=NDJSON)

    @app.get("/said")
    async def said(text: str) -> Response:
        return Response(text, media_type=SSE, headers={"Tailrace-Cursor": "s.e.0"})

    @app.get("/once")
    async def once(request: Request, status: int = 403) -> Response:
        if "last-event-id" in request.headers:
            return Response('{"detail": "not you"}', status)
        return Response("id:s.e.1\ndata:1\n\n", media_type=SSE, headers={"Tailrace-Cursor": "s.e.0"})

    @app.get("/unasked")
    async def unasked() -> Response:
        return Response('{"detail": "not so"}', 405)

    @app.websocket("/answer")
    async def answer(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"got {await socket.receive_text()}")
        await socket.close()

    @app.get("/page")
    async def page() -> Response:
        return HTMLResponse("<p>No stream.")

    return app


def environment() -> dict[str, str]:
    """The environment of a process whose coverage is not measured.

    On Python 3.11 a cancellation gets lost where a coroutine is traced: https://github.com/python/cpython/issues/106749
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Process]:
    """Run the command as a process. If it still runs at the end of the block, it is killed."""
    command = [sys.executable, "-m", "tailrace", "tail", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=environment(), stdout=PIPE, stderr=PIPE, limit=1 << 24)
    try:
        async with asyncio.timeout(PATIENCE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def shell(line: str, **variables: str) -> Ended:
    """Run a line of bash, in which `tail` is the command."""
    env = {**environment(), **variables}
    script = f'set -o pipefail; tail() {{ {sys.executable} -m tailrace tail "$@"; }}; {line}'
    process = await asyncio.create_subprocess_exec("bash", "-c", script, env=env, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
