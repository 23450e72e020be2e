"""The way to a model server, and what is let through of its events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from tailrace.chat.models import open_model
from tailrace.chat.models.base import Message
from tailrace.chat.models.spec import UnusableModel
from tailrace.chat.models.upstream import MAX_EVENT, MAX_LINES, Sieve, UpstreamFault, proxy_for
from tests.chat.models.test_remote import DIALECTS, asking, read
from tests.chat.models.upstream import Dialect
from tests.serving import free_port

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# Events

CASES = [
    (b"data: 1\n\n", b"data: 1\n\n"),
    (b"data: 1\r\n\r\n", b"data: 1\n\n"),
    (b"data: 1\r\rdata: 2\r\r", b"data: 1\n\ndata: 2\n\n"),
    (b"event: a\ndata: 1\ndata: 2\n\n", b"event: a\ndata: 1\ndata: 2\n\n"),
    (b": comment\n\ndata: 1\n: comment\n\n", b"data: 1\n\n"),
    (b"id: 1\nretry: 2\nother\n\n", b""),
    (b"\n\n\n", b""),
    (b'error: {"code":1}\n\n', b'data: {"error": {"code":1}}\n\n'),
    (b"data: 1\n\ndata: cut", b"data: 1\n\ndata: cut\n"),
    ("data: a\u2028b\u2029c\x85d\u00e9\n\n".encode(), "data: a\\u2028b\\u2029c\\u0085d\u00e9\n\n".encode()),
]


def chunkings(data: bytes) -> Iterator[list[bytes]]:
    for count in (0, 1, 2):
        for cuts in combinations(range(1, len(data)), count):
            yield [data[start:end] for start, end in pairwise((0, *cuts, len(data)))]
    yield [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(("sent", "given"), CASES)
def test_events_are_given_whole_at_every_cut(sent: bytes, given: bytes) -> None:
    results = set()
    for pieces in chunkings(sent):
        sieve = Sieve()
        results.add(b"".join([*map(sieve.feed, pieces), sieve.close()]))
    assert results == {given}


def test_an_event_is_given_as_soon_as_it_is_whole() -> None:
    sieve = Sieve()
    assert [sieve.feed(data) for data in (b"data: 1", b"\n", b"\n", b"data")] == [b"", b"", b"data: 1\n\n", b""]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_event_is_bounded_in_bytes(end: bytes) -> None:
    sieve, half = Sieve(), b"data:" + b"x" * (MAX_EVENT // 2 - 5) + end
    sieve.feed(half)
    sieve.feed(half)
    with pytest.raises(UpstreamFault, match="sent an event of more than 1,048,576 bytes"):
        sieve.feed(b"x")


def test_an_event_is_bounded_in_lines() -> None:
    sieve = Sieve()
    sieve.feed(b"data:\n" * MAX_LINES)
    with pytest.raises(UpstreamFault, match="sent an event of more than 1,000 lines"):
        sieve.feed(b"data:\n")


# Proxies and certificates


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9", "nonsense://"])
async def test_this_machine_is_reached_directly(
    variable: str, proxy: str, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.setenv(variable, proxy)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    for name, dialect in DIALECTS.items():
        with subtests.test(name):
            async with asking(dialect, [dialect.begin + dialect.text("Yes."), dialect.ends["whole"]]) as (model, _):
                assert (await read(model)).text == "Yes."


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://api.example/v1", {}, None),
        ("https://api.example/v1", {"HTTPS_PROXY": "http://p:1"}, ("http://p:1", "HTTPS_PROXY")),
        ("https://api.example/v1", {"https_proxy": "p:1"}, ("http://p:1", "https_proxy")),
        ("https://api.example/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://api.example/v1", {"HTTP_PROXY": "http://p:1"}, ("http://p:1", "HTTP_PROXY")),
        ("http://api.example/v1", {"ALL_PROXY": "socks5://p:1"}, ("socks5://p:1", "ALL_PROXY")),
        ("http://api.example/v1", {"ALL_PROXY": "socks5://p:1", "NO_PROXY": "example"}, None),
        ("http://api.example:8000/v1", {"ALL_PROXY": "socks5://p:1", "NO_PROXY": "api.example"}, None),
        ("http://localhost:1/v1", {"ALL_PROXY": "socks5://p:1"}, None),
        ("http://model.localhost/v1", {"ALL_PROXY": "socks5://p:1"}, None),
        ("http://127.1.2.3/v1", {"ALL_PROXY": "socks5://p:1"}, None),
        ("http://[::1]:1/v1", {"ALL_PROXY": "socks5://p:1"}, None),
    ],
)
def test_a_proxy_is_found_with_the_variable_that_names_it(
    url: str, environment: dict[str, str], expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected


async def opening(dialect: Dialect, url: str) -> str:
    """The one line with which a model at a URL is refused."""
    with pytest.raises(UnusableModel) as refusal:
        async with open_model(dialect.model, dialect.environment(url), demo_words=1, demo_pace=0, timeout=1):
            raise AssertionError("the block must not be entered")
    return str(refusal.value)


async def test_a_socks_proxy_says_what_to_install(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    for name, dialect in DIALECTS.items():
        with subtests.test(name):
            assert await opening(dialect, "https://model.example") == (
                "ALL_PROXY names a SOCKS proxy, which needs another package: pip install socksio. "
                "Or name model.example in NO_PROXY"
            )


async def test_a_proxy_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://p:1")
    said = await opening(DIALECTS["openai"], "https://model.example")
    assert said.startswith("cannot use the proxy in HTTPS_PROXY: ")


async def test_certificates_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    missing = tmp_path / "missing.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(missing))
    for name, dialect in DIALECTS.items():
        with subtests.test(name):
            said = await opening(dialect, "https://model.example")
            assert said.startswith(f"cannot read the certificates of SSL_CERT_FILE={missing}: ")


async def test_a_proxy_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    for name, dialect in DIALECTS.items():
        with subtests.test(name):
            environment = dialect.environment("http://model.example")
            async with open_model(dialect.model, environment, demo_words=1, demo_pace=0, timeout=10) as model:
                reply = await read(model, [Message("user", "Hello")])
            assert reply.error is not None
            assert reply.error.message == "cannot connect to model.example through the proxy in HTTP_PROXY"
