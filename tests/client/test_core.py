from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tailrace.client.core import Following
from tailrace.client.errors import NotAStream, StreamFailed, StreamLost, StreamRefused, StreamReset
from tailrace.client.settings import Loss, Plan, Retry, Timeouts
from tailrace.client.transport import Ended, Failed, Open, Opened, Read, Sleep
from tailrace.errors import DecodeError, Truncated
from tailrace.events import Outcome
from tests.client.scripted import (
    ADDRESS,
    BROKEN,
    OURS,
    STREAM,
    UNSENT,
    URL,
    WHOLE,
    Clock,
    event,
    follow,
    head,
    notice,
    sse,
)

POST: dict[str, Any] = {"method": "POST", "content": b"{}", "headers": {"content-type": "application/json"}}
DONE = Outcome("done")
PLAIN = sse({})
ND = head(content_type="application/x-ndjson")
FAILED_CHUNK = b'data: {"error":{"message":"busy","type":"overloaded","code":null}}\n\n'
NAMED = head(content_type="application/x-ndjson", tailrace_cursor="S.e.0")


def ids(*numbers: int) -> bytes:
    return b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in numbers)


def chunk(finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": finish_reason}
    return b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


@pytest.mark.parametrize(
    ("script", "given", "outcome"),
    [
        pytest.param([sse(), event(1) + notice("done", 1)], [1], DONE, id="done"),
        pytest.param([sse(), event(1), notice("cancelled", 1)], [1], Outcome("cancelled"), id="cancelled"),
        pytest.param([sse(), event(1), BROKEN, sse(), event(2) + notice("done", 2)], [1, 2], DONE, id="broken off"),
        pytest.param([sse(), event(1), WHOLE, sse(), event(2) + notice("done", 2)], [1, 2], DONE, id="no outcome"),
        pytest.param([UNSENT, BROKEN, sse(), notice("done", 0)], [], DONE, id="no connection at first"),
        pytest.param(
            [sse(), event(1) + event(2), BROKEN, sse(), event(1) + event(2) + event(3) + notice("done", 3)],
            [1, 2, 3],
            DONE,
            id="events that were there already are passed over",
        ),
        pytest.param([sse(), event(1), BROKEN, sse(), BROKEN, head(204)], [1], None, id="204 is the end"),
        pytest.param([head(204)], [], None, id="204 at once"),
        pytest.param(
            [sse(), b'id: S.e.0\nevent: dropped\ndata: {"count": 4}\n\n' + event(5) + notice("done", 5)],
            ["dropped", 5],
            DONE,
            id="dropped is passed on",
        ),
        pytest.param([PLAIN, b"data: hello\n\nevent: x\ndata: 5\n\n", WHOLE], ["hello", "x"], None, id="plain SSE"),
        pytest.param(
            [PLAIN, b"event: done\ndata: {}\n\ndata: 1\n\nevent: error\ndata: oh\n\n", WHOLE],
            ["done", 1, "error"],
            None,
            id="names that mean something else to plain servers",
        ),
        pytest.param([PLAIN, b"data: 1\n\ndata: [DONE]\n\n"], [1], DONE, id="OpenAI's end"),
        pytest.param([PLAIN, b"data: null\n\nretry: 5\n\n", WHOLE], [None], None, id="null is an event"),
        pytest.param(
            [PLAIN, b"event: hello\ndata: hi\n\nid: 1\ndata: 1\n\n", BROKEN, PLAIN, b"id: 2\ndata: 2\n\n", WHOLE],
            ["hello", 1, 2],
            None,
            id="a greeting without an id",
        ),
        pytest.param(
            [PLAIN, b"id: a.b.2\ndata: 1\n\nid: a.c.1\ndata: 2\n\nid: a.c.1\ndata: 3\n\n", WHOLE],
            [1, 2, 3],
            None,
            id="ids that look like cursors",
        ),
        pytest.param(
            [PLAIN, b"id: a.b.2\nevent: error\ndata: oops\n\n", WHOLE], ["error"], None, id="names that look like ends"
        ),
        pytest.param(
            [PLAIN, ids(1, 2, 3), BROKEN, PLAIN, ids(3, 4), WHOLE], [1, 2, 3, 4], None, id="the last one is sent again"
        ),
        pytest.param(
            [PLAIN, ids(1, 2, 3), BROKEN, PLAIN, b": hello\n\nretry: 1\n\n", ids(2, 3, 4), WHOLE],
            [1, 2, 3, 4],
            None,
            id="the last few are sent again",
        ),
        pytest.param(
            [ND, b'{"id":"a.b.1","data":1}\n{"event":"login","data":{}}\n', WHOLE],
            [{"id": "a.b.1", "data": 1}, {"event": "login", "data": {}}],
            None,
            id="lines that look like envelopes",
        ),
        pytest.param([head(), b'{"data":[1,2],"cursor":"S.e.2"}', WHOLE], [1, 2], None, id="an open log's document"),
        pytest.param([head(), b'{"data":[]}', WHOLE], [], DONE, id="an empty document"),
        pytest.param(
            [PLAIN, chunk(None) + chunk("stop"), WHOLE],
            [json.loads(chunk(None)[6:]), json.loads(chunk("stop")[6:])],
            None,
            id="OpenAI's chunks without their mark",
        ),
        pytest.param(
            [PLAIN, b'data: {"error": 5}\n\ndata: {"object":"chat.completion.chunk","choices":[]}\n\n', WHOLE],
            [{"error": 5}, {"object": "chat.completion.chunk", "choices": []}],
            None,
            id="what only looks like OpenAI's",
        ),
        pytest.param([PLAIN, b'data: {"error": 5}\n\n', WHOLE], [{"error": 5}], None, id="an error of another kind"),
        pytest.param([ND, b'{"a":1}\n\n[2]\n', b'{"data":3}', WHOLE], [{"a": 1}, [2], {"data": 3}], None, id="lines"),
        pytest.param(
            [NAMED, b'{"id":"S.e.1","data":7}\n{"id":"S.e.1.end","event":"done","data":{}}\n'],
            [7],
            DONE,
            id="envelopes",
        ),
        pytest.param(
            [NAMED, b'{"type":"chunk","id":"S.e.1"}\n', BROKEN, NAMED, b'{"type":"sum","id":"S.e.1.end"}\n'],
            [{"type": "chunk", "id": "S.e.1"}, {"type": "sum", "id": "S.e.1.end"}],
            Outcome("done", data={"type": "sum", "id": "S.e.1.end"}),
            id="flat objects, the last with the cursor of an end",
        ),
        pytest.param(
            [sse(), event(1) + event(1, '"last"', end=".end")],
            [1, "last"],
            Outcome("done", data="last"),
            id="an event with the cursor of an end",
        ),
        pytest.param(
            [sse(), event(1) + notice("done", 1, '{"data": 5}')], [1], Outcome("done", data=5), id="an end with a value"
        ),
        pytest.param(
            [NAMED, b'{"type":"cancelled","code":"stopped","id":"S.e.0.end"}\n'],
            [],
            Outcome("cancelled", "stopped"),
            id="a flat notice",
        ),
        pytest.param([head(), b'{"data":[1,', b"2]}", WHOLE], [1, 2], DONE, id="a document"),
        pytest.param([head(), b'{"da', BROKEN, head(), b'{"data":[]}', WHOLE], [], DONE, id="a part of a document"),
        pytest.param([head(), b'{"da', WHOLE, head(), b'{"data":[]}', WHOLE], [], DONE, id="half a document"),
        pytest.param([head(content_type="text/plain"), b"a\xc3", b"\xa9", WHOLE], ["a", "é"], None, id="text"),
        pytest.param(
            [head(content_type="text/plain", tailrace_cursor="S.e.0"), b"a", WHOLE], ["a"], DONE, id="text of a log"
        ),
        pytest.param([sse(), event(1), OURS, sse(), notice("done", 1)], [1], DONE, id="interrupted"),
    ],
)
def test_a_stream_is_followed_to_its_end(script: list[object], given: list[Any], outcome: Outcome | None) -> None:
    followed = follow(script)
    assert followed.ended
    assert followed.left == []
    assert followed.given == given
    assert followed.core.outcome == outcome


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        pytest.param(
            [sse(), notice("error", 0, '{"code":"c","message":"m"}')], StreamFailed, "failed: m .c.", id="failed"
        ),
        pytest.param([sse(), event(0, '{"reason":"trimmed"}', "reset")], StreamReset, "trimmed", id="reset"),
        pytest.param(
            [sse(), event(1), BROKEN, sse(), b"id: S.f.1\ndata: 1\n\n"], StreamReset, "epoch_changed", id="elsewhere"
        ),
        pytest.param(
            [head(410), b'{"code":"reset","reason":"trimmed","cursor":"S.e.4"}', WHOLE],
            StreamReset,
            "S.e.4",
            id="reset by status",
        ),
        pytest.param([head(410), b'{"code":"gone"}', WHOLE], StreamRefused, "410 .gone.", id="gone"),
        pytest.param([head(404), b'{"detail":"no","code":"n"}', WHOLE], StreamRefused, "404 .n.: no", id="404"),
        pytest.param([head(422), b'{"detail":[{"x":1}]}', WHOLE], StreamRefused, "'x': 1", id="422"),
        pytest.param([head(500), b"<html>", BROKEN], StreamRefused, "500", id="500"),
        pytest.param([head(302, location="/x"), WHOLE], StreamRefused, "302", id="a redirection"),
        pytest.param([sse(), event(1), BROKEN, head(404), WHOLE], StreamRefused, "404", id="404 later"),
        pytest.param([BROKEN] * 4, StreamLost, "after 4 failures in a row: broken off", id="the budget is spent"),
        pytest.param([head(503), WHOLE] * 4, StreamLost, "after 4 failures .* 503", id="unavailable for too long"),
        pytest.param(
            [PLAIN, b"data: 1\n\n", BROKEN], StreamLost, "no id to continue after", id="nothing to go on from"
        ),
        pytest.param(
            [PLAIN, b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n", BROKEN, PLAIN, b"id: 1\ndata: 1\n\n"],
            StreamLost,
            "expected the server to go on after '2', but it began again",
            id="begun again",
        ),
        pytest.param([PLAIN, FAILED_CHUNK, BROKEN], StreamFailed, "busy .overloaded.", id="OpenAI's error"),
        pytest.param([PLAIN, FAILED_CHUNK, WHOLE], StreamFailed, "busy .overloaded.", id="and its end"),
        pytest.param(
            [PLAIN, FAILED_CHUNK + b"data: [DONE]\n\n"], StreamFailed, "busy", id="OpenAI's error, and its end"
        ),
        pytest.param(
            [PLAIN, chunk(None), WHOLE], StreamLost, "ended in the middle of an answer", id="OpenAI's end is missing"
        ),
        pytest.param([head(content_type="text/html")], NotAStream, "text/html", id="a page"),
        pytest.param([head(content_type="")], NotAStream, "no media type", id="nothing said"),
        pytest.param([ND, b"{]\n"], DecodeError, "line of JSON", id="not NDJSON"),
        pytest.param([ND, b'{"a":', WHOLE], Truncated, "whole line", id="half a line and no way to the rest"),
    ],
)
def test_what_goes_wrong_is_a_typed_error(script: list[object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        follow(script)


def test_a_refused_method_names_those_that_are_allowed() -> None:
    followed = follow([head(405, allow="GET, POST"), b'{"detail":"no"}', WHOLE], fails=True)
    assert isinstance(followed.error, StreamRefused)
    assert followed.error.members == {"detail": "no", "allow": "GET, POST"}


def test_a_reset_can_be_a_new_beginning() -> None:
    script = [sse(), event(1), event(4, '{"reason":"trimmed"}', "reset"), sse(), event(5) + notice("done", 5)]
    followed = follow(script, on_reset="restart")
    assert followed.given == [1, "reset", 5]
    assert followed.opened[1].headers["last-event-id"] == f"{STREAM}.4"
    assert followed.slept == [0.0]


def test_nothing_left_after_a_reset_is_a_loss() -> None:
    with pytest.raises(StreamLost, match="nothing is left"):
        follow([sse(), event(0, '{"reason":"epoch_changed"}', "reset"), head(204)], on_reset="restart")


def test_resets_alone_spend_the_budget() -> None:
    with pytest.raises(StreamLost, match="was reset"):
        follow([sse(), event(0, '{"reason":"trimmed"}', "reset")] * 4, on_reset="restart")


def test_only_the_first_of_several_resets_in_a_row_is_followed_at_once() -> None:
    reset = event(0, '{"reason":"trimmed"}', "reset")
    script = [sse(), reset, sse(), reset, sse(), event(1) + notice("done", 1)]
    followed = follow(script, on_reset="restart", retry=Retry(base=1.0))
    first, second = followed.slept
    assert first == 0.0
    assert second > 0.0


class TestRequests:
    def test_the_first_says_what_is_wanted(self) -> None:
        (request,) = follow([], headers={"Authorization": "Bearer x", "accept": "a/b"}).opened
        assert (request.method, request.url, request.content) == ("GET", URL, None)
        assert request.headers["authorization"] == "Bearer x"
        assert request.headers["accept"] == "a/b"
        assert request.headers["accept-encoding"] == "identity"
        assert "last-event-id" not in request.headers

    def test_the_next_goes_to_the_streams_own_address(self) -> None:
        followed = follow([sse(), event(3), BROKEN], **POST, key="k")
        first, second = followed.opened
        assert (first.method, first.content, first.headers["idempotency-key"]) == ("POST", b"{}", "k")
        assert (second.method, second.content) == ("GET", None)
        assert second.url == f"http://server/stream/S?after={STREAM}.3"
        assert second.headers["last-event-id"] == f"{STREAM}.3"
        assert not {"content-type", "idempotency-key"} & second.headers.keys()

    def test_without_an_address_it_is_the_first_again(self) -> None:
        followed = follow([sse({"tailrace-cursor": "S.e.0"}), BROKEN], url=f"{URL}?a=1&after=old&b")
        assert followed.opened[1].url == f"{URL}?a=1&b&after=S.e.0"

    def test_ids_of_other_servers_are_for_the_header_only(self) -> None:
        followed = follow([PLAIN, b"id: 10\ndata: 1\n\nid: 9\ndata: 2\n\n", BROKEN])
        assert followed.given == [1, 2]
        assert followed.opened[1].url == URL
        assert followed.opened[1].headers["last-event-id"] == "9"

    def test_a_stream_can_be_joined_after_an_id(self) -> None:
        followed = follow([sse(), event(7) + notice("done", 7)], after="S.e.6")
        assert followed.opened[0].headers["last-event-id"] == "S.e.6"
        assert followed.given == [7]

    @pytest.mark.parametrize(
        ("script", "takes_over"),
        [
            pytest.param([sse(), event(1), BROKEN, UNSENT], [False, True, True], id="after its own connection"),
            pytest.param([BROKEN], [False, True], id="after a request that may have arrived"),
            pytest.param([UNSENT, UNSENT], [False, False, False], id="after none"),
            pytest.param([head(503, retry_after="0"), WHOLE], [False, False], id="after a refusal"),
        ],
    )
    def test_one_takes_over_only_from_the_client_itself(self, script: list[object], takes_over: list[bool]) -> None:
        followed = follow(script, takeover=True, after="S.e.0")
        assert ["&takeover=true" in request.url for request in followed.opened] == takes_over

    def test_none_takes_over_unless_the_caller_says_so(self) -> None:
        assert "takeover" not in follow([sse(), event(1), BROKEN]).opened[1].url

    @pytest.mark.parametrize("url", ["http://server:81/x", "https://server/x", "//other/x"])
    def test_credentials_go_to_no_other_server(self, url: str) -> None:
        followed = follow([sse({**ADDRESS, "content-location": url, "link": f"<{url}>; rel=stop"}), BROKEN])
        assert followed.core.address is followed.core.stop_address is None
        assert followed.opened[1].url.startswith(URL)

    def test_an_address_is_relative_to_where_redirections_led(self) -> None:
        moved = Opened(200, {**sse().headers, "content-location": "s"}, "http://server/new/x", URL)
        assert follow([moved, BROKEN]).core.address == "http://server/new/s"


class TestPosts:
    @pytest.mark.parametrize(
        "script",
        [
            pytest.param([UNSENT, UNSENT], id="never sent"),
            pytest.param([head(503, retry_after="0"), WHOLE], id="refused, with a time to come back"),
            pytest.param([head(429, retry_after="0"), WHOLE], id="too many"),
            pytest.param([sse({"tailrace-cursor": "S.e.0"}), BROKEN], id="with its cursor, which starts nothing"),
        ],
    )
    def test_are_repeated_where_nothing_starts_twice(self, script: list[object]) -> None:
        followed = follow([*script, sse(), notice("done", 0)], **POST)
        assert followed.ended
        assert followed.opened[-1].method == "POST"

    @pytest.mark.parametrize(
        ("script", "error", "said"),
        [
            pytest.param([BROKEN], StreamLost, "unknown whether", id="perhaps sent"),
            pytest.param([head(502), b"bad gateway", WHOLE], StreamLost, "bad gateway; it is unknown", id="502"),
            pytest.param([head(503), WHOLE], StreamRefused, "503", id="refused"),
            pytest.param([PLAIN, BROKEN], StreamLost, "no address", id="no address"),
            pytest.param([PLAIN, b"id: 1\ndata: 1\n\n", BROKEN], StreamLost, "no address", id="ids, but no address"),
            pytest.param([PLAIN, b"id: a.b.1\ndata: 1\n\n", BROKEN], StreamLost, "no address", id="like cursors"),
        ],
    )
    def test_are_not_repeated_where_it_could_start_twice(
        self, script: list[object], error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            follow(script, **POST)

    def test_are_repeated_under_their_idempotency_key(self) -> None:
        followed = follow([BROKEN, head(502), WHOLE, PLAIN, BROKEN, sse(), notice("done", 0)], **POST, key="k")
        assert followed.ended
        assert [request.headers["idempotency-key"] for request in followed.opened] == ["k"] * 4


class TestWaiting:
    def test_grows_at_random_up_to_a_cap(self) -> None:
        followed = follow([UNSENT] * 30, retry=Retry(limit=30, base=1.0, cap=8.0))
        assert all(0 <= slept <= min(8.0, 2.0**n) for n, slept in enumerate(followed.slept))
        assert max(followed.slept) > 1
        assert len(set(followed.slept)) > 20

    def test_an_event_makes_all_good(self) -> None:
        script: list[object] = []
        for offset in range(1, 10):
            script += [sse(), event(offset), BROKEN, UNSENT, UNSENT]
        assert len(follow(script).slept) == 27

    def test_is_as_long_as_the_farewell_says(self) -> None:
        farewell = event(1, '{"reason":"shutdown","retry":1500}', "farewell").replace(b"data", b"retry: 1500\ndata")
        followed = follow([sse(), event(1) + farewell, UNSENT, sse(), notice("done", 1)])
        assert followed.slept == [1.5, 0.0]
        assert followed.given == [1]

    def test_is_over_where_another_client_reads_in_this_one_s_place(self) -> None:
        farewell = event(1, '{"reason":"replaced","retry":0}', "farewell")
        followed = follow([sse(), event(1) + farewell], fails=True)
        assert followed.given == [1]
        assert isinstance(followed.error, StreamLost)
        assert (followed.error.kind, followed.error.cursor) == ("replaced", f"{STREAM}.1")
        assert str(followed.error) == "the stream is lost: another client reads this stream now"
        assert not followed.slept

    @pytest.mark.parametrize("retry", ["-5000", f"-1{'0' * 400}"])
    def test_is_never_less_than_none(self, retry: str) -> None:
        farewell = event(1, f'{{"reason":"shutdown","retry":{retry}}}', "farewell")
        assert follow([sse(), farewell, UNSENT]).slept == [0.0, 0.0]

    @pytest.mark.parametrize("retry", ["60001", f"1{'0' * 400}"])
    def test_after_a_farewell_is_as_long_as_the_caller_allows(self, retry: str) -> None:
        farewell = event(1, f'{{"reason":"shutdown","retry":{retry}}}', "farewell")
        with pytest.raises(StreamLost, match=r"farewell \(shutdown\); the server asks for a pause of \d+ s") as lost:
            follow([sse(), farewell])
        assert lost.value.kind == "farewell"

    @pytest.mark.parametrize(("longest", "slept"), [(60.0, 60.0), (5.0, 5.0), (4e3, 3599.0)])
    def test_is_not_longer_than_the_caller_allows_when_an_sse_server_asks(self, longest: float, slept: float) -> None:
        retry = Retry(base=0.0, longest=longest)
        assert follow([PLAIN, b"retry: 3599000\n\nid: 1\ndata: 1\n\n", BROKEN], retry=retry).slept == [slept]

    def test_is_at_least_what_an_sse_server_asks_for(self) -> None:
        followed = follow([PLAIN, b"retry: 3000\n\nid: 1\nretry: 2000\ndata: 1\n\n", BROKEN, UNSENT])
        assert followed.slept == [2.0, 2.0]

    def test_is_at_least_what_retry_after_says(self) -> None:
        followed = follow([head(503, retry_after="7"), WHOLE, head(503, retry_after="soon"), WHOLE])
        assert followed.slept == [7.0, 0.0]

    def test_is_told_to_who_wants_to_know(self) -> None:
        told: list[tuple[int, float, Loss]] = []
        follow([UNSENT, BROKEN], on_reconnect=lambda *what: told.append(what))
        assert told == [(1, 0.0, UNSENT.loss), (2, 0.0, BROKEN.loss)]

    def test_an_interruption_is_no_failure(self) -> None:
        assert follow([sse(), OURS] * 20).slept == []

    def test_ends_when_the_seconds_of_the_budget_do(self) -> None:
        with pytest.raises(StreamLost, match="after 2 failures"):
            follow([UNSENT, 20, UNSENT], retry=Retry(base=0, seconds=15))


class TestTimeouts:
    def test_are_those_of_the_caller(self) -> None:
        (request,) = follow([], timeouts=Timeouts(connect=3, idle=9)).opened
        assert (request.connect, request.idle) == (3, 9)

    def test_never_go_beyond_the_total(self) -> None:
        requests = follow([sse(), 6, event(1), BROKEN], timeouts=Timeouts(total=8)).opened
        assert [request.idle for request in requests] == [8, 2]

    @pytest.mark.parametrize("script", [[sse(), 9, event(1)], [9, sse(), event(1)], [9, UNSENT]])
    def test_the_total_ends_all(self, script: list[object]) -> None:
        with pytest.raises(StreamLost, match="total timeout of 8 s"):
            follow(script, timeouts=Timeouts(total=8))

    def test_of_a_head_is_an_option(self) -> None:
        (request,) = follow([], timeouts=Timeouts(head=7)).opened
        assert request.within == 7
        assert follow([]).opened[0].within == Timeouts().head

    @pytest.mark.parametrize("what", [b": ping\n", event(1), b"retry: 5\n\n"], ids=["pings", "repetitions", "delays"])
    def test_only_a_new_event_is_progress(self, what: bytes) -> None:
        script = [sse(), event(1), 40, what, 40, event(2), *[40, what] * 4]
        with pytest.raises(StreamLost, match=r"no new event came for 100 s, though .*; Timeouts\(event=None\)") as lost:
            follow(script, timeouts=Timeouts(event=100))
        assert (lost.value.kind, lost.value.cursor) == ("stalled", f"{STREAM}.2")

    def test_without_a_new_event_bound_also_silence(self) -> None:
        silence = Failed(Loss("silent", "nothing came in time"))
        with pytest.raises(StreamLost, match="no new event came for 3 s"):
            follow([sse(), event(1), 3, silence], timeouts=Timeouts(event=3, idle=9))

    def test_without_a_new_event_are_those_of_one_connection(self) -> None:
        script = [sse(), event(1), 90, BROKEN, 90, UNSENT, sse(), 90, b": ping\n", notice("done", 1)]
        assert follow(script, timeouts=Timeouts(event=100)).ended

    def test_without_a_new_event_may_be_none(self) -> None:
        script = [sse(), event(1), *[1000, b": ping\n"] * 9, notice("done", 1)]
        assert follow(script, timeouts=Timeouts(event=None)).ended


class TestSockets:
    SOCKET = Opened(200, {"content-type": "websocket", **ADDRESS}, "ws://server/x", "ws://server/x")
    BARE = Opened(200, {"content-type": "websocket"}, "ws://server/x", "ws://server/x")
    ONE = b'{"id":"S.e.1","data":1}'
    END = b'{"id":"S.e.1.end","event":"done","data":{}}'

    @pytest.mark.parametrize(
        ("script", "given"),
        [
            pytest.param([BARE, b'{"a":1}', b"text", Ended(1000)], [{"a": 1}, "text"], id="another server's"),
            pytest.param([BARE, b"[1]", Ended(1005)], [[1]], id="closed without a code"),
            pytest.param(
                [SOCKET, Ended(1005), SOCKET, ONE, Ended(1005), SOCKET, END], [1], id="no code and no outcome"
            ),
            pytest.param([SOCKET, ONE, Ended(1012, "bye"), SOCKET, END], [1], id="left"),
            pytest.param([SOCKET, ONE, Ended(1000), SOCKET, END], [1], id="no outcome"),
            pytest.param([SOCKET, ONE, BROKEN, SOCKET, Ended(1005), SOCKET, END], [1], id="broken off, and no code"),
            pytest.param([BARE, b'{"id":"a.b.2","data":1}', Ended(1000)], [{"id": "a.b.2", "data": 1}], id="like ids"),
        ],
    )
    def test_are_followed(self, script: list[object], given: list[Any]) -> None:
        followed = follow(script, url="ws://server/x")
        assert followed.ended
        assert followed.given == given
        assert followed.core.address is followed.core.stop_address is None

    def test_say_nothing_to_who_has_had_the_end(self) -> None:
        followed = follow([self.SOCKET, Ended(1000)], url="ws://server/x", after="S.e.1.end")
        assert (followed.ended, followed.given) == (True, [])

    def test_are_refused_later_as_an_http_request_is(self) -> None:
        later = b'{"event":"error","data":{"status":503,"message":"later"}}'
        gone = b'{"event":"error","data":{"status":410,"code":"reset","reason":"trimmed","cursor":"S.e.4"}}'
        script = [self.BARE, self.ONE, BROKEN, self.BARE, later, self.BARE, gone, self.BARE]
        followed = follow(script, url="ws://server/x", on_reset="restart", **POST)
        assert followed.given == [1, "reset"]
        assert followed.opened[-1].url == "ws://server/x?after=S.e.4"

    def test_have_the_first_message_again_with_the_cursor(self) -> None:
        first, second = follow([self.BARE, self.ONE, BROKEN], url="ws://server/x", **POST).opened
        assert first.content == second.content == b"{}"
        assert second.url == "ws://server/x?after=S.e.1"

    @pytest.mark.parametrize(
        ("script", "error", "said"),
        [
            ([BARE, BROKEN], StreamLost, "no address"),
            ([BARE, Ended(1008, "no")], StreamRefused, "1008 .policy_violation.: no"),
            ([BARE, b'{"event":"error","data":{"code":"c","status":409,"message":"m"}}'], StreamRefused, "409 .c.: m"),
            ([BARE, b'{"event":"done","data":{"status":"ok"}}', BROKEN], StreamLost, "no id to continue after"),
            ([SOCKET, ONE, Ended(4409)], StreamLost, "another client reads this stream now"),
            ([BARE, b"text", Ended(4409)], StreamLost, "closed with 4409; its last event has no id"),
        ],
    )
    def test_can_be_refused(self, script: list[object], error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            follow(script, url="ws://server/x", **POST)


@pytest.mark.parametrize(
    ("script", "given"),
    [
        pytest.param([sse(), event(1) + notice("done", 1, '{"data": {"a": 1}}')], [1, {"a": 1}], id="a notice"),
        pytest.param([sse(), event(1) + event(1, '{"a": 1}', end=".end")], [1, {"a": 1}], id="an event"),
        pytest.param([sse(), event(1) + notice("done", 1)], [1], id="none"),
    ],
)
def test_the_value_of_an_end_can_be_an_event(script: list[object], given: list[Any]) -> None:
    followed = follow(script, gives_result=True)
    assert followed.given == given
    assert followed.core.cursor == f"{STREAM}.1.end"


def test_a_document_without_its_beginning_says_so() -> None:
    followed = follow([head(), b'{"data":[7],"after":"S.e.6","cursor":"S.e.7"}', WHOLE])
    assert (followed.given, followed.core.cursor) == (["dropped", 7], "S.e.7")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param([sse(), event(6, '{"reason":"trimmed"}', "reset"), sse(), event(7)], "reset", id="reset"),
        pytest.param([sse(), event(6, '{"count":6}', "dropped") + event(7)], "dropped", id="dropped"),
    ],
)
def test_a_reader_without_a_cursor_is_shown_that_the_beginning_is_gone(script: list[object], said: str) -> None:
    assert follow(script, on_reset="restart").given == [said, 7]


def test_gaps_can_be_allowed() -> None:
    followed = follow([PLAIN, b"data: 1\n\n", BROKEN, PLAIN, b"data: 5\n\n", WHOLE], allow_gaps=True)
    assert followed.given == [1, 5]


def test_a_large_piece_is_read_in_parts_up_to_its_notice() -> None:
    events = b"".join(event(number) for number in range(1, 3000))
    followed = follow([sse(), events + notice("done", 2999) + event(3000)])
    assert followed.given == list(range(1, 3000))
    assert (followed.core.outcome, followed.core.cursor) == (DONE, f"{STREAM}.2999.end")


def test_a_large_piece_of_text_stays_one() -> None:
    assert follow([head(content_type="text/plain"), b"x" * 50_000, WHOLE]).given == ["x" * 50_000]


def test_what_came_before_a_broken_line_is_given() -> None:
    followed = follow([ND, b'1\n{"a":2}\n{]\n3\n', WHOLE], fails=True)
    assert followed.given == [1, {"a": 2}]
    assert isinstance(followed.error, DecodeError)


def test_a_server_that_begins_again_is_passed_over_where_gaps_are_allowed() -> None:
    followed = follow([PLAIN, ids(1, 2), BROKEN, PLAIN, ids(1), ids(2, 3), WHOLE], allow_gaps=True)
    assert followed.given == [1, 2, 3]


def test_an_after_that_only_looks_like_a_cursor_does_not_repeat_a_post() -> None:
    with pytest.raises(StreamLost, match="no address"):
        follow([PLAIN, b"id: a.b.1\ndata: 1\n\n", BROKEN], after="a.b.0", **POST)


def test_what_came_before_an_unreadable_notice_is_given() -> None:
    followed = follow([sse(), event(1) + event(2, "{}", "reset")], fails=True)
    assert (followed.given, followed.core.cursor) == ([1], f"{STREAM}.1")
    assert isinstance(followed.error, DecodeError)


def test_an_end_counts_though_garbage_follows() -> None:
    followed = follow([NAMED, b'{"id":"S.e.1","data":7}\n{"id":"S.e.1.end","event":"done","data":{}}\n{]\n'])
    assert (followed.given, followed.core.outcome) == ([7], DONE)


def test_events_that_are_sent_again_are_passed_over_in_any_pieces() -> None:
    script = [PLAIN, ids(1, 2, 3), BROKEN, PLAIN, ids(2), ids(3), ids(4), BROKEN, PLAIN, ids(5), WHOLE]
    assert follow(script).given == [1, 2, 3, 4, 5]


def test_an_id_is_of_one_event_only() -> None:
    with pytest.raises(StreamLost, match="no id to continue after"):
        follow([PLAIN, b"id: 1\ndata: 1\n\ndata: 2\n\n", BROKEN])


def test_a_greeting_is_given_with_each_response_that_begins_with_one() -> None:
    greeting = b"data: 0\n\n"
    script = [PLAIN, greeting + ids(1), BROKEN, PLAIN, greeting, BROKEN, PLAIN, greeting + ids(2), WHOLE]
    assert follow(script).given == [0, 1, 0, 0, 2]


@pytest.mark.parametrize("id_", ["S.e." + "9" * 5000, "S.e.\u0661"])
def test_an_offset_that_is_none_makes_no_cursor(id_: str) -> None:
    followed = follow([sse(), f"id: {id_}\ndata: 0\n\n".encode() + event(1) + notice("done", 1)])
    assert (followed.given, followed.ended) == ([0, 1], True)


@pytest.mark.parametrize("junk", ["junk", ""])
def test_a_stream_cursor_that_is_none_is_passed_over(junk: str) -> None:
    followed = follow([sse({"tailrace-cursor": junk}), ids(1), WHOLE])
    assert (followed.given, followed.ended) == ([1], True)


def test_text_whose_end_nobody_marks_is_not_taken_for_whole() -> None:
    text = replace(head(content_type="text/plain", tailrace_cursor="S.e.0"), is_framed=False)
    with pytest.raises(StreamLost, match="the response ended, but the stream has not"):
        follow([text, b"half", WHOLE])


def test_who_gives_up_waiting_does_not_make_the_server_wait_less() -> None:
    clock = Clock()
    core = Following(Plan(url=URL, retry=Retry(base=0.0)), clock=clock)
    flow = core.run()
    assert isinstance(flow.send(None), Open)
    sleep = flow.send(head(503, retry_after="7"))
    while not isinstance(sleep, Sleep):
        sleep = flow.send(WHOLE if isinstance(sleep, Read) else None)
    clock.now += 3
    assert (sleep, flow.send(OURS)) == (Sleep(7.0), Sleep(4.0))
    clock.now += 5
    assert flow.send(OURS) == Sleep(0.0)
    assert isinstance(flow.send(None), Open)


def test_elsewhere_a_stream_is_read_from_its_beginning() -> None:
    other = sse({**ADDRESS, "tailrace-cursor": "S.f.0"})
    script = [sse(), event(1), BROKEN, other, b"id: S.f.1\ndata: 1\n\n", other, b"id: S.f.1\ndata: 1\n\n"]
    followed = follow([*script, b"id: S.f.1.end\nevent: done\ndata: {}\n\n"], on_reset="restart")
    assert followed.given == [1, "reset", 1]
    assert "last-event-id" not in followed.opened[2].headers


def test_an_error_of_openais_at_the_very_end_is_a_failure() -> None:
    followed = follow([ND, b'{"a":1}\n{"error":{"message":"busy"}}', WHOLE], fails=True)
    assert isinstance(followed.error, StreamFailed)
