"""The contract of a store, over one Redis server, with two handles as two processes would have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import ClassVar

import pytest

from tailrace.log.redis.store import Pace, RedisStore
from tailrace.log.store import LogStore
from tailrace.testing import LogContract, Relay, relayed

from .redis_server import RedisServer


class TestRedisStore(LogContract):
    slack = 2
    pace = Pace(interval=0.3)
    store_type = RedisStore

    @pytest.fixture(autouse=True)
    def _use(self, contract_redis: RedisServer) -> None:
        self.server = contract_redis
        self.server.kill_clients()
        self.server.ask("FLUSHALL")

    @asynccontextmanager
    async def open_stores(self) -> AsyncIterator[Sequence[LogStore]]:
        self.relays: dict[LogStore, Relay] = {}
        async with AsyncExitStack() as stack:
            for _ in range(2):
                relay = await stack.enter_async_context(relayed(self.server.url))
                store = self.store_type(relay.url, pace=self.pace)
                stack.push_async_callback(store.aclose)
                self.relays[store] = relay
            yield list(self.relays)

    async def disconnect(self, store: LogStore) -> None:
        # What the relay has of an answer is lost with its connections.
        self.relays[store].cut()

    @asynccontextmanager
    async def refuse(self) -> AsyncIterator[None]:
        self.server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            yield
        finally:
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
        relay = self.relays[store]
        relay.refuse()
        relay.cut()


class TestRedisStoreWithoutRounds(TestRedisStore):
    """What is missed is found when it is missed, and not only by the next round."""

    pace = Pace(interval=60)
    cannot: ClassVar = {"kill": "nobody notices a death without rounds"}
    kill = LogContract.kill
