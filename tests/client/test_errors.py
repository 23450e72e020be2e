from __future__ import annotations

import pytest

from tailrace.client.errors import (
    NotASession,
    NotStoppable,
    RequestTimedOut,
    SessionBusy,
    SessionEnded,
    StreamFailed,
    StreamLost,
    StreamRefused,
    StreamReset,
    TooManyUnread,
    Unreachable,
    UnusableEnvironment,
    redirection,
    refusal,
)
from tailrace.client.settings import Loss


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StreamFailed(None, None), "the stream failed: no message (no code)"),
        (StreamReset("trimmed", None), "the stream was reset (trimmed); go on from its beginning"),
        (StreamLost(Loss("broken", "why")), "the stream is lost: why"),
        (StreamLost(Loss("unsent", "no", "x"), None, 3, "y"), "the stream is lost after 3 failures in a row: no: x; y"),
        (Unreachable(Loss("unsent", "no connection"), 1), "no answer from the server: no connection"),
        (Unreachable(Loss("silent", "a"), 2, "b"), "no answer from the server to 2 requests: a; b"),
        (Unreachable(Loss("unavailable", "a"), 5, "b"), "the server did not accept the request in 5 attempts: a; b"),
        (Unreachable(Loss("unavailable", "a"), 1), "the server did not accept the request: a"),
        (UnusableEnvironment("A", "b", "c", "d"), "A is 'b', but c: d"),
        (StreamRefused(404), "the server refused with 404"),
        (
            NotASession(),
            "expected a packet session, whose response has a Content-Location, but this one names no address",
        ),
        (SessionEnded(), "the session has ended"),
        (SessionEnded("done"), "the session has ended as done"),
        (SessionEnded("cancelled", "died", "a\nb"), "the session has ended as cancelled (died): a b"),
        (RequestTimedOut("q", 0.5), "expected an answer to packet 'q' within 0.5 s, but none came"),
        (
            TooManyUnread(5, 40, "5 packets", sent=True),
            "expected an answer after fewer than 5 packets, but 5 packets (40 bytes) wait to be read",
        ),
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
        (StreamLost(Loss("broken", "a\x1b]0;b")), "the stream is lost: a ]0;b"),
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


def test_what_was_lost_is_typed() -> None:
    loss = Loss("unsent", "no connection", "refused")
    assert (StreamLost(loss).kind, StreamLost(loss, note="y").reason) == ("unsent", "no connection: refused; y")
    assert (Unreachable(loss, 1).kind, Unreachable(loss, 1).reason) == ("unsent", "no connection: refused")
