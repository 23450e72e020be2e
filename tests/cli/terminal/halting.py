"""A chat server, as a program that a test can kill. Its model halts in the middle of the first reply."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fastapi import FastAPI

from tailrace.chat import Message, Model, create_app
from tests.chat.api.talking import settings
from tests.programs import Server, serving
from tests.serving import ROOT

BEGINNING = """\
# Logs

A log is **append-only**.

- one reader
- and *ano"""


class Halting(Model):
    name = "halting"

    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[str, None]:
        yield BEGINNING
        if len(conversation) == 1:
            await asyncio.Event().wait()
        yield "ther*"


def app() -> FastAPI:
    return create_app(settings(Path.cwd()), model=Halting())


def serving_halting(folder: Path, port: int = 0) -> AbstractContextManager[Server]:
    """Run the server, with its database in a folder."""
    options = ["--app-dir", str(ROOT), "--factory", "--port", str(port)]
    return serving(sys.executable, "-m", "uvicorn", *options, f"{__name__}:{app.__name__}", cwd=folder)
