"""The contract of stores as tests run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

from tailrace import LogStore, MemoryLog, MemoryStore
from tailrace.events import Entries
from tailrace.log.base import BATCH_BYTES
from tailrace.testing import LogContract


class MemoryContract(LogContract):
    """The contract of a store in memory, for any kind of it and of its logs."""

    slack = 2
    cannot: ClassVar = {
        "disconnect": "a store in memory has no connection",
        "kill": "its readers die with its writers",
        "refuse": "it stores an entry where it is written",
        "rollback": "it forgets writes only together with their readers",
    }
    log_type: type[MemoryLog] = MemoryLog
    store_type: type[MemoryStore] = MemoryStore

    @asynccontextmanager
    async def open_stores(self) -> AsyncIterator[Sequence[LogStore]]:
        store = self.store_type()
        store.log_type = self.log_type
        yield store, store
        await store.aclose()


class FetchingLog(MemoryLog):
    """A log whose entries are elsewhere and have to be fetched."""

    def read_nowait(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries | None:  # type: ignore[override]
        return None

    async def read(self, after: int, limit: int, size: int = BATCH_BYTES) -> Entries:
        await asyncio.sleep(0)
        return super().read_nowait(after, limit, size)
