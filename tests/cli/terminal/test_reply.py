"""What is shown of a reply, also when its stream begins again."""

from __future__ import annotations

import io

import pytest

from tailrace.cli.terminal.reply import Reply
from tailrace.cli.terminal.view import PlainView
from tailrace.client import ChatObject, Chunk, Complete, Loss, SessionInfo, Status

INFO = SessionInfo(type="session_info", session_id="0123456789", stream_id="s", model="demo")
RESET = ChatObject(type="reset")


def chunk(text: str) -> Chunk:
    return Chunk(type="chunk", text=text, chunk_number=1)


def shown(*objects: ChatObject) -> tuple[str, list[str]]:
    """The text, and what was said beside it."""
    out, beside = io.StringIO(), io.StringIO()
    reply = Reply(PlainView(out, beside))
    for each in (INFO, *objects):
        reply.take(each)
    return out.getvalue(), beside.getvalue().splitlines()


@pytest.mark.parametrize("again", [["abcdef"], ["a", "bc", "def"], ["abc", "def"], ["abcd", "ef"]])
def test_what_was_shown_is_not_shown_again(again: list[str]) -> None:
    text, notes = shown(chunk("abc"), RESET, INFO, *map(chunk, again))
    assert text == "abcdef"
    assert len(notes) == 1


def test_what_a_newer_server_may_say_is_passed_over() -> None:
    assert shown(ChatObject(type="thought"), chunk("abc")) == ("abc", [])


def test_less_than_was_shown_adds_nothing() -> None:
    assert shown(chunk("abcdef"), RESET, INFO, chunk("abc"))[0] == "abcdef"


def test_a_text_that_differs_is_shown_whole_and_said_to_be_another() -> None:
    text, notes = shown(chunk("abcdef"), RESET, INFO, chunk("abx"), chunk("yz"))
    assert text == "abcdefabxyz"
    assert notes[1] == "the server has kept a different text:"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


BROKEN = Loss("broken", "the connection broke off")

STATUS = Status(type="status", message="", context_messages=3)


def test_the_summary_is_of_what_was_sent_to_the_model() -> None:
    """A server that was started again repeats a reply, with what it has kept as one chunk."""
    clock = Clock()
    reply = Reply(PlainView(io.StringIO(), io.StringIO()), clock)
    again = Status(type="status", message="", context_messages=0)
    for each in (INFO, STATUS, chunk("ab"), chunk("c"), RESET, INFO, again, chunk("abc"), chunk("d")):
        reply.take(each)
    clock.now += 9.0
    assert reply.summary("complete") == "complete · 3 chunks · 9.0 s · 3 context messages"


def test_a_lost_connection_is_said_once_each_time() -> None:
    out, beside = io.StringIO(), io.StringIO()
    reply = Reply(PlainView(out, beside))
    assert reply.lose(1, 8, 0.5, BROKEN)
    assert not reply.lose(2, 8, 1.0, BROKEN)
    reply.take(INFO)
    assert reply.lose(1, 8, 0.5, BROKEN)
    assert beside.getvalue().splitlines() == ["no connection; trying again …", "connection lost; reconnecting …"]


def test_a_server_that_refuses_for_now_is_not_called_lost() -> None:
    out, beside = io.StringIO(), io.StringIO()
    reply = Reply(PlainView(out, beside))
    assert reply.lose(1, 8, 0.5, Loss("unavailable", "the server answered with the status 503"))
    assert beside.getvalue() == "the server is not available; trying again …\n"


def test_a_store_out_of_reach_is_a_line_and_its_return_is_none() -> None:
    out, beside = io.StringIO(), io.StringIO()
    reply = Reply(PlainView(out, beside))
    reply.take(INFO)
    for degraded in (True, False):
        reply.degrade(degraded)
    assert beside.getvalue().splitlines() == ["the server cannot reach its store; text may be late …"]
    assert not reply.lost


def test_the_summary_has_the_servers_time_if_there_is_one() -> None:
    clock = Clock()
    reply = Reply(PlainView(io.StringIO(), io.StringIO()), clock)
    for each in (INFO, STATUS, chunk("a"), chunk("b")):
        reply.take(each)
    clock.now += 9.0
    assert reply.summary("failed", "why") == "failed · 2 chunks · 9.0 s · 3 context messages: why"
    reply.take(Complete(type="complete", total_chunks=2, processing_time=1.25, message_count=2, session_id="0"))
    assert reply.summary("complete") == "complete · 2 chunks · 1.2 s · 3 context messages"


class Waiting(PlainView):
    """Remembers what is waited for."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), io.StringIO())
        self.line = ""

    def take(self, each: ChatObject) -> None:
        self.line = ""

    def wait(self, line: str) -> None:
        self.line = line


def test_there_is_a_sign_of_life_before_the_first_text_and_after_a_silence() -> None:
    clock, view = Clock(), Waiting()
    reply = Reply(view, clock)
    steps: list[tuple[float, ChatObject | None, str]] = [
        (1, None, ""),
        (1, None, "waiting for the server · 2 s"),
        (0, INFO, ""),
        (0, STATUS, "generating · 2 s · 3 context messages"),
        (1, None, "generating · 3 s · 3 context messages"),
        (0, chunk(""), ""),
        (1, None, "generating · 4 s · 3 context messages"),
        (0, chunk("a"), ""),
        (1, None, ""),
        (1, None, "generating · 6 s · 3 context messages"),
        (0, chunk("b"), ""),
    ]
    for seconds, each, expected in steps:
        clock.now += seconds
        reply.take(each) if each is not None else reply.tick()
        assert view.line == expected
    reply.lose(1, 8, 0.5, BROKEN)
    clock.now += 9
    reply.tick()
    assert view.line == "attempt 1 of 8 in 0.5 s"
