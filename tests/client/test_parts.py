"""The small parts of the client, by themselves."""

from __future__ import annotations

import math
import re

import pytest

from tailrace.client.backoff import Backoff, Spent, read_retry_after, seconds_of
from tailrace.client.deadline import Deadline, Overdue
from tailrace.client.decoding import AnyMessages, AnyNDJSON, AnySSE, CursorMessages, CursorNDJSON
from tailrace.client.errors import (
    NotStoppable,
    SessionBusy,
    StreamFailed,
    StreamLost,
    StreamRefused,
    StreamReset,
    redirection,
    refusal,
)
from tailrace.client.links import check_url, named_address, stop_link, with_parameter, with_parameters
from tailrace.client.position import Elsewhere, Position
from tailrace.client.settings import LONGEST_DELAY, Retry
from tailrace.wire.base import Decoder, Frame


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (None, None, None),
        ("3", 3.0, 3.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0, 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0, 0.0),
        ("Fri, 21 Oct 2185 07:28:00 GMT", 1e9, 1e10),
        ("999999999999", 999999999999.0, 999999999999.0),
        ("9" * 400, math.inf, math.inf),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999", None, None),
        ("soon", None, None),
        ("-1", None, None),
    ],
)
def test_retry_after_has_seconds_or_a_date(value: str | None, low: float | None, high: float | None) -> None:
    seconds = read_retry_after(value)
    if low is None or high is None:
        assert seconds is None
    else:
        assert seconds is not None
        assert low <= seconds <= high


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


class TestBackoff:
    def test_a_delay_is_never_less_than_none(self) -> None:
        backoff = Backoff(Retry(base=0.0))
        backoff.floor = -5.0
        assert (backoff.fail(), backoff.fail(-5.0), backoff.fail(at_least=-5.0)) == (0.0, 0.0, 0.0)

    def test_a_server_waits_for_an_hour_at_most(self) -> None:
        backoff = Backoff(Retry(base=0.0))
        assert backoff.fail(LONGEST_DELAY) == LONGEST_DELAY
        for told, at_least, floor in ((1e11, 0.0, 0.0), (None, 1e11, 0.0), (None, 0.0, 1e11)):
            backoff.floor = floor
            with pytest.raises(Spent, match="; the server wants to be left alone for 100000000000 s"):
                backoff.fail(told, at_least=at_least)

    def test_any_number_of_milliseconds_is_a_time(self) -> None:
        assert seconds_of(1500) == 1.5
        assert seconds_of(10**400) > LONGEST_DELAY
        assert seconds_of(-(10**400)) < 0


class TestDeadline:
    def test_shortens_what_goes_beyond_it(self) -> None:
        now = 100.0
        deadline = Deadline(3.0, clock=lambda: now)
        assert (deadline.left, deadline.within(1.0), deadline.within(9.0)) == (3.0, 1.0, 3.0)
        now = 104.0
        assert deadline.left == 0.0
        with pytest.raises(Overdue, match="the total timeout of 3 s is over"):
            deadline.within(1.0)

    def test_may_be_never(self) -> None:
        assert (Deadline(None).left, Deadline(None).within(9.0)) == (None, 9.0)


class TestPosition:
    def test_goes_forward_only(self) -> None:
        position = Position("S.e.4")
        position.begin("S.e.0")
        tokens = ("S.e.4", "S.e.3", "S.e.5", "S.e.5", "S.e.9")
        assert [position.advance(token) for token in tokens] == [False, False, True, False, True]
        assert position.token == "S.e.9"

    def test_does_not_leave_its_stream_unnoticed(self) -> None:
        position = Position("S.e.4", gives_cursors=True)
        with pytest.raises(Elsewhere):
            position.advance("S.f.5")
        assert position.token == "S.e.4"

    def test_takes_other_servers_ids_as_they_come(self) -> None:
        position = Position("a.b.9")
        assert [position.advance(token) for token in ("7", "3", "", "a.b.c", "a.b.9", "c.d.1")] == [True] * 6
        assert position.token == "c.d.1"

    def test_is_a_sockets_first_cursor(self) -> None:
        position = Position(gives_cursors=True)
        assert position.advance("S.e.1")
        assert not position.advance("S.e.1")


@pytest.mark.parametrize(
    ("decoder", "data", "expected"),
    [
        (AnySSE(max_bytes=99), b'data: {"a":1}\n\ndata: {"a"\n\n', [Frame({"a": 1}), Frame('{"a"')]),
        (AnySSE(max_bytes=99), b"id: x\nevent: e\ndata: 1\n\n", [Frame(1, "e", "x")]),
        (AnyNDJSON(99), b'{"id":"x","data":1}\n', [Frame({"id": "x", "data": 1})]),
        (AnyNDJSON(99), b'{"id":3,"data":1}\n', [Frame({"id": 3, "data": 1})]),
        (AnyNDJSON(99), b'{"id":"x","data":1,"more":2}\n', [Frame({"id": "x", "data": 1, "more": 2})]),
        (CursorNDJSON(99), b'{"id":"S.e.1","data":1,"more":2}\n', [Frame(1, None, "S.e.1")]),
        (
            CursorNDJSON(99),
            b'{"id":"S.e.1","type":"reset","reason":"trimmed"}\n',
            [Frame({"id": "S.e.1", "type": "reset", "reason": "trimmed"}, "reset", "S.e.1")],
        ),
        (AnyMessages(), b"hello", [Frame("hello")]),
        (AnyMessages(), b'{"event":"x","data":1}', [Frame({"event": "x", "data": 1})]),
        (
            CursorMessages(),
            b'{"event":"error","data":{"status":"no"}}',
            [Frame({"event": "error", "data": {"status": "no"}})],
        ),
        (CursorMessages(), b'{"event":"error","data":{"status":400}}', [Frame({"status": 400}, "error")]),
        (
            CursorMessages(),
            b'{"event":"error","data":{"status":5}}',
            [Frame({"event": "error", "data": {"status": 5}})],
        ),
        (AnyMessages(), b'{"id":"S.e.1","data":1}', [Frame({"id": "S.e.1", "data": 1})]),
        (CursorMessages(), b'{"id":"S.e.1","data":1}', [Frame(1, None, "S.e.1")]),
    ],
)
def test_any_servers_events(decoder: Decoder, data: bytes, expected: list[Frame]) -> None:
    assert decoder.feed(data) == expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StreamFailed(None, None), "the stream failed: no message (no code)"),
        (StreamReset("trimmed", None), "the stream was reset (trimmed); go on from its beginning"),
        (StreamLost("why"), "the stream is lost: why"),
        (StreamRefused(404), "the server refused with 404"),
        (NotStoppable(), "expected a response with a Link rel=stop, but the stream has none: close it instead"),
        (refusal(500, b"[1]"), "the server refused with 500: [1]"),
        (refusal(400, b'{"detail":5,"code":7}'), "the server refused with 400 (7): 5"),
        (refusal(400, b'{"x":1}'), "the server refused with 400"),
        (
            refusal(422, b'{"detail":[{"loc":["body","message"],"msg":"Too short"},{"loc":["query",0]},5]}'),
            "the server refused with 422: body.message: Too short; query.0: no reason given; 5",
        ),
        (refusal(429, b'{"error":{"message":"Slow down","code":"x"}}'), "the server refused with 429 (x): Slow down"),
        (refusal(404, b'{"status":404,"error":"Not Found"}'), "the server refused with 404: Not Found"),
        (refusal(400, b'{"type":"about:blank","title":"Bad"}'), "the server refused with 400: Bad"),
        (
            refusal(502, b"\n<html><TITLE>502 Bad\n Gateway</TITLE><h1>x</h1>"),
            "the server refused with 502: 502 Bad Gateway",
        ),
        (refusal(502, b"<html>"), "the server refused with 502"),
        (refusal(500, b"a\x1b[31m\r\nb\xff"), "the server refused with 500: a [31m b\ufffd"),
        (refusal(500, b'{"detail":"%b"}' % (b"x" * 999)), f"the server refused with 500: {'x' * 300}…"),
        (StreamFailed("c", "a\nb\x07"), "the stream failed: a b (c)"),
        (StreamLost("a\x1b]0;b"), "the stream is lost: a ]0;b"),
        (
            redirection(302, "/b\x1b"),
            r"the server refused with 302: it is at '/b\x1b', and this client follows no redirections",
        ),
    ],
)
def test_errors_make_sentences(error: Exception, said: str) -> None:
    assert str(error) == said


def test_a_busy_session_is_named() -> None:
    error = refusal(409, b'{"code":"session_busy","detail":"d","session_id":"s","stream_id":"t"}')
    assert isinstance(error, SessionBusy)
    assert (error.session_id, error.stream_id) == ("s", "t")
