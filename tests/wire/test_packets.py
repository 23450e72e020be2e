"""The wire of packet sessions: packets with their cursors, and notices in the form of packets."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace.events import DONE, Degraded, Dropped, Entries, Farewell, Notice, Outcome, Reset
from tailrace.packet import SocketPacket
from tailrace.wire.base import Frame, read_notice
from tailrace.wire.packets import RESULT, RESULT_SENT, PacketLines
from tests.wire.cases import CREATED, EPOCH, STREAM, Case, at, entry, spell, tagged

PACKET = {"packet_type": "DATA", "payload": [1, None], "id": "a"}
LAST = {"packet_type": "RESULT", "payload": 2}

CASES = {
    "a packet": Case(
        [entry(1, PACKET)],
        b'{"packet_type":"DATA","payload":[1,null],"id":"a","cursor":"s1.e1.1"}\n',
        [Frame(PACKET, None, at(1))],
    ),
    "a result": Case(
        [entry(1, PACKET), entry(2, LAST, RESULT), RESULT_SENT],
        b'{"packet_type":"DATA","payload":[1,null],"id":"a","cursor":"s1.e1.1"}\n'
        b'{"packet_type":"RESULT","payload":2,"cursor":"s1.e1.2.end"}\n',
        [Frame(PACKET, None, at(1)), Frame(LAST, None, at(2) + ".end")],
    ),
    "an error": Case(
        [entry(1, {"packet_type": "ERROR", "payload": 1}), Outcome("error", "hook_failed", "no")],
        b'{"packet_type":"ERROR","payload":1,"cursor":"s1.e1.1"}\n'
        b'{"packet_type":"ERROR","payload":{"code":"hook_failed","message":"no"},"cursor":"s1.e1.1.end"}\n',
        [
            Frame({"packet_type": "ERROR", "payload": 1}, None, at(1)),
            Frame({"code": "hook_failed", "message": "no"}, "error", at(1) + ".end"),
        ],
    ),
}
NOTICES: dict[str, Notice] = {
    '{"packet_type":"DONE","payload":{},"cursor":"s1.e1.1.end"}\n': DONE,
    '{"packet_type":"CANCELLED","payload":{"code":"died"},"cursor":"s1.e1.1.end"}\n': Outcome("cancelled", "died"),
    '{"packet_type":"RESET","payload":{"reason":"trimmed"},"cursor":"s1.e1.1"}\n': Reset("trimmed"),
    '{"packet_type":"FAREWELL","payload":{"reason":"shutdown","retry":7},"cursor":"s1.e1.1"}\n': Farewell(
        "shutdown", 7
    ),
    '{"packet_type":"DROPPED","payload":{"count":3},"cursor":"s1.e1.1"}\n': Dropped(3),
    '{"packet_type":"DEGRADED","payload":{"degraded":true},"cursor":"s1.e1.1"}\n': Degraded(True),
}


def encoder() -> Any:
    return PacketLines().encoder(STREAM, EPOCH, CREATED)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("size", [1, 1_000])
def test_packets(case: Case, size: int) -> None:
    spelled = spell(encoder(), case.said)
    assert spelled == case.spelled
    decoder = PacketLines().decoder()
    frames = [frame for start in range(0, len(spelled), size) for frame in decoder.feed(spelled[start : start + size])]
    assert [*frames, *decoder.close()] == case.read


@pytest.mark.parametrize(("line", "notice"), NOTICES.items())
def test_notices(line: str, notice: Notice) -> None:
    cursor = at(1) + (".end" if isinstance(notice, Outcome) else "")
    assert encoder().notice(notice, cursor) == line.encode()
    [frame] = PacketLines().decoder().feed(line.encode())
    assert frame.id == cursor
    assert read_notice(frame) == notice


def test_a_batch_is_the_same_as_its_entries() -> None:
    rows = [entry(1, PACKET), entry(2, LAST, RESULT)]
    assert encoder().encode(Entries.of(rows)) == b"".join(encoder().encode(Entries.of([row])) for row in rows)


def test_tags_come_before_the_end() -> None:
    assert b'"cursor":"s1.e1.2~Ab3d.end"' in encoder().encode(tagged([entry(2, LAST, RESULT)], "Ab3d"))


def test_a_ping_is_an_empty_line() -> None:
    assert PacketLines().decoder().feed(encoder().ping) == []


def test_other_members_of_a_packet_are_no_cursor() -> None:
    [frame] = PacketLines().decoder().feed(b'{"packet_type":"DATA","cursor":"nowhere"}\n')
    assert frame == Frame({"packet_type": "DATA", "cursor": "nowhere"})


def test_the_line_of_a_packet_has_its_members() -> None:
    packet = SocketPacket(packet_type="DATA", payload=1)
    [frame] = PacketLines().decoder().feed(spell(encoder(), [entry(1, {"packet_type": "DATA", "payload": 1})]))
    assert SocketPacket.model_validate(frame.data) == packet
