"""`tailrace chat` without a terminal: one answer, and an exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from asyncio import to_thread
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tailrace.cli.chat import EXTRA, KEY_VARIABLE, URL_VARIABLE
from tailrace.cli.main import main
from tailrace.testing import relayed
from tests.chat.api import talking
from tests.chat.api.talking import Hold, Scripted
from tests.cli.served import PATIENCE, SILENT
from tests.cli.terminal.screen import terminal
from tests.client.speaking import saying, speaking
from tests.programs import Server
from tests.serving import ROOT, free_port, listening_socket

PATHS = os.pathsep.join([str(ROOT), str(ROOT / "src")])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.cli.terminal.conftest import serve

    with serve(tmp_path_factory.mktemp("chat"), TAILRACE_API_KEYS="one-key", TAILRACE_DEMO_PACE="0.01") as found:
        yield found


def command(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, **SILENT, "PYTHONPATH": PATHS, KEY_VARIABLE: "one-key", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "tailrace", "chat", *arguments],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )


def chat(*arguments: str, typed: str = "", **environment: str) -> tuple[int, str, str]:
    """The exit status, the output, and what was said beside it."""
    process = command(*arguments, **environment)
    out, err = process.communicate(typed.encode(errors="surrogateescape"), PATIENCE)
    return process.returncode, out.decode(), err.decode()


def in_shell(line: str) -> subprocess.CompletedProcess[bytes]:
    """What a line does, in which `chat` is the command."""
    script = f'chat() {{ {sys.executable} -m tailrace chat "$@"; }}; {line}'
    env = {**os.environ, **SILENT, "PYTHONPATH": PATHS, KEY_VARIABLE: "one-key"}
    return subprocess.run(["sh", "-c", script], env=env, capture_output=True, timeout=PATIENCE)


def headers() -> dict[str, str]:
    return {"Authorization": "Bearer one-key"}


def test_a_message_gets_the_text_of_its_reply(server: Server) -> None:
    status, out, err = chat(server.url, "--message", "short \x1b[31m**hello**")
    assert (status, err) == (0, "")
    assert out.startswith("You wrote “short ␛[31m**hello**”: 2 words, received in order.\n\n")
    assert out.endswith("GENAI_MODEL_ID`.\n")
    assert "\x1b" not in out


def test_what_is_piped_is_the_message(server: Server) -> None:
    status, out, _ = chat(typed="short\npiped", **{URL_VARIABLE: server.url})
    assert status == 0
    assert "You wrote “short piped”" in out


def test_json_prints_the_objects(server: Server) -> None:
    status, out, err = chat(server.url, "--json", "--message", "short \x1b\x9bone")
    assert (status, err) == (0, "")
    assert not {"\x1b", "\x9b"} & set(out)
    objects = [json.loads(line) for line in out.splitlines()]
    assert [each["type"] for each in objects[:2]] == ["session_info", "status"]
    assert objects[-1]["type"] == "complete"
    assert "".join(each["text"] for each in objects if each["type"] == "chunk").startswith(
        "You wrote “short \x1b\x9bone”"
    )
    assert all({"id", "timestamp"} <= each.keys() for each in objects)


def test_a_session_goes_on(server: Server) -> None:
    _, out, _ = chat(server.url, "--json", "--message", "short one")
    session_id = json.loads(out.splitlines()[0])["session_id"]
    status, out, _ = chat(server.url, "--session", session_id, "--message", "short two")
    assert status == 0
    assert "This is message 2 of our conversation" in out


def test_a_session_may_have_a_name_of_its_own(server: Server) -> None:
    for expected in (0, 2):
        status, out, _ = chat(server.url, "--json", "--session", "my-work", "--message", "short one")
        first, last = json.loads(out.splitlines()[0]), json.loads(out.splitlines()[-1])
        assert (status, first["session_id"], last["message_count"]) == (0, "my-work", expected + 2)


def test_a_failing_model_is_status_1(server: Server) -> None:
    status, out, err = chat(server.url, "--message", "/fail")
    assert status == 1
    assert out.startswith("You wrote “/fail”")
    assert err.startswith("failed · ")
    assert err.endswith("(model_error)\n")
    status, out, err = chat(server.url, "--json", "--message", "/fail")
    *_, before, last = (json.loads(line) for line in out.splitlines())
    assert (status, err.count("\n")) == (1, 1)
    assert datetime.fromisoformat(last.pop("timestamp")) <= datetime.now(UTC)
    assert last == {
        "type": "error",
        "id": f"{before['id']}.end",
        "code": "model_error",
        "message": "the demo model fails, because /fail asks for it",
    }


def test_refusals_are_one_line_and_status_1(server: Server) -> None:
    unknown = "the server does not know this API key\n"
    assert chat(server.url, "--message", "hello", "--key", "another") == (1, "", unknown)
    wanted = "the server requires an API key: pass --key, or set TAILRACE_API_KEY\n"
    assert chat(server.url, "--message", "hello", **{KEY_VARIABLE: ""}) == (1, "", wanted)
    status, out, err = chat(server.url, "--json", "--message", "x" * 40_000)
    assert (status, json.loads(out)["code"]) == (1, "message_too_long")
    assert err == "expected a message of at most 32000 characters, but got 40000\n"


async def test_another_server_is_none() -> None:
    head = b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 30\r\n\r\n"
    async with speaking(saying(head, b"<html>\n<p>no such page</p>\n<br>")) as where:
        status, out, err = await to_thread(chat, f"http{where}", "--message", "hello")
        assert (status, out, err) == (1, "", f"no chat server at http{where} (status 404)\n")


def test_another_path_is_none(server: Server) -> None:
    status, out, err = chat(f"{server.url}/chat", "--message", "hello")
    assert (status, out, err) == (1, "", f"no chat server at {server.url}/chat (status 404)\n")


def test_a_server_without_tls_is_not_asked_again(server: Server) -> None:
    status, out, err = chat(server.url.replace("http:", "https:"), "--message", "hello")
    assert (status, out) == (1, "")
    assert err == "what is at this address does not speak TLS; your message was not sent\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file that is always full is needed")
@pytest.mark.parametrize("option", ["", "--json"])
def test_an_output_that_is_full_is_one_line(option: str, server: Server) -> None:
    ended = in_shell(f"chat {server.url} --message short {option} > /dev/full")
    said = "tailrace chat: cannot write to the output: No space left on device\n"
    assert (ended.returncode, ended.stderr.decode()) == (1, said)


def test_a_message_is_asked_for_on_a_terminal(server: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "chat", server.url, "--json", "--key", "one-key") as screen:
        screen.until(lambda: "write the message, then Ctrl-D on a line of its own" in screen.text)
        screen.type("short one", "enter", "ctrl-d")
        assert screen.end() == 0
        assert '"type":"complete"' in screen.text.replace("\n", "")


def test_a_busy_session_is_status_1(server: Server) -> None:
    body = {"message": "a long one" * 9}
    with httpx.stream("POST", f"{server.url}/chat/stream", json=body, headers=headers(), timeout=PATIENCE) as response:
        info = json.loads(next(response.iter_lines()))
        status, out, err = chat(server.url, "--session", info["session_id"], "--message", "hello")
        httpx.post(f"{server.url}/chat/stream/{info['stream_id']}/stop", headers=headers(), timeout=PATIENCE)
    assert (status, out) == (1, "")
    assert err.startswith("the session is answering: ")


def test_ctrl_c_stops_the_model(tmp_path: Path) -> None:
    from tests.cli.terminal.conftest import serve

    with serve(tmp_path, TAILRACE_DEMO_PACE="0.2") as slow:
        process = command(slow.url, "--message", "a long one")
        assert process.stdout is not None
        first = process.stdout.read(8)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (130, b"")
        stored = httpx.get(f"{slow.url}/sessions", timeout=PATIENCE).json()["sessions"][0]
        reply = httpx.get(f"{slow.url}/sessions/{stored['session_id']}", timeout=PATIENCE).json()["messages"][-1]
        assert (reply["state"], reply["text"].rstrip("\n")) == ("stopped", (first + out).decode().rstrip("\n"))


def test_what_no_shell_can_continue_is_not_suspended(tmp_path: Path) -> None:
    from tests.cli.terminal.conftest import serve

    with serve(tmp_path, TAILRACE_DEMO_PACE="0.2") as slow:
        process = command(slow.url, "--message", "short one")
        assert process.stdout is not None
        process.stdout.read(8)
        process.send_signal(signal.SIGTSTP)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, b"")
        assert out.endswith(b"`GENAI_MODEL_ID`.\n")


async def test_a_second_ctrl_c_leaves_a_model_that_cannot_be_stopped(tmp_path: Path) -> None:
    async with talking.chatting(tmp_path, Scripted("one ", hold := Hold())) as slow, relayed(slow.url) as relay:
        process = command(relay.url, "--message", "hello")
        assert process.stdout is not None
        assert process.stderr is not None
        assert await to_thread(process.stdout.read, 4) == b"one "
        relay.refuse()
        process.send_signal(signal.SIGINT)
        said = await to_thread(process.stderr.readline)
        assert said.startswith(b"cannot stop the model: no response from the server: ")
        process.send_signal(signal.SIGINT)
        assert await to_thread(process.communicate, None, PATIENCE) == (b"\n", b"")
        assert process.returncode == 130
        hold.release.set()


@pytest.mark.parametrize(
    ("closed", "status", "said"),
    [
        ("<&-", 2, "tailrace chat: expected a message from --message or from the input, but got none\n"),
        (">&-", 1, "tailrace chat: the standard output is closed\n"),
    ],
)
def test_a_closed_stream_is_one_line(closed: str, status: int, said: str) -> None:
    ended = in_shell(f"chat 127.0.0.1:1 {closed}")
    assert (ended.returncode, ended.stdout, ended.stderr.decode()) == (status, b"", said)


def test_what_is_said_beside_a_reply_does_not_get_into_it(server: Server) -> None:
    ended = in_shell(f"chat {server.url} --message /fail 2>&-")
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert ended.stdout.startswith("You wrote “/fail”".encode())
    assert b"failed" not in ended.stdout


def test_what_is_no_text_is_replaced(server: Server) -> None:
    for arguments in (["--message", "short \udcff one"], []):
        status, out, err = chat(server.url, *arguments, typed="short \udcff one", LC_ALL="C.UTF-8")
        assert (status, err) == (0, "")
        assert re.match("You (wrote|asked) “short [?\ufffd] one”", out)


ENVIRONMENTS = [
    {"ALL_PROXY": "socks5://127.0.0.1:1"},
    {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"},
    {"SSL_CERT_FILE": "/nowhere.pem"},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: next(iter(each)))
def test_this_machine_is_reached_without_proxy_or_certificates(environment: dict[str, str], server: Server) -> None:
    status, out, err = chat(server.url, "--message", "short one", **environment)
    assert (status, out[:9], err) == (0, "You wrote", "")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("environment", ENVIRONMENTS[:2], ids=lambda each: next(iter(each)))
def test_a_proxy_that_cannot_be_used_is_one_line(environment: dict[str, str], scheme: str) -> None:
    environment = {**environment, "HTTPS_PROXY": environment.get("HTTP_PROXY", "")}
    status, out, err = chat(f"{scheme}://chat.invalid", "--message", "hello", **environment)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.match(r"(ALL|HTTPS?|http)_(PROXY|proxy) is '\S+', but .*: .*\n", err)


def test_certificates_that_cannot_be_used_are_one_line() -> None:
    with listening_socket() as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        status, out, err = chat(url, "--message", "hello", **ENVIRONMENTS[2])
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("SSL_CERT_FILE is '/nowhere.pem', but it cannot be opened (No such file or directory): ")


def test_a_reader_that_leaves_is_no_error(server: Server) -> None:
    with command(server.url, "--message", "a long one") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(8)
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--message", " "], "expected a message from --message or from the input, but got none"),
        (["ftp://host"], "expected the URL of a server, such as http://127.0.0.1:8000, but got 'ftp://host'"),
        (
            ["http://host:port"],
            "expected the URL of a server, such as http://127.0.0.1:8000, but got 'http://host:port'",
        ),
        (["http://"], "expected the URL of a server, such as http://127.0.0.1:8000, but got 'http://'"),
        (["--session", "o/e"], "expected --session to be an id of 1-64 letters, digits, - or _, but got 'o/e'"),
        (["--session", ""], "expected --session to be an id of 1-64 letters, digits, - or _, but got ''"),
        (["--key", "ключ"], "expected an API key of printable ASCII characters, but got others"),
    ],
)
def test_what_cannot_be_meant_is_status_2(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Of two messages the last counts.
    assert main(["chat", "--message", "hello", *arguments]) == 2
    assert capsys.readouterr() == ("", f"tailrace chat: {line}\n")


def test_an_empty_input_is_status_2() -> None:
    line = "tailrace chat: expected a message from --message or from the input, but got none\n"
    assert chat() == (2, "", line)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "Connection refused"),
        ("nobody.invalid", "there is no such host"),
        ("a..b", "there is no such host"),
    ],
)
def test_no_server_says_how_to_start_one(host: str, why: str) -> None:
    address = f"http://{host}:{free_port()}"
    line = f"tailrace chat: no server at {address} ({why}): start one with: tailrace serve\n"
    assert chat(address, "--message", "hello") == (1, "", line)


def test_a_missing_extra_is_one_line() -> None:
    code = f"import sys; sys.modules[{EXTRA[1]!r}] = None; from tailrace.cli.main import main; sys.exit(main(['chat']))"
    env = {**os.environ, "PYTHONPATH": PATHS}
    ended = subprocess.run([sys.executable, "-c", code], env=env, input=b"hi", capture_output=True, timeout=PATIENCE)
    line = f"tailrace chat: needs the extra cli, but there is no {EXTRA[1]}: pip install 'tailrace[cli]'\n"
    assert (ended.returncode, ended.stderr.decode()) == (2, line)


def test_the_prompt_needs_nothing_that_only_a_connection_does() -> None:
    code = "import sys, tailrace.cli.terminal.dialogue, tailrace.cli.terminal.start; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": PATHS}
    loaded = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=PATIENCE, check=True)
    assert not {"httpx", "markdown_it", "pygments", "rich", "tailrace.client"} & set(loaded.stdout.decode().split())
