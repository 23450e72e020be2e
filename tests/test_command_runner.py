"""The command runner of example 5 and its terminal, as the processes that people start."""

from __future__ import annotations

import asyncio
import codecs
import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tailrace.client import Loss, PacketClient, SessionEnded, StreamFailed, StreamLost
from tailrace.packets import PacketType, SocketPacket
from tailrace.testing import Fault, relayed
from tests.cli.terminal.screen import terminal
from tests.programs import Server, serving, serving_app
from tests.serving import free_port

FOLDER = Path(__file__).parent.parent / "examples"
SERVER = (sys.executable, str(FOLDER / "05_command_runner.py"))
REMOTE = (sys.executable, str(FOLDER / "remote.py"))
PATIENCE = 30

runner: Any = importlib.import_module("examples.05_command_runner")
client: Any = importlib.import_module("examples.remote")

# Other commands, in an application of its own.
OTHERS = r"""
import sys
sys.path.insert(0, {folder!r})
runner = __import__("05_command_runner")
HALVES = r"import os; os.write(1, b'caf\xc3'); input(); os.write(1, b'\xa9 \xff\xc3')"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
DEAF = "import os, signal; os.close(0); print('deaf', flush=True); signal.pause()"
IDLE = "import signal; print('idle', flush=True); signal.pause()"
app = runner.make_app(grace=0.2)
app.dependency_overrides[runner.get_commands] = lambda: {{
    "halves": runner.Command("", runner.python(HALVES)),
    "deaf": runner.Command("", runner.python(DEAF)),
    "idle": runner.Command("", runner.python(IDLE)),
    "stubborn": runner.Command("", runner.python(STUBBORN)),
}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(*SERVER, "--port", "0", "--grace", "0.2") as server:
        yield server
    assert "Traceback" not in "\n".join(server.lines), "\n".join(server.lines)


@pytest.fixture(scope="module")
def patient_server() -> Iterator[Server]:
    """One that waits for a client to come back."""
    with serving(*SERVER, "--port", "0") as server:
        yield server


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("others")
    (folder / "others.py").write_text(OTHERS.format(folder=str(FOLDER)))
    with serving_app("others:app", folder) as server:
        yield server
    assert "Traceback" not in "\n".join(server.lines), "\n".join(server.lines)


def remote(server: Server, *command: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    line = [*REMOTE, "--url", server.url, *command]
    ended = subprocess.run(line, input=data, capture_output=True, timeout=PATIENCE, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@contextmanager
def running(url: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the terminal's program with pipes. If it still runs at the end of the block, it is killed."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*REMOTE, "--url", url, *command], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[bytes], expected: bytes) -> None:
    """Read what a process prints, which must be `expected`."""
    assert process.stdout is not None
    assert process.stdout.read(len(expected)) == expected


def children(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def wait_until_gone(processes: Sequence[psutil.Process]) -> None:
    """Wait until processes have ended and their parent knows it. A zombie still counts as running."""
    assert processes
    _, alive = psutil.wait_procs(processes, PATIENCE)
    assert alive == []


# Commands and what they do


def test_the_commands_are_listed(server: Server) -> None:
    status, out, err = remote(server)
    assert (status, err) == (0, b"")
    assert [line.split()[0] for line in out.decode().splitlines()] == [
        "ask",
        "cat",
        "count",
        "disk",
        "fail",
        "wc",
        "yes",
    ]
    assert b"\nfail    complain and exit with status 3\n" in out


ANY_BYTES = bytes(range(256)) * 1024


@pytest.mark.parametrize(
    ("command", "data", "expected"),
    [
        ("ask", b"Ada\n", (0, b"What is your name? Hello, Ada!\n", b"")),
        ("cat", b"", (0, b"", b"")),
        ("cat", "naïve café\n".encode() * 50_000, (0, "naïve café\n".encode() * 50_000, b"")),
        ("cat", ANY_BYTES, (0, ANY_BYTES, b"")),
        ("fail", b"", (3, b"", b"no paper left\n")),
        ("fail", ANY_BYTES, (3, b"", b"no paper left\n")),  # which takes no input
    ],
    ids=["ask", "nothing", "text", "bytes", "fail", "unread"],
)
def test_input_output_and_status_are_those_of_the_command(
    server: Server, command: str, data: bytes, expected: tuple[int, bytes, bytes]
) -> None:
    assert remote(server, command, data=data) == expected


def test_ordinary_programs_run(server: Server) -> None:
    assert remote(server, "wc", data=b"one two\n")[1].split() == [b"1", b"2", b"8"]
    assert remote(server, "disk")[1].startswith(b"Filesystem")


def test_an_unknown_command_is_refused_with_the_known_ones(server: Server) -> None:
    status, out, err = remote(server, "rm")
    assert (status, out) == (255, b"")
    assert b"expected a REQUEST for one of ask, cat, count, disk, fail, wc, yes, but got REQUEST 'rm'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["cat <&-", "cat 0>/dev/null"])
def test_input_that_cannot_be_read_is_none(server: Server, command: str) -> None:
    line = ["sh", "-c", f'exec "$@" {command}', "sh", *REMOTE, "--url", server.url]
    ended = subprocess.run(line, capture_output=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (">&-", b"Bad file descriptor"),
        (">/dev/full", b"No space left on device"),
        ("yes >&-", b"Bad file descriptor"),
        ("yes >/dev/full", b"No space left on device"),
    ],
)
def test_output_that_cannot_be_written_ends_the_command(server: Server, command: str, reason: bytes) -> None:
    line = ["sh", "-c", f'exec "$@" {command}', "sh", *REMOTE, "--url", f"{server.url}/"]
    ended = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stderr) == (255, b"remote: the output cannot be written: %b\n" % reason)


def test_two_run_at_once(server: Server) -> None:
    with running(server.url, "ask") as one, running(server.url, "ask") as two:
        read(one, b"What is your name? ")
        read(two, b"What is your name? ")
        assert two.communicate(b"Grace\n", PATIENCE) == (b"Hello, Grace!\n", b"")
        assert one.communicate(b"Ada\n", PATIENCE) == (b"Hello, Ada!\n", b"")


def test_without_a_server_one_line_says_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with running(url) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (255, b"")
    assert err == b"remote: no server at %b; start one with `make example-5`\n" % url.encode()


def test_an_address_must_be_one() -> None:
    with running("nonsense", "cat") as process:
        out, err = process.communicate(timeout=PATIENCE)
    expected = b"remote: expected a URL with http or https, but got 'nonsense/stream'\n"
    assert (process.returncode, out, err) == (255, b"", expected)


def test_each_state_of_the_connection_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    connection = client.Connection()
    gone, broken = Loss("unsent", "no connection", "[Errno 111]"), Loss("broken", "the connection ended")
    connection.show()
    for loss in (broken, gone, gone):
        connection.lose(1, 0.25, loss)
    for _ in range(2):
        connection.show()
    assert capsys.readouterr().err.splitlines() == [
        "remote: the connection ended; reconnecting in 0.2 s",
        "remote: no connection; reconnecting in 0.2 s",
        "remote: connected again",
    ]


def test_before_the_first_connection_the_client_tries_again(capsys: pytest.CaptureFixture[str]) -> None:
    connection = client.Connection()
    loss = Loss("unsent", "no connection")
    connection.lose(1, 0.25, loss)
    assert client.explain(StreamLost(loss), "http://x", connection).startswith("no server at http://x; start one")
    connection.show()
    assert client.explain(StreamLost(loss), "http://x", connection) == "the stream is lost: no connection"
    assert capsys.readouterr().err.splitlines() == [
        "remote: no connection; trying again in 0.2 s",
        "remote: connected",
    ]


# A terminal


def test_a_line_is_sent_when_it_is_typed(server: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "--url", server.url, "ask", program=REMOTE) as screen:
        screen.until(lambda: "What is your name?" in screen.text)
        screen.type("Ada", "enter")
        screen.until(lambda: "Hello, Ada!" in screen.text)
        assert screen.end() == 0


def test_ctrl_d_ends_the_input(server: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "--url", server.url, "wc", program=REMOTE) as screen:
        screen.type("one two", "enter", "ctrl-d")
        assert screen.end() == 0
    assert screen.lines[-1].split() == ["1", "2", "8"]


def test_ctrl_c_cancels_the_command(server: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "--url", server.url, "count", program=REMOTE) as screen:
        screen.until(lambda: "1" in screen.lines)
        screen.type("ctrl-c")
        assert screen.end() == 128 + signal.SIGTERM
    assert screen.lines[-1] == "remote: ended by SIGTERM"


def test_ctrl_c_cancels_a_command_that_does_not_read_its_input(server: Server) -> None:
    with running(server.url, "count") as process:
        assert process.stdin is not None
        read(process, b"1\n")
        # More than the pipes hold: the command, the server and the client all have input that waits.
        process.stdin.write(bytes(1 << 18))
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_second_ctrl_c_leaves_at_once(others: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "--url", others.url, "stubborn", program=REMOTE) as screen:
        screen.until(lambda: "ready" in screen.text)
        processes = children(others)
        screen.type("ctrl-c")
        screen.until(lambda: "remote: cancelling" in screen.text)
        screen.type("ctrl-c")
        assert screen.end() == -signal.SIGINT
    wait_until_gone(processes)


def test_a_command_that_ignores_sigterm_is_killed(others: Server) -> None:
    with running(others.url, "stubborn") as process:
        read(process, b"ready\n")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.splitlines()[-1]) == (128 + signal.SIGKILL, b"remote: ended by SIGKILL")


async def test_a_cancel_does_not_wait_behind_input(others: Server) -> None:
    request = SocketPacket(packet_type=PacketType.REQUEST, payload="idle")
    async with asyncio.timeout(PATIENCE), PacketClient(f"{others.url}/stream").open(request) as session:
        assert (await anext(session)).payload == "idle\n"
        for _ in range(10):
            await session.send(SocketPacket(packet_type="INPUT", payload="x" * 200_000))
        await session.send(SocketPacket(packet_type="CANCEL"))
        *_, last = [packet async for packet in session]
        assert last.payload == {"signal": "SIGTERM"}


async def test_a_client_that_does_not_wait_for_the_command_fails(others: Server) -> None:
    request = SocketPacket(packet_type=PacketType.REQUEST, payload="idle")
    async with asyncio.timeout(PATIENCE), PacketClient(f"{others.url}/stream").open(request) as session:
        assert (await anext(session)).payload == "idle\n"
        with suppress(SessionEnded):
            for _ in range(runner.INPUTS + 8):  # more than the socket to the command takes
                await session.send(SocketPacket(packet_type="INPUT", payload="x" * 200_000))
        with pytest.raises(StreamFailed, match=r"waits for TAKEN before it sends more input \(too_much_input\)"):
            [packet async for packet in session]


async def test_a_command_need_not_read_its_input(others: Server) -> None:
    request = SocketPacket(packet_type=PacketType.REQUEST, payload="deaf")
    async with asyncio.timeout(PATIENCE), PacketClient(f"{others.url}/stream").open(request) as session:
        assert (await anext(session)).payload == "deaf\n"
        for packet_type, payload in [("INPUT", "x" * 100_000), ("INPUT", "y"), ("INPUT_END", None), ("INPUT", "z")]:
            answer = await session.request(SocketPacket(packet_type=packet_type, payload=payload))
            assert answer.packet_type == "TAKEN"
        await session.send(SocketPacket(packet_type="CANCEL"))
        assert [packet.payload async for packet in session] == [{"signal": "SIGTERM"}]


# Output


async def test_a_character_is_never_torn_and_bytes_stay_as_they_are(others: Server) -> None:
    request = SocketPacket(packet_type=PacketType.REQUEST, payload="halves")
    async with asyncio.timeout(PATIENCE), PacketClient(f"{others.url}/stream").open(request) as session:
        output = []
        async for packet in session:
            if packet.packet_type == "STDOUT":
                output.append(packet.payload)
            if packet.payload == "caf":
                await session.send(SocketPacket(packet_type="INPUT", payload="\n"))
    assert output == ["caf", b"\xc3\xa9 \xff\xc3"]


@pytest.mark.parametrize(
    ("blocks", "payloads"),
    [
        ([b"a", b"b"], ["a", "b"]),
        ([b"\xe2\x82", b"\xac!"], ["€!"]),
        ([b"a\xe2", b"\x82", b"\xac"], ["a", "€"]),
        ([b"\xe2\x82", b"!"], [b"\xe2\x82!"]),
        ([b"\xff", b"a"], [b"\xff", "a"]),
        ([b"a\xe2"], ["a", b"\xe2"]),
    ],
)
def test_blocks_become_text_or_bytes(blocks: list[bytes], payloads: list[str | bytes]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    assert list(filter(None, (runner.decode(decoder, block) for block in [*blocks, b""]))) == payloads


def test_a_flood_is_held_back(server: Server) -> None:
    with httpx.stream("POST", f"{server.url}/stream", json={"packet_type": "REQUEST", "payload": "yes"}) as stalled:
        assert stalled.status_code == 200
        (child,) = children(server)
        with running(server.url, "yes") as other:
            read(other, b"y\n" * (12 << 20))
        # This command began first and had the same time, so only its reader can have held it back. The bound is for
        # the buffers of the sockets, which may have several MB.
        assert child.io_counters().write_chars < 12 << 20
    wait_until_gone([child])


def test_a_broken_pipe_ends_the_session(server: Server) -> None:
    with running(server.url, "yes") as process:
        read(process, b"y\n")
        processes = children(server)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
    wait_until_gone(processes)


# Lost connections, clients and servers


async def test_a_lost_connection_loses_nothing(patient_server: Server) -> None:
    async with relayed(patient_server.url) as relay:
        relay.next(Fault(after=1 << 16))
        line = [*REMOTE, "--url", relay.url, "cat"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*line, stdin=pipe, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(ANY_BYTES)
    assert (process.returncode, out) == (0, ANY_BYTES)
    assert b"; reconnecting in " in err
    assert err.splitlines()[-1] == b"remote: connected again"
    assert max(map(len, err.splitlines())) <= 80


@pytest.mark.parametrize("command", ["count", "yes"])
def test_a_command_ends_with_its_client(server: Server, command: str) -> None:
    with running(server.url, command) as process:
        read(process, b"1\n" if command == "count" else b"y\n")
        processes = children(server)
    wait_until_gone(processes)


def test_a_command_ends_with_its_server() -> None:
    with serving(*SERVER, "--port", "0", "--grace", "0.2") as server, running(server.url, "yes") as process:
        read(process, b"y\n")
        processes = children(server)
        server.process.send_signal(signal.SIGTERM)
        wait_until_gone(processes)


async def test_a_session_is_lost_with_its_server(server: Server) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(serving(*SERVER, "--port", "0", "--grace", "0.2"))
        async with relayed(first.url) as relay:
            process = stack.enter_context(running(relay.url, "cat"))
            assert process.stdin is not None
            process.stdin.write(b"a\n")
            process.stdin.flush()
            await asyncio.to_thread(read, process, b"a\n")
            first.process.kill()
        # Another server takes its place at once, since a client gives up before a slow machine has started one.
        async with relayed(server.url, port=urlsplit(relay.url).port or 0):
            assert await asyncio.to_thread(process.wait, PATIENCE) == 255
        assert process.stderr is not None
        assert b"the session is lost" in process.stderr.read().splitlines()[-1]


# What is refused


def open_session(server: Server, **packet: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/stream", json=packet, timeout=PATIENCE)


async def test_only_expected_packets_are_taken(server: Server) -> None:
    packets = PacketClient(f"{server.url}/stream")
    with pytest.raises(StreamFailed, match=r"expected a REQUEST for one of ask, .*, but got INPUT 'Ada"):
        async with packets.open(SocketPacket(packet_type="INPUT", payload="Ada\n")) as session:
            await anext(session)
    request = SocketPacket(packet_type=PacketType.REQUEST, payload="cat")
    async with packets.open(request) as session:
        await session.send(request)
        with pytest.raises(StreamFailed, match="expected INPUT, INPUT_END or CANCEL, but got REQUEST"):
            await anext(session)


def test_a_payload_of_another_type_is_refused(server: Server) -> None:
    refused = open_session(server, packet_type="REQUEST", payload=["rm", "-rf", "/"])
    assert refused.status_code == 422


def test_so_many_run_at_once(server: Server) -> None:
    with ExitStack() as stack:
        packet = {"packet_type": "REQUEST", "payload": "cat"}
        for _ in range(8):
            session = stack.enter_context(httpx.stream("POST", f"{server.url}/stream", json=packet))
            assert session.status_code == 200
        refused = open_session(server, **packet)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
