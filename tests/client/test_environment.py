"""Proxies and certificates of the environment: what works, and what one clear error says of the rest."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from tailrace.client import ChatClient, Retry, StreamLost, Unreachable, UnusableEnvironment
from tailrace.client.environment import Proxy, is_loopback, proxy_for, tls_context
from tests.client.drivers import AT_ONCE, Driver
from tests.client.speaking import SSE_HEAD, own_certificate, saying, speaking
from tests.raw import BOUND

ANSWER = SSE_HEAD + b"connection: close\r\n\r\ndata: 1\n\n"
NOBODY = "http://127.0.0.1:1"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy", "socks_proxy")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *map(str.upper, VARIABLES), "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("", False),
        ("128.0.0.1", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("::2", False),
    ],
)
def test_a_loopback_host_is_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


EVERYTHING = {"HTTP_PROXY": "http://one:1", "https_proxy": "http://two:2", "ALL_PROXY": "socks5://three:3"}


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "http://server/", None),
        (EVERYTHING, "http://server/", Proxy("http://one:1", "HTTP_PROXY")),
        (EVERYTHING, "https://server/", Proxy("http://two:2", "https_proxy")),
        (EVERYTHING, "wss://server/", Proxy("http://two:2", "https_proxy")),
        ({"HTTP_PROXY": "http://one:1"}, "https://server/", None),
        ({"ALL_PROXY": "socks5://three:3"}, "http://server/", Proxy("socks5://three:3", "ALL_PROXY")),
        ({"ALL_PROXY": "socks5://three:3"}, "ws://server/", Proxy("socks5://three:3", "ALL_PROXY")),
        ({"SOCKS_PROXY": "http://four:4"}, "ws://server/", Proxy("socks5h://four:4", "SOCKS_PROXY")),
        ({"HTTP_PROXY": "one:1"}, "http://server/", Proxy("http://one:1", "HTTP_PROXY")),
        ({**EVERYTHING, "NO_PROXY": "other,server"}, "http://server/", None),
        ({**EVERYTHING, "NO_PROXY": "server"}, "https://server:8443/", None),
        ({**EVERYTHING, "NO_PROXY": "*"}, "https://server/", None),
        (EVERYTHING, "http://127.0.0.1:8000/", None),
        (EVERYTHING, "http://[::1]:8000/", None),
        (EVERYTHING, "https://localhost/", None),
        (EVERYTHING, "ws://127.0.0.1/", None),
        (EVERYTHING, "http://[2001:db8::1]:8000/", Proxy("http://one:1", "HTTP_PROXY")),
        (EVERYTHING, "/letters", None),
    ],
)
def test_the_environment_names_proxies_but_none_for_this_machine(
    environment: Mapping[str, str], url: str, expected: Proxy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected


def test_a_password_is_not_shown() -> None:
    assert Proxy("http://me:secret@one:1", "A").shown == "http://me:…@one:1"
    assert Proxy("http://me:a/b:c@secret@one:1", "A").shown == "http://me:…@one:1"
    for url in ("http://me@one:1", "http://one:1"):
        assert Proxy(url, "A").shown == url


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", [NOBODY, "socks5://127.0.0.1:1", "nonsense://x"])
async def test_this_machine_is_reached_directly(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable, proxy)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    refused = b"HTTP/1.1 418 Tea\r\ncontent-length: 0\r\n\r\n"
    async with speaking(saying(ANSWER if scheme == "http" else refused)) as address:
        got = await driver.read(f"{scheme}{address}/")
    assert (got.data == [1]) if scheme == "http" else ("418" in str(got.error))


@pytest.mark.parametrize(
    ("variable", "value", "url", "said"),
    [
        ("HTTP_PROXY", NOBODY, "http://server.example/", "it does not answer"),
        ("HTTPS_PROXY", NOBODY, "https://server.example/", "it does not answer"),
        ("all_proxy", NOBODY, "http://server.example/", "it does not answer"),
        ("ALL_PROXY", "socks5://127.0.0.1:1", "http://server.example/", "needs the package socksio"),
        ("HTTP_PROXY", "nonsense://x", "http://server.example/", "that is not the address of a proxy"),
        ("HTTP_PROXY", "http://x:99999", "http://server.example/", "that is not the address of a proxy"),
        ("HTTPS_PROXY", NOBODY, "wss://server.example/", "it does not connect"),
        ("ALL_PROXY", "socks5://127.0.0.1:1", "wss://server.example/", "needs the package python_socks"),
        ("WS_PROXY", "nonsense://x", "ws://server.example/", "that is not the address of a proxy"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named_at_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, url: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    got = await driver.read(url)
    assert isinstance(got.error, UnusableEnvironment), got.error
    assert (got.error.variable, got.error.value) == (variable, value)
    assert said in got.error.reason
    assert str(got.error).startswith(f"{variable} is {value!r}, but ")
    assert "\n" not in str(got.error)


async def test_a_chat_names_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOBODY)
    async with ChatClient("http://server.example", retry=AT_ONCE) as chat, asyncio.timeout(BOUND):
        with pytest.raises(UnusableEnvironment, match="HTTP_PROXY"):
            await chat.health()
        with pytest.raises(UnusableEnvironment, match="HTTP_PROXY"):
            await chat.ask("hello")

    def without_asyncio() -> None:
        with ChatClient("http://server.example", retry=AT_ONCE) as other:
            with pytest.raises(UnusableEnvironment, match="HTTP_PROXY"):
                other.health()
            with pytest.raises(UnusableEnvironment, match="HTTP_PROXY"):
                other.ask("hello")

    await asyncio.to_thread(without_asyncio)


async def test_a_proxy_that_wants_credentials_is_named(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with speaking(saying(b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n")) as address:
        for variable, url in (("HTTP_PROXY", "http://server.example/"), ("HTTPS_PROXY", "https://server.example/")):
            monkeypatch.setenv(variable, f"http{address}")
            got = await driver.read(url)
            assert isinstance(got.error, UnusableEnvironment)
            assert got.error.variable == variable
            assert "407" in got.error.reason


async def test_a_proxy_that_cannot_reach_the_server_is_named(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with speaking(saying(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http{address}")
        got = await driver.read("http://server.example/", retry=Retry(limit=0))
        assert isinstance(got.error, StreamLost)
        reason = f"the server refused with 503: it came through the proxy http{address} of HTTP_PROXY"
        assert (got.error.kind, got.error.reason) == ("unavailable", reason)
        with pytest.raises(Unreachable, match=r"503: it came through the proxy .* of HTTP_PROXY"):
            async with ChatClient("http://server.example", retry=Retry(limit=0)) as chat:
                await chat.stats()


async def test_a_proxy_is_used(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[bytes] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        await saying(ANSWER)(reader, writer)

    async with speaking(forward) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http{address}")
        got = await driver.read("http://server.example/x")
    assert got.data == [1]
    assert lines == [b"GET http://server.example/x HTTP/1.1\r\n"]


async def test_a_proxy_that_has_worked_may_fail_for_a_while(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n"
    answers = [
        SSE_HEAD + b"content-length: 99\r\n\r\nid: 1\ndata: 1\n\n",
        refusal,
        ANSWER.replace(b"data", b"id: 2\ndata"),
    ]

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(answers.pop(0))(reader, writer)

    told: list[str] = []
    async with speaking(forward) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http{address}")
        got = await driver.read("http://server.example/", on_reconnect=lambda n, delay, why: told.append(str(why)))
        assert (got.error, len(got.data)) == (None, 2)
        assert told[1] == f"the proxy http{address} of HTTP_PROXY failed: it asks for credentials (407)"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("SSL_CERT_FILE", "nowhere.pem", "it cannot be opened (No such file or directory)"),
        ("SSL_CERT_FILE", "empty.pem", "it has no certificates"),
        ("SSL_CERT_FILE", "folder", "it cannot be opened (Is a directory)"),
        ("SSL_CERT_DIR", "nowhere", "it cannot be opened (No such file or directory)"),
        ("SSL_CERT_DIR", "empty.pem", "it cannot be opened (Not a directory)"),
        ("SSLKEYLOGFILE", "nowhere/keys", "it cannot be opened (No such file or directory)"),
    ],
)
async def test_certificates_that_cannot_be_used_are_named_at_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, reason: str
) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv(variable, str(tmp_path / value))
    for url in ("https://127.0.0.1:1/", "wss://127.0.0.1:1/"):
        got = await driver.read(url)
        assert isinstance(got.error, UnusableEnvironment), got.error
        assert (got.error.variable, got.error.value) == (variable, str(tmp_path / value))
        assert got.error.reason == reason
        assert "unset it" in got.error.remedy


async def test_certificates_of_the_environment_are_trusted(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with speaking(saying(ANSWER), tls=own_certificate(tmp_path)) as address:
        got = await driver.read(f"https{address}/")
        assert isinstance(got.error, StreamLost)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        got = await driver.read(f"https{address}/")
        assert got.data == [1]


def test_certificates_may_be_in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls_context(None).verify_mode is ssl.CERT_REQUIRED


async def test_a_proxy_may_speak_tls(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines: list[bytes] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        await saying(ANSWER)(reader, writer)

    async with speaking(forward, tls=own_certificate(tmp_path)) as address:
        monkeypatch.setenv("HTTP_PROXY", f"https{address}")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        got = await driver.read("http://server.example/x")
    assert (got.data, lines) == ([1], [b"GET http://server.example/x HTTP/1.1\r\n"])


def test_another_failure_of_tls_is_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> ssl.SSLContext:
        raise OSError("broken")

    monkeypatch.setattr(ssl, "create_default_context", fail)
    with pytest.raises(OSError, match="broken"):
        tls_context(None)


def test_the_environment_is_this_tests_own() -> None:
    assert not {name for name in os.environ if name.lower() in VARIABLES}
