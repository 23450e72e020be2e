"""A server that says that it cannot reach its store: no event, no end, and no reason to connect again."""

from __future__ import annotations

import pytest

from tailrace.client import StreamLost, Timeouts
from tailrace.errors import DecodeError
from tailrace.events import Outcome
from tests.client.scripted import BROKEN, STREAM, event, follow, head, notice, sse

DEGRADED = notice("degraded", 1, '{"degraded":true}')
OVER = notice("degraded", 1, '{"degraded":false}')
LINES = head(content_type="application/x-ndjson", tailrace_cursor=f"{STREAM}.0")


def line(degraded: str, offset: int = 1) -> bytes:
    return b'{"id":"%b.%d","event":"degraded","data":{"degraded":%b}}\n' % (STREAM.encode(), offset, degraded.encode())


@pytest.mark.parametrize(
    ("script", "told", "given"),
    [
        pytest.param([sse(), event(1) + DEGRADED], [True], [1], id="while it lasts"),
        pytest.param([sse(), event(1) + DEGRADED + OVER + event(2)], [True, False], [1, 2], id="in one piece"),
        pytest.param([sse(), DEGRADED + DEGRADED + event(2) + OVER + OVER], [True, False], [2], id="twice is once"),
        pytest.param([sse(), event(1) + OVER], [], [1], id="no news"),
        pytest.param([sse(), DEGRADED, BROKEN, sse(), event(1)], [True, False], [1], id="a lost connection ends it"),
        pytest.param([sse(), DEGRADED, BROKEN, sse(), DEGRADED], [True, False, True], [], id="the next tells it anew"),
        pytest.param([sse(), event(1) + DEGRADED + notice("done", 1)], [True, False], [1], id="so does the end"),
        pytest.param([LINES, line("true", 0) + line("false", 0)], [True, False], [], id="in lines"),
    ],
)
def test_it_is_told_once_a_change_and_is_no_event(script: list[object], told: list[bool], given: list[object]) -> None:
    heard: list[bool] = []
    followed = follow(script, on_degraded=heard.append)
    assert (heard, followed.given, followed.slept) == (told, given, [0.0] * script.count(BROKEN))
    assert followed.core.degraded is (told[-1:] == [True])


def test_nobody_needs_to_listen() -> None:
    followed = follow([sse(), event(1) + DEGRADED])
    assert followed.core.degraded
    assert not followed.ended


@pytest.mark.parametrize("degraded", [b"", event(1)], ids=["before any event", "after one"])
def test_the_place_does_not_move(degraded: bytes) -> None:
    tagged = b'id: S.e.1~abcd\nevent: degraded\ndata: {"degraded":true}\n\n'
    followed = follow([sse(), degraded + tagged, BROKEN, sse()])
    assert [request.headers.get("last-event-id") for request in followed.opened] == [
        None,
        f"{STREAM}.{1 if degraded else 0}",
    ]


def test_it_is_no_progress() -> None:
    with pytest.raises(StreamLost, match="no new event came for 100 s"):
        follow([sse(), event(1), *[40, DEGRADED, 40, OVER] * 2], timeouts=Timeouts(event=100))


def test_an_end_follows_it() -> None:
    assert follow([sse(), DEGRADED + notice("done", 0)]).core.outcome == Outcome("done")


def test_another_server_may_have_events_of_that_name() -> None:
    heard: list[bool] = []
    followed = follow([sse({}), b"event: degraded\ndata: 5\n\n"], on_degraded=heard.append)
    assert (heard, followed.given) == ([], ["degraded"])


@pytest.mark.parametrize(
    ("data", "said"), [("{}", "expected 'degraded' in the data"), ('{"degraded":1}', "true or false, but got 1")]
)
def test_what_it_says_must_be_said(data: str, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        follow([sse(), notice("degraded", 1, data)])
