from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from tailrace import Frame
from tailrace.cli.command import Notices
from tailrace.cli.commands import make_parser
from tailrace.cli.follow import BROKEN_PIPE, OF_THE_REQUEST, Follower, Printer, WayOn, open_stream
from tailrace.cli.main import INTERRUPTED
from tailrace.testing import Fault, Relay
from tests.chat.api.talking import Scripted, chatting
from tests.cli.tails import NDJSON, SSE, Run, make_app, shell, started
from tests.client.apps import other_app
from tests.serving import serving

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
    line = "tailrace tail: the stream ended without an event `second`\n"
    assert await run(f"{url}/letters", "--until", "second") == (1, "a\nb\nc\n", line)
    assert await run(f"{url}/letters", "--until", "second", "--max", "1") == (0, "a\n", "")


async def test_a_stopped_stream_is_done(url: str, run: Run) -> None:
    text = "data:1%0Aid:s.e.1%0A%0Aevent:cancelled%0Aid:s.e.1.end%0Adata:%7B%22code%22:%22stopped%22%7D%0A%0A"
    stopped = f"{url}/said?text={text}"
    assert await run(stopped) == (0, "1\n", "tailrace tail: the stream was stopped: stopped\n")
    assert await run(stopped, "--quiet") == (0, "1\n", "")
    assert await run(stopped, "--quiet", "--until", "cancelled") == (0, "1\n", "")
    line = "tailrace tail: the stream ended without an event `done`\n"
    assert await run(stopped, "--quiet", "--until", "done") == (1, "1\n", line)


# Trouble


async def test_a_cursor_may_begin_with_a_dash(url: str, run: Run) -> None:
    apart, joined = await run(f"{url}/letters", "--after", "-x.0.1"), await run(f"{url}/letters", "--after=-x.0.1")
    assert apart == joined
    assert "the stream was reset" in apart.err


async def test_a_server_that_cannot_reach_its_store_is_a_line_beside_the_events(url: str, run: Run) -> None:
    degraded = "".join(
        f"event:degraded%0Aid:s.e.1%0Adata:%7B%22degraded%22:{word}%7D%0A%0A" for word in ("true", "false")
    )
    said = f"{url}/said?text=data:1%0Aid:s.e.1%0A%0A{degraded}event:done%0Aid:s.e.1.end%0Adata:%7B%7D%0A%0A"
    line = "tailrace tail: the server cannot reach its store; events may be late\n"
    assert await run(said) == (0, "1\n", line)
    assert await run(said, "--quiet") == (0, "1\n", "")


async def test_it_goes_on_after_a_lost_connection(relay: Relay, run: Run) -> None:
    await run(f"{relay.url}/letters")
    cut = relay.passed - 150
    relay.next(Fault(after=cut))
    status, out, err = await run(f"{relay.url}/letters")
    assert (status, out) == (0, "a\nb\nc\n")
    assert re.fullmatch(r"tailrace tail: the connection failed: .*; reconnecting in 0\.\d s\n", err)
    relay.next(Fault(after=cut))
    assert await run(f"{relay.url}/letters", "--quiet") == (0, "a\nb\nc\n", "")


async def test_without_reconnecting_it_says_how_to_go_on(relay: Relay, run: Run) -> None:
    letters = [f"{relay.url}/letters", "--header", f"accept: {NDJSON}", "--no-reconnect"]
    await run(*letters)
    relay.next(Fault(after=relay.passed - 150))
    status, out, err = await run(*letters)
    assert (status, out) == (1, "a\n")
    assert (told := re.fullmatch(r"tailrace tail: the stream is lost: .*; continue with (--after=\S+)\n", err))
    assert await run(*letters, told[1]) == (0, "b\nc\n", "")


async def test_after_a_post_the_way_on_is_another_address(relay: Relay, run: Run) -> None:
    words = [f"{relay.url}/words", "--data", '["x", "y", "z"]', "--header", f"accept: {NDJSON}", "--no-reconnect"]
    await run(*words)
    relay.next(Fault(after=relay.passed - 150))
    status, out, err = await run(*words)
    assert (status, out) == (1, "x\n")
    assert (told := re.search(r"; continue with: tailrace tail (http://.*)\n$", err))
    assert await run(*shlex.split(told[1])) == (0, "y\nz\n", "")


async def test_what_has_no_ids_is_lost_unless_gaps_are_allowed(relay: Relay, run: Run) -> None:
    await run(f"{relay.url}/numbers")
    cut = relay.passed - 2
    relay.next(Fault(after=cut))
    status, out, err = await run(f"{relay.url}/numbers")
    assert (status, out, err.count("\n")) == (1, "0\n1\n2\n", 1)
    assert err.endswith("its last event has no id to continue after\n")
    relay.next(Fault(after=cut))
    assert (await run(f"{relay.url}/numbers", "--allow-gaps", "--quiet")) == (0, "0\n1\n2\n0\n1\n2\n", "")


async def test_a_silent_server_is_left(url: str, run: Run) -> None:
    status, out, err = await run(f"{url}/quiet", "--idle", "2", "--no-reconnect")
    assert (status, out) == (1, "a\n")
    assert re.search(r"silent for too long.*; continue with --after=", err)


async def test_it_gives_up_after_so_many_attempts(relay: Relay, run: Run) -> None:
    relay.always(Fault(after=0))
    status, out, err = await run(f"{relay.url}/letters", "--retries", "2")
    assert (status, out, relay.accepted) == (1, "", 3)
    assert [line.partition(": ")[2][:40] for line in err.splitlines()][-1].startswith("the stream is lost after 3 fa")


async def test_an_absent_server_is_tried_again(relay: Relay, run: Run) -> None:
    relay.refuse()
    told = await run(f"{relay.url}/letters", "--no-reconnect")
    assert (told.status, told.out, told.err.count("\n")) == (1, "", 1)
    assert told.err.startswith("tailrace tail: the stream is lost: ")


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
    text = "data:%22%5Cu001b[1mhi%22%0A%0Adata:[1e400]%0A%0Aevent:done%0Adata:%7B%7D%0A%0A"
    assert await run(f"{url}/said?text={text}") == (0, "\x1b[1mhi\n[null]\n", "")


async def test_without_a_place_for_its_output_it_fails_in_one_line(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "tailrace tail: cannot write to the standard output: No space left on device\n"
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert await run(f"{url}/letters") == (1, "", line)


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
    assert re.fullmatch(rf"tailrace tail: continue with --after=\S+\.{len(numbers)}\n", said)


async def test_the_way_on_is_from_the_last_event_on(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = make_parser().parse_args(["tail", f"{url}/letters"])
    notices = Notices("tail", quiet=False)
    follower = Follower(options, notices, open_stream(options, notices))
    follower.tell_way_on()
    await follower.run()
    follower.tell_way_on()
    out, err = capfd.readouterr()
    assert out == "a\nb\nc\n"
    assert re.fullmatch(r"tailrace tail: continue with --after=\S+\.3\n", err)


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


SSE, TEXT = "text/event-stream", "text/plain"
HARMFUL = "\x1b[2J\x9b\u202e"


def line(data: object, media_type: str = SSE, *, objects: bool = False, terminal: bool = False) -> str:
    return Printer(objects=objects, terminal=terminal).line(Frame(data, "name", "1"), media_type).decode()


def test_text_is_as_it_is_and_all_else_is_json() -> None:
    assert line("é\nn") == "é\nn\n"
    assert line({"é": [1, None]}) == '{"é":[1,null]}\n'
    assert line("piece", TEXT) == "piece"
    assert line(1, TEXT) == "1\n"


@pytest.mark.parametrize("media_type", [SSE, TEXT])
def test_an_object_is_one_line(media_type: str) -> None:
    assert line("a\nb", media_type, objects=True) == '{"id":"1","event":"name","data":"a\\nb"}\n'


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_json_cannot_say_is_null(number: float) -> None:
    assert line([number]) == "[null]\n"
    assert json.loads(line(number, objects=True))["data"] is None


def test_elsewhere_than_on_a_terminal_nothing_is_changed() -> None:
    assert line(HARMFUL) == f"{HARMFUL}\n"
    assert line(HARMFUL, TEXT) == HARMFUL
    assert line([HARMFUL]) == '["\\u001b[2J\x9b\u202e"]\n'


def test_a_terminal_obeys_nothing() -> None:
    assert line(HARMFUL, terminal=True) == "␛[2J\ufffd\ufffd\n"
    assert line(HARMFUL, TEXT, terminal=True) == "␛[2J\ufffd\ufffd"
    printed = line([HARMFUL], terminal=True)
    assert printed == '["\\u001b[2J\\u009b\\u202e"]\n'
    assert json.loads(printed) == [HARMFUL]


def test_a_line_end_in_two_pieces_is_one() -> None:
    printer = Printer(objects=False, terminal=True)
    assert [printer.line(Frame(piece), TEXT) for piece in ("a\r", "\nb")] == [b"a\n", b"b"]


async def test_headers_are_sent(url: str, run: Run) -> None:
    headers = ["X-Of-Mine: a: b", "x-of-mine:c", "Cookie: d=e", "cookie: f=g", "Host: there"]
    got = await run(f"{url}/echo", *(part for header in headers for part in ("--header", header)))
    said = json.loads(got.out)
    assert (said["method"], said["x-of-mine"], said["cookie"]) == ("GET", "a: b, c", "d=e; f=g")
    assert said["host"] == "there"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "[1, 2]"], {"method": "POST", "body": "[1, 2]", "content-type": "application/json"}),
        (["--data", "[1, 2"], {"method": "POST", "body": "[1, 2", "content-type": None}),
        (["--data", "1", "--header", "Content-Type: text/x"], {"body": "1", "content-type": "text/x"}),
        (["--data", "@body", "--method", "patch"], {"method": "PATCH", "body": '{"a": 1}\n'}),
        (["--data", "-"], {"method": "POST", "body": '{"a": 1}\n', "content-type": "application/json"}),
        (["--data", ""], {"method": "POST", "body": "", "content-type": None}),
        (["--data", "[" * 100_000], {"method": "POST", "content-type": None}),
        (["--method", "POST", "--idempotency-key", "k"], {"method": "POST", "body": "", "idempotency-key": "k"}),
    ],
    ids=["json", "text", "own-type", "file", "input", "empty", "deep", "key"],
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


async def test_a_closed_input_has_no_body(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # which is what Python makes of a closed one
    line = "tailrace tail: cannot read --data -: the standard input is closed\n"
    assert await run(f"{url}/echo", "--data", "-") == (2, "", line)


IMPOSSIBLE = {
    "ws://a --method POST": "expected no --method for a WebSocket, but got POST",
    "ws://a --header Host:b": "expected no --header Host for a WebSocket, but got b",
    f"ws://a --data @{sys.executable}": "expected UTF-8 text as --data, which is the first message of a WebSocket",
    "http://a --data @missing": "cannot read --data from missing: No such file or directory",
    "http://xn--a/": "",
    "http://999.1.1.1/": "",
    "ws://a..b/": "",
}


@pytest.mark.parametrize("line", IMPOSSIBLE)
async def test_what_cannot_be_asked_is_one_line(
    run: Run, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which has no file
    status, out, err = await run(*line.split(" "))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"tailrace tail: {IMPOSSIBLE[line]}")


URL, ADDRESS = "http://a/words?n=1", "http://a/words/s?n=1"
CURSOR = "-s.e.4"


def parse(*arguments: str) -> Namespace:
    return make_parser().parse_args(["tail", *arguments])


def after(token: str | None, *arguments: str, address: str | None = None) -> str | None:
    way = WayOn(parse(*arguments))
    way.note(address)
    return way.after(token)


def test_the_same_command_goes_on_with_the_cursor() -> None:
    assert after(CURSOR, URL) == f"continue with --after={CURSOR}"
    assert after(CURSOR, URL, "--json", "--header", "a: b", address=ADDRESS) == f"continue with --after={CURSOR}"
    assert after("it's 5", URL) == "continue with --after='it'\"'\"'s 5'"
    assert after(CURSOR, "ws://a/", "--data", "x") == f"continue with --after={CURSOR}"


def test_what_is_asked_once_goes_on_at_its_address() -> None:
    for once in (["--data", "{}"], ["--method", "POST"]):
        assert (
            after(CURSOR, URL, *once, address=ADDRESS) == f"continue with: tailrace tail '{ADDRESS}' --after={CURSOR}"
        )


@pytest.mark.parametrize(
    ("token", "arguments"),
    [(None, []), ("s.e.4.end", []), ("s.e.4.end", ["--data", "x"]), ("5", ["--data", "x"]), ("5", ["--method", "PUT"])],
)
def test_where_nothing_more_comes_there_is_no_way_on(token: str | None, arguments: list[str]) -> None:
    assert after(token, URL, *arguments) is None


def test_what_is_not_of_the_request_is_said_again() -> None:
    said = parse(
        *(URL, "--data", "{}", "--method", "post", "--idempotency-key", "k", "--after", "s.e.1"),
        *("--json", "--quiet", "--allow-gaps", "--max", "9", "--until", "the end", "--retries", "3", "--idle", "7"),
        *("--max-bytes", "99", "--header", "Accept: text/plain, */*"),
    )
    parser = said.parser
    assert {name for name in vars(said) if getattr(said, name) == parser.get_default(name)} == {"command", "parser"}
    way = WayOn(said)
    way.note(ADDRESS)
    told = way.after(CURSOR)
    assert told is not None
    again = vars(parse(*shlex.split(told.removeprefix("continue with: tailrace tail "))))
    expected = {"url": ADDRESS, "after": CURSOR, "data": None, "method": None, "idempotency_key": None}
    assert {name: again.pop(name) for name in OF_THE_REQUEST} == expected
    assert {name: value for name, value in again.items() if name not in ("command", "parser")} == {
        name: value for name, value in vars(said).items() if name not in (*OF_THE_REQUEST, "command", "parser")
    }


def test_the_defaults_are_not_said() -> None:
    told = after(CURSOR, URL, "--data", "x", "--no-reconnect", "--idle", "45", address="http://a/s")
    assert told == f"continue with: tailrace tail http://a/s --retries=0 --after={CURSOR}"


def test_what_may_be_secret_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    secret = ["--header", "Authorization: Bearer k", "--header", "content-type: text/x", "--header", "User-Agent: me"]
    told = after(CURSOR, URL, "--data", "x", *secret, address="http://a/s")
    again = f"tailrace tail http://a/s --header 'authorization: …' --header 'user-agent: me' --after={CURSOR}"
    assert told == f"continue with: {again}"
    # Who forgets to fill it in is told so.
    with pytest.raises(SystemExit, match="2"):
        parse(*shlex.split(again)[2:])
    assert "argument --header: expected 'Name: value' in ASCII, but got 'authorization: …'" in capsys.readouterr().err


FAILURES = {
    "late": ("a\n", "the stream failed: the model is down (model_down)"),
    "early": ("", "the server refused with 401: who are you"),
    "nothing": ("", "the server refused with 404: Not Found"),
    "page": ("", "expected a stream (text/event-stream, application/x-ndjson, application/json, text/plain), but got "),
    "said?text=data:1%0Aid:s.e.1%0A%0Aevent:reset%0Aid:s.e.7%0Adata:%7B%22reason%22:%22expired%22%7D%0A%0A": (
        "1\n",
        "the stream was reset (expired); continue with --after=s.e.7",
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


@pytest.mark.parametrize(
    ("variable", "value", "address", "said"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1", "http://host.invalid/", "a SOCKS proxy needs the package socksio"),
        ("https_proxy", "http://127.0.0.1:1", "https://host.invalid/", "it does not answer"),
        ("SSL_CERT_FILE", "/nowhere.pem", "https://host.invalid/", "it cannot be opened (No such file or directory)"),
    ],
)
async def test_a_variable_that_cannot_be_used_is_one_line(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, address: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    status, out, err = await run(address, "--no-reconnect")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"tailrace tail: {variable} is '{value}', but {said}")
    # This machine needs neither.
    assert await run(f"{url}/letters") == (0, "a\nb\nc\n", "")


async def test_refused_on_the_way_it_says_how_to_go_on(url: str, run: Run) -> None:
    line = "tailrace tail: the server refused with 403: not you; continue with --after=s.e.1\n"
    assert await run(f"{url}/once", "--quiet") == (1, "1\n", line)


async def test_what_has_gone_is_refused(url: str, run: Run) -> None:
    gone = "AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAA.3"
    status, out, err = await run(f"{url}/letters", "--after", gone)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("tailrace tail: ")


GONE = "the stream is gone; read it from its beginning, without --after"


@pytest.mark.parametrize("status", [404, 410])
async def test_of_what_has_gone_on_the_way_there_is_no_more(url: str, run: Run, status: int) -> None:
    line = f"tailrace tail: the server refused with {status}: not you; {GONE}\n"
    assert await run(f"{url}/once?status={status}", "--quiet") == (1, "1\n", line)


async def test_after_the_end_of_a_server_there_is_no_way_on(run: Run) -> None:
    async with serving(make_app()) as url:
        first = await run(f"{url}/letters", "--json", "--max", "1")
    cursor = json.loads(first.out)["id"]
    async with serving(make_app()) as url:
        told = await run(f"{url}/letters", f"--after={cursor}")
    assert told == (1, "", f"tailrace tail: the stream was reset (epoch_changed); {GONE}\n")


async def test_a_larger_event_names_the_option(url: str, run: Run) -> None:
    text = f"data:{'x' * 200}%0A%0A"
    status, out, err = await run(f"{url}/said?text={text}", "--max-bytes", "100")
    assert (status, out) == (1, "")
    said = r"tailrace tail: expected a frame of at most 100 bytes, but got at least 2\d\d; --max-bytes allows more; "
    assert re.fullmatch(rf"{said}continue with --after=s\.e\.0\n", err)
    assert (await run(f"{url}/said?text={text}", "--max-bytes", "300", "--max", "1")).status == 0


async def test_what_came_before_half_an_event_is_printed(url: str, run: Run) -> None:
    status, out, err = await run(f"{url}/half")
    assert (status, out) == (1, '{"id":"7","data":1}\n')
    assert re.fullmatch(r"tailrace tail: expected a whole line of JSON .*\n", err)


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("words", [], "Method Not Allowed; expected the method POST, but got GET"),
        (
            "letters",
            ["--data", ""],
            "Method Not Allowed; expected the method GET, but got POST",
        ),
        (
            "letters",
            ["--method", "put"],
            "Method Not Allowed; expected the method GET, but got PUT",
        ),
        ("unasked", [], "not so; the method was GET"),
    ],
)
async def test_a_refused_method_is_named(url: str, run: Run, path: str, options: list[str], said: str) -> None:
    assert await run(f"{url}/{path}", *options) == (1, "", f"tailrace tail: the server refused with 405: {said}\n")
