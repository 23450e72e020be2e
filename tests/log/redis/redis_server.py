"""Redis servers for tests: each in a folder that goes away, on addresses of its own, with faults on demand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as NotServing
from redis.exceptions import ResponseError
from redis.retry import Retry

from tests.client.speaking import own_certificate
from tests.serving import free_port

PATIENCE = 30.0
"""The seconds that a server has to start, to end, or to answer the test."""


class RedisServer:
    """A server that a test may stop, kill, freeze and start again. It keeps its addresses.

    `url` is its address by TCP, or by TLS if it was made so, and `unix_url` that of its socket. It keeps nothing on
    disk. Without persistence, each start finds it empty: add `--appendonly yes` to change that.
    """

    def __init__(self, folder: Path, *options: str, tls: bool = False, certificate: Path | None = None) -> None:
        self.folder = folder
        self.certificate = certificate or folder / "own.pem"  # with its key
        self.port = 0
        self.unix_url = f"unix://{folder}/socket"
        self._options = [*self._tls_options(), *options] if tls else list(options)
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        # The test's own connection, by another client than the one that is tested.
        self._admin = Redis(
            unix_socket_path=f"{folder}/socket", socket_timeout=PATIENCE, retry=Retry(NoBackoff(), 0), protocol=2
        )

    @property
    def url(self) -> str:
        if self._tls:
            return f"rediss://127.0.0.1:{self.port}?ssl_ca_certs={self.certificate}"
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "expected a server that runs"
        return self._process.pid

    def ask(self, *parts: Any) -> Any:
        """Return the reply to a command of the test's own."""
        return self._admin.execute_command(*parts)  # type: ignore[no-untyped-call]

    def clients(self) -> list[dict[str, str]]:
        """The fields of CLIENT LIST for each connection but the test's own."""
        own = str(self._admin.client_id())
        return [client for client in self._admin.client_list() if client["id"] != own]

    def kill_clients(self, name: str | None = None) -> int:
        """Close the connections with a name, or all but the test's own. Return how many there were."""
        found = [client["id"] for client in self.clients() if name in (None, client["name"])]
        return sum(int(self.ask("CLIENT", "KILL", "ID", client)) for client in found)

    def start(self) -> None:
        """Start the server, and return as soon as it serves."""
        chosen = self.port
        for _ in range(5):
            self.port = chosen or free_port()
            if self._started():
                return
            # Perhaps somebody else took the port before it could.
        pytest.fail(f"expected redis-server to start, but it ended and said:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Let the server shut down in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server, frozen or not."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill the server and start it again."""
        self.kill()
        self.start()

    def has_written(self) -> bool:
        """True if its append-only file has all that it has done. A slow disk keeps it waiting for up to two seconds."""
        return int(self.ask("INFO", "persistence")["aof_buffer_length"]) == 0

    def freeze(self) -> None:
        """Freeze the server's process. The system still accepts connections for it, and some bytes of commands."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # returns once it is frozen

    def thaw(self) -> None:
        """Let the server go on."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server for as long as the block takes."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def close(self) -> None:
        """End the server and the test's own connection."""
        self._admin.close()
        if self._process is not None:
            self.kill()

    def _tls_options(self) -> list[str]:
        if not self.certificate.exists():
            own_certificate(self.folder)
        file = str(self.certificate)
        files = ["--tls-cert-file", file, "--tls-key-file", file, "--tls-ca-cert-file", file]
        return [*files, "--tls-auth-clients", "no", "--tls-replication", "yes", "--tls-cluster", "yes"]

    @property
    def _config(self) -> Path:
        return self.folder / "config"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _started(self) -> bool:
        """Whether the server serves. False if it has ended instead."""
        listen = ["--port", "0", "--tls-port", str(self.port)] if self._tls else ["--port", str(self.port)]
        place = ["--bind", "127.0.0.1", "--unixsocket", f"{self.folder}/socket", "--dir", str(self.folder)]
        nothing = [] if "--sentinel" in self._options else ["--save", "", "--appendonly", "no"]
        self._config.touch()  # a Sentinel needs one, and writes it
        command = [_program(), str(self._config), *listen, *place, *nothing, *self._options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            try:
                return bool(self.ask("PING"))
            except NotServing:  # also while it loads its data
                assert time.monotonic() < deadline, f"expected redis-server to serve within {PATIENCE} s"
                time.sleep(0.002)
        return False

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None, "expected a server that runs"
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def redis_server(
    *options: str, tls: bool = False, certificate: Path | None = None, port: int = 0
) -> Iterator[RedisServer]:
    """A running server, with options of redis-server, which ends with the block.

    By default, it makes a certificate, and takes a port that is free.
    """
    # Not in pytest's folder, whose name is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="tailrace-") as folder:
        server = RedisServer(Path(folder), *options, tls=tls, certificate=certificate)
        server.port = port
        try:
            server.start()
            yield server
        finally:
            server.close()


class Watched:
    """A master and its replica, and a Sentinel that replaces a master which is silent for half a second."""

    name = "the-master"

    def __init__(self, master: RedisServer, replica: RedisServer, sentinel: RedisServer) -> None:
        self.master, self.replica, self.sentinel = master, replica, sentinel

    @property
    def url(self) -> str:
        scheme, _, place = self.sentinel.url.partition("://")
        host, _, options = place.partition("?")
        return f"{scheme}+sentinel://{host}/{self.name}?{options}"

    def in_step(self) -> bool:
        """True if the replica has all that the master has, and hears at once of what is written."""
        self.master.ask("SET", "step", 1, "PX", 1)
        return int(self.master.ask("WAIT", 1, 1000)) == 1

    def demoted(self) -> bool:
        """True if the master is a replica by now."""
        try:
            return bool(self.master.ask("ROLE")[0] == b"slave")
        except NotServing:  # its connections are closed when it becomes one
            return False

    def replaced(self) -> bool:
        """True if the replica is the master by now."""
        try:
            return bool(self.replica.ask("ROLE")[0] == b"master")
        except NotServing:  # its connections are closed when it becomes one
            return False

    def watched(self, sentinel: RedisServer | None = None) -> bool:
        """True if a Sentinel, by default the one, knows a replica that it may promote."""
        sentinel = sentinel or self.sentinel
        facts = [fact for replica in sentinel.ask("SENTINEL", "REPLICAS", self.name) for fact in replica]
        linked = b"ok" in facts  # the replica to the master
        return linked and facts.count(b"slave") == 2  # as its flags, with none of a failure, and as its role


@contextmanager
def watched_servers(*options: str, tls: bool = False) -> Iterator[Watched]:
    """Two running servers with options of redis-server, and their Sentinel."""
    options = *options, "--repl-diskless-sync-delay", "0"
    with ExitStack() as stack:
        start = partial(redis_server, tls=tls)
        master = stack.enter_context(start(*options))
        start = partial(start, certificate=master.certificate)
        replica = stack.enter_context(start(*options, "--replicaof", "127.0.0.1", str(master.port)))
        watched = Watched(master, replica, stack.enter_context(start("--sentinel")))
        until_true(watched.in_step, "a replica in step")
        watched.sentinel.ask("SENTINEL", "MONITOR", watched.name, "127.0.0.1", master.port, 1)
        quick = "down-after-milliseconds", 500, "failover-timeout", 2000
        watched.sentinel.ask("SENTINEL", "SET", watched.name, *quick)
        until_true(watched.watched, "a Sentinel that knows both servers")
        yield watched


class ClusterServers:
    """Servers of one cluster, each with as many slots. Those behind the first `masters` are replicas, in order."""

    def __init__(self, servers: Sequence[RedisServer], masters: int) -> None:
        self.servers = tuple(servers)
        self.masters, self.replicas = self.servers[:masters], self.servers[masters:]
        for number, server in enumerate(self.masters):
            first, last = (16384 * index // masters for index in (number, number + 1))
            server.ask("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        until_true(lambda: all(map(self._knows_all, self.servers)), "servers that know each other")
        for replica, master in zip(self.replicas, self.masters, strict=False):
            replica.ask("CLUSTER", "REPLICATE", self.id_of(master))

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.masters)
        scheme, _, place = self.servers[0].url.partition("://")
        return f"{scheme}+cluster://{hosts}?{place.partition('?')[2]}"

    def ask(self, *parts: Any) -> list[Any]:
        """Return the reply of each master to a command of the test's own."""
        return [server.ask(*parts) for server in self.masters]

    def kill_clients(self) -> None:
        """Close all connections but the test's own, and those between the servers."""
        for server in self.masters:
            server.kill_clients()

    def id_of(self, server: RedisServer) -> str:
        return _text(server.ask("CLUSTER", "MYID"))

    def master_of(self, key: str) -> RedisServer:
        """The master that has the slot of a key."""
        slot = key_slot(key.encode())
        return self.masters[next(i for i in range(len(self.masters)) if slot < 16384 * (i + 1) // len(self.masters))]

    def in_step(self, master: RedisServer) -> bool:
        """True if a master has a replica that has all it has, and hears at once of what is written."""
        try:
            key = next(key for key in map("step-{}".format, count()) if self.master_of(key) is master)
            master.ask("SET", key, 1, "PX", 1)
            return int(master.ask("WAIT", 1, 1000)) == 1
        except ResponseError:  # the cluster is down for a moment, because it looks different
            return False

    def is_down(self, server: RedisServer) -> bool:
        """True if a server takes the cluster for down, because some slots have no server."""
        return "cluster_state:ok" not in _text(server.ask("CLUSTER", "INFO"))

    def agrees(self) -> bool:
        """True if all masters have heard of the same changes."""
        facts = [_text(server.ask("CLUSTER", "INFO")).splitlines() for server in self.masters]
        return len({fact for each in facts for fact in each if fact.startswith("cluster_current_epoch:")}) == 1

    def _knows_all(self, server: RedisServer) -> bool:
        known = len(_text(server.ask("CLUSTER", "NODES")).splitlines())
        return known == len(self.servers) and not self.is_down(server)


def _text(value: bytes) -> str:
    return value.decode()


@contextmanager
def redis_cluster(masters: int = 3, replicas: int = 0, *, tls: bool = False) -> Iterator[ClusterServers]:
    """A running cluster, which ends with the block."""
    options = "--cluster-enabled", "yes", "--cluster-node-timeout", "500", "--repl-diskless-sync-delay", "0"
    with ExitStack() as stack:
        start = partial(redis_server, *options, tls=tls)
        first = stack.enter_context(start())
        others = [stack.enter_context(start(certificate=first.certificate)) for _ in range(masters + replicas - 1)]
        yield ClusterServers([first, *others], masters)


def until_true(condition: Callable[[], object], what: str) -> None:
    """Wait for a state of servers that nothing tells."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"expected {what} within {PATIENCE} s"
        time.sleep(0.01)


def _program() -> str:
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("expected redis-server, but it is not installed: run `make test`, which sees to that")
    return program
