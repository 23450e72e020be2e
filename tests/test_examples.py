"""Each example runs as its docstring says, and works with the clients that people use."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import websockets
from httpx_sse import connect_sse

from tailrace import LogStatistics
from tests.programs import Server, serving

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("0*.py"))
REMOTE = FOLDER / "remote.py"


@contextmanager
def example(number: int) -> Iterator[Server]:
    with serving(sys.executable, str(EXAMPLES[number - 1]), "--port", "0") as server:
        yield server


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def test_there_are_five_and_each_is_short() -> None:
    assert [path.name[:3] for path in EXAMPLES] == ["01_", "02_", "03_", "04_", "05_"]
    for path, longest in zip([*EXAMPLES, REMOTE], [80, 80, 80, 80, 225, 200], strict=True):
        text = path.read_text()
        assert len(text.splitlines()) - (ast.parse(text).body[0].end_lineno or 0) <= longest


def test_all_examples_run_one_after_another_as_their_docstrings_say() -> None:
    command = [sys.executable, str(FOLDER)]
    tour = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=170, check=False)
    assert (tour.returncode, tour.stderr) == (0, "")
    shown = "\n".join(f"== {path.name}\n{docstring(path)}\n" for path in EXAMPLES)
    assert comparable(tour.stdout) == comparable(shown)


def comparable(text: str) -> list[str]:
    """Return the lines without what differs from run to run: ids, ports and the number of dropped readings."""
    order: dict[str, str] = {}
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)
    text = re.sub(r'"dropped":\d+', "DROPPED", text)
    text = re.sub(r'[\w-]{22}(?=\.0\.\d|")', lambda id: order.setdefault(id[0], f"STREAM-{len(order)}"), text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def make(*arguments: str) -> list[str]:
    # `make test ARGS=…` passes its options on to every make below it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(["make", *arguments], env=env, capture_output=True, text=True, check=True, timeout=100)
    return result.stdout.splitlines()


def test_make_lists_the_examples() -> None:
    lines = [f"make example-{number}    {docstring(path).splitlines()[0]}" for number, path in enumerate(EXAMPLES, 1)]
    assert make("help")[-len(lines) :] == lines


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["examples"], ".venv/bin/python examples"),
        (["example-1"], ".venv/bin/python examples/01_basic_streaming.py"),
        (["example-4", "ARGS=--port 9000"], ".venv/bin/python examples/04_backpressure.py --port 9000"),
        (["example-5"], ".venv/bin/python examples/05_command_runner.py"),
    ],
)
def test_make_runs_the_examples(arguments: list[str], command: str) -> None:
    assert make("--dry-run", *arguments)[-1].strip() == command


def test_a_taken_port_is_one_clear_line_with_a_command_that_works() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, str(EXAMPLES[0]), "--port", str(port)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        refusal, _, suggestion = line.partition(" Choose another: ")
        assert refusal == f"Cannot use port {port} (Address already in use)."
        assert suggestion.startswith(f"{os.path.relpath(sys.executable)} {EXAMPLES[0]} --port ")
        with serving(*shlex.split(suggestion)) as server:
            assert server.url == f"http://127.0.0.1:{suggestion.split()[-1]}"


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_a_port_that_is_none_is_named(port: str) -> None:
    command = [sys.executable, str(EXAMPLES[0]), f"--port={port}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 2
    assert f"expected a number from 0 to 65535, but got '{port}'" in result.stderr


def test_countdown_for_httpx_sse() -> None:
    with example(1) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        with connect_sse(client, "GET", "/countdown", params={"n": 2}) as source:
            first = next(source.iter_sse())
            address = source.response.headers["content-location"]
        assert first.json() == {"left": 2}
        with connect_sse(client, "GET", address, headers={"Last-Event-ID": first.id}) as source:
            rest = list(source.iter_sse())
        assert [(event.event, event.json()) for event in rest] == [("message", {"left": 1}), ("done", {})]
        assert client.get(address, headers={"Last-Event-ID": rest[-1].id}).status_code == 204


async def test_countdown_for_websockets() -> None:
    with example(1) as server:
        async with (
            asyncio.timeout(30),
            websockets.connect(f"{server.url.replace('http', 'ws')}/countdown") as connection,
        ):
            assert json.loads(await connection.recv())["data"] == {"left": 10}
            await connection.send('{"event": "stop"}')
            messages = [json.loads(message) async for message in connection]
    assert messages[-1]["event"] == "cancelled"
    assert connection.close_code == 1000


def test_tokens_for_the_openai_sdk() -> None:
    question: Any = [{"role": "user", "content": "good morning"}]
    with example(3) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30)
        chunks = list(client.chat.completions.create(model="echo", messages=question, stream=True))
        whole = client.chat.completions.create(model="echo", messages=question)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: good morning"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == "You said: good morning"


@contextmanager
def stalled(server: Server, path: str) -> Iterator[tuple[socket.socket, str]]:
    """Connect a client that reads only the headers of a stream. Yield it and the stream's address."""
    host, port = server.url.removeprefix("http://").split(":")
    with closing(socket.socket()) as client:
        # Set before connecting, because the kernel offers this window then.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect((host, int(port)))
        client.sendall(f"GET {path}?stream=true HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        address = re.search(rb"^content-location: (\S+)", head, re.MULTILINE)
        assert address is not None, head
        yield client, address[1].decode()


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def statistics(server: Server, address: str) -> LogStatistics:
    return LogStatistics(**httpx.get(f"{server.url}{address}/statistics", timeout=30).json())


def wait_for(server: Server, address: str, condition: Callable[[LogStatistics], bool]) -> LogStatistics:
    deadline = time.monotonic() + 30
    while not condition(now := statistics(server, address)):
        assert time.monotonic() < deadline, now
    return now


def is_done(now: LogStatistics) -> bool:
    return now.state == "done"


def test_block_holds_the_producer_back() -> None:
    with example(4) as server, stalled(server, "/block") as (client, address):
        with stalled(server, "/drop") as (_, other):
            wait_for(server, other, is_done)
        # Both streams have the same pace and this one began first, so only its reader can have held it back.
        now = statistics(server, address)
        body = read_all(client)
    assert now.state == "open"
    assert now.dropped == now.conflated == 0
    assert body.count(b"id: ") == 1501


def test_latest_skips_old_readings() -> None:
    with example(4) as server, stalled(server, "/latest") as (client, address):
        wait_for(server, address, is_done)
        body = read_all(client)
        after = statistics(server, address)
    received = [int(number) for number in re.findall(rb'"number":(\d+)', body)]
    assert received[-1] == 1500
    assert received == sorted(received)
    assert len(received) + after.conflated == 1500
    assert after.conflated > 0


def test_drop_says_how_many_readings_are_missing() -> None:
    with example(4) as server, stalled(server, "/drop") as (client, address):
        wait_for(server, address, is_done)
        body = read_all(client)
        after = statistics(server, address)
    told = sum(int(count) for count in re.findall(rb'"count":(\d+)', body))
    assert told == after.dropped > 0
    assert len(re.findall(rb'"number":(\d+)', body)) + told == 1500
