"""Rooms of tailrace, whose members are named by `?name=`."""

from fastapi import FastAPI

from benchmarks.servers.reading import Reading
from tailrace import Engine
from tailrace.rooms import rooms_router


def member(name: str | None = None) -> str | None:
    return name


rooms = rooms_router("/{room}", member=member, engine=Engine())
app = FastAPI()


@app.post("/publish", status_code=202)
async def publish(reading: Reading) -> None:
    room = await rooms.room("feed")
    await room.publish(reading)


app.include_router(rooms)  # after the route that its path matches, too
