"""How the objects and the end of a reply's stream are spelled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tailrace import Dropped, Entries, Farewell, Outcome, Reset
from tailrace.chat.objects import INTERRUPTED
from tailrace.chat.wire import STREAMS, WIRES, Notice
from tests.raw import frames

LINES, EVENTS = (wire.encoder("S", "E", 0) for wire in STREAMS)

NOTICES: list[tuple[Notice, dict[str, Any] | None]] = [
    (Outcome("done"), None),
    (Outcome("cancelled", "stopped", "the stream was stopped"), None),
    (Outcome("error", "odd", "it broke"), {"type": "error", "code": "odd", "message": "it broke"}),
    (Outcome("cancelled", "shutdown", "the end"), {"type": "error", "code": "interrupted", "message": INTERRUPTED}),
    (Outcome("cancelled"), {"type": "error", "code": "cancelled", "message": "cancelled"}),
    (Reset("ahead"), {"type": "reset", "reason": "ahead"}),
    (Farewell("slow", 700), {"type": "farewell", "reason": "slow", "retry": 700}),
    (Dropped(3), {"type": "dropped", "count": 3}),
]


def test_the_first_wire_is_lines_and_the_last_a_document() -> None:
    assert [wire.media_type for wire in WIRES] == ["application/x-ndjson", "text/event-stream", "application/json"]


def test_an_object_gets_its_cursor() -> None:
    entries = Entries(range(4, 6), [b'{"type":"a"}', b'{"type":"b"}'])
    assert LINES.encode(entries) == b'{"type":"a","id":"S.E.4"}\n{"type":"b","id":"S.E.5"}\n'
    first, second = frames(EVENTS.encode(entries))
    assert (first.id, first.event, first.data) == ("S.E.4", None, {"type": "a"})
    assert second.id == "S.E.5"


@pytest.mark.parametrize(("notice", "members"), NOTICES, ids=lambda value: type(value).__name__)
def test_a_notice_is_one_more_object(notice: Notice, members: dict[str, Any] | None) -> None:
    line = LINES.notice(notice, "S.E.5.end")
    if members is None:
        assert line == b""
    else:
        said = json.loads(line)
        assert said.pop("timestamp")
        assert said == {**members, "id": "S.E.5.end"}
    [frame] = frames(EVENTS.notice(notice, "S.E.5.end"))
    assert frame.event == (members["type"] if members else "done")
    assert frame.id == "S.E.5.end"
    assert frame.data["type"] == frame.event


def test_idle_connections_are_kept_by_what_no_client_reads() -> None:
    assert LINES.ping == b"\n"
    assert frames(EVENTS.ping) == []
