"""Rooms in Redis, for a process that a test kills."""

from __future__ import annotations

import os

from fastapi import FastAPI

from tailrace.rooms import rooms_router
from tests.rooms.apps import by_name, shared_engine

DELAY = float(os.environ.get("LEAVE_DELAY", "0"))

app = FastAPI()
app.include_router(rooms_router(member=by_name, leave_delay=DELAY, engine=shared_engine(os.environ["REDIS"])))
