"""Sentinels, which know the address of a master by its name."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from .address import Address, Group, OnMove
from .connection import Connection, Limits, NotSent, Refused, Unreachable, connect
from .link import Link

LIMITS = Limits(connect=1.0, silence=1.0)
"""How long to wait for a Sentinel. One that is frozen must not keep this process from the others."""


SWITCHED = b"+switch-master"
"""The channel on which a Sentinel says that a master was replaced: name, old host and port, new host and port."""


class Sentinels:
    """Find a master by its name: ask one Sentinel after the other until one knows it.

    Each question begins with another Sentinel, because the one that answered last may be cut off from the others. Then
    it names a master that has been replaced, to which no connection can be made.
    """

    def __init__(self, url: str) -> None:
        """Read a URL such as `redis+sentinel://user:password@host,host2:26380/NAME/0?sentinel_password=…`.

        The user, the password, the database and the options are for the master. The Sentinels are asked with
        `sentinel_username` and `sentinel_password`, and with the same options of TLS.
        """
        group = Group(url, "sentinel", 26379)
        self._service, _, database = group.path.partition("/")
        if not self._service:
            raise ValueError("expected the master's name in a URL like redis+sentinel://host:26379/NAME, but got none")
        if database and not database.isdecimal():
            raise ValueError(f"expected the number of a database after the master's name, but got {database!r}")
        user, password = group.options.pop("sentinel_username", ""), group.options.pop("sentinel_password", "")
        for name in group.options:
            if name.startswith("sentinel_"):
                raise ValueError(f"expected the options sentinel_username and sentinel_password, but got {name!r}")
        self._sentinels = Ring(group.addresses_as(user, password))
        self._master = group.addresses(database)[0]

    @property
    def database(self) -> int:
        """The number of the database at the master."""
        return self._master.database

    def __str__(self) -> str:
        return f"the master {self._service}"

    async def locate(self) -> Address:
        """Return the address of the master. Raise NotSent if no Sentinel knows it."""
        said: list[str] = []
        for sentinel in self._sentinels.once():
            try:
                if (place := await self._ask(sentinel)) is not None:
                    return self._master.at(place[0].decode(), int(place[1]))
                said.append(f"{sentinel} does not know it")
            except Unreachable as error:
                said.append(str(error))
            except Refused as error:
                said.append(f"{sentinel}{_hint(error)}: {error}")
        raise NotSent(f"expected a Sentinel that knows {self}, but got: {'; '.join(said)}")

    async def _ask(self, sentinel: Address) -> list[bytes] | None:
        connection: Connection = await connect(sentinel, on_push=_ignore, limits=LIMITS)
        try:
            place: list[bytes] | None = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            return place
        finally:
            connection.close()
            await connection.wait_closed()

    def watch(self, name: str, on_move: OnMove) -> Watch:
        """Return a link on which a Sentinel tells that another server is the master. It is yet to be opened."""
        return Watch(self._sentinels, self._service, self._master, name=name, on_move=on_move)


class Watch(Link):
    """A link to one of several Sentinels, which tells at once when another server becomes the master.

    A Sentinel turns an old master that still runs into a replica only after some ten seconds. Whatever is written to it
    until then is lost.
    """

    def __init__(self, sentinels: Ring, service: str, master: Address, *, name: str, on_move: OnMove) -> None:
        super().__init__(sentinels, name=name, on_push=self._told, on_connect=self._begin, limits=LIMITS)
        self._service, self._master, self._on_move = service, master, on_move

    def ask(self) -> None:
        """Ask for the master. If a Sentinel does not answer, turn to the next one."""
        with suppress(NotSent):
            self.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service).add_done_callback(self._answered)

    def _begin(self) -> None:
        with suppress(NotSent):
            self.subscribe([SWITCHED])
        self.ask()

    def _told(self, push: list[Any]) -> None:
        if push[:2] == [b"message", SWITCHED]:
            service, *_, host, port = push[2].decode().split()
            if service == self._service:
                self._on_move(str(self._master.at(host, int(port))))

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None and answer.result() is not None:
            host, port = answer.result()
            self._on_move(str(self._master.at(host.decode(), int(port))))


class Ring:
    """Sentinels that are all equally good. A link to them tries one after the other."""

    database = 0

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._addresses = deque(addresses)

    def __str__(self) -> str:
        return f"the Sentinels {', '.join(sorted(map(str, self._addresses)))}"

    async def locate(self) -> Address:
        """Return the next one."""
        self._addresses.rotate(-1)
        return self._addresses[-1]

    def once(self) -> Iterator[Address]:
        """Iterate over all of them once, from the next one on."""
        for _ in range(len(self._addresses)):
            self._addresses.rotate(-1)
            yield self._addresses[-1]


def target_of(url: str) -> Address | Sentinels:
    """Read the URL of a server, or of Sentinels. Raise ValueError for any other URL."""
    return Sentinels(url) if "+sentinel://" in url else Address(url)


def _hint(error: Refused) -> str:
    """Return advice about an error of a Sentinel."""
    if "unknown command" in str(error):
        return " is an ordinary server, whose URL begins with redis://"
    wants_user = error.code in ("NOAUTH", "WRONGPASS")
    return " takes its user and password from sentinel_username and sentinel_password" if wants_user else ""


def _ignore(_: Any) -> None:
    """Do nothing."""
