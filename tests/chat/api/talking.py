"""A chat server for a test, a model that does what the test says, and how clients talk with them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from tailrace.chat import ChatSettings, create_app
from tailrace.chat.models.base import Message, Model, Piece, Reasoning, Usage
from tailrace.chat.settings import database_url
from tailrace.chat.store import open_store
from tests.raw import BOUND, Exchange, exchange
from tests.serving import http_client, serving

JSON = {"Accept": "application/json"}
SSE = {"Accept": "text/event-stream"}


@dataclass
class Hold:
    """A step that waits until the test says `release.set()`."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


Step = str | Reasoning | Usage | Hold | BaseException


class Scripted(Model):
    """A model that takes the same steps for every reply. `closed` counts the generators that have ended."""

    name = "scripted"

    def __init__(self, *steps: Step) -> None:
        self.steps = steps or ("one ", "two ", "three")
        self.asked: list[list[Message]] = []
        self.closed = 0

    async def reply(self, conversation: Sequence[Message]) -> AsyncGenerator[Piece, None]:
        self.asked.append(list(conversation))
        try:
            for step in self.steps:
                if isinstance(step, Hold):
                    step.reached.set()
                    await step.release.wait()
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step
        finally:
            self.closed += 1


@dataclass
class Chat:
    """A running server and a client of it."""

    url: str
    app: FastAPI
    http: httpx.AsyncClient

    async def get(self, path: str, status: int = 200, **options: Any) -> Any:
        """The JSON of an answer that has this status."""
        return _json(await self.http.get(path, **options), status)

    async def post(self, path: str, status: int = 200, **options: Any) -> Any:
        return _json(await self.http.post(path, **options), status)

    async def patch(self, path: str, status: int = 200, **options: Any) -> Any:
        return _json(await self.http.patch(path, **options), status)

    async def delete(self, path: str, status: int = 200, **options: Any) -> Any:
        return _json(await self.http.delete(path, **options), status)

    async def say(
        self, message: str, session_id: str | None = None, *, key: str | None = None, status: int = 200, **options: Any
    ) -> list[dict[str, Any]]:
        """The objects of the whole reply."""
        answer = await self.http.post("/chat/stream", json=body(message, session_id), headers=headers(key), **options)
        assert answer.status_code == status, answer.text
        return lines(answer.content)

    async def read(
        self, stream_id: str, after: str | None = None, *, query: str = "", **options: Any
    ) -> list[dict[str, Any]]:
        """The objects of a stream after a cursor."""
        address = f"/chat/stream/{stream_id}?{query}&after={after or ''}"
        answer = await self.http.get(address, **options)
        assert answer.status_code == 200, answer.text
        return lines(answer.content)

    @asynccontextmanager
    async def saying(
        self, message: str, session_id: str | None = None, *, key: str | None = None, **options: str
    ) -> AsyncIterator[Exchange]:
        """A reply that is read as it comes, and left with the block."""
        fields = {"Content-Type": "application/json", **headers(key), **options}
        sent = json.dumps(body(message, session_id)).encode()
        async with exchange(self.url, "/chat/stream", fields, method="POST", body=sent) as got:
            yield got

    @asynccontextmanager
    async def reading(self, stream_id: str, after: str = "") -> AsyncIterator[Exchange]:
        path = f"/chat/stream/{stream_id}" + (f"?after={after}" if after else "")
        async with exchange(self.url, path) as got:
            yield got

    async def health(self, **wanted: int) -> dict[str, Any]:
        """What /health says, once it says this: that a client has left is seen by nobody but the server."""
        async with asyncio.timeout(BOUND):
            while True:
                said: dict[str, Any] = await self.get("/health")
                if all(said[name] == value for name, value in wanted.items()):
                    return said

    async def replies(self, session_id: str) -> list[tuple[str, str | None]]:
        """The text and the state of each reply of a session, as they are stored."""
        details = await self.get(f"/sessions/{session_id}")
        return [(each["text"], each["state"]) for each in details["messages"] if each["role"] == "assistant"]


def body(message: str, session_id: str | None) -> dict[str, str]:
    return {"message": message, **({"session_id": session_id} if session_id else {})}


def headers(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def lines(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines() if line]


def text(objects: Sequence[Mapping[str, Any]]) -> str:
    return "".join(each["text"] for each in objects if each["type"] == "chunk")


async def begun(reply: Exchange, piece: str = '"is_final"') -> list[dict[str, Any]]:
    """The objects up to the one with `piece` in it."""
    return lines(await reply.until(piece.encode()))


async def within(event: asyncio.Event) -> None:
    async with asyncio.timeout(BOUND):
        await event.wait()


def settings(folder: Path, **changes: Any) -> ChatSettings:
    return ChatSettings(**{"model": "demo", "database": str(folder / "chat.sqlite3"), "demo_pace": 0, **changes})


@asynccontextmanager
async def chatting(
    folder: Path, model: Model | None = None, *, spec: str = "demo", key: str | None = None, **changes: Any
) -> AsyncIterator[Chat]:
    """A server with its database in a folder and a model, or the one that `spec` names.

    `key` is the API key of its client, `changes` are of its settings.
    """
    async with AsyncExitStack() as stack:
        await _lay_out(folder)
        app = create_app(settings(folder, model=spec, **changes), model=model)
        url = await stack.enter_async_context(serving(app))
        auth = {"Authorization": f"Bearer {key}"} if key else {}
        # A connection for each request: on one that is used again every answer waits for a delayed acknowledgement.
        single = httpx.Limits(max_keepalive_connections=0)
        http = http_client(url, headers=auth, limits=single)
        await stack.enter_async_context(http)
        # The server listens before it has started; the first answer comes when it has.
        await http.get("/health")
        yield Chat(url, app, http)


async def _lay_out(folder: Path) -> None:
    """Copy an empty database, which is made once for all tests: to make one takes longer than most of them."""
    empty, file = folder.parent / "empty.sqlite3", folder / "chat.sqlite3"
    if not empty.exists():
        async with open_store(database_url(str(empty))):
            pass
    if not file.exists():
        shutil.copy(empty, file)


def _json(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, (answer.status_code, answer.text)
    return answer.json()
