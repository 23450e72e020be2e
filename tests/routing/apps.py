"""Applications of FastAPI around a router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI

from tests.asgi.apps import Served, small_engine
from tests.serving import http_client, serving

NDJSON_HEADERS = {"Accept": "application/x-ndjson"}


class Recording(FastAPI):
    """An application that remembers what it raised to its server, and has an engine that nobody waits for."""

    def __init__(self, *routers: APIRouter, **options: Any) -> None:
        super().__init__(**options)
        self.raised: list[Exception] = []
        self.state.tailrace_engine = self.engine = small_engine()
        for router in routers:
            self.include_router(router)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Exception as error:
            self.raised.append(error)
            raise


@asynccontextmanager
async def client_of(app: FastAPI | Served, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as url, http_client(url, **options) as client:
        yield client
