"""`ConnectionManager`: rooms for WebSocket endpoints, as FastAPI's tutorial has them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from pydantic_core import from_json
from starlette.websockets import WebSocketState

from ..asgi.lifespan import app_engine
from ..engine.engine import Engine
from ..errors import LogReset, SlowReader
from ..events import encode_event
from ..flow import Flow, Retention
from ..log.base import Log, Tail
from ..wire.websocket import INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER
from .limits import check_name

FLOW = Flow.disconnect(1_000)

RETENTION = Retention(count=1_000, size=4 << 20)

LOBBY = "lobby"
"""The room of connections that name none."""


class ConnectionManager:
    """Sends messages to everybody in a room.

        manager = ConnectionManager()

        @app.websocket("/ws/{room}")
        async def chat(websocket: WebSocket, room: str) -> None:
            await manager.connect(websocket, room)
            try:
                async for text in websocket.iter_text():
                    await manager.broadcast_to_room(text, room)
            finally:
                manager.disconnect(websocket, room)

    A room is a log, so a broadcast waits for no connection. Each connection has a task that sends what is new. A member
    that reads too slowly, or not at all, is disconnected, and delays nobody. A connection that has broken is
    forgotten at the next message, even if its endpoint does not call `disconnect`. A room without connections is
    forgotten, too.

    If you need no rooms, leave `room` out, and call `broadcast`.
    """

    def __init__(self, engine: Engine | None = None, *, name: str = "connection manager", flow: Flow = FLOW) -> None:
        """Make a manager.

        - `engine`: where the rooms live. Default: the application's own engine.
        - `name`: tells the rooms of this manager from those of another one with the same engine.
        - `flow`: the policy for members that read slowly.
        """
        self.active_connections: dict[str, list[WebSocket]] = {}
        """The connected WebSockets by room. A room without any is not in it."""
        self._engine = engine
        self._name = name
        self._flow = flow
        self._deliveries: dict[tuple[WebSocket, str], _Delivery] = {}

    async def connect(self, websocket: WebSocket, room: str = LOBBY) -> None:
        """Accept a WebSocket, and send it what is broadcast to the room from now on. It may be in several rooms.

        Raise StreamError for a name that no room may have.
        """
        check_name(room)
        engine = self._engine = self._engine or app_engine(websocket.app)
        if websocket.application_state is WebSocketState.CONNECTING:
            await websocket.accept()
        log = await self._log(room)
        # In an embedded store nothing is awaited from here on, so nobody forgets the room.
        if (websocket, room) not in self._deliveries:
            tail = log.tail(log.top, flow=self._flow)
            self._deliveries[websocket, room] = _Delivery(websocket, tail, engine, partial(self._end, websocket, room))
            self.active_connections.setdefault(room, []).append(websocket)

    def disconnect(self, websocket: WebSocket, room: str = LOBBY) -> None:
        """Stop sending to a WebSocket. Do nothing if it is not in the room."""
        if (delivery := self._deliveries.get((websocket, room))) is not None:
            self._remove(websocket, room)
            delivery.abandon()

    async def send_personal_message(self, message: Any, websocket: WebSocket) -> None:
        """Send a message to one WebSocket: a str as it is, anything else as JSON. Wait until its client has room.

        Raise WebSocketDisconnect if it is closed.
        """
        if websocket.application_state is WebSocketState.DISCONNECTED:
            # As if the client had left, so that the endpoint ends in the same way. Code 1006: RFC 6455, section 7.4.1.
            raise WebSocketDisconnect(1006)
        await websocket.send_text(_text_of(encode_event(message)[1]))

    async def broadcast(self, message: Any) -> None:
        """Send a message to everybody in the room of connections that name none."""
        await self.broadcast_to_room(message, LOBBY)

    async def broadcast_to_room(self, message: Any, room: str) -> None:
        """Send a message to everybody in a room: a str as it is, anything else as JSON. Wait for no connection."""
        if room in self.active_connections or self._shared:
            log = await self._log(room)
            await log.append(message)

    def _remove(self, websocket: WebSocket, room: str) -> None:
        del self._deliveries[websocket, room]
        connections = self.active_connections[room]
        connections.remove(websocket)
        if not connections:
            del self.active_connections[room]

    async def _end(self, websocket: WebSocket, room: str, delivery: _Delivery) -> None:
        """Forget a connection that can be sent nothing more, and a room without connections."""
        if self._deliveries.get((websocket, room)) is delivery:
            self._remove(websocket, room)
        if room not in self.active_connections and not self._shared:
            assert self._engine is not None
            await self._engine.forget(delivery.log)

    @property
    def _shared(self) -> bool:
        """True if other processes may have connections. Nobody has any before there is an engine."""
        return self._engine is not None and self._engine.store.shared

    async def _log(self, room: str) -> Log:
        assert self._engine is not None
        return await self._engine.log(f"{self._name}/{room}", retention=RETENTION)


class _Delivery:
    """Sends the messages of a room to one WebSocket. The engine waits for it at the end of the server."""

    def __init__(
        self, websocket: WebSocket, tail: Tail, engine: Engine, ended: Callable[[_Delivery], Awaitable[None]]
    ) -> None:
        """Call `ended` at the end, whatever its cause."""
        self.log = tail.log
        self._websocket = websocket
        self._tail = tail
        self._engine = engine
        self._ended = ended
        self._task = asyncio.create_task(self._run(), name=f"tailrace delivery {tail.log.name}")
        self._task.add_done_callback(self._end)
        engine.readers.join(self)
        if engine.draining:
            self.leave()

    def leave(self) -> None:
        """Close the WebSocket, because the server is about to stop."""
        self._tail.close()

    def abandon(self) -> None:
        """Send nothing more."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            # If the client has left, the endpoint hears of it, too.
            with suppress(RuntimeError, OSError, WebSocketDisconnect):
                await self._websocket.close(await self._deliver())
        finally:
            self._tail.close()
            await self._ended(self)

    async def _deliver(self) -> int:
        """Send what comes until the server stops, or the member cannot go on. Return the close code."""
        send = self._websocket.send_text
        try:
            async for entries in self._tail:
                for json in entries.json:
                    await send(_text_of(json))
        except SlowReader:
            return TRY_AGAIN_LATER
        except LogReset:
            return INTERNAL_ERROR
        return SERVICE_RESTART

    def _end(self, _: object) -> None:
        self._tail.close()  # the task may have been cancelled before its first step
        self._engine.readers.part(self)


def _text_of(json: bytes) -> str:
    """Return a message as it is sent: a string without its quotes."""
    return from_json(json) if json.startswith(b'"') else json.decode()
