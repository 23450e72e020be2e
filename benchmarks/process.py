"""A server process on a free port of the loopback, started, measured from outside and always killed."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATIONS = ROOT / "benchmarks" / "servers"
START_TIMEOUT = 20.0
CPUS = sorted(os.sched_getaffinity(0))

Address = tuple[str, int]
Command = Callable[[int, Path], list[str]]


class ServerFailed(Exception):
    """A server did not start; carries what it printed."""


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is the one process that serves."""

    address: Address
    pid: int

    def cpu(self) -> float:
        """Seconds of user and system time spent so far, by all threads, finished ones included."""
        # Far finer than the 10 ms ticks of /proc/<pid>/stat, which a fast peer would vanish under.
        clock = ctypes.c_int()
        if ctypes.CDLL(None).clock_getcpuclockid(self.pid, ctypes.byref(clock)) != 0:
            raise ProcessLookupError(f"server process {self.pid} is gone")
        return time.clock_gettime(clock.value)

    def family(self) -> list["Server"]:
        """This process and its children, as far as they live."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self, *(Server(self.address, int(pid)) for pid in children)]

    def rss(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak_rss(self) -> int:
        """The most bytes that were ever resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024


def uvicorn(app: str, *options: str) -> Command:
    """An ASGI application under uvicorn with uvloop and httptools: one process, no access log."""

    def command(port: int, directory: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", *options),
        ]

    return command


def chat(port: int, directory: Path) -> list[str]:
    """The chat server as its command starts it: an SQLite file, and a log of JSON lines, which goes to a file, too."""
    return [
        *(sys.executable, "-m", "tailrace", "serve", "--port", str(port), "--model", "demo"),
        *("--database", str(directory / "chat.sqlite3"), "--log-format", "json"),
    ]


def chat_workers(port: int, directory: Path) -> list[str]:
    """The same with two workers, which need shared streams."""
    return [*chat(port, directory), "--workers", "2"]


def nchan(port: int, directory: Path) -> list[str]:
    """nginx with one worker and the nchan module."""
    return nginx("nchan.conf", port, directory, modules=nginx_modules())


def nginx_files(port: int, directory: Path) -> list[str]:
    """nginx with one worker that sends the files of its directory."""
    return nginx("files.conf", port, directory)


def nginx(configuration: str, port: int, directory: Path, **values: object) -> list[str]:
    conf = Template((CONFIGURATIONS / configuration).read_text())
    path = directory / "nginx.conf"
    path.write_text(conf.substitute(port=port, directory=directory, **values))
    return ["nginx", "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(path)]


def nginx_modules() -> Path | None:
    """Where nginx keeps its modules, if it is installed and nchan is among them."""
    try:
        built = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return None
    for option in built.split():
        name, _, value = option.partition("=")
        if name == "--modules-path" and Path(value, "ngx_nchan_module.so").exists():
            return Path(value)
    return None


@contextmanager
def serve(
    command: Command,
    *,
    worker: bool = False,
    pinned: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a server, hand it over once it accepts, and kill its whole process group at the end.

    With `worker` the process that serves is the first child of the one started. Unless it is `pinned` to the first CPU,
    it may use all of them. `environment` is added to this one's.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # nginx drops its worker's privileges, which must still reach its temporary paths.
        directory.chmod(0o755)
        port = free_port()
        with (directory / "output").open("wb") as output:
            process = subprocess.Popen(
                command(port, directory),
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=pin_server if pinned else unpin,
            )
        try:
            wait_until_accepting(process, port, directory / "output")
            yield Server(("127.0.0.1", port), wait_for_child(process.pid) if worker else process.pid)
        finally:
            # A server that has died by itself is gone; what it said is told by the exception under way.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def pin_server() -> None:
    os.sched_setaffinity(0, CPUS[:1])


def unpin() -> None:
    os.sched_setaffinity(0, CPUS)


def pin_client() -> None:
    """Keep the load client off the server's CPU, so that neither takes the other's time."""
    os.sched_setaffinity(0, CPUS[1:] or CPUS)


def wait_until_accepting(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"the server exited with {process.returncode}:\n{output.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ServerFailed(f"the server did not accept within {START_TIMEOUT:.0f} s:\n{output.read_text()}")


def wait_for_child(pid: int) -> int:
    """The first child, which may be born only after its parent listens."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
        time.sleep(0.02)
    raise ServerFailed(f"the server started no worker within {START_TIMEOUT:.0f} s")
