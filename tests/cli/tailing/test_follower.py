from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tailrace.cli.commands import make_parser
from tailrace.cli.main import INTERRUPTED
from tailrace.cli.notices import Notices
from tailrace.cli.tailing.follower import BROKEN_PIPE, Follower
from tailrace.cli.tailing.request import ask
from tailrace.testing import Fault, Relay
from tests.chat.api.talking import Scripted, chatting
from tests.cli.tailing.tails import NDJSON, SSE, Run, shell, started
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
    line = "tailrace tail: the stream ended, but no event `second` came\n"
    assert await run(f"{url}/letters", "--until", "second") == (1, "a\nb\nc\n", line)
    assert await run(f"{url}/letters", "--until", "second", "--max", "1") == (0, "a\n", "")


async def test_a_stopped_stream_is_done(url: str, run: Run) -> None:
    text = "data:1%0Aid:s.e.1%0A%0Aevent:cancelled%0Aid:s.e.1.end%0Adata:%7B%22code%22:%22stopped%22%7D%0A%0A"
    stopped = f"{url}/said?text={text}"
    assert await run(stopped) == (0, "1\n", "tailrace tail: the stream was stopped: stopped\n")
    assert await run(stopped, "--quiet") == (0, "1\n", "")
    assert await run(stopped, "--quiet", "--until", "cancelled") == (0, "1\n", "")
    line = "tailrace tail: the stream ended, but no event `done` came\n"
    assert await run(stopped, "--quiet", "--until", "done") == (1, "1\n", line)


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
    assert err.endswith("its last event has no id after which it could go on\n")
    relay.next(Fault(after=cut))
    assert (await run(f"{relay.url}/numbers", "--allow-gaps", "--quiet")) == (0, "0\n1\n2\n0\n1\n2\n", "")


async def test_a_silent_server_is_left(url: str, run: Run) -> None:
    status, out, err = await run(f"{url}/quiet", "--idle", "2", "--no-reconnect")
    assert (status, out) == (1, "a\n")
    assert re.search(r"silent for too long.*; go on with --after=", err)


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
    assert re.fullmatch(rf"tailrace tail: go on with --after=\S+\.{len(numbers)}\n", said)


async def test_the_way_on_is_from_the_last_event_on(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = make_parser().parse_args(["tail", f"{url}/letters"])
    notices = Notices("tail", quiet=False)
    follower = Follower(options, notices, ask(options, notices.tell_reconnect))
    follower.tell_way_on()
    await follower.run()
    follower.tell_way_on()
    out, err = capfd.readouterr()
    assert out == "a\nb\nc\n"
    assert re.fullmatch(r"tailrace tail: go on with --after=\S+\.3\n", err)


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
