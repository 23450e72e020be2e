from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from tailrace.chat.objects import REASONING
from tailrace.chat.wire import STREAMS
from tailrace.cursor import Cursor
from tailrace.errors import DecodeError
from tailrace.events import DONE, Degraded, Dropped, Entries, Entry, Farewell, Notice, Outcome, Reset
from tailrace.modes import DEFAULT_WIRES
from tailrace.wire.base import (
    SHARED_BODIES,
    Decoder,
    Encoder,
    Frame,
    Wire,
    frame_members,
    notice_frame,
    read_any,
    read_members,
    read_notice,
)
from tailrace.wire.batch import document
from tailrace.wire.ndjson import NDJSON, NDJSONDecoder, NDJSONEncoder
from tailrace.wire.openai import OpenAIChunks
from tailrace.wire.sse import SSE
from tailrace.wire.text import Text
from tests.wire.cases import (
    CREATED,
    ENTRIES,
    EPOCH,
    EVENT_NAMES,
    JSON_DATA,
    STREAM,
    TAGS,
    at,
    entry,
    read,
    spell,
    tagged,
)

WIRES: list[Wire] = [*DEFAULT_WIRES, OpenAIChunks()]

NOTICES = [
    (DONE, Frame({}, "done", at(1))),
    (Outcome("done", "length", "long"), Frame({"code": "length", "message": "long"}, "done", at(1))),
    (Outcome("error", "quota", "no more"), Frame({"code": "quota", "message": "no more"}, "error", at(1))),
    (Outcome("error"), Frame({}, "error", at(1))),
    (Outcome("cancelled", "stopped"), Frame({"code": "stopped"}, "cancelled", at(1))),
    (Reset("trimmed"), Frame({"reason": "trimmed"}, "reset", at(1))),
    (Farewell("slow", 250), Frame({"reason": "slow", "retry": 250}, "farewell", at(1), 250)),
    (Dropped(7), Frame({"count": 7}, "dropped", at(1))),
    (Degraded(True), Frame({"degraded": True}, "degraded", at(1))),
    (Degraded(False), Frame({"degraded": False}, "degraded", at(1))),
]


@pytest.mark.parametrize(("notice", "frame"), NOTICES)
def test_a_notice_and_its_frame_say_the_same(notice: Notice, frame: Frame) -> None:
    assert notice_frame(notice, at(1)) == frame
    assert read_notice(frame) == notice


# What str.splitlines takes for a line end and neither JSON nor text/event-stream does.
OTHER_LINE_ENDS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize("wire", [wire for wire in WIRES if not isinstance(wire, Text)])
def test_text_breaks_no_line(wire: Wire) -> None:
    encoder = wire.encoder(STREAM, EPOCH, CREATED)
    body = encoder.encode(Entries.of([entry(1, f"a{OTHER_LINE_ENDS}b"), entry(2, {OTHER_LINE_ENDS: 1}, "e")]))
    for state in ("done", "error", "cancelled"):
        outcome = Outcome(state, OTHER_LINE_ENDS, OTHER_LINE_ENDS, {OTHER_LINE_ENDS: [OTHER_LINE_ENDS]})
        body += encoder.notice(outcome, at(2))
        body += document(b"[1]", outcome, at(2)) + b"\n"
    lines = body.decode().splitlines(keepends=True)
    assert len(lines) >= 3
    assert all(line.endswith("\n") for line in lines)


@pytest.mark.parametrize("name", [None, "tick", "Done", "message"])
def test_an_application_s_event_is_no_notice(name: str | None) -> None:
    assert read_notice(Frame({"reason": "trimmed"}, name)) is None


def test_an_error_that_another_server_numbers_is_read_as_text() -> None:
    assert read_notice(Frame({"code": 429, "message": ["slow", "down"]}, "error")) == Outcome(
        "error", "429", "['slow', 'down']"
    )


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(None, "done"), "expected an object as data of 'done', but got None"),
        (Frame("over", "error"), "expected an object as data of 'error', but got 'over'"),
        (Frame([], "reset"), "expected an object as data of 'reset', but got []"),
        (Frame({}, "reset"), "expected 'reason' in the data of 'reset', but got {}"),
        (Frame({"reason": "slow"}, "farewell"), "expected 'retry' in the data of 'farewell', but got "),
        (Frame({"reason": "slow", "retry": "1"}, "farewell"), "expected 'retry' to be a whole number, but got '1'"),
        (Frame({"reason": "slow", "retry": 1.5}, "farewell"), "expected 'retry' to be a whole number, but got 1.5"),
        (Frame({"count": True}, "dropped"), "expected 'count' to be a whole number, but got True"),
    ],
)
def test_a_malformed_notice_is_a_decode_error(frame: Frame, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)):
        read_notice(frame)


@given(
    JSON_DATA,
    st.none() | EVENT_NAMES,
    st.none() | st.text(st.characters(codec="utf-8")),
    st.none() | st.integers(0, 2**53),
)
def test_every_frame_is_read_back_from_its_members(
    data: Any, event: str | None, id: str | None, retry: int | None
) -> None:
    frame = Frame(data, event, id, retry)
    assert read_members(from_json(frame_members(frame))) == frame


def test_members_without_a_value_are_left_out_except_data() -> None:
    assert frame_members(Frame(None)) == b'{"data":null}'
    assert frame_members(Frame(1, "tick", "c", 5)) == b'{"id":"c","event":"tick","data":1,"retry":5}'


@pytest.mark.parametrize("value", [None, 1, "data", [], ["data"], {}, {"event": "tick"}])
def test_what_has_no_data_is_no_frame(value: Any) -> None:
    with pytest.raises(DecodeError, match='expected an object with "data", but got '):
        read_members(value)


@pytest.mark.parametrize(
    "members", [{"id": 5}, {"event": []}, {"event": {"a": 1}}, {"event": 0}, {"retry": "5"}, {"retry": True}]
)
def test_members_of_a_wrong_type_are_a_decode_error(members: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match='expected "event" and "id" to be strings and "retry" a whole number'):
        read_members({"data": 1, **members})


def test_an_unknown_member_is_passed_over() -> None:
    assert read_members({"data": 1, "later": "version"}) == Frame(1)


ANY_VALUES: list[tuple[Any, Frame]] = [
    (1, Frame(1)),
    ({"data": 1}, Frame({"data": 1})),
    ({"id": 1, "data": 2}, Frame({"id": 1, "data": 2})),
    ({"id": "chat-1", "data": 2}, Frame({"id": "chat-1", "data": 2})),
    ({"id": at(1), "data": 2}, Frame(2, None, at(1))),
    ({"id": f"{at(1)}~Ab3d", "event": "tick", "data": 2}, Frame(2, "tick", f"{at(1)}~Ab3d")),
    ({"id": f"{at(1)}~a", "data": 2}, Frame({"id": f"{at(1)}~a", "data": 2})),
    ({"id": at(1), "event": 5, "data": 2}, Frame({"id": at(1), "event": 5, "data": 2})),
    ({"id": at(1), "type": "chunk"}, Frame({"id": at(1), "type": "chunk"}, None, at(1))),
    ({"id": at(1), "type": "done"}, Frame({"id": at(1), "type": "done"}, "done", at(1))),
    ({"id": at(1), "type": ["done"]}, Frame({"id": at(1), "type": ["done"]}, None, at(1))),
]


@pytest.mark.parametrize(("value", "frame"), ANY_VALUES)
def test_a_cursor_as_the_id_makes_an_object_an_envelope_or_an_event(value: Any, frame: Frame) -> None:
    assert read_any(value) == frame


def test_a_batch_is_encoded_once_for_the_readers_that_are_handed_it() -> None:
    encoder = NDJSONEncoder(STREAM, EPOCH)
    batch = Entries(range(1, 4), [b"1", b"2", b"3"])
    body = encoder.encode_shared(batch)
    assert body == encoder.encode(batch)
    assert encoder.encode_shared(batch) is body


def test_a_batch_keeps_the_bytes_of_few_wires() -> None:
    batch = Entries.of([entry(1, 1)])
    encoders = [NDJSONEncoder(STREAM, EPOCH) for _ in range(3 * SHARED_BODIES)]
    bodies = [encoder.encode_shared(batch) for encoder in encoders]
    assert len(set(bodies)) == 1
    assert len(batch.bodies) == SHARED_BODIES


def test_each_batch_is_encoded_as_itself() -> None:
    encoder = NDJSONEncoder(STREAM, EPOCH)
    batches = [Entries.of([entry(1, 1)]), Entries.of([entry(2, 2)]), Entries.of([entry(2, 2), entry(4, 4)])]
    for batch in [*batches, *batches]:
        assert encoder.encode_shared(batch) == encoder.encode(batch)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: type(wire).__name__)
@given(rows=ENTRIES)
def test_a_batch_is_spelled_as_its_entries_one_by_one(wire: Wire, rows: list[Any]) -> None:
    encoder = wire.encoder(STREAM, EPOCH, CREATED)
    separator = b"" if wire.streaming else b","
    assert encoder.encode(Entries.of(rows)) == separator.join(spell(encoder, [row]) for row in rows)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: type(wire).__name__)
@given(rows=ENTRIES, draw=st.data())
def test_a_replay_of_a_log_with_tags_equals_the_live_stream(wire: Wire, rows: list[Entry], draw: st.DataObject) -> None:
    encoder = wire.encoder(STREAM, EPOCH, CREATED)
    tags = [draw.draw(TAGS) for _ in rows]
    whole = tagged(rows, *tags)
    separator = b"" if wire.streaming else b","
    live = separator.join(encoder.encode(whole[index : index + 1]) for index in range(len(rows)))
    assert encoder.encode(whole) == live
    if isinstance(wire, SSE | NDJSON):
        cursors = [str(Cursor(STREAM, EPOCH, row.offset, tag=tag)) for row, tag in zip(rows, tags, strict=True)]
        assert [frame.id for frame in read(wire.decoder(), [live])] == cursors
    else:
        assert live == encoder.encode(Entries.of(rows))


OBJECTS = [
    entry(1, {"type": "a"}),
    entry(2, {"type": "b"}, REASONING),
    entry(3, {"type": "c"}),
    entry(4, {"type": "d"}),
]


@pytest.mark.parametrize("reasoning", [False, True])
def test_the_objects_of_a_chat_have_tags_in_their_cursors(reasoning: bool) -> None:
    whole = tagged(OBJECTS, "aaaa", "bbbb", "cccc", "dddd")
    shown = [row for row in OBJECTS if reasoning or row.event is None]
    cursors = [f"{at(row.offset)}~{'_abcd'[row.offset] * 4}" for row in shown]
    for wire in STREAMS[reasoning]:
        encoder = wire.encoder(STREAM, EPOCH, CREATED)
        live = [encoder.encode(whole[index : index + 1]) for index in range(len(OBJECTS))]
        assert encoder.encode(whole) == b"".join(piece for piece in live if piece != encoder.ping)
        decoder = NDJSONDecoder(strict=False) if isinstance(wire, NDJSON) else wire.decoder()
        assert [frame.id for frame in read(decoder, live)] == cursors


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: type(wire).__name__)
def test_only_after_an_error_a_body_is_not_whole(wire: Wire) -> None:
    encoder = wire.encoder(STREAM, EPOCH, CREATED)
    whole = [encoder.is_whole(outcome) for outcome in (DONE, Outcome("cancelled"), Outcome("error"))]
    assert whole == [True, True, False]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: type(wire).__name__)
def test_no_entries_are_no_bytes(wire: Wire) -> None:
    assert wire.encoder(STREAM, EPOCH, CREATED).encode(Entries((), ())) == b""


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: type(wire).__name__)
def test_no_bytes_are_no_frames(wire: Wire) -> None:
    assert wire.decoder().feed(b"") == []


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: type(wire).__name__)
def test_a_wire_s_content_type_is_its_media_type_and_says_how_items_look(wire: Wire) -> None:
    assert wire.content_type.partition(";")[0] == wire.media_type
    assert wire.item_schema({"type": "integer"})


class Lines(Wire):
    """The least that a wire has to be."""

    media_type = "text/x-lines"
    content_type = "text/x-lines"

    def encoder(self, stream: str, epoch: str, created: int) -> Encoder:
        return NDJSONEncoder(stream, epoch)

    def decoder(self, *, max_bytes: int = 0) -> Decoder:
        return Nothing()


class Nothing(Decoder):
    def feed(self, data: bytes) -> list[Frame]:
        return []


def test_a_wire_of_one_s_own_streams_has_no_aliases_and_needs_no_end() -> None:
    wire = Lines()
    assert wire.streaming
    assert wire.aliases == ()
    assert wire.item_schema({"type": "integer"}) == {"itemSchema": {"type": "integer"}}
    assert wire.encoder(STREAM, EPOCH, CREATED).preamble == b""
    assert wire.decoder().feed(b"1\n") == wire.decoder().close() == []
