"""The contract of a store, over one Redis server, with two handles as two processes would have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tailrace.log.redis.store import Pace, RedisStore
from tailrace.log.store import LogStore
from tailrace.testing import LogContract

from .redis_server import RedisServer

PACE = Pace(interval=0.1)


class TestRedisStore(LogContract):
    slack = 2

    @pytest.fixture(autouse=True)
    def _use(self, own_redis: RedisServer) -> None:
        self.server = own_redis

    @asynccontextmanager
    async def open_stores(self) -> AsyncIterator[Sequence[LogStore]]:
        self.server.ask("FLUSHALL")
        stores = [RedisStore(self.server.url, pace=PACE) for _ in range(2)]
        yield stores
        for store in stores:
            await store.aclose()

    async def disconnect(self, store: LogStore) -> None:
        assert isinstance(store, RedisStore)
        self.server.kill_clients(f"tailrace-{store.process.decode()}")

    @asynccontextmanager
    async def refuse(self) -> AsyncIterator[None]:
        self.server.ask("CONFIG", "SET", "maxmemory", "1")
        yield
        self.server.ask("CONFIG", "SET", "maxmemory", "0")

    @asynccontextmanager
    async def rollback(self) -> AsyncIterator[None]:
        kept = {key: self.server.ask("DUMP", key) for key in self.server.ask("KEYS", "*")}
        yield
        self.server.ask("FLUSHALL")
        for key, dump in kept.items():
            self.server.ask("RESTORE", key, 0, dump)
        self.server.kill_clients()

    async def kill(self, store: LogStore) -> None:
        assert isinstance(store, RedisStore)
        for task in (tasks := tuple(store._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert store._commands is not None
        await asyncio.gather(store._commands.aclose(), store._mirrors.news.aclose())
