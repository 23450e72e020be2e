"""How the objects and the end of a reply's stream are spelled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tailrace import Degraded, Dropped, Entries, Farewell, Notice, Outcome, Reset
from tailrace.chat.objects import INTERRUPTED, REASONING
from tailrace.chat.wire import STREAMS, WIRES
from tailrace.wire.base import read_notice
from tests.raw import frames

LINES, EVENTS = (wire.encoder("S", "E", 0) for wire in STREAMS[False])
THOUGHTFUL = [wire.encoder("S", "E", 0) for wire in STREAMS[True]]

COMPLETE = {"type": "complete", "timestamp": "2026-11-28T12:00:00Z", "total_chunks": 3, "state": "complete"}
FAILED = {"type": "error", "timestamp": "2026-11-28T12:00:00Z", "code": "odd", "message": "it broke"}

# How a log ended, its last object without its time, and whether the body ends cleanly.
ENDS: list[tuple[Outcome, dict[str, Any], bool]] = [
    (Outcome("done", data=COMPLETE), COMPLETE, True),
    (Outcome("cancelled", "stopped", "the stream was stopped", COMPLETE), COMPLETE, True),
    (Outcome("error", "odd", "it broke", FAILED), FAILED, False),
    (Outcome("cancelled", "shutdown", "the end", FAILED), FAILED, False),
    (Outcome("cancelled", "stopped", "the stream was stopped", FAILED), FAILED, False),
    (Outcome("error", "odd", "it broke"), {"type": "error", "code": "odd", "message": "it broke"}, False),
    (
        Outcome("cancelled", "shutdown", "the end"),
        {"type": "error", "code": "interrupted", "message": INTERRUPTED},
        False,
    ),
    (Outcome("cancelled"), {"type": "error", "code": "cancelled", "message": "cancelled"}, False),
]

NOTICES: list[tuple[Notice, dict[str, Any]]] = [
    (Reset("ahead"), {"type": "reset", "reason": "ahead"}),
    (Farewell("slow", 700), {"type": "farewell", "reason": "slow", "retry": 700}),
    (Dropped(3), {"type": "dropped", "count": 3}),
    (Degraded(True), {"type": "degraded", "degraded": True}),
]


def test_the_first_wire_is_lines_and_the_last_a_document() -> None:
    assert [wire.media_type for wire in WIRES] == ["application/x-ndjson", "text/event-stream", "application/json"]


def test_an_object_gets_its_cursor() -> None:
    entries = Entries(range(4, 6), [b'{"type":"a"}', b'{"type":"b"}'])
    assert LINES.encode(entries) == b'{"type":"a","id":"S.E.4"}\n{"type":"b","id":"S.E.5"}\n'
    first, second = frames(EVENTS.encode(entries))
    assert (first.id, first.event, first.data) == ("S.E.4", None, {"type": "a"})
    assert second.id == "S.E.5"


@pytest.mark.parametrize(("outcome", "last", "whole"), ENDS)
def test_the_end_is_the_last_object(outcome: Outcome, last: dict[str, Any], whole: bool) -> None:
    line = json.loads(LINES.notice(outcome, "S.E.5.end"))
    assert line.pop("id") == "S.E.5.end"
    assert {**line, "timestamp": None} == {**last, "timestamp": None}
    [frame] = frames(EVENTS.notice(outcome, "S.E.5.end"))
    assert frame.id == "S.E.5.end"
    assert frame.event == ("done" if whole else "error")
    said = frame.data["data"] if whole else frame.data
    assert {**said, "timestamp": None} == {**last, "timestamp": None}
    for encoder in (LINES, EVENTS, *THOUGHTFUL):
        assert encoder.is_whole(outcome) is whole


def test_every_client_reads_the_end() -> None:
    outcome = Outcome("cancelled", "stopped", "the stream was stopped", COMPLETE)
    [frame] = frames(EVENTS.notice(outcome, "S.E.5.end"))
    assert read_notice(frame) == Outcome("done", data=COMPLETE)
    [frame] = frames(EVENTS.notice(Outcome("error", "odd", "it broke", FAILED), "S.E.5.end"))
    assert read_notice(frame) == Outcome("error", "odd", "it broke")


@pytest.mark.parametrize(("notice", "members"), NOTICES, ids=lambda value: type(value).__name__)
def test_a_notice_is_one_more_object(notice: Notice, members: dict[str, Any]) -> None:
    said = json.loads(LINES.notice(notice, "S.E.5"))
    assert said.pop("timestamp")
    assert said == {**members, "id": "S.E.5"}
    [frame] = frames(EVENTS.notice(notice, "S.E.5"))
    assert (frame.event, frame.id, frame.data["type"]) == (members["type"], "S.E.5", frame.event)


def test_reasoning_is_for_those_who_ask() -> None:
    jsons = [b'{"type":"chunk"}', b'{"type":"reasoning"}', b'{"type":"reasoning"}', b'{"type":"chunk"}']
    entries = Entries(range(1, 5), jsons, {2: REASONING, 3: REASONING})
    for encoder, types in ((LINES, ["chunk", "chunk"]), (THOUGHTFUL[0], ["chunk", "reasoning", "reasoning", "chunk"])):
        assert [json.loads(line)["type"] for line in encoder.encode(entries).splitlines()] == types
    kept, everything = (frames(encoder.encode(entries)) for encoder in (EVENTS, THOUGHTFUL[1]))
    assert [(each.id, each.event) for each in kept] == [("S.E.1", None), ("S.E.4", None)]
    assert [(each.id, each.event, each.data["type"]) for each in everything][1] == ("S.E.2", None, "reasoning")


def test_a_model_that_only_thinks_keeps_its_readers_connected() -> None:
    entries = Entries(range(1, 2), [b'{"type":"reasoning"}'], {1: REASONING})
    assert LINES.encode(entries) == LINES.ping
    assert EVENTS.encode(entries) == EVENTS.ping


def test_idle_connections_are_kept_by_what_no_client_reads() -> None:
    assert LINES.ping == b"\n"
    assert frames(EVENTS.ping) == []
