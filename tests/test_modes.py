from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from tailrace.errors import NotAcceptable
from tailrace.modes import (
    DEFAULT_WIRES,
    MAX_ACCEPT,
    MAX_RANGES,
    Accept,
    ResponseMode,
    choose_wire,
    detect_mode,
    negotiate,
    stream_flag,
)
from tailrace.wire.base import Wire
from tailrace.wire.batch import Batch
from tailrace.wire.ndjson import NDJSON
from tailrace.wire.openai import OpenAIChunks
from tailrace.wire.sse import SSE
from tailrace.wire.text import Text

BATCH, STREAM = ResponseMode.BATCH, ResponseMode.STREAM


def request(*accept: str, query: str = "") -> Request:
    headers = [(b"accept", line.encode("latin-1")) for line in accept]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": query.encode()})


ACCEPTS: list[tuple[str | None, type[Wire]]] = [
    # Who leaves the choice gets the first wire.
    (None, Batch),
    ("", Batch),
    (" ", Batch),
    ("*/*", Batch),
    ("*/*;q=0.1", Batch),
    # One media type.
    ("application/json", Batch),
    ("text/event-stream", SSE),
    ("application/x-ndjson", NDJSON),
    ("text/plain", Text),
    # Media types by other names.
    ("application/ndjson", NDJSON),
    ("application/jsonl", NDJSON),
    ("application/x-jsonlines", NDJSON),
    # Spelling.
    ("TEXT/Event-Stream", SSE),
    ("  text/event-stream ; charset=utf-8", SSE),
    ("text/event-stream;charset=utf-8;q=0.5,", SSE),
    ("text/event-stream; Q=0.5, application/json; q = 0.4", SSE),
    # Quality.
    ("application/json;q=0.9, text/event-stream;q=0.8", Batch),
    ("application/json;q=0.8, text/event-stream;q=0.9", SSE),
    ("application/json;q=0.8, text/plain;q=0.801", Text),
    ("application/json;q=0, text/event-stream;q=0.001", SSE),
    ("text/event-stream;q=1.000, application/json;q=0.999", SSE),
    ("application/json;q=0.5, application/x-ndjson", NDJSON),
    # Wildcards: the most specific range decides on a media type's quality.
    ("text/*", SSE),
    ("application/*", Batch),
    ("text/*, application/json;q=0.5", SSE),
    ("text/event-stream, */*", SSE),
    ("text/event-stream;q=0.5, */*", Batch),
    ("*/*, application/json;q=0", SSE),
    ("*/*, application/json;q=0, text/*;q=0.5", NDJSON),
    ("text/*;q=0.9, text/event-stream;q=0.1", Text),
    ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", Batch),
    ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", Batch),
    # Ties: who names a stream beside a document can read the stream; then the order of the wires counts.
    ("application/json, text/event-stream", SSE),
    ("text/event-stream, application/json", SSE),
    ("application/json, application/x-ndjson", NDJSON),
    ("text/plain, application/x-ndjson, text/event-stream", SSE),
    ("text/*, application/*", Batch),
    # Malformed elements are passed over; a malformed quality is none at all.
    ("garbage, text/event-stream", SSE),
    (",,;q=1,text/event-stream,", SSE),
    ("/, text/, /plain, application/json", Batch),
    ("text/event-stream;q=high, application/json;q=0.1", Batch),
    ("text/event-stream;q=nan, application/json;q=0.1", Batch),
    ("text/event-stream;q=, application/json;q=0.1", Batch),
    ("text/event-stream;q=-1, application/json;q=0.1", Batch),
    ("text/event-stream;q=7, application/json;q=0.9", SSE),
    ("text/event-stream;q=1e-1, application/json;q=0.09", SSE),
]

UNACCEPTABLE = [
    "image/png",
    "text/html",
    "application/json;q=0",
    "*/*;q=0",
    "text/event-stream;q=nan",
    "garbage",
    ",",
    "*/json",
    "*",
    "\xff/\xfe",
]


@pytest.mark.parametrize(("accept", "wire"), ACCEPTS)
def test_accept_chooses_the_wire(accept: str | None, wire: type[Wire]) -> None:
    assert type(negotiate(accept, None, DEFAULT_WIRES)) is wire


@pytest.mark.parametrize("accept", UNACCEPTABLE)
def test_what_no_wire_satisfies_is_refused_with_the_list(accept: str) -> None:
    expected = "one of application/json, text/event-stream, application/x-ndjson, text/plain, but got "
    with pytest.raises(NotAcceptable, match=re.escape(expected + repr(accept))):
        negotiate(accept, None, DEFAULT_WIRES)


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/event-stream;q=0", *UNACCEPTABLE])
def test_asking_for_a_stream_beats_an_accept_without_one(accept: str | None) -> None:
    assert type(negotiate(accept, True, DEFAULT_WIRES)) is SSE


@pytest.mark.parametrize("accept", [None, "*/*", "text/event-stream", "application/json;q=0", *UNACCEPTABLE])
def test_asking_for_no_stream_beats_any_accept(accept: str | None) -> None:
    assert type(negotiate(accept, False, DEFAULT_WIRES)) is Batch


@pytest.mark.parametrize(
    ("accept", "wire"),
    [
        ("application/x-ndjson", NDJSON),
        ("application/json, text/plain;q=0.5", Text),
        ("text/plain, application/x-ndjson;q=0.9", Text),
        ("application/*", NDJSON),
    ],
)
def test_accept_chooses_among_the_streams_that_were_asked_for(accept: str, wire: type[Wire]) -> None:
    assert type(negotiate(accept, True, DEFAULT_WIRES)) is wire


def test_a_mode_that_no_wire_offers_leaves_the_choice_to_accept() -> None:
    assert type(negotiate("text/plain", False, [SSE(), Text()])) is Text
    assert type(negotiate(None, True, [Batch()])) is Batch
    with pytest.raises(NotAcceptable):
        negotiate("application/json", False, [SSE()])


def test_the_first_wire_is_for_clients_that_leave_the_choice() -> None:
    assert type(negotiate(None, None, [NDJSON(), Batch(), SSE()])) is NDJSON
    assert type(negotiate("*/*", None, [Text(), SSE()])) is Text
    assert type(negotiate("text/event-stream", None, [OpenAIChunks(), SSE()])) is OpenAIChunks


@pytest.mark.parametrize("accept", [accept for accept, _ in ACCEPTS])
@pytest.mark.parametrize("stream", [None, True, False])
def test_the_very_wires_that_are_offered_are_chosen_from(accept: str | None, stream: bool | None) -> None:
    assert negotiate(accept, stream, DEFAULT_WIRES) in DEFAULT_WIRES


# Requests


@pytest.mark.parametrize(("accept", "wire"), ACCEPTS)
def test_a_request_is_in_the_mode_of_its_wire(accept: str | None, wire: type[Wire]) -> None:
    headers = [] if accept is None else [accept]
    assert detect_mode(request(*headers)) is (STREAM if wire.streaming else BATCH)


@pytest.mark.parametrize("accept", UNACCEPTABLE)
def test_a_request_that_accepts_neither_mode_is_a_batch(accept: str) -> None:
    assert detect_mode(request(accept)) is BATCH


@pytest.mark.parametrize("flag", ["true", "True", "TRUE", "1", "yes", "on"])
@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html"])
def test_stream_in_the_query_beats_the_header(accept: str, flag: str) -> None:
    assert detect_mode(request(accept, query=f"stream={flag}")) is STREAM


@pytest.mark.parametrize("flag", ["false", "False", "0", "no", "off"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_no_stream_in_the_query_beats_the_header(accept: str, flag: str) -> None:
    assert detect_mode(request(accept, query=f"stream={flag}")) is BATCH


@pytest.mark.parametrize("query", ["", "stream", "stream=", "stream=maybe", "stream=2", "streams=true", "Stream=true"])
def test_any_other_query_leaves_the_choice_to_accept(query: str) -> None:
    assert detect_mode(request("text/event-stream", query=query)) is STREAM
    assert detect_mode(request(query=query)) is BATCH


def test_the_last_of_several_flags_counts() -> None:
    assert detect_mode(request(query="stream=true&stream=false")) is BATCH
    assert detect_mode(request(query="stream=false&stream=true")) is STREAM


def test_accept_may_come_in_several_lines() -> None:
    assert detect_mode(request("application/json;q=0.5", "text/event-stream")) is STREAM
    assert detect_mode(request("text/event-stream;q=0.5", "application/json")) is BATCH


@pytest.mark.parametrize(("accept", "wire"), ACCEPTS)
def test_a_request_has_the_wire_of_its_accept_header(accept: str | None, wire: type[Wire]) -> None:
    headers = [] if accept is None else [accept]
    assert type(choose_wire(request(*headers), DEFAULT_WIRES)) is wire


@pytest.mark.parametrize(
    ("accept", "query", "wire"),
    [
        ([], "", NDJSON),
        (["*/*"], "", NDJSON),
        (["application/json"], "", Batch),
        (["application/json"], "stream=true", NDJSON),
        (["text/event-stream"], "stream=true", SSE),
        (["text/event-stream"], "stream=false", Batch),
        (["application/json;q=0.5", "text/event-stream"], "", SSE),
    ],
)
def test_a_request_chooses_among_the_wires_it_is_offered(accept: list[str], query: str, wire: type[Wire]) -> None:
    wires = [NDJSON(), SSE(), Batch()]
    chosen = choose_wire(request(*accept, query=query), wires)
    assert type(chosen) is wire
    assert chosen in wires


def test_a_request_that_no_wire_fits_is_told_which_there_are() -> None:
    with pytest.raises(NotAcceptable) as refusal:
        choose_wire(request("text/plain"), [NDJSON(), Batch()])
    assert refusal.value.accept == "text/plain"
    assert refusal.value.available == ("application/x-ndjson", "application/json")


def test_modes_are_strings() -> None:
    assert [str(mode) for mode in ResponseMode] == ["batch", "stream"]
    assert f"{ResponseMode('stream')}" == "stream"


@pytest.mark.parametrize(
    ("value", "choice"),
    [(None, None), ("", None), ("tRuE", True), ("oN", True), ("OFF", False), ("t", None), (" true", None)],
)
def test_a_flag_is_a_choice_or_none(value: str | None, choice: bool | None) -> None:
    assert stream_flag(value) is choice


@pytest.mark.parametrize(
    ("accept", "matches"),
    [
        (None, {"a/b": (0, 1.0)}),
        ("  ", {"a/b": (0, 1.0)}),
        ("text/plain", {"text/plain": (2, 1.0), "text/html": (-1, 0.0)}),
        ("A/B;q=0.5;x=1 , */*;x=1;q=0", {"a/b": (2, 0.5), "a/c": (0, 0.0)}),
        ("a/*;q=0.3, */*;q=0.2", {"a/b": (1, 0.3), "c/d": (0, 0.2)}),
        ("a, a/, /b, a/b", {"a/b": (2, 1.0), "a/c": (-1, 0.0)}),
        ("a/b;q=2, a/c;q=-2, a/d;q=x", {"a/b": (2, 1.0), "a/c": (2, 0.0), "a/d": (2, 0.0)}),
        ("a/b;q=0.1, a/b;q=0.5, a/b;q=0.2", {"a/b": (2, 0.5)}),
    ],
)
def test_an_accept_header_gives_a_media_type_its_quality(
    accept: str | None, matches: dict[str, tuple[int, float]]
) -> None:
    ranges = Accept(accept)
    assert {media_type: ranges.match(media_type) for media_type in matches} == matches


@given(st.text(st.sampled_from("ab/*;,=q01.- \xff"), max_size=40))
def test_any_accept_header_has_a_wire_or_is_refused(accept: str) -> None:
    assert 0 <= Accept(accept).match("a/b")[1] <= 1
    try:
        assert negotiate(accept, None, DEFAULT_WIRES) in DEFAULT_WIRES
    except NotAcceptable:
        assert accept.strip()


@pytest.mark.parametrize("part", ["a/b,", "*/*,", "a/b;q=1,", ";", "a/b;q=0.1;q=0.2,", "text/event-stream,", ",", "/"])
def test_what_a_header_has_beyond_the_bounds_is_ignored(part: str) -> None:
    within = (part * MAX_ACCEPT)[:MAX_ACCEPT]
    first = ",".join(within.split(",")[:MAX_RANGES])
    assert Accept(part * (1 << 20))._qualities == Accept(within)._qualities == Accept(first)._qualities


def test_a_range_beyond_the_bounds_is_not_found() -> None:
    known = ["text/event-stream"]
    assert detect_mode(request(",".join(["a/b"] * (MAX_RANGES - 1) + known))) is STREAM
    assert detect_mode(request(",".join(["a/b"] * MAX_RANGES + known))) is BATCH
    assert detect_mode(request(" " * MAX_ACCEPT + "text/event-stream")) is BATCH


def test_a_document_wins_over_a_stream_that_only_goes_by_its_name() -> None:
    batch, chunks = Batch(), OpenAIChunks()
    assert negotiate("application/json", None, [batch, chunks]) is batch
    assert negotiate("application/json", None, [chunks]) is chunks
    assert negotiate("text/event-stream, application/json", None, [batch, chunks]) is chunks


@pytest.mark.parametrize("accept", ["application/json, text/plain, */*", "text/plain, application/json"])
def test_text_beside_json_is_said_by_habit_and_asks_for_no_stream(accept: str) -> None:
    assert detect_mode(request(accept)) is BATCH
    assert isinstance(negotiate(accept, None, DEFAULT_WIRES), Batch)
    assert isinstance(negotiate("text/plain", None, DEFAULT_WIRES), Text)
