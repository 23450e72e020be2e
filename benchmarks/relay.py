"""The programs of a relay through Redis: started, told what to do, and always killed."""

import json
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from psutil import Process

from benchmarks.client import Undelivered
from benchmarks.peers import Peer
from benchmarks.process import ROOT, ServerFailed, pin_client, pin_server
from benchmarks.redis import RedisServer

TIMEOUT = 30.0


class Program:
    """A running `benchmarks.clients.relaying`."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        if not self.speaks(TIMEOUT) or self._process.stdout.readline() != "ready\n":
            raise self._failed("be ready")

    def tell(self, line: str) -> None:
        """Tell a publisher to begin, or a receiver to leave for a moment or to stop."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def speaks(self, within: float) -> bool:
        """Wait until the program says something, for some seconds."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], within)[0])

    def sample(self) -> dict[str, Any]:
        """Wait for the end, and return what the program prints then."""
        if not self.speaks(TIMEOUT):
            raise self._failed("end")
        said, _ = self._process.communicate(timeout=TIMEOUT)
        if self._process.returncode != 0:
            raise self._failed("succeed")
        sample: dict[str, Any] = json.loads(said)
        return sample

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def ports(self) -> list[int]:
        """The ports of its connections."""
        return [connection.laddr.port for connection in Process(self._process.pid).net_connections("tcp")]

    def _failed(self, expected: str) -> ServerFailed:
        self._errors.seek(0)
        return ServerFailed(f"expected {self._process.args!r} to {expected}, but it did not:\n{self._errors.read()}")


@contextmanager
def program(
    redis: RedisServer, peer: Peer, role: str, *arguments: object, beside_redis: bool = False
) -> Iterator[Program]:
    """Start one end of a peer. It has the other core than Redis, unless it is to be beside it."""
    _, port = redis.address
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*peer.command(port, ROOT), role, redis.url, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=pin_server if beside_redis else pin_client,
        )
        with process:
            try:
                yield Program(process, errors)
            finally:
                process.kill()


def check(events: list[Any], count: int) -> None:
    """Check that the events 0 to count - 1 have come, in whatever order."""
    expected = [{"id": id, "name": "sensor", "value": 3.25} for id in range(count)]
    if sorted(events, key=lambda event: event["id"]) != expected:
        raise Undelivered(f"expected the events 0 to {count - 1}, but got {len(events)}: {events[:3]}")
