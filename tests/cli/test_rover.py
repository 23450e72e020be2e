from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from tailrace import Frame
from tailrace.cli.commands import run
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.rover.watching import assert_unbroken, readings, take, watching
from tests.serving import http_client, listening_socket, process

PATIENCE = 30.0

FAST = ("--every", "0.05", "--speed", "600")
TICK = 0.05 * 600


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "photo.jpg"
    Image.effect_noise((320, 240), 80).save(path, "JPEG")
    return path


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)

    async def line(self, part: str) -> str:
        """Wait for the next line that contains `part`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                line = (await asyncio.to_thread(self.process.stdout.readline)).decode()
                assert line, f"expected {part!r}, but got the end of\n{''.join(self.lines)}"
                self.lines.append(line)
                if part in line:
                    return line

    async def url(self) -> str:
        """Wait until it is ready, and return its address."""
        url = (await self.line("dashboard")).split()[1].rstrip("/")
        await self.line("channels")
        return url

    async def end(self) -> tuple[int, str]:
        """Wait for the exit status, and return it with all that was said."""
        status = await asyncio.to_thread(self.process.wait, PATIENCE)
        assert self.process.stdout is not None
        return status, "".join(self.lines) + self.process.stdout.read().decode()


@contextmanager
def served(photo: Path, *options: str, module: str = "tailrace") -> Iterator[Served]:
    command = [module, "rover", "--image", str(photo), "--port", "0", *options]
    if module != "tailrace":
        command.remove("rover")
    with process(command) as server:
        yield Served(server)


@pytest.mark.parametrize("module", ["tailrace", "tailrace.rover"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_a_signal_arrives(module: str, number: signal.Signals, photo: Path) -> None:
    with served(photo, *FAST, module=module) as server:
        url = await server.url()
        async with http_client(url) as client:
            image = await client.get("/stream/rover-image")
            assert image.content == photo.read_bytes()
        async with watching(url) as reader:
            assert_unbroken(readings(await take(reader, 5)), TICK)
            server.process.send_signal(number)
            frames = await reader.rest()  # a clean end, so that viewers come back
            assert frames[-1].event == "farewell"
        status, text = await server.end()
    assert status == 0
    assert f"{url}/stream/rover-image (0.0 MB)" in text
    assert f"ws://{url.removeprefix('http://')}/ws/comms/flight?name=ada" in text
    assert text.endswith("tailrace rover: stopping\n")
    assert "Traceback" not in text


@asynccontextmanager
async def taken_over(photo: Path, redis: RedisServer, number: signal.Signals) -> AsyncIterator[Served]:
    """A pilot that got a signal, once another process flies. Check at the end that no viewer notices."""
    options = (*FAST, "--streams", redis.url)
    found: list[Frame] = []
    with served(photo, *options) as pilot:
        async with watching(await pilot.url()) as reader:
            await take(reader, 3)
        with served(photo, *options) as heir:
            async with watching(await heir.url()) as reader:
                found += await take(reader, 5)
                pilot.process.send_signal(number)
                silence, clock = 0.0, asyncio.get_running_loop().time
                while silence < 1.0:  # until the first reading of the heir
                    asked = clock()
                    found += await take(reader, 1)
                    silence = clock() - asked
                yield pilot
                found += await take(reader, 20)
            heir.process.terminate()
            status, text = await heir.end()
    assert_unbroken(readings(found), TICK)
    assert (status, "Traceback" in text) == (0, False)


async def test_another_process_goes_on_when_the_pilot_is_killed(photo: Path, redis: RedisServer) -> None:
    async with taken_over(photo, redis, signal.SIGKILL):
        pass


async def test_a_pilot_that_stood_still_does_not_say_more(photo: Path, redis: RedisServer) -> None:
    async with taken_over(photo, redis, signal.SIGSTOP) as pilot:
        pilot.process.send_signal(signal.SIGCONT)


# What is wrong is told in one line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--port x", "expected --port to be a port from 0 to 65535, but got 'x'"),
        ("--every 0", "expected --every to be seconds from 0.05 to 3600, but got '0'"),
        ("--every often", "expected --every to be seconds from 0.05 to 3600, but got 'often'"),
        ("--speed nan", "expected --speed to be a number from 0.01 to 5000, but got 'nan'"),
        ("--seed -1", "expected --seed to be a whole number of at most 18 digits, but got '-1'"),
        ("--image /none.jpg", "expected an image at /none.jpg, but there is no such file"),
        ("--image /etc/passwd", "expected an image that a browser shows, but /etc/passwd is not one"),
        (
            "--streams nowhere://x",
            "expected a URL that begins with memory:// or redis:// or redis+cluster:// or redis+sentinel:// or "
            "rediss:// or rediss+cluster:// or rediss+sentinel:// or unix://, but got 'nowhere://'",
        ),
    ],
)
def test_a_wrong_option_is_told(options: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = [] if "--port" in options else ["--port", "0"]
    assert run(["rover", *port, *options.split()]) == 2
    assert capsys.readouterr() == ("", f"tailrace rover: {line}\n")


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        assert run(["rover", "--port", str(port)]) == 1
    line = f"tailrace rover: port {port} on 127.0.0.1 is taken: choose another with --port {port + 1}\n"
    assert capsys.readouterr() == ("", line)


def test_a_store_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # not listening, so connections are refused
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        assert run(["rover", "--port", "0", "--streams", f"redis://:secret@{place}"]) == 1
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith("tailrace rover: cannot use the streams: ")
    assert place in told
    assert "secret" not in told


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert run(["rover", "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith("tailrace rover: cannot keep the panorama in ")


def test_a_missing_extra_is_told(tmp_path: Path) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ModuleNotFoundError(name='PIL')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "tailrace", "rover", "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    line = "tailrace rover: needs the extra rover, but there is no PIL: pip install 'tailrace[rover]'\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)


async def test_a_server_for_this_machine_alone_knows_its_names(photo: Path) -> None:
    with served(photo, *FAST) as server:
        async with http_client(await server.url()) as client:
            assert (await client.get("/health", headers={"Host": "evil.example"})).status_code == 421
            assert (await client.get("/health", headers={"Host": "localhost"})).status_code == 200
