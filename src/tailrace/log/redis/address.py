"""Where a Redis server is. Redis-py reads its URL and makes its TLS context, and does no I/O here."""

from __future__ import annotations

from ssl import SSLContext
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

Part = bytes | str | int | float
"""A part of a command."""


class Address:
    """Where a server listens, and what a new connection tells it first. Read from a URL as redis-py reads it.

    `redis://`, `rediss://` (TLS) and `unix://` URLs may name a user, a password and a database. The options `ssl_…` are
    those of redis-py. Raise ValueError for any other URL. `str` of an address shows no password.
    """

    def __init__(self, url: str) -> None:
        try:
            # The pool's own options, such as max_connections, are not for the connection, so let a pool read the URL.
            parsed: Any = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
            self.tls: SSLContext | None = parsed.ssl_context.get() if hasattr(parsed, "ssl_context") else None
        except OSError as error:
            raise ValueError(f"expected TLS certificates that can be read, but got: {error}") from error
        except (RedisError, TypeError, ValueError):
            # The error's own message may contain a part of the password.
            raise ValueError("expected a URL like redis://host:6379/0, but got one that redis-py cannot read") from None
        self.path: str | None = getattr(parsed, "path", None)
        self.host: str = getattr(parsed, "host", "")
        self.port: int = getattr(parsed, "port", 0)
        self.database: int = parsed.db or 0
        self._user, self._password = parsed.username, parsed.password

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def greeting(self, name: str) -> list[tuple[Part, ...]]:
        """Return the first commands of a connection with a name."""
        hello: list[Part] = ["HELLO", 3]
        if self._user or self._password:
            hello += ["AUTH", self._user or "default", self._password or ""]
        if name:
            hello += ["SETNAME", name]
        return [tuple(hello), *([("SELECT", self.database)] if self.database else [])]
