"""A chat server that makes the streams of replies as HTML, and stands still before it writes them."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI

from tailrace import Engine, Log, Producer
from tailrace.chat import create_app
from tailrace.chat.rendering import PATH
from tailrace.chat.settings import ChatSettings


class StalledEngine(Engine):
    async def produce(self, log: Log, items: Any, **options: Any) -> Producer:
        if log.name.startswith(PATH):
            await asyncio.Event().wait()
        return await super().produce(log, items, **options)


def create() -> FastAPI:
    settings = ChatSettings()
    app = create_app(settings)
    assert settings.streams is not None
    app.state.tailrace_engine = StalledEngine(settings.streams)
    return app
