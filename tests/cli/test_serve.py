from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.chat.settings import PREFIX, ChatSettings
from tailrace.cli.command import CommandError
from tailrace.cli.main import INTERRUPTED, main
from tailrace.cli.serve import OPTIONS, is_loopback, listen, url_of
from tests.cli.served import PATIENCE, SILENT, served
from tests.serving import ROOT, http_client, listening_socket, process

SECRET = "quite-secret"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path) -> Iterator[None]:
    """Nothing is said by the environment, and what a command says there is forgotten."""
    before = dict(os.environ)
    os.environ.update(SILENT, TAILRACE_DATABASE=str(tmp_path / "chat.sqlite3"), COLUMNS="200")
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


def exit_status(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as end:  # which is how the parser ends
        return int(str(end.code))


REFUSED: dict[str, tuple[dict[str, str], str, int, str]] = {
    "port": ({}, "--port 70000", 2, "expected --port to be a port from 0 to 65535, but got '70000'"),
    "port-variable": (
        {"TAILRACE_PORT": "http"},
        "",
        2,
        "expected TAILRACE_PORT to be a port from 0 to 65535, but got 'http'",
    ),
    "option": ({}, "--prot 80", 2, "unrecognized arguments: --prot 80; see tailrace serve --help"),
    "workers": (
        {},
        "--workers 2",
        2,
        "expected --streams redis://… with --workers 2, but got memory://: "
        "a worker could not resume, stop or list what another one answers",
    ),
    "no-workers-at-all": ({}, "--workers 0", 2, "expected --workers to be at least 1, but got 0"),
    "reloading-workers": ({}, "--workers 2 --reload", 2, "expected --workers 1, but got 2"),
    "streams": (
        {"TAILRACE_STREAMS": f"http://:{SECRET}@here"},
        "",
        2,
        "cannot use the streams: expected a URL that begins with memory:// or redis:// or redis+cluster:// or "
        "redis+sentinel:// or rediss:// or rediss+cluster:// or rediss+sentinel:// or unix://, but got 'http://'",
    ),
    "streams-address": (
        {"TAILRACE_STREAMS": "redis://:secret@here:port"},
        "",
        2,
        "cannot use the streams: expected a number up to 65535 as the port of here, but got 'port'",
    ),
    "origin": (
        {"TAILRACE_CORS_ORIGINS": "foo"},
        "",
        2,
        "TAILRACE_CORS_ORIGINS: expected origins like https://page.example, or *, but got 'foo'",
    ),
    "empty-port": ({}, "--port=", 2, "expected --port PORT, but got '' as PORT"),
    "empty-database": ({}, "--database=", 2, "expected --database FILE|URL, but got '' as FILE|URL"),
    "no-workers": ({}, "--workers two", 2, "argument --workers: invalid int value: 'two'; see tailrace serve --help"),
    "log-format": (
        {"TAILRACE_LOG_FORMAT": "json"},
        "--log-format xml",
        2,
        "--log-format: input should be 'auto', 'rich' or 'json', but got 'xml'",
    ),
    "variable": ({"TAILRACE_MAX_TURNS": "0"}, "", 2, "TAILRACE_MAX_TURNS: input should be greater than 0, but got '0'"),
    "anonymous": (
        {},
        "--host 0.0.0.0",
        2,
        "anyone who can reach 0.0.0.0 could chat: set TAILRACE_API_KEYS to the keys that you give out, "
        "or say --allow-anonymous",
    ),
    "model": (
        {},
        "--port 0 --model nobody",
        2,
        "expected google:…, openai:…, anthropic:…, ollama:… or demo as model, but got 'nobody'",
    ),
    "model-key": (
        {},
        "--port 0 --model google:gemini-x",
        2,
        "the model google:gemini-x needs a key, but GOOGLE_API_KEY or GEMINI_API_KEY is not set",
    ),
    "model-proxy": (
        {"ALL_PROXY": "socks5://127.0.0.1:9", "OPENAI_API_KEY": SECRET},
        "--port 0 --model openai:x",
        2,
        "ALL_PROXY names a SOCKS proxy, which needs another package: pip install socksio. "
        "Or name api.openai.com in NO_PROXY",
    ),
    "model-certificates": (
        {"SSL_CERT_FILE": "/dev/null/none", "OPENAI_API_KEY": SECRET},
        "--port 0 --model openai:x",
        2,
        "cannot read the certificates of SSL_CERT_FILE=/dev/null/none: ",
    ),
    "database-scheme": (
        {},
        f"--port 0 --database mysql://me:{SECRET}@db/chat",
        2,
        "cannot use the database: expected a file, sqlite:///… or postgresql://… as database, but got mysql://…",
    ),
    "database-url": (
        {},
        f"--port 0 --database postgresql://me:{SECRET}@db:port/chat",
        2,
        "cannot use the database: expected the URL of a database, but got one that cannot be read",
    ),
    "database-option": (
        {},
        f"--port 0 --database postgresql://me:{SECRET}@db/chat?password={SECRET}",
        2,
        "cannot use the database: postgresql://me@db/chat: expected only the options ",
    ),
    "database-folder": ({}, "--port 0 --database /dev/null/chat.sqlite3", 1, "cannot use the database: /dev/null/chat"),
    "database-away": (
        {},
        f"--port 0 --database postgresql://me:{SECRET}@127.0.0.1:1/chat",
        1,
        "cannot use the database: postgresql://me@127.0.0.1:1/chat: ",
    ),
    "host-name": ({"TAILRACE_API_KEYS": SECRET}, "--host nowhere.invalid", 1, "cannot listen on 'nowhere.invalid' ("),
}


@pytest.mark.parametrize(("environment", "options", "status", "line"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served_is_one_line(
    environment: dict[str, str], options: str, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ.update(environment)
    assert exit_status("serve", *options.split()) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith((f"tailrace serve: {line}", f"tailrace: {line}"))
    assert said.err.count("\n") == 1
    assert SECRET not in said.err


def test_a_taken_port_says_how_to_choose_another(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_socket() as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    line = f"tailrace serve: port {port} on 127.0.0.1 is taken: choose another with --port {port + 1}\n"
    assert capsys.readouterr().err == line


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sqlalchemy.py").write_text("raise ModuleNotFoundError(name='sqlalchemy')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}
    ended = subprocess.run(
        [sys.executable, "-m", "tailrace", "serve"], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.stderr == (
        "tailrace serve: needs the extra chat, but there is no sqlalchemy: pip install 'tailrace[chat]'\n"
    )
    assert (ended.returncode, ended.stdout) == (2, "")


def test_an_interrupted_start_is_no_error() -> None:
    # A database that accepts and says nothing, so that the command waits for it.
    with listening_socket() as database:
        url = f"postgresql://127.0.0.1:{database.getsockname()[1]}/chat"
        with process(["tailrace", "serve", "--port", "0", "--database", url]) as command:
            database.settimeout(PATIENCE)
            with database.accept()[0] as connection:
                connection.settimeout(PATIENCE)
                assert connection.recv(1)  # now it waits for the answer
                command.send_signal(signal.SIGINT)
                said, _ = command.communicate(timeout=PATIENCE)
                assert (said.decode(), command.returncode) == ("", INTERRUPTED)


def test_the_help_names_each_option_with_its_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for option in OPTIONS:
        assert re.search(rf"^  {option.flag} .*\[{option.variable}; default: {option.default}\]$", text, re.MULTILINE)
    for flag in ("--allow-anonymous", "--reload", "--workers N"):
        assert re.search(rf"^  {flag}  .*\[default: (no|1)\]$", text, re.MULTILINE)


def test_the_help_names_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", capsys.readouterr().out))
    settings = {PREFIX + field.upper() for field in ChatSettings.model_fields}
    assert named == settings | {"TAILRACE_HOST", "TAILRACE_PORT"}
    (log_format,) = (option.default for option in OPTIONS if option.name == "log_format")
    assert log_format == ChatSettings.model_fields["log_format"].default


@pytest.mark.parametrize(
    ("options", "told", "hosts"),
    [
        ("", "", "127.0.0.1"),
        ("--allow-anonymous", "", "127.0.0.1"),
        ("--host localhost", "a.example,b.example", "a.example,b.example,localhost"),
        ("--host 0.0.0.0 --allow-anonymous", "", "*"),
        ("--host 0.0.0.0 --allow-anonymous", "a.example", "a.example,0.0.0.0"),
    ],
)
def test_the_server_is_told_by_which_names_it_goes(options: str, told: str, hosts: str) -> None:
    os.environ["TAILRACE_HOSTS"] = told
    # It gives up at its model, after that.
    assert main(["serve", "--port", "0", "--model", "nobody", *options.split()]) == 2
    assert os.environ["TAILRACE_HOSTS"] == hosts


async def test_a_variable_that_is_no_setting_is_said(tmp_path: Path) -> None:
    strange = {"TAILRACE_MAX_SESSION": "3", "TAILRACE_ZZZZ": "1", "TAILRACE_EMPTY": ""}
    own = {"TAILRACE_URL": "http://127.0.0.1:1", "TAILRACE_API_KEY": SECRET, "TAILRACE_HOST": "127.0.0.1"}
    with served(tmp_path, TAILRACE_MODEL="demo", **strange, **own) as server:
        await server.url()
    warnings = [said["message"] for line in server.lines if (said := json.loads(line))["level"] == "warning"]
    assert warnings == [
        "TAILRACE_MAX_SESSION is not a setting of the server: did you mean TAILRACE_MAX_SESSIONS?",
        "TAILRACE_ZZZZ is not a setting of the server",
    ]


async def test_the_name_that_it_listens_on_is_its_own(tmp_path: Path) -> None:
    with served(tmp_path, "--host", "localhost", TAILRACE_MODEL="demo") as server:
        url = await server.url()
        async with http_client(url) as client:
            assert (await client.post("/sessions/new", headers={"Origin": url})).status_code == 200
            assert (await client.get("/sessions", headers={"Host": "evil.example"})).status_code == 421


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}"),
        ("localhost", "http://localhost:{port}"),
        ("0.0.0.0", "http://127.0.0.1:{port}"),
        ("::1", "http://[::1]:{port}"),
        ("::", "http://[::1]:{port}"),
    ],
)
def test_a_free_port_accepts_and_has_an_address(host: str, url: str) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(host, listener) == url.format(port=port)
        with socket.create_connection(("127.0.0.1" if listener.family == socket.AF_INET else "::1", port), 5):
            pass


def test_of_a_name_with_both_the_older_kind_of_address_is_meant() -> None:
    with listen("localhost", 0) as listener:
        assert listener.family == socket.AF_INET


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 70 + ".example", "a..b"])
def test_a_host_that_is_none_of_this_machine_is_said(host: str) -> None:
    with pytest.raises(
        CommandError, match=rf"^cannot listen on '{host}' \(.+\): choose an address, such as --host 127.0.0.1$"
    ):
        listen(host, 0)


def test_the_last_port_is_taken() -> None:
    with listen("127.0.0.1", 65535), pytest.raises(CommandError, match=r"another with --port 65534$"):
        listen("127.0.0.1", 65535)
