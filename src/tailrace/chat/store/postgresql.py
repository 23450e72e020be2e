"""PostgreSQL, through the driver that the extra installs."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import ClassVar

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from .database import Database, InUse, OtherStreams, Streams, T, Work, check_options, timeout_of

# A server that shares its streams has a second lock, whose number tells its streams from others.
CLAIM_STREAMS = text("SELECT pg_try_advisory_lock_shared(873212, :key)")
LEAVE_STREAMS = text("SELECT pg_advisory_unlock_shared(873212, :key)")
OTHERS = text("""
    SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE locktype = 'advisory' AND classid = 873212 AND objid::bigint <> :key AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    LIMIT 1
""")
NAME = text("SELECT set_config('application_name', :name, false)")
CLAIM = text("SELECT pg_try_advisory_lock(873211, 1)")
CLAIM_SHARED = text("SELECT pg_try_advisory_lock_shared(873211, 1)")
OWNER = text("""
    SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE locktype = 'advisory' AND classid = 873211 AND objid = 1 AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


LONGEST_NAME = 63
"""The bytes of an application's name that PostgreSQL keeps."""


class PostgreSQL(Database):
    """A database on a PostgreSQL server. Connecting and a piece of work together may take the URL's `timeout` (5 s).

    Without the extra, this raises ImportError.
    """

    OPTIONS: ClassVar = {"host", "port", "sslmode", "ssl", "timeout", "prepared_statement_cache_size"}

    def __init__(self, url: URL) -> None:
        # The user and the address, but not the password.
        place = URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()
        check_options(url, self.OPTIONS, place)
        super().__init__(place, timeout_of(url, place))
        options = {name: value for name, value in url.query.items() if name != "timeout"}
        if "sslmode" in options:  # other programs' name for `ssl`
            options["ssl"] = options.pop("sslmode")
        # Other servers see the owner of the claim by this name.
        self._name = name = f"process {os.getpid()} on {socket.gethostname()}"[:LONGEST_NAME]
        self._writing = create_async_engine(
            url.set(query=options),
            hide_parameters=True,
            pool_pre_ping=True,  # the server may have been restarted in the meantime
            connect_args={"timeout": self.timeout, "server_settings": {"application_name": name}},
        )
        self._reading = self._writing.execution_options(isolation_level="AUTOCOMMIT")
        self._claimed = False
        self._streams: Streams | None = None
        self._claim: AsyncConnection | None = None
        self._claiming = asyncio.Lock()

    async def claim(self, streams: Streams | None) -> None:
        self._streams = streams
        with self._telling():
            async with asyncio.timeout(self.timeout):
                await self._lock()
        self._claimed = True

    async def renew(self, streams: Streams) -> None:
        async with self._claiming:
            before, self._streams = self._streams, streams
            assert before is not None, "only a server that shares its streams has others now"
            if self._claim is not None and not await _is_closed(self._claim):  # otherwise the next write locks anew
                with self._telling():
                    async with asyncio.timeout(self.timeout):
                        await self._claim.execute(CLAIM_STREAMS, {"key": streams.key})
                        await self._claim.execute(LEAVE_STREAMS, {"key": before.key})

    async def _read(self, work: Work[T]) -> T:
        async with asyncio.timeout(self.timeout), self._reading.connect() as connection:
            return await connection.run_sync(work)

    async def _write(self, work: Work[T], patience: float) -> T:
        async with asyncio.timeout(patience):
            await self._keep_claim()
            async with self._writing.begin() as connection:
                return await connection.run_sync(work)

    async def _close(self) -> None:
        await self._release()
        await self._writing.dispose()

    async def _keep_claim(self) -> None:
        """Lock again if the connection was lost, because another server may have taken the lock in the meantime."""
        if not self._claimed:
            return
        async with self._claiming:
            if self._claim is not None and await _is_closed(self._claim):
                await self._release()
            if self._claim is None:
                await self._lock()

    async def _release(self) -> None:
        if self._claim is not None:
            claim, self._claim = self._claim, None
            await claim.invalidate()  # ends the session, and its lock with it
            await claim.close()

    async def _lock(self) -> None:
        """Take a session's advisory locks, on a connection with no other use."""
        connection = await self._reading.connect()
        try:
            wanted = CLAIM if self._streams is None else CLAIM_SHARED
            if not (await connection.execute(wanted)).scalar_one():
                owner = (await connection.execute(OWNER)).scalar()
                raise InUse(self.place, f"the server {owner or 'that has just ended'}")
            if self._streams is not None:
                await self._lock_streams(connection, self._streams)
        except BaseException:  # a cancellation too: a connection without a claim must not stay open
            await connection.close()
            raise
        self._claim = connection

    async def _lock_streams(self, connection: AsyncConnection, streams: Streams) -> None:
        # The lock comes first, so of two servers with different streams at least one sees the other.
        await connection.execute(NAME, {"name": f"{self._name}, {streams.place}"[:LONGEST_NAME]})
        await connection.execute(CLAIM_STREAMS, {"key": streams.key})
        if (other := (await connection.execute(OTHERS, {"key": streams.key})).scalar()) is not None:
            raise OtherStreams(self.place, streams, f"the server of other streams is {other}")


async def _is_closed(connection: AsyncConnection) -> bool:
    driver = (await connection.get_raw_connection()).driver_connection
    return driver is None or driver.is_closed()
