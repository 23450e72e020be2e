from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from tailrace.cli.main import INTERRUPTED, main
from tailrace.cli.tailing.follower import BROKEN_PIPE
from tailrace.testing import Fault, Relay, relayed
from tests.chat.api.talking import Scripted, chatting
from tests.cli.served import PATIENCE
from tests.client.apps import other_app, tailrace_app
from tests.serving import ROOT, serving

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


def make_app() -> FastAPI:
    """Streams of tailrace, with some beside them that show what was asked or say what is rarely said."""
    app = tailrace_app()

    @app.api_route("/echo", methods=["GET", "POST", "PATCH"])
    async def echo(request: Request) -> Response:
        said = {"method": request.method, "body": (await request.body()).decode(), **request.headers}
        return Response(json.dumps(said) + "\n", media_type=NDJSON)

    @app.get("/numbers")
    async def numbers() -> Response:
        return StreamingResponse((b"%d\n" % number for number in range(3)), media_type=NDJSON)

    @app.get("/said")
    async def said(text: str) -> Response:
        return Response(text, media_type=SSE, headers={"Stream-Cursor": "s.e.0"})

    @app.get("/once")
    async def once(request: Request) -> Response:
        if "last-event-id" in request.headers:
            return Response('{"detail": "not you"}', 403)
        return Response("id:s.e.1\ndata:1\n\n", media_type=SSE, headers={"Stream-Cursor": "s.e.0"})

    @app.websocket("/answer")
    async def answer(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"got {await socket.receive_text()}")
        await socket.close()

    @app.get("/page")
    async def page() -> Response:
        return HTMLResponse("<p>No stream.")

    return app


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(make_app()) as url:
        yield url


@pytest.fixture
async def relay(url: str) -> AsyncIterator[Relay]:
    async with relayed(url) as relay:
        yield relay


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `tailrace tail` in a thread, which is faster than a process."""

    def run_now(arguments: tuple[str, ...]) -> int:
        try:
            return main(["tail", *arguments])
        except SystemExit as end:  # which is how the parser ends
            return int(str(end.code))

    async def run(*arguments: str) -> Ended:
        async with asyncio.timeout(PATIENCE):
            status = await asyncio.to_thread(run_now, arguments)
        return Ended(status, *capfd.readouterr())

    return run


def environment() -> dict[str, str]:
    """That of a process whose coverage is not measured.

    On Python 3.11 a cancellation gets lost where a coroutine is traced: https://github.com/python/cpython/issues/106749
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Process]:
    """The command as a process; killed with the block if it has not ended."""
    command = [sys.executable, "-m", "tailrace", "tail", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=environment(), stdout=PIPE, stderr=PIPE, limit=1 << 24)
    try:
        async with asyncio.timeout(PATIENCE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def shell(line: str, **variables: str) -> Ended:
    """What a line of bash does, in which `tail` is the command."""
    env = {**environment(), **variables}
    script = f'set -o pipefail; tail() {{ {sys.executable} -m tailrace tail "$@"; }}; {line}'
    process = await asyncio.create_subprocess_exec("bash", "-c", script, env=env, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


# What is printed


@pytest.mark.parametrize("options", [["--header", f"Accept: {SSE}"], ["--header", f"Accept:{NDJSON}"], ["ws"]])
async def test_every_wire_is_printed(url: str, run: Run, options: list[str]) -> None:
    if options == ["ws"]:
        url, options = url.replace("http", "ws"), []
    assert await run(f"{url}/letters", *options) == (0, "a\nb\nc\n", "")


OTHERS = {
    "fastapi": '{"n":1}\n{"n":2}\n{"n":3}\n',
    "fastapi/items": '{"n":0}\n{"n":1}\n{"n":2}\n',
    "starlette": "line 1\nmore\nline 2\nmore\nline 3\nmore\n",
    "lines": '{"id":1,"data":"x","more":true}\n[2]\nthree\nnull\n',
    "text": "hello world",
}


async def test_other_servers_are_printed(run: Run) -> None:
    async with serving(other_app()) as url:
        for path, printed in OTHERS.items():
            assert await run(f"{url}/{path}") == (0, printed, "")
        status, out, _ = await run(f"{url}/fastapi", "--json", "--after", "2")
    assert (status, json.loads(out)) == (0, {"id": "3", "event": "tick", "data": {"n": 3}})


async def test_objects_have_id_event_and_data(url: str, run: Run) -> None:
    status, out, _ = await run(f"{url}/named", "--json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert status == 0
    assert first == {"id": first["id"], "event": None, "data": "first"}
    assert second == {"id": first["id"].removesuffix("1") + "2", "event": "second", "data": 2}


async def test_a_chat_is_asked_and_its_reply_printed(tmp_path: Path, run: Run) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        ask = [f"{chat.url}/chat/stream", "--data", '{"message": "Hello"}']
        whole, part = await run(*ask), await run(*ask, "--until", "chunk")
    types = [json.loads(line)["type"] for line in whole.out.splitlines()]
    assert (whole.status, whole.err) == (0, "")
    assert (types[0], types[-1]) == ("session_info", "complete")
    assert [json.loads(line)["type"] for line in part.out.splitlines()] == [*types[: types.index("chunk")], "chunk"]


# When it ends


async def test_it_ends_after_so_many(url: str, run: Run) -> None:
    assert await run(f"{url}/long", "--max", "3") == (0, "0\n1\n2\n", "")


async def test_it_ends_after_an_event_of_a_name(url: str, run: Run) -> None:
    assert await run(f"{url}/named", "--until", "second") == (0, "first\n2\n", "")
    assert await run(f"{url}/letters", "--until", "done") == (0, "a\nb\nc\n", "")


async def test_an_end_before_the_event_that_was_waited_for_is_a_failure(url: str, run: Run) -> None:
    line = "tailrace tail: the stream ended, but no event `second` came\n"
    assert await run(f"{url}/letters", "--until", "second") == (1, "a\nb\nc\n", line)
    assert await run(f"{url}/letters", "--until", "second", "--max", "1") == (0, "a\n", "")


async def test_a_stopped_stream_is_done(url: str, run: Run) -> None:
    text = "data:1%0Aid:s.e.1%0A%0Aevent:cancelled%0Aid:s.e.1.end%0Adata:%7B%22code%22:%22stopped%22%7D%0A%0A"
    stopped = f"{url}/said?text={text}"
    assert await run(stopped) == (0, "1\n", "tailrace tail: the stream was stopped: stopped\n")
    assert await run(stopped, "--quiet") == (0, "1\n", "")


# What is asked


async def test_headers_are_sent(url: str, run: Run) -> None:
    got = await run(f"{url}/echo", "--header", "X-Of-Mine: a: b", "--header", "x-of-mine:c", "--header", "Cookie: d=e")
    said = json.loads(got.out)
    assert (said["method"], said["x-of-mine"], said["cookie"]) == ("GET", "a: b, c", "d=e")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "[1, 2]"], {"method": "POST", "body": "[1, 2]", "content-type": "application/json"}),
        (["--data", "[1, 2"], {"method": "POST", "body": "[1, 2", "content-type": None}),
        (["--data", "1", "--header", "Content-Type: text/x"], {"body": "1", "content-type": "text/x"}),
        (["--data", "@body", "--method", "patch"], {"method": "PATCH", "body": '{"a": 1}\n'}),
        (["--data", "-"], {"method": "POST", "body": '{"a": 1}\n', "content-type": "application/json"}),
        (["--method", "POST", "--idempotency-key", "k"], {"method": "POST", "body": "", "idempotency-key": "k"}),
    ],
    ids=["json", "text", "own-type", "file", "input", "key"],
)
async def test_what_is_asked(
    url: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    expected: dict[str, str | None],
) -> None:
    (tmp_path / "body").write_text('{"a": 1}\n')
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "body").open() as input:
        monkeypatch.setattr(sys, "stdin", input)
        said = json.loads((await run(f"{url}/echo", *options)).out)
    assert {name: said.get(name) for name in expected} == expected


async def test_a_socket_is_told_the_body(url: str, run: Run) -> None:
    assert await run(f"{url.replace('http', 'ws')}/answer", "--data", "it") == (0, "got it\n", "")


# Lost connections


async def test_it_goes_on_after_a_lost_connection(relay: Relay, run: Run) -> None:
    await run(f"{relay.url}/letters")
    cut = relay.passed - 150
    relay.next(Fault(after=cut))
    status, out, err = await run(f"{relay.url}/letters")
    assert (status, out) == (0, "a\nb\nc\n")
    assert re.fullmatch(r"tailrace tail: the connection failed: .*; connecting again in 0\.\d s\n", err)
    relay.next(Fault(after=cut))
    assert await run(f"{relay.url}/letters", "--quiet") == (0, "a\nb\nc\n", "")


async def test_without_reconnecting_it_says_how_to_go_on(relay: Relay, run: Run) -> None:
    letters = [f"{relay.url}/letters", "--header", f"accept: {NDJSON}", "--no-reconnect"]
    await run(*letters)
    relay.next(Fault(after=relay.passed - 150))
    status, out, err = await run(*letters)
    assert (status, out) == (1, "a\n")
    assert (told := re.fullmatch(r"tailrace tail: the stream is lost: .*; go on with (--after=\S+)\n", err))
    assert await run(*letters, told[1]) == (0, "b\nc\n", "")


async def test_after_a_post_the_way_on_is_another_address(relay: Relay, run: Run) -> None:
    words = [f"{relay.url}/words", "--data", '["x", "y", "z"]', "--header", f"accept: {NDJSON}", "--no-reconnect"]
    await run(*words)
    relay.next(Fault(after=relay.passed - 150))
    status, out, err = await run(*words)
    assert (status, out) == (1, "x\n")
    assert (told := re.search(r"; go on with: tailrace tail (http://.*)\n$", err))
    assert await run(*shlex.split(told[1])) == (0, "y\nz\n", "")


async def test_what_has_no_ids_is_lost_unless_gaps_are_allowed(relay: Relay, run: Run) -> None:
    await run(f"{relay.url}/numbers")
    cut = relay.passed - 2
    relay.next(Fault(after=cut))
    status, out, err = await run(f"{relay.url}/numbers")
    assert (status, out, err.count("\n")) == (1, "0\n1\n2\n", 1)
    assert err.endswith("its events have no ids after which it could go on\n")
    relay.next(Fault(after=cut))
    assert (await run(f"{relay.url}/numbers", "--allow-gaps", "--quiet")) == (0, "0\n1\n2\n0\n1\n2\n", "")


async def test_a_silent_server_is_left(url: str, run: Run) -> None:
    status, out, err = await run(f"{url}/quiet", "--idle", "0.3", "--no-reconnect")
    assert (status, out) == (1, "a\n")
    assert re.search(r"silent for too long.*; go on with --after=", err)


async def test_an_absent_server_is_tried_again(relay: Relay, run: Run) -> None:
    relay.refuse()
    told = await run(f"{relay.url}/letters", "--no-reconnect")
    assert (told.status, told.out, told.err.count("\n")) == (1, "", 1)
    assert told.err.startswith("tailrace tail: the stream is lost: ")


# Failures


FAILURES = {
    "late": ("a\n", "the stream failed: the model is down (model_down)"),
    "early": ("", "the server refused with 401: who are you"),
    "nothing": ("", "the server refused with 404: Not Found"),
    "page": ("", "expected a stream (text/event-stream, application/x-ndjson, application/json, text/plain), but got "),
    "said?text=data:1%0Aid:s.e.1%0A%0Aevent:reset%0Aid:s.e.7%0Adata:%7B%22reason%22:%22expired%22%7D%0A%0A": (
        "1\n",
        "the stream was reset (expired); go on with --after=s.e.7",
    ),
    "said?text=event:reset%0Adata:%7B%22reason%22:%22expired%22%7D%0A%0A": ("", "the stream was reset (expired); "),
    "said?text=event:error%0Aid:s.e.1.end%0Adata:%7B%22message%22:%22%1B[2J%0Adata:no%22%7D%0A%0A": ("", ""),
}


@pytest.mark.parametrize("path", FAILURES)
async def test_a_failure_is_one_line(url: str, run: Run, path: str) -> None:
    printed, line = FAILURES[path]
    status, out, err = await run(f"{url}/{path}")
    assert (status, out, err.count("\n")) == (1, printed, 1)
    assert err.startswith(f"tailrace tail: {line}")
    assert "\x1b" not in err


async def test_refused_on_the_way_it_says_how_to_go_on(url: str, run: Run) -> None:
    line = "tailrace tail: the server refused with 403: not you; go on with --after=s.e.1\n"
    assert await run(f"{url}/once", "--quiet") == (1, "1\n", line)


async def test_what_has_gone_is_refused(url: str, run: Run) -> None:
    gone = "AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAA.3"
    status, out, err = await run(f"{url}/letters", "--after", gone)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("tailrace tail: ")


USAGE = {
    "localhost:80/": "argument URL: expected an address with http://, https://, ws:// or wss://, but got",
    "http://a:99999/": "argument URL: expected an address with http://",
    "http://a/ b": "argument URL: expected an address with http://",
    "http://[a": "argument URL: expected an address with http://",
    "http://a --max 0": "argument --max: expected a whole number above 0, but got '0'",
    "http://a --idle -1": "argument --idle: expected seconds above 0, but got '-1'",
    "http://a --idle soon": "argument --idle: expected seconds above 0, but got 'soon'",
    "http://a --header x": "argument --header: expected 'Name: value' in ASCII, but got 'x'",
    "http://a --header x:é": "argument --header: expected 'Name: value' in ASCII, but got 'x:é'",
    "http://a --after é": "argument --after: expected printable ASCII, but got 'é'",
    "http://a --idempotency-key \n": "argument --idempotency-key: expected printable ASCII, but got '\\n'",
    "http://a --method (": "argument --method: expected a method like POST, but got '('",
    "http://a --data @/nowhere": "cannot read --data from /nowhere: No such file or directory",
    "ws://a --method POST": "expected no --method for a WebSocket, but got POST",
    f"ws://a --data @{sys.executable}": "expected UTF-8 text as --data, which is the first message of a WebSocket",
    "": "the following arguments are required: URL",
}


@pytest.mark.parametrize("line", USAGE)
async def test_a_wrong_command_line_is_one_line(run: Run, line: str) -> None:
    status, out, err = await run(*(line.replace("/ b", "/\tb").split(" ") if line else []))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"tailrace tail: {USAGE[line]}")


# Where it is printed


async def test_on_a_terminal_text_is_harmless(
    url: str, run: Run, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.openpty()
    request.addfinalizer(lambda: os.close(ours))
    text = "data:%22%5Cu001b]0;mine%5Cu0007hi%5Cnthere%22%0A%0Adata:[%22%C2%9B2J%22]%0A%0A"
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert await run(f"{url}/said?text={text}event:done%0Adata:%7B%7D%0A%0A") == (0, "", "")
        assert os.read(ours, 1000).decode() == '␛]0;mine␇hi\r\nthere\r\n["\\u009b2J"]\r\n'


async def test_elsewhere_text_is_as_it_is(url: str, run: Run) -> None:
    text = "data:%22%5Cu001b[1mhi%22%0A%0Aevent:done%0Adata:%7B%7D%0A%0A"
    assert await run(f"{url}/said?text={text}") == (0, "\x1b[1mhi\n", "")


async def test_without_a_place_for_its_output_it_fails_in_one_line(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "tailrace tail: cannot write to the standard output: No space left on device\n"
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert await run(f"{url}/letters") == (1, "", line)
    monkeypatch.setattr(sys, "stdout", None)  # which is what Python makes of a closed one
    assert await run(f"{url}/letters") == (1, "", "tailrace tail: the standard output is closed\n")


async def test_nobody_has_to_read_the_notices(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "event:cancelled%0Aid:s.e.1.end%0Adata:%7B%7D%0A%0A"
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        assert await run(f"{url}/said?text={text}") == (0, "", "")


async def test_nobody_has_to_read_the_output(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert await run(f"{url}/quiet") == (BROKEN_PIPE, "", "")


# As a process


async def test_in_a_pipe_it_ends_quietly_with_its_reader(url: str) -> None:
    # The second is over though no second event comes for a minute.
    many, one = await asyncio.gather(
        shell("tail $URL/fast | head -n 3", URL=url), shell("tail $URL/quiet | head -n 1", URL=url)
    )
    assert many == (BROKEN_PIPE, "0\n1\n2\n", "")
    assert one == (BROKEN_PIPE, "a\n", "")


async def test_interrupted_it_says_how_to_go_on(url: str) -> None:
    async with started(f"{url}/fast") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        printed += await process.stdout.read()
        said = (await process.stderr.read()).decode()
        assert await process.wait() == INTERRUPTED
    numbers = printed.rpartition(b"\n")[0].split(b"\n")
    assert numbers == [b"%d" % number for number in range(len(numbers))]
    # The cursor's last part counts what was printed whole.
    assert re.fullmatch(rf"tailrace tail: go on with --after=\S+\.{len(numbers)}\n", said)


async def test_interrupted_before_the_first_event_it_says_nothing() -> None:
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server, started(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as process:
        await asked.wait()
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"", b"")
        assert process.returncode == INTERRUPTED


async def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "websockets.py").write_text("raise ModuleNotFoundError(name='websockets')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    line = "tailrace tail: needs the extra client, but there is no websockets: pip install 'tailrace[client]'\n"
    command = [sys.executable, "-m", "tailrace", "tail", "http://127.0.0.1:1/"]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": path}, stderr=PIPE)
    async with asyncio.timeout(PATIENCE):
        _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (2, line)
