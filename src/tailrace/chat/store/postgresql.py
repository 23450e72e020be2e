"""PostgreSQL, as its extra brings it."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from .database import Database, T, Work
from .options import check_options, timeout


class PostgreSQL(Database):
    """Connecting takes as long as the URL's `timeout` says, at most (5 s). ImportError without the extra."""

    OPTIONS: ClassVar = {"host", "port", "sslmode", "ssl", "timeout", "prepared_statement_cache_size"}

    def __init__(self, url: URL) -> None:
        # Who and where, but not the password.
        place = URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()
        super().__init__(place)
        check_options(url, self.OPTIONS, place)
        options = {name: value for name, value in url.query.items() if name != "timeout"}
        if "sslmode" in options:  # what other programs call `ssl`
            options["ssl"] = options.pop("sslmode")
        self._writing = create_async_engine(
            url.set(query=options),
            hide_parameters=True,
            pool_pre_ping=True,  # the server may have been restarted since
            pool_timeout=10,
            connect_args={"timeout": timeout(url, place)},
        )
        self._reading = self._writing.execution_options(isolation_level="AUTOCOMMIT")

    async def _read(self, work: Work[T]) -> T:
        async with self._reading.connect() as connection:
            return await connection.run_sync(work)

    async def _write(self, work: Work[T]) -> T:
        async with self._writing.begin() as connection:
            return await connection.run_sync(work)

    async def _close(self) -> None:
        await self._writing.dispose()
