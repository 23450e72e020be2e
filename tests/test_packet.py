"""The packet: a value, and one line of JSON."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from tailrace import EventError
from tailrace.packet import NOTICE_TYPES, PacketType, RequestFailed, SocketPacket


class Order(BaseModel):
    item: str
    count: int = 1


class Traced(SocketPacket[Any]):
    trace: str | None = None


PACKETS = {
    b'{"packet_type":"DATA","payload":null}': SocketPacket(packet_type="DATA"),
    b'{"packet_type":"DATA","payload":{"a":[1,null,"\xc3\xa9"]}}': SocketPacket(
        packet_type=PacketType.DATA, payload={"a": [1, None, "é"]}
    ),
    b'{"packet_type":"REQUEST","payload":1.5,"id":"a\\"b"}': SocketPacket(packet_type="REQUEST", payload=1.5, id='a"b'),
    b'{"packet_type":"X-1.y_z","payload":"","reply_to":"7"}': SocketPacket(
        packet_type="X-1.y_z", payload="", reply_to="7"
    ),
    b'{"packet_type":"DATA","payload":"/wAA","encoding":"base64","id":"1"}': SocketPacket(
        packet_type="DATA", payload=b"\xff\0\0", id="1"
    ),
}


@pytest.mark.parametrize(("line", "packet"), PACKETS.items(), ids=[line.decode() for line in PACKETS])
def test_a_packet_is_one_line_of_json(line: bytes, packet: SocketPacket) -> None:
    assert packet.encode() == line
    assert SocketPacket.decode(line, strict=True) == packet
    assert SocketPacket.decode(line.decode()) == packet


def test_lines_that_clients_break_at_are_escaped() -> None:
    assert b"\\u2028" in SocketPacket(packet_type="DATA", payload="a\u2028b").encode()


def test_a_typed_payload_is_validated_and_encoded() -> None:
    packet = SocketPacket[Order].decode(b'{"packet_type":"DATA","payload":{"item":"nut"}}')
    assert packet.payload == Order(item="nut")
    assert from_json(packet.encode()) == {"packet_type": "DATA", "payload": {"item": "nut", "count": 1}}
    with pytest.raises(ValidationError, match=r"payload\.count"):
        SocketPacket[Order].decode(b'{"packet_type":"DATA","payload":{"item":"nut","count":"many"}}')


def test_a_subclass_keeps_its_own_fields() -> None:
    packet = Traced(packet_type="DATA", payload=1, trace="t1")
    assert Traced.decode(packet.encode(), strict=True) == packet
    assert from_json(packet.encode())["trace"] == "t1"


@pytest.mark.parametrize(
    "members",
    [
        {"payload": 1},
        {"packet_type": ""},
        {"packet_type": "1A"},
        {"packet_type": "A" * 65},
        {"packet_type": "DATA", "id": ""},
        {"packet_type": "DATA", "id": "a b"},
        {"packet_type": "DATA", "id": "x" * 129},
        {"packet_type": "DATA", "reply_to": "\n"},
        {"packet_type": "DATA", "id": 1},
    ],
)
def test_packets_that_there_are_not(members: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SocketPacket(**members)


@pytest.mark.parametrize("payload", ["-", "a", 1, None, "YQ==YQ=="])
def test_base64_that_is_none(payload: Any) -> None:
    with pytest.raises(ValidationError, match="base64"):
        SocketPacket.decode(
            b'{"packet_type":"DATA","payload":%b,"encoding":"base64"}'
            % {None: b"null", 1: b"1"}.get(payload, f'"{payload}"'.encode())
        )


def test_an_encoding_inside_of_a_payload_says_nothing() -> None:
    packet = SocketPacket(packet_type="DATA", payload={"encoding": "base64"})
    assert SocketPacket.decode(packet.encode()) == packet


@pytest.mark.parametrize("line", [b'"encoding"', b'{"encoding":', b'["encoding"]'])
def test_a_line_that_is_no_packet(line: bytes) -> None:
    with pytest.raises(ValidationError):
        SocketPacket.decode(line)


def test_unknown_members_are_an_error_only_if_strict() -> None:
    line = b'{"packet_type":"DATA","cursor":"x.0.1"}'
    assert SocketPacket.decode(line) == SocketPacket(packet_type="DATA")
    with pytest.raises(ValidationError, match="cursor"):
        SocketPacket.decode(line, strict=True)


def test_a_payload_that_json_cannot_say() -> None:
    with pytest.raises(EventError, match=r"expected JSON-able data, but got dict: .* <class 'object'>"):
        SocketPacket(packet_type="DATA", payload=object()).encode()


def test_a_reply_names_what_it_answers() -> None:
    asked = SocketPacket(packet_type="REQUEST", id="q")
    assert asked.reply(1) == SocketPacket(packet_type="DATA", payload=1, reply_to="q")
    failed = asked.reply({"code": "no"}, PacketType.ERROR)
    assert str(RequestFailed(failed)) == "the answer to packet 'q' is an error: {'code': 'no'}"


def test_packets_are_values() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SocketPacket(packet_type="DATA").packet_type = "EVENT"


def test_the_names_of_notices() -> None:
    assert {"DONE", "CANCELLED", "RESET", "FAREWELL", "DROPPED", "DEGRADED"} == NOTICE_TYPES
