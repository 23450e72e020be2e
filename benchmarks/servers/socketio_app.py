"""A room of python-socketio, over WebSockets alone."""

import socketio  # type: ignore[import-untyped]
from fastapi import FastAPI

from benchmarks.servers.reading import Reading

# No heartbeat during the run: the load client does not answer any. The server sends its own pings to all peers alike.
sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_interval=600)
http = FastAPI()
app = socketio.ASGIApp(sio, http)


async def enter(sid: str, environ: dict[str, object]) -> None:
    await sio.enter_room(sid, "feed")


sio.on("connect", enter)


@http.post("/publish", status_code=202)
async def publish(reading: Reading) -> None:
    await sio.emit("reading", reading.model_dump(), room="feed")
