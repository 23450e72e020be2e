"""Applications with rooms, and people who talk in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import websockets
from fastapi import FastAPI, HTTPException
from pydantic_core import from_json
from websockets.asyncio.client import ClientConnection

from tailrace import Engine
from tailrace.asgi.lifespan import app_engine
from tailrace.log.redis.store import Pace, RedisStore
from tailrace.rooms import RoomsRouter, rooms_router
from tests.asgi.apps import small_engine
from tests.raw import BOUND
from tests.serving import http_client, serving


def by_name(name: str | None = None) -> str | None:
    """The member's name from the query. `nobody` may not come in."""
    if name == "nobody":
        raise HTTPException(401, "who are you?")
    return name


class House:
    """An application with rooms, on its server, and the clients in it."""

    def __init__(self, **options: Any) -> None:
        self.app = FastAPI()
        self.engine = options.setdefault("engine", small_engine())
        self.app.state.tailrace_engine = self.engine
        self.router: RoomsRouter = rooms_router(**{"member": by_name, "leave_delay": 0.0, **options})
        self.app.include_router(self.router)
        self.url = ""
        self.client: httpx.AsyncClient

    @asynccontextmanager
    async def open(self) -> AsyncIterator[House]:
        # In a storm, a connection may be closed as idle at the moment when the client takes it for the next request.
        async with (
            serving(self.app, log_level="error", timeout_keep_alive=3_600) as self.url,
            http_client(self.url) as self.client,
        ):
            try:
                yield self
            finally:
                app_engine(self.app).drain()

    @asynccontextmanager
    async def enter(self, room: str, name: str | None = None, **query: str) -> AsyncIterator[Guest]:
        """Somebody in a room, by WebSocket."""
        params = httpx.QueryParams({**({} if name is None else {"name": name}), **query})
        address = f"{self.url.replace('http', 'ws', 1)}/rooms/{room}?{params}"
        async with asyncio.timeout(BOUND), websockets.connect(address) as connection:
            yield Guest(connection)

    async def members(self, room: str) -> list[str]:
        answer = (await self.client.get(f"/rooms/{room}/members")).json()
        assert answer["count"] == len(answer["members"])
        return [member["id"] for member in answer["members"]]

    async def until_members(self, room: str, *names: str, within: float = BOUND) -> None:
        """Wait until exactly these are in a room."""
        there: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while (there := await self.members(room)) != sorted(names):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert there == sorted(names)


class Guest:
    """Somebody in a room."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.cursor = ""

    async def say(self, text: str) -> None:
        await self.connection.send(text)

    async def hear(self) -> tuple[str, Any]:
        """The next event: its name, and who it is about or what was said.

        Leave out `degraded`: a busy machine may keep Redis waiting.
        """
        while (frame := from_json(await self.connection.recv()))["event"] == "degraded":
            pass
        self.cursor = frame.get("id", self.cursor)
        data = frame["data"]
        return frame["event"], data["message"] if "message" in data else data.get("member")

    async def until(self, event: str, what: Any) -> list[tuple[str, Any]]:
        """All events up to one."""
        heard = [await self.hear()]
        while heard[-1] != (event, what):
            heard.append(await self.hear())
        return heard


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nothing tells."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def until_gone(engine: Engine, name: str) -> None:
    """Wait until a log is forgotten."""
    async with asyncio.timeout(BOUND):
        while await engine.find(name) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def shared_engine(url: str) -> Engine:
    """An engine over Redis, which finds the dead soon."""
    return small_engine(url=RedisStore(url, pace=Pace(interval=0.2, linger=0.1)))
