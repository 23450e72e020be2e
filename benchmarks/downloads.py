"""A large file in the folder of its server, and a client that downloads it."""

import socket
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

from benchmarks.client import CONNECT_TIMEOUT, Undelivered, get
from benchmarks.process import Address, Command

MEGABYTE = 1 << 20
MEGABYTES = 128
NAME = "download.bin"
REQUEST = get(f"/{NAME}", "*/*")
TIMEOUT = 60.0


def with_download(command: Command) -> Command:
    """The command of a server that sends the file. The environment tells it where the file is."""

    def filling(port: int, directory: Path) -> list[str]:
        path = directory / NAME
        with path.open("wb") as file:
            file.writelines(blocks())
        return ["env", f"DOWNLOAD={path}", *command(port, directory)]

    return filling


def blocks() -> Iterator[bytes]:
    random = Random(0)
    return (random.randbytes(MEGABYTE) for _ in range(MEGABYTES))


@cache
def digest() -> str:
    whole = sha256()
    for block in blocks():
        whole.update(block)
    return whole.hexdigest()


def verify_download(address: Address) -> None:
    """Check that what comes is the file."""
    whole = sha256()
    download(address, whole.update)
    if whole.hexdigest() != digest():
        raise Undelivered("expected the bytes of the file, but got others")


def download(address: Address, take: Callable[[memoryview], None] = lambda piece: None) -> None:
    """Read the file to its end, as fast as it comes."""
    buffer = memoryview(bytearray(MEGABYTE))
    with socket.create_connection(address, timeout=CONNECT_TIMEOUT) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(REQUEST)
        received = 0
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Undelivered(f"expected a 200 response, but got {head[:200]!r}")
        while count := sock.recv_into(buffer):
            received += count
            take(buffer[:count])
    if received != MEGABYTES * MEGABYTE:
        raise Undelivered(f"expected {MEGABYTES} MB, but got {received} bytes")
