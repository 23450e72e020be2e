"""PostgreSQL, through the driver that the extra installs."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import ClassVar

from sqlalchemy import TextClause, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from .database import Database, InUse, T, Work, check_options, timeout_of

CLAIM = text("SELECT pg_try_advisory_lock(873211, 1)")
CLAIM_SHARED = text("SELECT pg_try_advisory_lock_shared(873211, 1)")
OWNER = text("""
    SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE locktype = 'advisory' AND classid = 873211 AND objid = 1 AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


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
        # Other servers see the owner of the claim by this name. PostgreSQL keeps 63 bytes.
        name = f"process {os.getpid()} on {socket.gethostname()}"[:63]
        self._writing = create_async_engine(
            url.set(query=options),
            hide_parameters=True,
            pool_pre_ping=True,  # the server may have been restarted in the meantime
            connect_args={"timeout": self.timeout, "server_settings": {"application_name": name}},
        )
        self._reading = self._writing.execution_options(isolation_level="AUTOCOMMIT")
        self._wanted: TextClause | None = None  # the claim that this server has, once it has one
        self._claim: AsyncConnection | None = None
        self._claiming = asyncio.Lock()

    async def claim(self, *, shared: bool) -> None:
        wanted = CLAIM_SHARED if shared else CLAIM
        with self._telling():
            async with asyncio.timeout(self.timeout):
                await self._lock(wanted)
        self._wanted = wanted

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
        if (wanted := self._wanted) is None:
            return
        async with self._claiming:
            if self._claim is not None and await _is_closed(self._claim):
                await self._release()
            if self._claim is None:
                await self._lock(wanted)

    async def _release(self) -> None:
        if self._claim is not None:
            claim, self._claim = self._claim, None
            await claim.invalidate()  # ends the session, and its lock with it
            await claim.close()

    async def _lock(self, wanted: TextClause) -> None:
        """Take a session's advisory lock, on a connection with no other use."""
        connection = await self._reading.connect()
        try:
            if not (await connection.execute(wanted)).scalar_one():
                owner = (await connection.execute(OWNER)).scalar()
                raise InUse(self.place, f"the server {owner or 'that has just ended'}")
        except BaseException:  # a cancellation too: a connection without a claim must not stay open
            await connection.close()
            raise
        self._claim = connection


async def _is_closed(connection: AsyncConnection) -> bool:
    driver = (await connection.get_raw_connection()).driver_connection
    return driver is None or driver.is_closed()
