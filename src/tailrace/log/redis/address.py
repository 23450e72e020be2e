"""Where a Redis server is. Redis-py reads its URL and makes its TLS context, and does no I/O here.

| URL | leads to |
|---|---|
| `redis://`, `rediss://` (TLS), `unix://` | one server, as redis-py reads it |
| `redis+sentinel://host,host2:26380/NAME/DB`, `rediss+sentinel://` | the master that Sentinels know by a name |

Several hosts are separated by commas. A user, a password and options belong to all of the servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import signature
from ssl import SSLContext
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import ConnectionPool, SSLConnection
from redis.exceptions import RedisError

Part = bytes | str | int | float
"""A part of a command."""

OPTIONS = ("db", "username", "password")
TLS_OPTIONS = tuple(name for name in signature(SSLConnection.__init__).parameters if name.startswith("ssl_"))
"""The options of a URL that mean something here. Those of redis-py's pool are accepted, and do nothing."""

UNESCAPED = "expected a user and a password with %2F for /, %3F for ? and %23 for #, but got one of these characters"

_GROUP = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://((?P<user>[^/?#]*)@)?(?P<hosts>[^/?#@]+)(/(?P<path>[^?#]*))?"
    r"(\?(?P<query>[^#]*))?"
)


class Target(Protocol):
    """The destination of a connection. Its `str` shows no password."""

    @property
    def database(self) -> int:
        """The number of the database there."""

    async def locate(self) -> Address:
        """Return where the server is now. Raise NotSent or Refused if nobody can tell."""


OnMove = Callable[[str], object]
"""A function to call with the address, as `str`, at which a server is from now on."""


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
            self.path: str | None = getattr(parsed, "path", None)
            if self.path is None and not (urlsplit(url).path.strip("/") or "0").isdecimal():
                raise ValueError("expected a number")
        except OSError as error:
            raise ValueError(f"expected TLS certificates that can be read, but got: {error}") from error
        except (RedisError, TypeError, ValueError):
            # The error's own message may contain a part of the password.
            raise ValueError(_fault_of(url)) from None
        self.host: str = getattr(parsed, "host", "")
        self.port: int = getattr(parsed, "port", 0)
        self.database: int = parsed.db or 0
        self._user, self._password = parsed.username, parsed.password

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def at(self, host: str, port: int) -> Self:
        """Return the address of another server that is greeted in the same way."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, host=host, port=port)
        return other

    async def locate(self) -> Address:
        """Return this address: it is that of a server."""
        return self

    def greeting(self, name: str) -> list[tuple[Part, ...]]:
        """Return the first commands of a connection with a name."""
        hello: list[Part] = ["HELLO", 3]
        if self._user or self._password:
            hello += ["AUTH", self._user or "default", self._password or ""]
        if name:
            hello += ["SETNAME", name]
        return [tuple(hello), *([("SELECT", self.database)] if self.database else [])]


class Group:
    """A URL with several hosts, taken apart. Raise ValueError if it is not one of `kind`."""

    def __init__(self, url: str, kind: str, port: int) -> None:
        """Read a URL such as `redis+KIND://user:password@host,host2:26380/path?option=…`. `port` is the default."""
        found = _GROUP.fullmatch(url)
        if found is None or found["kind"] != kind:
            raise ValueError(f"expected a URL like redis+{kind}://host:{port},host2:{port}, but got another one")
        self._scheme, self._user = found["scheme"], found["user"]
        hosts = filter(None, found["hosts"].split(","))
        self.hosts = [host if re.search(r":\d+$", host) else f"{host}:{port}" for host in hosts]
        self.path = unquote(found["path"] or "")
        if "@" in self.path:
            raise ValueError(UNESCAPED)
        self.options = dict(parse_qsl(found["query"] or "", keep_blank_values=True))

    def addresses(self, database: str = "") -> list[Address]:
        """Return an address for each host, with the user, the password and all options of the URL."""
        greeted = "" if self._user is None else f"{self._user}@"
        return [self._address(f"{greeted}{host}/{database}", self.options) for host in self.hosts]

    def addresses_as(self, user: str, password: str) -> list[Address]:
        """Return an address for each host, with another user and only the options of TLS."""
        tls = {name: value for name, value in self.options.items() if name.startswith("ssl_")}
        greeted = f"{quote(user, '')}:{quote(password, '')}@" if user or password else ""
        return [self._address(greeted + host, tls) for host in self.hosts]

    def _address(self, place: str, options: dict[str, str]) -> Address:
        return Address(f"{self._scheme}://{place}?{urlencode(options, safe='@')}")


def _fault_of(url: str) -> str:
    """Say what is wrong with the URL of a server, without anything that may be a part of its password."""
    unreadable = "expected a URL like redis://host:6379/0, but got one that redis-py cannot read"
    scheme, _, rest = url.partition("://")
    try:
        parts = urlsplit(url)
    except ValueError:
        return unreadable
    if scheme != "unix":
        if "@" in "".join(re.split("[/?#]", rest, maxsplit=1)[1:]):
            return UNESCAPED
        try:
            parts.port  # noqa: B018 - urlsplit checks the port only here
        except ValueError:
            place = parts.netloc.rpartition(":")[2] if "@" in parts.netloc else ""
            got = repr(place) if place else "something else, such as a password without an @ after it"
            return f"expected a number up to 65535 as the port of {parts.hostname or 'a host'}, but got {got}"
        if not (parts.path.strip("/") or "0").isdecimal():
            return "expected the number of a database after the host, but got something else"
    for name, value in parse_qsl(parts.query):
        try:
            ConnectionPool.from_url(f"{scheme}://?{urlencode({name: value})}").make_connection()  # type: ignore[no-untyped-call]
        except TypeError:
            known = ", ".join((*OPTIONS, *(TLS_OPTIONS if scheme == "rediss" else ())))
            return f"expected only the options {known}, but got {name!r}"
        except (RedisError, ValueError):
            return f"expected a value that the option {name} can have, but got another one"
    return unreadable
