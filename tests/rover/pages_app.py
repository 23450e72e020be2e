"""A small mission control for the dashboard: its image, its telemetry and its channels, all in a test's hands.

`python -m tests.rover.pages_app [PORT]` serves it for people, with a rover that drives.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from PIL import Image
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

import tailrace
from tailrace import Engine, Flow, Log, Retention, StreamRouter

PAGES = Path(tailrace.__file__).parent / "rover" / "pages"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

TELEMETRY = "/stream/rover-telemetry"

SPEED = 0.042
"""Metres a second."""

LONGEST = 500
"""Characters of a message."""


def panorama(path: Path, width: int = 3200, height: int = 800, seed: int = 1) -> Path:
    """Draw a stony plain below hills and a dusty sky, as a progressive JPEG."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.array([202, 168, 134]) + (rows / height)[..., None] * np.array([34, 22, 26])
    for layer, depth in enumerate((0.33, 0.37, 0.4, 0.44)):
        waves = [(k, random.uniform(0, math.tau), random.normal() / k**1.4) for k in range(1, 160)]
        ridge = sum(np.sin(columns[0] / width * math.tau * k + phase) * high for k, phase, high in waves)
        below = rows > height * (depth + 0.022 * ridge / (layer + 1))[None, :]
        picture[below] = np.array([190, 140, 108]) - layer * np.array([9, 13, 14])
    # The ground is seen aslant: what is near is large, so far rows take many rows of the stones together.
    near = np.clip((rows / height - 0.44) / 0.56, 0, 1)
    across = ((columns - width / 2) / (0.08 + near) + 40_000).astype(int)
    along = (900 / (0.08 + near)).astype(int)
    for size, strength in ((3, 9), (17, 14), (60, 12), (230, 9)):
        noise = random.normal(0, 1, (257, 257))
        light = (
            noise[(along // size) % 257, (across // size) % 257] * 0.5
            + noise[along * 3 // size % 257, across * 2 // size % 257]
        )
        picture += (near > 0)[..., None] * (light * strength * (0.25 + near))[..., None] * np.array([1, 0.82, 0.66])
    picture += random.normal(0, 3, picture.shape)
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path, "JPEG", quality=88, progressive=True)
    return path


@cache
def ways() -> list[tuple[float, float, float, float]]:
    """Return where the rover is at each second, its heading and how far it has come. It turns as it drives."""
    found = [(0.0, 0.0, 58.0, 0.0)]
    for number in range(1, 20_000):
        x, y, heading, travelled = found[-1]
        if is_driving(number):
            heading = (58 + 60 * math.sin(travelled / 7) + 25 * math.sin(travelled / 2.3)) % 360
            east, north = math.sin(math.radians(heading)), math.cos(math.radians(heading))
            x, y, travelled = x + SPEED * east, y + SPEED * north, travelled + SPEED
        found.append((x, y, heading, travelled))
    return found


def is_driving(number: int) -> bool:
    return number % 420 < 330


def reading(number: int, time: datetime, **changes: Any) -> dict[str, Any]:
    """Return what the rover says after `number` seconds."""
    x, y, heading, travelled = ways()[number]
    turn = number / 190
    driving = is_driving(number)
    battery = 71.5 - number * 0.0045 + (number // 420 * 90 + max(0, number % 420 - 330)) * 0.019
    minute = (14 * 60 + 12) * 60 + number
    return {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "sol": 412,
        "local_time": f"{minute // 3600:02}:{minute // 60 % 60:02}:{minute % 60:02}",
        "location": {
            "x": round(x, 2),
            "y": round(y, 2),
            "latitude": round(18.4446 + y / 59_000, 6),
            "longitude": round(77.4509 + x / 56_000, 6),
            "elevation": round(-2569.9 + 0.4 * math.sin(turn * 3), 1),
        },
        "heading": round(heading, 1),
        "speed": SPEED if driving else 0.0,
        "battery": round(battery, 1),
        "power": {"solar": round(118 + 4 * math.sin(turn * 1.3), 1), "load": 146.0 if driving else 61.0},
        "temperature": {
            "ambient": round(-34.6 - number * 0.0016 + 0.6 * math.sin(turn * 5), 1),
            "body": round(11.2 + 1.4 * math.sin(turn * 1.7), 1),
        },
        "signal": round(62 + 14 * math.sin(turn * 4) + 4 * math.sin(turn * 23), 1),
        "relay": {"orbiter": "Odyssey", "elevation": 34.0, "distance": 612.0, "strength": -101.3},
        "sun": round(41 - number / 240, 1),
        "state": "driving" if driving else "charging",
        "odometer": round(8_214 + travelled, 1),
        **changes,
    }


@dataclass
class Channel:
    """One channel: its last messages, who is there, and a queue for each socket."""

    name: str
    epoch: str
    kept: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=50))
    members: Counter[str] = field(default_factory=Counter)
    sockets: list[asyncio.Queue[dict[str, Any]]] = field(default_factory=list)
    count: int = 0

    def tell(self, event: str, data: dict[str, Any]) -> None:
        self.count += 1
        envelope = {"id": f"{self.name}.{self.epoch}.{self.count}", "event": event, "data": data}
        self.kept.append(envelope)
        for socket in self.sockets:
            socket.put_nowait(envelope)

    def publish(self, member: str, message: Any, time: datetime | None = None) -> None:
        stamp = (time or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.tell("message", {"member": member, "message": message, "time": stamp})

    def since(self, after: str | None) -> list[dict[str, Any]] | None:
        """Return what follows a cursor, or None if nothing can."""
        if after is None:
            return list(self.kept)
        stem, _, offset = after.rpartition(".")
        if stem != f"{self.name}.{self.epoch}" or not offset.isdigit():
            return None
        return [one for one in self.kept if int(one["id"].rpartition(".")[2]) > int(offset)]

    def enter(self, member: str) -> None:
        self.members[member] += 1
        if self.members[member] == 1:
            self.tell("join", {"member": member, "members": len(self.members)})

    def leave(self, member: str) -> None:
        self.members[member] -= 1
        if not self.members[member]:
            del self.members[member]
            self.tell("leave", {"member": member, "members": len(self.members)})


class Mission:
    """The server's side. A test may change anything of it at any time."""

    def __init__(self, folder: Path, *, epoch: str = "a", origin: datetime | None = None) -> None:
        self.image = (
            panorama(folder / "panorama.jpg") if not (folder / "panorama.jpg").exists() else folder / "panorama.jpg"
        )
        self.engine = Engine()
        self.epoch = epoch
        self.channels: dict[str, Channel] = {}
        self.asked: list[tuple[str | None, str | None]] = []
        """The Range and If-Range of each request for the image."""
        self.number = 0.0
        self.deaf = False
        """Whether messages are lost on their way."""
        self.origin = origin or datetime.now(UTC)
        self.app = FastAPI(lifespan=self._run)
        self.app.include_router(self._telemetry())
        self.app.include_router(self._others())
        self.app.mount("/assets", StaticFiles(directory=PAGES / "assets", packages=[("tailrace", "pages")]))
        self.app.middleware("http")(self._strict)

    @asynccontextmanager
    async def _run(self, app: FastAPI) -> AsyncIterator[None]:
        self.log = await self.engine.log(TELEMETRY, retention=Retention(count=2_000))
        yield

    def channel(self, name: str) -> Channel:
        return self.channels.setdefault(name, Channel(name, self.epoch))

    async def read(self, count: int = 1, *, every: float = 2.0, **changes: Any) -> None:
        """Publish the next readings, each `every` seconds of the rover's time after the one before."""
        for _ in range(count):
            moment = self.origin + timedelta(seconds=self.number)
            await self.log.append(reading(round(self.number), moment, **changes))
            self.number += every

    async def drive(self) -> None:
        """Publish the readings of the last 14 minutes, and then one every two seconds."""
        self.log = await self.engine.log(TELEMETRY, retention=Retention(count=2_000))
        await self.read(420)
        while True:
            await self.read()
            await asyncio.sleep(2)

    async def _strict(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        if request.url.path == "/" or request.url.path.startswith("/assets"):
            response.headers["Content-Security-Policy"] = POLICY
            response.headers["Cache-Control"] = "no-cache"
        return response

    def _telemetry(self) -> StreamRouter:
        router = StreamRouter(engine=self.engine)

        @router.stream(TELEMETRY, flow=Flow.log())
        async def telemetry() -> Log:
            return self.log

        return router

    def _others(self) -> APIRouter:
        router = APIRouter()

        @router.get("/")
        async def page() -> FileResponse:
            return FileResponse(PAGES / "index.html")

        @router.get("/stream/rover-image")
        async def image(request: Request) -> Response:
            response = FileResponse(self.image, media_type="image/jpeg", stat_result=self.image.stat())
            if request.headers.get("if-none-match") == response.headers["etag"]:
                return Response(status_code=304, headers={"ETag": response.headers["etag"]})
            self.asked.append((request.headers.get("range"), request.headers.get("if-range")))
            return response

        @router.get("/ws/comms/{channel}/members")
        async def members(channel: str) -> dict[str, Any]:
            names = sorted(self.channel(channel).members)
            return {"members": [{"id": name} for name in names], "count": len(names)}

        @router.get("/ws/comms/{channel}")
        async def read(channel: str, name: str = "") -> Response:
            if channel == "closed":
                return Response('{"detail":"the channel is for flight directors","code":"forbidden"}', 403)
            return Response(json.dumps({"data": [one["data"] for one in self.channel(channel).kept]}))

        @router.websocket("/ws/comms/{channel}")
        async def talk(socket: WebSocket, channel: str, name: str, after: str | None = None) -> None:
            if channel == "closed":
                await socket.close(1008)
                return
            await socket.accept()
            await self._talk(socket, self.channel(channel), name, after)

        return router

    async def _talk(self, socket: WebSocket, channel: Channel, name: str, after: str | None) -> None:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        missed = channel.since(after)
        if missed is None:
            reset = {"id": f"{channel.name}.{channel.epoch}.0", "event": "reset", "data": {"reason": "epoch_changed"}}
            await socket.send_text(json.dumps(reset))
            await socket.close(1000)
            return
        for envelope in missed:
            queue.put_nowait(envelope)
        channel.sockets.append(queue)
        channel.enter(name)
        sending = asyncio.create_task(self._send(socket, queue))
        try:
            while True:
                text = await socket.receive_text()
                if not self.deaf:
                    self._take(channel, name, text, queue)
        except WebSocketDisconnect:
            pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            channel.sockets.remove(queue)
            channel.leave(name)

    async def _send(self, socket: WebSocket, queue: asyncio.Queue[dict[str, Any]]) -> None:
        while True:
            await socket.send_text(json.dumps(await queue.get()))

    def _take(self, channel: Channel, name: str, text: str, queue: asyncio.Queue[dict[str, Any]]) -> None:
        if len(text) > LONGEST:
            refused = f"expected a message of at most {LONGEST} characters, but got {len(text)}"
            data = {"status": 413, "code": "message_too_large", "message": refused}
            queue.put_nowait({"event": "refused", "data": data})
            return
        try:
            message = json.loads(text)
        except ValueError:
            message = text
        channel.publish(name, message if isinstance(message, dict) else text)


TALK = [
    (11, "engineering", "grace", "Battery heaters are back on the night schedule."),
    (9, "engineering", "linus", "Copy. Body is 11 °C, well inside limits."),
    (8, "science", "mary", "The layered outcrop at the left of the panorama is our target."),
    (6, "science", "vera", "Agreed. Can we have one more frame at 100 mm before the drive?"),
    (5, "science", "mary", "Asked for. Two frames, 20 minutes of downlink."),
]


async def main(port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mission = Mission(Path(folder), epoch=f"{os.getpid()}", origin=datetime.now(UTC) - timedelta(minutes=14))
        for minutes, channel, member, message in TALK:
            mission.channel(channel).publish(member, message, datetime.now(UTC) - timedelta(minutes=minutes))
            mission.channel(channel).members[member] = 1
        async with asyncio.TaskGroup() as group:
            driving = group.create_task(mission.drive())
            await uvicorn.Server(uvicorn.Config(mission.app, port=port, log_level="warning")).serve()
            driving.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
