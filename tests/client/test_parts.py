"""The small parts of the client, by themselves."""

from __future__ import annotations

import pytest

from tailrace.client.backoff import read_retry_after
from tailrace.client.decoding import AnyNDJSON, AnySSE, Messages
from tailrace.client.errors import (
    NotStoppable,
    SessionBusy,
    StreamFailed,
    StreamLost,
    StreamRefused,
    StreamReset,
    refusal,
)
from tailrace.client.links import same_origin, stop_link, with_parameter, with_parameters
from tailrace.client.position import Elsewhere, Position
from tailrace.wire.base import Decoder, Frame


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (None, None, None),
        ("3", 3.0, 3.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0, 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0, 0.0),
        ("Fri, 21 Oct 2185 07:28:00 GMT", 1e9, 1e10),
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
    assert same_origin("http://X/a", "http://x:80/b")
    assert not same_origin("http://x", "https://x")


class TestPosition:
    def test_goes_forward_only(self) -> None:
        position = Position("S.e.4")
        assert [position.advance(token) for token in ("S.e.4", "S.e.3", "S.e.5", "S.e.5", "S.e.9")] == [
            False,
            False,
            True,
            False,
            True,
        ]
        assert position.token == "S.e.9"

    def test_does_not_leave_its_stream_unnoticed(self) -> None:
        position = Position("S.e.4")
        with pytest.raises(Elsewhere):
            position.advance("S.f.5")
        assert position.token == "S.e.4"

    def test_takes_other_servers_ids_as_they_come(self) -> None:
        position = Position()
        assert [position.advance(token) for token in ("7", "3", "", "a.b.c")] == [True] * 4
        assert not position.is_cursor

    def test_learns_that_ids_are_cursors(self) -> None:
        position = Position()
        assert position.advance("S.e.1")
        assert position.is_cursor
        assert not position.advance("S.e.1")


@pytest.mark.parametrize(
    ("decoder", "data", "expected"),
    [
        (AnySSE(max_bytes=99), b'data: {"a":1}\n\ndata: {"a"\n\n', [Frame({"a": 1}), Frame('{"a"')]),
        (AnySSE(max_bytes=99), b"id: x\nevent: e\ndata: 1\n\n", [Frame(1, "e", "x")]),
        (AnyNDJSON(99), b'{"id":"x","data":1}\n', [Frame(1, None, "x")]),
        (AnyNDJSON(99), b'{"id":3,"data":1}\n', [Frame({"id": 3, "data": 1})]),
        (AnyNDJSON(99), b'{"id":"x","data":1,"more":2}\n', [Frame({"id": "x", "data": 1, "more": 2})]),
        (AnyNDJSON(99), b'{"id":"S.e.1","data":1,"more":2}\n', [Frame(1, None, "S.e.1")]),
        (
            AnyNDJSON(99),
            b'{"id":"S.e.1","type":"reset","reason":"trimmed"}\n',
            [Frame({"id": "S.e.1", "type": "reset", "reason": "trimmed"}, "reset", "S.e.1")],
        ),
        (Messages(), b"hello", [Frame("hello")]),
        (Messages(), b'{"event":"x","data":1}', [Frame(1, "x")]),
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
    ],
)
def test_errors_make_sentences(error: Exception, said: str) -> None:
    assert str(error) == said


def test_a_busy_session_is_named() -> None:
    error = refusal(409, b'{"code":"session_busy","detail":"d","session_id":"s","stream_id":"t"}')
    assert isinstance(error, SessionBusy)
    assert (error.session_id, error.stream_id) == ("s", "t")
