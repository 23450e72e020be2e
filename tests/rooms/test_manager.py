"""The ConnectionManager, used as FastAPI's tutorial uses its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import websockets
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection

from tailrace import Flow, StreamError, lifespan
from tailrace.rooms import ConnectionManager
from tests.asgi.apps import small_engine
from tests.log.redis.redis_server import redis_server
from tests.raw import BOUND
from tests.rooms.apps import shared_engine, until, until_gone
from tests.serving import serving

pytestmark = pytest.mark.usefixtures("silent_loop")


class Tutorial:
    """The tutorial's chat."""

    def __init__(self, **options: Any) -> None:
        self.app = FastAPI(lifespan=lifespan)
        self.app.state.tailrace_engine = self.engine = options.setdefault("engine", small_engine())
        self.manager = manager = ConnectionManager(**options)
        self.url = ""
        self.changed = asyncio.Condition()

        @self.app.websocket("/ws/{room}/{client_id}")
        async def endpoint(websocket: WebSocket, room: str, client_id: int) -> None:
            await manager.connect(websocket, room)
            await self.notify()
            try:
                while True:
                    data = await websocket.receive_text()
                    await manager.broadcast_to_room(f"Client #{client_id} says: {data}", room)
            except WebSocketDisconnect:
                manager.disconnect(websocket, room)
                await manager.broadcast_to_room(f"Client #{client_id} left the chat", room)
                await self.notify()

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, count: int, room: str = "red") -> None:
        async with asyncio.timeout(BOUND), self.changed:
            await self.changed.wait_for(lambda: len(self.manager.active_connections.get(room, ())) == count)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Tutorial]:
        async with serving(self.app) as url:
            self.url = url.replace("http", "ws", 1)
            try:
                yield self
            finally:
                self.engine.drain()

    @asynccontextmanager
    async def enter(self, number: int, room: str = "red") -> AsyncIterator[ClientConnection]:
        async with asyncio.timeout(BOUND), websockets.connect(f"{self.url}/ws/{room}/{number}") as connection:
            yield connection


async def until_closed(connection: ClientConnection) -> AsyncIterator[Any]:
    """All messages until the socket is closed, however."""
    with suppress(websockets.ConnectionClosed):
        while True:
            yield await connection.recv()


async def test_the_tutorials_chat() -> None:
    async with Tutorial().open() as chat, chat.enter(1) as one, chat.enter(9, "blue") as other:
        async with chat.enter(2) as two:
            await chat.until(2)
            await one.send("hello")
            assert await one.recv() == await two.recv() == "Client #1 says: hello"
            await two.send("hi")
            assert await one.recv() == await two.recv() == "Client #2 says: hi"
        assert await one.recv() == "Client #2 left the chat"
        await chat.until(1)
        await other.send("alone")
        assert await other.recv() == "Client #9 says: alone"
    assert list(chat.manager.active_connections) in ([], ["red"], ["blue"], ["red", "blue"])


async def test_the_tutorials_chat_without_rooms() -> None:
    manager = ConnectionManager(small_engine())
    app = FastAPI()

    @app.websocket("/ws/{client_id}")
    async def endpoint(websocket: WebSocket, client_id: int) -> None:
        await manager.connect(websocket)
        try:
            while True:
                data = await websocket.receive_text()
                await manager.send_personal_message(f"You wrote: {data}", websocket)
                await manager.broadcast(f"Client #{client_id} says: {data}")
        except WebSocketDisconnect:
            manager.disconnect(websocket)
            await manager.broadcast(f"Client #{client_id} left the chat")

    async with serving(app) as url, asyncio.timeout(BOUND):
        address = f"{url.replace('http', 'ws', 1)}/ws"
        async with websockets.connect(f"{address}/1") as one:
            async with websockets.connect(f"{address}/2") as two:
                await two.send("hello")
                assert {await two.recv(), await two.recv()} == {"You wrote: hello", "Client #2 says: hello"}
                assert await one.recv() == "Client #2 says: hello"
            assert await one.recv() == "Client #2 left the chat"
            assert [len(sockets) for sockets in manager.active_connections.values()] == [1]


async def test_a_personal_message() -> None:
    async with Tutorial().open() as chat, chat.enter(1) as one, chat.enter(2):
        await chat.until(2)
        first, _ = chat.manager.active_connections["red"]
        await chat.manager.send_personal_message({"for": "you"}, first)
        assert await one.recv() == '{"for":"you"}'
        chat.engine.drain()
        await until(lambda: not chat.manager.active_connections)
        with pytest.raises(WebSocketDisconnect):
            await chat.manager.send_personal_message("too late", first)


async def test_who_connects_twice_hears_everything_once() -> None:
    async with Tutorial().open() as chat, chat.enter(1) as one:
        await chat.until(1)
        [socket] = chat.manager.active_connections["red"]
        await chat.manager.connect(socket, "red")
        await chat.manager.connect(socket, "blue")
        for room in ("red", "blue", "red"):
            await chat.manager.broadcast_to_room(room, room)
            assert await one.recv() == room
        chat.manager.disconnect(socket, "red")
        await chat.manager.connect(socket, "red")  # before the task for the first time has ended
        await chat.manager.broadcast_to_room("back", "red")
        assert await one.recv() == "back"
        assert chat.manager.active_connections == {"red": [socket], "blue": [socket]}


async def test_a_connection_whose_endpoint_forgets_it_is_forgotten() -> None:
    manager = ConnectionManager(small_engine())
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket, "red")
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()

    async with serving(app) as url, asyncio.timeout(BOUND):
        async with websockets.connect(url.replace("http", "ws", 1) + "/ws"):
            await until(lambda: manager.active_connections)
        await manager.broadcast_to_room("anybody here?", "red")
        await until(lambda: not manager.active_connections)


async def test_a_room_that_everybody_has_left_is_forgotten() -> None:
    async with Tutorial().open() as chat:
        for _ in range(2):
            async with chat.enter(1) as one:
                await one.send("hello")
                assert await one.recv() == "Client #1 says: hello"
            await chat.until(0)
            await until_gone(chat.engine, "connection manager/red")
        await chat.manager.broadcast_to_room("anybody here?", "red")
        assert await chat.engine.find("connection manager/red") is None


async def test_who_leaves_at_once_gets_nothing() -> None:
    async with Tutorial().open() as chat, chat.enter(1) as one:
        await chat.until(1)
        [socket] = chat.manager.active_connections["red"]
        await chat.manager.connect(socket, "blue")
        chat.manager.disconnect(socket, "blue")  # before its task has begun
        await chat.manager.broadcast_to_room("nobody", "blue")
        await chat.manager.broadcast_to_room("somebody", "red")
        assert await one.recv() == "somebody"
        assert chat.engine.statistics().readers == 1


async def test_a_broadcast_reaches_other_processes() -> None:
    with redis_server() as redis:
        await broadcast_to_two_processes(redis.url)


async def broadcast_to_two_processes(url: str) -> None:
    async with AsyncExitStack() as stack:
        chats = [Tutorial(engine=shared_engine(url)) for _ in range(2)]
        for chat in chats:
            await stack.enter_async_context(chat.open())
        here = await stack.enter_async_context(chats[0].enter(1))
        await chats[0].until(1)
        async with chats[1].enter(2) as there:
            await chats[1].until(1)
            await there.send("hello")
            assert await here.recv() == await there.recv() == "Client #2 says: hello"
        assert await here.recv() == "Client #2 left the chat"


async def test_a_connection_that_comes_at_the_end_is_closed() -> None:
    async with Tutorial().open() as chat:
        chat.engine.drain()
        async with chat.enter(1) as one:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await one.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012


async def test_messages_that_are_no_text_are_sent_as_json() -> None:
    async with Tutorial().open() as chat, chat.enter(1) as one:
        await chat.until(1)
        await chat.manager.broadcast_to_room({"a": [1, None]}, "red")
        await chat.manager.broadcast_to_room("a\u2028b", "red")
        assert await one.recv() == '{"a":[1,null]}'
        assert await one.recv() == "a\u2028b"


async def test_a_broadcast_before_anybody_has_come() -> None:
    await ConnectionManager().broadcast_to_room("hello?", "red")


async def test_a_name_that_no_room_has() -> None:
    async with Tutorial().open() as chat:
        with pytest.raises(websockets.InvalidStatus):
            async with chat.enter(1, "%20"):
                pass  # pragma: no cover


async def test_a_member_that_does_not_read_delays_nobody_and_is_disconnected() -> None:
    async with Tutorial(flow=Flow.disconnect(20)).open() as chat, chat.enter(1) as one:
        address = f"{chat.url}/ws/red/2"
        async with websockets.connect(address, max_queue=1, compression=None) as stuck:
            await chat.until(2)
            text = "x" * 200_000
            for _ in range(100):
                await chat.manager.broadcast_to_room(text, "red")
                assert await one.recv() == text
            heard = [message async for message in until_closed(stuck)]
            assert len(heard) < 100
            assert stuck.close_code == 1013


async def test_the_end_of_the_server_closes_the_sockets() -> None:
    async with Tutorial().open() as chat, chat.enter(1) as one:
        await chat.until(1)
        chat.engine.drain()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await one.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_a_room_that_the_store_has_lost() -> None:
    async with Tutorial().open() as chat, chat.enter(1) as one:
        await chat.until(1)
        log = await chat.engine.find("connection manager/red")
        assert log is not None
        await chat.engine.forget(log)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await one.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011


async def test_a_socket_that_is_in_no_room() -> None:
    ConnectionManager().disconnect(WebSocket({"type": "websocket"}, None, None), "red")  # type: ignore[arg-type]


async def test_an_endpoint_that_accepts_by_itself() -> None:
    manager = ConnectionManager(small_engine())
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await manager.connect(websocket, "red")
        await manager.broadcast_to_room("welcome", "red")
        with pytest.raises(StreamError):
            await manager.connect(websocket, "no such name")
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        manager.disconnect(websocket, "red")

    async with (
        serving(app) as url,
        asyncio.timeout(BOUND),
        websockets.connect(url.replace("http", "ws", 1) + "/ws") as connection,
    ):
        assert await connection.recv() == "welcome"
    assert manager.active_connections == {}
