from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import DecodeError
from tailrace.events import DONE, Degraded, Dropped, Entry, Farewell, Notice, Outcome, Reset, encode_data
from tailrace.wire.base import Frame
from tailrace.wire.ndjson import NDJSONEncoder
from tailrace.wire.websocket import (
    INTERNAL_ERROR,
    NORMAL,
    REPLACED,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    MessageDecoder,
    Messages,
    is_stop,
)
from tests.wire.cases import ENTRIES, EPOCH, STREAM, at, byte_by_byte, entry, spell, splits

ENDS: list[tuple[Sequence[Entry | Notice], int]] = [
    ([DONE], NORMAL),
    ([entry(1, 1), DONE], NORMAL),
    ([Outcome("cancelled", "stopped")], NORMAL),
    ([entry(1, 1), Outcome("error", "internal_error")], INTERNAL_ERROR),
    ([Reset("trimmed")], NORMAL),
    ([Farewell("shutdown", 100)], SERVICE_RESTART),
    ([Farewell("slow", 100)], TRY_AGAIN_LATER),
    # Broken off: whoever closes decides what that means.
    ([], NORMAL),
    ([entry(1, 1)], NORMAL),
    ([entry(1, 1, "tick")], NORMAL),
    ([Dropped(2), entry(3, 1)], NORMAL),
    ([entry(1, 1), Degraded(True)], NORMAL),
    ([Outcome("error"), entry(1, {"reason": "slow"})], NORMAL),
]


def body(said: Sequence[Entry | Notice]) -> bytes:
    return spell(NDJSONEncoder(STREAM, EPOCH), said)


@pytest.mark.parametrize(("said", "code"), ENDS)
def test_the_close_code_says_how_the_stream_ended(said: Sequence[Entry | Notice], code: int) -> None:
    messages = Messages()
    messages.feed(body(said))
    assert messages.close() == ()
    assert messages.close_code == code


END = ',"cursor":"s.e.1.end"}\n'


@pytest.mark.parametrize(
    ("line", "code"),
    [
        # Envelopes: reserved names belong to notices, whatever the id.
        ('{"event":"farewell","data":{"reason":"moved","retry":1}}\n', TRY_AGAIN_LATER),
        ('{"event":"farewell","data":{"reason":"replaced","retry":0}}\n', REPLACED),
        ('{"event":"farewell","data":{"reason":["slow"]}}\n', TRY_AGAIN_LATER),
        ('{"event":"farewell","data":1}\n', TRY_AGAIN_LATER),
        ('{"event":"error","data":{}}\n', INTERNAL_ERROR),
        ('{"event":"ERROR","data":{}}\n', NORMAL),
        # Packets
        ('{"packet_type":"RESULT","payload":0' + END, NORMAL),
        ('{"packet_type":"DONE","payload":{}' + END, NORMAL),
        ('{"packet_type":"CANCELLED","payload":{"code":"stopped"}' + END, NORMAL),
        ('{"packet_type":"RESET","payload":{"reason":"trimmed"}' + END, NORMAL),
        ('{"packet_type":"ERROR","payload":{"code":"internal_error"}' + END, INTERNAL_ERROR),
        ('{"packet_type":"ERROR","payload":{},"cursor":"s.e.1"}\n', NORMAL),
        ('{"packet_type":"ERROR","payload":{},"id":"my.end","cursor":"s.e.1"}\n', NORMAL),
        ('{"packet_type":"ERROR","payload":{"status":422}}\n', NORMAL),
        ('{"packet_type":"FAREWELL","payload":{"reason":"shutdown","retry":100},"cursor":"s.e.1"}\n', SERVICE_RESTART),
        ('{"packet_type":"FAREWELL","payload":{"reason":"slow","retry":100}' + END, TRY_AGAIN_LATER),
        ('{"packet_type":"FAREWELL","payload":{"reason":"replaced","retry":0}' + END, REPLACED),
        ('{"packet_type":7' + END, NORMAL),
        # Lines of an application's own form
        ('{"type":"complete","id":"s.e.1.end"}\n', NORMAL),
        ('{"type":"error","code":"dry","id":"s.e.1.end"}\n', INTERNAL_ERROR),
        ('{"type":"error","code":"dry","id":"s.e.1"}\n', NORMAL),
        ('{"type":"error","code":"dry"}\n', NORMAL),
        ('{"type":"farewell","reason":"shutdown","retry":1,"id":"s.e.1"}\n', SERVICE_RESTART),
    ],
)
def test_the_close_code_is_known_from_any_form_of_the_last_line(line: str, code: int) -> None:
    messages = Messages()
    messages.feed(line.encode())
    assert messages.close_code == code


def test_a_message_that_is_no_frame_says_nothing_of_the_end() -> None:
    messages = Messages()
    assert messages.feed(b"[1]\n") == ("[1]",)
    assert messages.close_code == NORMAL


@given(ENTRIES, st.data())
def test_each_line_is_a_message_at_any_splits(rows: list[Entry], data: st.DataObject) -> None:
    messages = Messages()
    texts = [text for piece in data.draw(splits(body(rows))) for text in messages.feed(piece)]
    assert [*texts, *messages.close()] == [body([row]).decode().removesuffix("\n") for row in rows]
    assert [frame for text in texts for frame in MessageDecoder().feed(text.encode())] == [
        Frame(row.data, row.event, at(row.offset)) for row in rows
    ]


def test_pings_are_no_messages() -> None:
    assert Messages().feed(b'\n\n{"data":1}\n\n') == ('{"data":1}',)


def test_a_body_without_a_line_end_is_one_message_at_its_end() -> None:
    messages = Messages()
    document = '{"data":["é"]}'
    assert [text for piece in byte_by_byte(document.encode()) for text in messages.feed(piece)] == []
    assert messages.close() == (document,)
    assert messages.close() == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a message of JSON, but got b''"),
        ("hello", "expected a message of JSON, but got b'hello'"),
        ("x" * 10_000, "expected a message of JSON, but got b'xxx"),
        ("[]", 'expected an object with "data", but got []'),
        ('{"data":1,"id":7}', 'expected "event" and "id" to be strings'),
    ],
)
def test_a_message_that_holds_no_frame_is_a_decode_error(text: str, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)) as raised:
        MessageDecoder().feed(text.encode())
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "text",
    ['{"event":"stop"}', ' { "event" : "stop" , "data" : null } '],
)
def test_a_client_can_ask_to_stop(text: str) -> None:
    assert is_stop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stop",
        '"stop"',
        "null",
        "[]",
        "{}",
        '{"event":"go"}',
        '{"event":["stop"]}',
        '{"event":"stop"',
        '["stop"' * 9_000,
    ],
)
def test_any_other_message_is_no_command(text: str) -> None:
    assert not is_stop(text)


REFUSAL = {"event": "error", "data": {"code": "http_404", "status": 404, "message": "no such stream"}}


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (b"word \xff", Frame("word \ufffd")),
        (b"[1]", Frame([1])),
        (encode_data({"id": at(1), "data": 2}), Frame(2, None, at(1))),
        (encode_data({"id": f"{at(1)}~Ab3d", "data": 2}), Frame(2, None, f"{at(1)}~Ab3d")),
        (encode_data(REFUSAL), Frame(REFUSAL["data"], "error")),
        (encode_data({**REFUSAL, "event": "other"}), Frame({**REFUSAL, "event": "other"})),
        (encode_data({"event": "error", "data": 404}), Frame({"event": "error", "data": 404})),
        (
            encode_data({"event": "error", "data": {"status": "404"}}),
            Frame({"event": "error", "data": {"status": "404"}}),
        ),
        (encode_data({"event": "error", "data": {"status": 200}}), Frame({"event": "error", "data": {"status": 200}})),
    ],
)
def test_any_message_of_a_server_with_cursors_is_an_envelope_a_refusal_or_a_value(message: bytes, frame: Frame) -> None:
    assert MessageDecoder(strict=False).feed(message) == [frame]


def test_without_cursors_any_json_is_a_value() -> None:
    decoder = MessageDecoder(strict=False, has_cursors=False)
    assert decoder.feed(encode_data(REFUSAL)) == [Frame(REFUSAL)]
    assert decoder.feed(b"word") == [Frame("word")]
