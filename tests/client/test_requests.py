"""Addresses and redirections, without I/O."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tailrace.client.requests import (
    MAX_REDIRECTS,
    check_url,
    named_address,
    send,
    stop_link,
    with_parameter,
    with_parameters,
)
from tailrace.client.settings import Deadline, Loss
from tailrace.client.transport import Close, Failed, Open, Opened


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('</x/stop>; rel="stop"', "/x/stop"),
        ("</x>; rel=stop", "/x"),
        ('</a>; rel="next", </x>; title="a, b"; REL="alternate Stop"', "/x"),
        ('</a>; rel="next"', None),
        ("</a>", None),
        ("", None),
    ],
)
def test_the_stop_link_is_found(header: str, expected: str | None) -> None:
    assert stop_link(header) == expected


def test_urls() -> None:
    assert with_parameter("http://x/a?after=1&b=c%20d", "after", "~.2") == "http://x/a?b=c%20d&after=~.2"
    assert with_parameters("/a", {"b": [1, 2], "c": "é"}) == "/a?b=1&b=2&c=%C3%A9"
    assert with_parameters("/a?x", None) == "/a?x"
    assert with_parameters("/a", {"b": None, "c": True, "d": [False, None, 1]}) == "/a?c=true&d=false&d=1"
    assert with_parameters("/a", {"b": None}) == "/a"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://x", "a URL with one of http, https, ws or wss, but got 'ftp://x'"),
        ("/letters", "a URL with one of http, https, ws or wss, but got '/letters'"),
        ("ws://", "a URL with a host, but got 'ws://'"),
        ("http:///x", "a URL with a host, but got 'http:///x'"),
        ("http://127.0.0.1:99999/", "a URL with a port from 1 to 65535, but got 'http://127.0.0.1:99999/'"),
        ("http://x:0", "a URL with a port from 1 to 65535, but got 'http://x:0'"),
        ("http://x:y", "a URL, but got 'http://x:y': "),
        ("http://x\n/", r"a URL, but got 'http://x\n/': Invalid non-printable ASCII character in URL"),
        ("http://xn--a/", "a URL, but got 'http://xn--a/': "),
        ("http://a..b/", "a URL, but got 'http://a..b/': "),
        ("http://[oops", "a URL, but got 'http://[oops': Invalid IPv6 URL"),
        ("http://x/\ud800", r"a URL, but got 'http://x/\ud800': "),
    ],
)
def test_what_is_no_url_is_told(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"expected {expected}")):
        check_url(url)


def test_the_beginning_of_a_url_may_be_known_elsewhere() -> None:
    check_url("/letters", is_whole=False)
    with pytest.raises(ValueError, match="expected a URL with a host, but got 'http:///x'"):
        check_url("http:///x", is_whole=False)
    with pytest.raises(ValueError, match=r"expected a URL, but got '/a\\nb'"):
        check_url("/a\nb", is_whole=False)


ASKED = "http://x/a"


@pytest.mark.parametrize(
    ("reference", "by", "expected"),
    [
        ("/b", ASKED, "http://x/b"),
        ("b", "http://X:80/c/d", "http://X:80/c/b"),
        ("http://y/b", ASKED, None),
        ("https://x/b", ASKED, None),
        ("/b", "https://x/a", "https://x/b"),  # the same server by TLS
        ("http://x/b", "https://x/a", "http://x/b"),
        ("https://x:8443/b", "https://x/a", None),
        ("/b", "https://x:8443/a", None),
        ("/b", "http://y/a", None),
        ("http://[oops", ASKED, None),
        ("http://h:abc/x", ASKED, None),
        ("http://x:99999/", ASKED, None),
        (None, ASKED, None),
    ],
)
def test_a_named_address_is_one_that_may_have_what_was_sent(
    reference: str | None, by: str, expected: str | None
) -> None:
    assert named_address(reference, by=by, asked=ASKED) == expected


def test_from_tls_there_is_no_way_back() -> None:
    assert named_address("http://x/b", by="https://x/a", asked="https://x/a") is None


# Redirections

HEADERS = {
    "accept": "text/event-stream",
    "authorization": "Bearer secret",
    "content-type": "application/json",
    "cookie": "a=b",
    "last-event-id": "S.e.1",
    "x-api-key": "secret",
}
EVERYWHERE = {"accept", "content-type", "last-event-id"}


def moved(location: str, status: int = 307, *, url: str = "http://x/a", follows: bool = True) -> Opened:
    return Opened(status, {"location": location}, url, url, follows=follows)


def whole(url: str) -> Opened:
    return Opened(200, {}, url, url)


def run(*replies: Opened | Failed, method: str = "POST", url: str = "http://x/a") -> tuple[list[Open], Any]:
    """The requests that a redirected one becomes, and what comes of them."""
    flow = send(Open(method, url, HEADERS, b"{}", 1.0, 1.0, 1.0), Deadline(None))
    left, asked, reply = list(replies), [], None
    try:
        while True:
            command = flow.send(reply)
            reply = None
            if isinstance(command, Open):
                asked.append(command)
                reply = left.pop(0)
            else:
                assert isinstance(command, Close), "nothing of a redirection is read"
    except StopIteration as end:
        return asked, end.value


@pytest.mark.parametrize(
    ("location", "names"),
    [
        ("/b", set(HEADERS)),
        ("http://x:80/b", set(HEADERS)),
        ("https://x/b", set(HEADERS)),  # the same host by TLS
        ("https://x:8443/b", EVERYWHERE),
        ("http://x:81/b", EVERYWHERE),
        ("http://y/b", EVERYWHERE),
        ("//y/b", EVERYWHERE),
    ],
)
def test_headers_stay_with_the_origin_that_they_were_meant_for(location: str, names: set[str]) -> None:
    asked, _ = run(moved(location), whole("http://y/b"))
    assert set(asked[1].headers) == names
    assert asked[1].is_foreign == (names == EVERYWHERE)
    assert (asked[1].method, asked[1].content) == ("POST", b"{}")


def test_headers_do_not_come_back() -> None:
    asked, head = run(moved("http://y/b"), moved("http://x/c", url="http://y/b"), whole("http://x/c"))
    assert [set(request.headers) == set(HEADERS) for request in asked] == [True, False, False]
    assert head.asked == "http://x/a"


def test_from_tls_headers_do_not_go_on_without() -> None:
    asked, _ = run(moved("http://x/b", url="https://x/a"), whole("http://x/b"), url="https://x/a")
    assert set(asked[1].headers) == EVERYWHERE


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("POST", 303, "GET"),
        ("PUT", 302, "PUT"),
        ("PUT", 303, "GET"),
        ("HEAD", 303, "HEAD"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
    ],
)
def test_a_method_is_kept_or_becomes_get(method: str, status: int, then: str) -> None:
    asked, _ = run(moved("/b", status), whole("http://x/b"), method=method)
    assert asked[1].method == then
    assert (asked[1].content is None) == (then == "GET" != method)
    assert ("content-type" in asked[1].headers) == (asked[1].content is not None)


@pytest.mark.parametrize(
    ("url", "location", "said"),
    [
        ("http://x/a", "ftp://x/", "expected a URL with one of http, https, ws or wss"),
        ("http://x/a", "http://x:99999/", "expected a URL"),
        ("http://x/a", "http://a..b/", "expected a URL"),
        ("http://x/a", "ws://x/", "expected an address with http or https: ws://x/"),
        ("ws://x/a", "http://x/", "expected an address with ws or wss: http://x/"),
        ("wss://x/a", "ws://x/", "expected an address with TLS, as before: ws://x/"),
    ],
)
def test_a_redirection_to_nowhere_is_final(url: str, location: str, said: str) -> None:
    _, failed = run(moved(location, url=url), url=url)
    assert failed.final
    assert failed.loss.kind == "misled"
    assert f"the server redirects to an impossible address: {said}" in str(failed.loss)


def test_redirections_come_to_an_end() -> None:
    asked, failed = run(*[moved("/b")] * (MAX_REDIRECTS + 1))
    assert len(asked) == MAX_REDIRECTS + 1
    assert (failed.final, failed.loss.kind) == (True, "misled")


@pytest.mark.parametrize("head", [moved("/b", follows=False), moved("/b", 304), Opened(302, {}, "http://x/a", "")])
def test_what_is_not_followed_is_the_answer(head: Opened) -> None:
    assert run(head)[1].status == head.status


def test_a_failure_is_one_after_a_redirection_too() -> None:
    failure = Failed(Loss("unsent", "refused"))
    assert run(moved("/b"), failure)[1] == failure
