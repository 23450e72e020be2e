"""A redis-server of a benchmark's own, and its own figures of what it was asked."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.process import Address, Server, serve


class RedisServer:
    """A running redis-server, and the connection of the benchmark itself."""

    def __init__(self, server: Server, admin: Redis) -> None:
        self._server = server
        self._admin = admin

    @property
    def address(self) -> Address:
        return self._server.address

    @property
    def url(self) -> str:
        host, port = self.address
        return f"redis://{host}:{port}/0"

    @property
    def environment(self) -> dict[str, str]:
        """Leads the servers of tailrace here, whose streams are otherwise in memory."""
        return {"TAILRACE_STREAMS": self.url}

    def cpu(self) -> float:
        """Seconds of user and system time spent so far."""
        return self._server.cpu()

    def commands(self) -> Counter[str]:
        """How often each command was called so far; those that a script calls are counted beside it."""
        stats: dict[str, Any] = self._admin.info("commandstats")
        return Counter({name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()})

    def memory(self) -> int:
        """Bytes that its data takes, with all that its allocator needs for them."""
        return int(self._admin.info("memory")["used_memory"])

    def connections(self) -> Counter[str]:
        """How many connections each process of tailrace has, by the name that it gives them."""
        clients: list[dict[str, str]] = self._admin.client_list()
        return Counter(client["name"] for client in clients if client["name"].startswith("tailrace-"))

    def cut(self, ports: Iterable[int]) -> int:
        """Close the connections that come from some ports. Return how many there were."""
        clients: list[dict[str, str]] = self._admin.client_list()
        addresses = {f"127.0.0.1:{port}" for port in ports}
        found = [client["id"] for client in clients if client["addr"] in addresses]
        return sum(self._admin.client_kill_filter(_id=id) for id in found)


@contextmanager
def redis_server(*, pinned: bool = True) -> Iterator[RedisServer]:
    """A running redis-server without persistence, which ends with the block."""
    with serve(command, pinned=pinned) as server:
        host, port = server.address
        with closing(Redis(host, port)) as admin:
            admin.ping()
            yield RedisServer(server, admin)


def command(port: int, directory: Path) -> list[str]:
    return [
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)),
        *("--save", "", "--appendonly", "no"),
    ]
