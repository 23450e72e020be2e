"""Applications with packet sessions, and a client that talks to them in plain HTTP."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic_core import from_json, to_json

from tailrace import Engine
from tailrace.asgi.lifespan import app_engine
from tailrace.packets import ClientSession, PacketsRouter, PacketType, SocketPacket, packets_router
from tests.asgi.apps import small_engine
from tests.raw import BOUND
from tests.serving import http_client, serving

LINES = {"Accept": "application/x-ndjson"}


async def echo(session: ClientSession, packet: SocketPacket) -> None:
    """Answer each packet with its payload, and `bye` with a RESULT."""
    kind = PacketType.RESULT if packet.payload == "bye" else PacketType.DATA
    await session.send(packet.reply(packet.payload, kind))


class Recorded:
    """An application whose sessions are recorded: which hooks were called, in order, and with what."""

    def __init__(self, read: Callable[..., Any] = echo, *, connect: Any = None, **options: Any) -> None:
        self.calls: list[Any] = []
        self.changed = asyncio.Condition()
        self.session: ClientSession | None = None
        self._read = read
        self._connecting = connect
        self.engine: Engine = options.setdefault("engine", small_engine())
        self.router: PacketsRouter = packets_router(
            on_connect=lambda: self.connect,
            on_packet=lambda: self.read,
            on_disconnect=lambda: self.disconnect,
            **options,
        )
        self.app = FastAPI()
        self.app.state.tailrace_engine = self.engine
        self.app.include_router(self.router)

    async def connect(self, session: ClientSession) -> None:
        self.session = session
        await self._note("connect")
        if self._connecting is not None:
            await self._connecting(session)

    async def read(self, session: ClientSession, packet: SocketPacket) -> None:
        await self._note(packet.payload)
        returned = self._read(session, packet)
        if inspect.isawaitable(returned):
            await returned

    async def disconnect(self, session: ClientSession) -> None:
        await self._note("disconnect")

    async def until(self, call: Any) -> None:
        """Wait until a hook was called: `connect`, `disconnect`, or with a packet of this payload."""
        async with asyncio.timeout(BOUND), self.changed:
            await self.changed.wait_for(lambda: call in self.calls)

    async def _note(self, call: Any) -> None:
        async with self.changed:
            self.calls.append(call)
            self.changed.notify_all()


class Talk:
    """An open session: the lines of its response, and requests to its address."""

    def __init__(self, client: httpx.AsyncClient, response: httpx.Response) -> None:
        self.client = client
        self.response = response
        self._lines = response.aiter_lines()

    @property
    def address(self) -> str:
        return self.response.headers["content-location"].partition("?")[0]

    async def packet(self) -> dict[str, Any]:
        """The next packet, but DEGRADED: a busy machine may keep Redis waiting."""
        async with asyncio.timeout(BOUND):
            async for line in self._lines:
                packet: dict[str, Any]
                if line and (packet := from_json(line))["packet_type"] != "DEGRADED":
                    return packet
        raise AssertionError("expected a packet, but the response has ended")

    async def rest(self) -> list[dict[str, Any]]:
        """The packets up to the end of the body, clean or not."""
        packets = []
        try:
            async with asyncio.timeout(BOUND):
                async for line in self._lines:
                    packets += [from_json(line)] if line else []
        except httpx.RemoteProtocolError:  # how a failed session ends
            packets.append(None)
        return packets

    async def say(self, *packets: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Send packets into the session."""
        return await say(self.client, self.address, *packets, headers=headers)

    async def end(self) -> httpx.Response:
        return await self.client.delete(self.address)


async def say(
    client: httpx.AsyncClient, address: str, *packets: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> httpx.Response:
    body = b"\n".join(map(to_json, packets))
    kind = "application/json" if len(packets) == 1 else "application/x-ndjson"
    return await client.post(address, content=body, headers={"Content-Type": kind, **(headers or {})})


async def insist(client: httpx.AsyncClient, address: str, *packets: Mapping[str, Any]) -> None:
    """Send packets until they are accepted, as clients do after 429."""
    async with asyncio.timeout(BOUND):
        while True:
            answer = await say(client, address, *packets)
            if answer.status_code != 429:
                return
            await asyncio.sleep(0.01)


def data(payload: Any, **members: Any) -> dict[str, Any]:
    return {"packet_type": "DATA", "payload": payload, **members}


@asynccontextmanager
async def client_of(recorded: Recorded | FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    app = recorded.app if isinstance(recorded, Recorded) else recorded
    async with serving(app) as url, http_client(url) as client:
        try:
            yield client
        finally:
            app_engine(app).drain()


@asynccontextmanager
async def opened(
    client: httpx.AsyncClient, first: Mapping[str, Any], path: str = "/stream", **options: Any
) -> AsyncIterator[Talk]:
    async with client.stream("POST", path, json=first, **options) as response:
        assert response.status_code == 200, await response.aread()
        yield Talk(client, response)


@asynccontextmanager
async def resumed(talk: Talk, after: str | None = None, **params: Any) -> AsyncIterator[Talk]:
    query = {**({} if after is None else {"after": after}), **params}
    async with talk.client.stream("GET", talk.address, params=query) as response:
        yield Talk(talk.client, response)
