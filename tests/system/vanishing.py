"""A peer that vanishes without a word, as when a cable is pulled. Run it in a network namespace of its own:

    unshare --map-root-user --net python -m tests.system.vanishing

The server is in this namespace, its client in another, and then the link between them is cut. Nobody ever says FIN.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import http_client
from tests.system.servers import PATIENCE, Kind, running

HERE, THERE = "10.77.0.1", "10.77.0.2"
SERVER = Kind("uvicorn", "uvicorn --host 0.0.0.0 --port {port} --no-access-log --log-level warning {app}")
STREAMS = ["/suspended?name=flooded", "/numbers?name=idle&held=true"]


def run(command: str) -> None:
    subprocess.run(command.split(), check=True, timeout=PATIENCE)


def main() -> None:
    run("ip link set lo up")
    with running(SERVER, HEARTBEAT="0.4", SEND_TIMEOUT="1", GRACE="0.1") as server, linked_client(server.port) as pid:
        run(f"nsenter --target {pid} --net ip link set there down")
        lives = asyncio.run(wait_for_ends(server.url))
        print(json.dumps({"lives": lives, "said": server.output()}))


@contextmanager
def linked_client(port: int) -> Iterator[int]:
    """The process of a client in another namespace that has begun to read its streams."""
    command = ["unshare", "--net", sys.executable, "-m", "tests.system.vanishing", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            assert client.stdout.readline() == b"waiting\n"
            inside = f"nsenter --target {client.pid} --net"
            run("ip link add here type veth peer name there")
            run(f"ip link set there netns {client.pid}")
            run(f"ip address add {HERE}/30 dev here")
            run("ip link set here up")
            run(f"{inside} ip address add {THERE}/30 dev there")
            run(f"{inside} ip link set there up")
            client.stdin.write(b"\n")
            client.stdin.flush()
            assert client.stdout.readline() == b"reading\n"
            yield client.pid
        finally:
            client.kill()


async def wait_for_ends(url: str) -> dict[str, dict[str, int]]:
    """What has become of the generators, once they are closed."""
    async with http_client(url) as client:
        flooded = await client.get("/lives/flooded?closed=1")
        # Now let the kernel give up after some seconds, not after a quarter of an hour.
        Path("/proc/sys/net/ipv4/tcp_retries2").write_text("3")
        idle = await client.get("/lives/idle?closed=1")
    return {"flooded": flooded.json(), "idle": idle.json()}


def be_client(port: int) -> None:
    print("waiting", flush=True)
    sys.stdin.readline()
    readers = [socket.create_connection((HERE, port), PATIENCE) for _ in STREAMS]
    for reader, path in zip(readers, STREAMS, strict=True):
        reader.sendall(f"GET {path} HTTP/1.1\r\nHost: {HERE}\r\nAccept: text/event-stream\r\n\r\n".encode())
        assert reader.recv(1000).startswith(b"HTTP/1.1 200")
    print("reading", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    be_client(int(sys.argv[1])) if sys.argv[1:] else main()
