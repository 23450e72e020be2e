from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from tailrace.errors import DecodeError, FrameTooLarge, Truncated
from tailrace.events import DONE, Degraded, Dropped, Entries, Entry, Farewell, Notice, Outcome, Reset
from tailrace.wire.base import Frame, read_notice
from tailrace.wire.openai import OpenAIChunks, is_unfinished, read_failure
from tests.serving import serving
from tests.wire.cases import CREATED, ENTRIES, EPOCH, STREAM, WAYS, at, entry, read, read_until_error, spell, splits

WIRE = OpenAIChunks("demo")
END = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-s1", "object": "chat.completion.chunk", "created": CREATED, "model": "demo"}
    return {**head, "choices": [choice]}


def failure(message: str, code: str | None) -> dict[str, Any]:
    return {"message": message, "type": "server_error", "param": None, "code": code}


def data(value: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def body(said: Sequence[Entry | Notice]) -> bytes:
    encoder = WIRE.encoder(STREAM, EPOCH, CREATED)
    return encoder.preamble + spell(encoder, said)


TOOL_CALL = {
    "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "dive", "arguments": ""}}]
}
START = chunk({"role": "assistant", "content": ""})
STOP = chunk({}, "stop")

# What was said after the preamble, and the JSON of the events; the last frame where it is no chunk.
CASES: dict[str, tuple[Sequence[Entry | Notice], list[Any], Frame | None]] = {
    "text": (
        [entry(1, "Hel"), entry(2, "lo é😀\n"), DONE],
        [chunk({"content": "Hel"}), chunk({"content": "lo é😀\n"}), STOP],
        Frame({}, "done"),
    ),
    "a dict is a delta": ([entry(1, TOOL_CALL), DONE], [chunk(TOOL_CALL), STOP], Frame({}, "done")),
    "other data is text": (
        [entry(1, 7), entry(2, [1, None]), entry(3, None), DONE],
        [chunk({"content": "7"}), chunk({"content": "[1,null]"}), chunk({"content": "null"}), STOP],
        Frame({}, "done"),
    ),
    "names have no place": ([entry(1, "a", "tick"), DONE], [chunk({"content": "a"}), STOP], Frame({}, "done")),
    "nothing": ([DONE], [STOP], Frame({}, "done")),
    "stopped on request": (
        [entry(1, "a"), Outcome("cancelled", "stopped")],
        [chunk({"content": "a"}), STOP],
        Frame({}, "done"),
    ),
    "an error": (
        [entry(1, "a"), Outcome("error", "quota", "no\nmore")],
        [chunk({"content": "a"}), {"error": failure("no\nmore", "quota")}],
        Frame(failure("no\nmore", "quota"), "error"),
    ),
    "an error without a word": (
        [Outcome("error")],
        [{"error": failure("error", None)}],
        Frame(failure("error", None), "error"),
    ),
    "a shutdown": (
        [Outcome("cancelled", "shutdown", "the server shut down")],
        [{"error": failure("the server shut down", "shutdown")}],
        Frame(failure("the server shut down", "shutdown"), "error"),
    ),
    "a reset": (
        [Reset("trimmed")],
        [{"error": failure("the stream cannot be continued: trimmed", "stream_reset")}],
        Frame(failure("the stream cannot be continued: trimmed", "stream_reset"), "error"),
    ),
    "a farewell": (
        [entry(1, "a"), Farewell("slow", 250)],
        [
            chunk({"content": "a"}),
            {"error": failure("the server ended the connection before the answer: slow", "slow")},
        ],
        Frame(failure("the server ended the connection before the answer: slow", "slow"), "error"),
    ),
}


def spelled(events: Sequence[Any]) -> bytes:
    return b"".join(map(data, [START, *events])) + (END if events[-1] is STOP else b"")


@pytest.mark.parametrize(("said", "events", "last"), CASES.values(), ids=CASES)
def test_what_a_log_says_is_spelled_as_chunks(said: Sequence[Any], events: list[Any], last: Frame | None) -> None:
    assert body(said) == spelled(events)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("said", "events", "last"), CASES.values(), ids=CASES)
def test_chunks_are_read(said: Sequence[Any], events: list[Any], last: Frame | None, way: Any) -> None:
    chunks = [Frame(event) for event in [START, *events] if "choices" in event]
    assert read(WIRE.decoder(), way(body(said))) == [*chunks, last]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("garbage", [b"\0", b"data: cut", b"data: {}\n\n", b"data: not JSON\n\n", b"\xff\n\n", END])
@pytest.mark.parametrize(("said", "events", "last"), CASES.values(), ids=CASES)
def test_nothing_counts_after_the_end(
    said: Sequence[Any], events: list[Any], last: Frame | None, garbage: bytes, way: Any
) -> None:
    assert read(WIRE.decoder(), way(body(said) + garbage))[-1] == last


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("said", [[], [entry(1, "a")], [entry(1, "a"), Dropped(2), Degraded(True)]])
def test_bytes_that_stop_before_done_are_truncated(said: Sequence[Any], way: Any) -> None:
    frames, error = read_until_error(WIRE.decoder(), way(body(said)))
    assert len(frames) == 1 + sum(isinstance(item, Entry) for item in said)
    assert isinstance(error, Truncated)
    assert str(error) == "expected data: [DONE] before the end, but the bytes stopped"


def test_a_finished_answer_without_done_is_truncated_too() -> None:
    whole = body([entry(1, "a"), DONE])
    for length in range(len(whole) - 1):
        _, error = read_until_error(WIRE.decoder(), [whole[:length]])
        assert isinstance(error, Truncated), length


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b"<html>", "expected a chunk of JSON, but got '<html>'"),
        (b'{"id":', "expected a chunk of JSON, but got "),
        (b"[1]", "expected a chunk to be an object, but got '[1]'"),
        (b"null", "expected a chunk to be an object, but got 'null'"),
        (b"[DONE", "expected a chunk of JSON, but got '[DONE'"),
    ],
)
def test_what_is_no_chunk_is_a_decode_error(event: bytes, message: str, way: Any) -> None:
    _, error = read_until_error(WIRE.decoder(), way(b"data: %b\n\n" % event))
    assert type(error) is DecodeError
    assert re.match(re.escape(message), str(error))


def test_an_error_s_notice_can_be_read() -> None:
    last = read(WIRE.decoder(), [body([Outcome("error", "quota", "no more")])])[-1]
    assert read_notice(last) == Outcome("error", "quota", "no more")


def test_other_servers_errors_are_read() -> None:
    decoder = WIRE.decoder()
    assert decoder.feed(b'data: {"choices":[],"error":null}\n\n') == [Frame({"choices": [], "error": None})]
    assert decoder.feed(b'data: {"error":"overloaded"}\n\n') == [Frame({"message": "overloaded"}, "error")]
    assert decoder.close() == []


def test_the_bound_holds_for_chunks_too() -> None:
    with pytest.raises(FrameTooLarge):
        WIRE.decoder(max_bytes=16).feed(b"data: " + b"x" * 16)


@given(ENTRIES, st.data())
def test_id_created_and_model_are_the_same_throughout_at_any_splits(rows: list[Entry], draw: st.DataObject) -> None:
    frames = read(WIRE.decoder(), draw.draw(splits(body([*rows, DONE]))))
    assert frames.pop() == Frame({}, "done")
    assert len(frames) == len(rows) + 2
    heads = {tuple(frame.data[key] for key in ("id", "object", "created", "model")) for frame in frames}
    assert heads == {("chatcmpl-s1", "chat.completion.chunk", CREATED, "demo")}
    for row, frame in zip(rows, frames[1:], strict=False):
        delta = frame.data["choices"][0]["delta"]
        assert delta == (row.data if isinstance(row.data, dict) else {"content": delta["content"]})
        if not isinstance(row.data, dict):
            assert delta["content"] == (row.data if isinstance(row.data, str) else row.json.decode())


@given(ENTRIES)
def test_every_chunk_has_the_api_s_shape(rows: list[Entry]) -> None:
    texts = [row for row in rows if not isinstance(row.data, dict)]
    for frame in read(WIRE.decoder(), [body([*texts, DONE])])[:-1]:
        assert ChatCompletionChunk.model_validate(frame.data, strict=True).choices[0].index == 0


def test_a_later_reader_s_chunks_are_those_of_the_first() -> None:
    first, later = (WIRE.encoder(STREAM, EPOCH, CREATED) for _ in range(2))
    batch = Entries(range(3, 5), [b'"c"', b'"d"'])
    assert later.preamble == first.preamble == data(START)
    assert later.encode(batch) == first.encode(batch)


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (Frame({"error": {"message": "no more", "code": "quota", "type": "t"}}), Outcome("error", "quota", "no more")),
        (Frame({"error": {"message": "no more", "type": "t"}}), Outcome("error", "t", "no more")),
        (Frame({"error": {"code": 429}}), Outcome("error", "429")),
        (Frame({"error": {}}), Outcome("error")),
        (Frame({"error": "no more"}), None),
        (Frame({"error": {}, "id": 1}), None),
        (Frame({"error": {}}, None, at(1)), None),
        (Frame({"choices": []}), None),
        (Frame("error"), None),
        (None, None),
    ],
)
def test_a_last_event_that_is_only_an_error_is_the_stream_s_failure(
    last: Frame | None, outcome: Outcome | None
) -> None:
    assert read_failure(last) == outcome


@pytest.mark.parametrize(
    ("last", "unfinished"),
    [
        (Frame(chunk({"content": "a"})), True),
        (Frame(chunk({}, "stop")), False),
        (Frame({**chunk({}), "choices": []}), False),
        (Frame({**chunk({}), "choices": {"index": 0}}), False),
        (Frame({**chunk({}), "choices": ["a"]}), False),
        (Frame({**chunk({}), "object": "list"}), False),
        (Frame({**chunk({}), "choices": [{"index": 0}, {"index": 1, "finish_reason": "stop"}]}), False),
        (Frame("a"), False),
        (None, False),
    ],
)
def test_after_a_chunk_without_a_finish_reason_others_must_follow(last: Frame | None, unfinished: bool) -> None:
    assert is_unfinished(last) is unfinished


def test_there_are_no_ids_no_names_and_no_delays() -> None:
    everything = (
        body([entry(1, "a", "tick"), Dropped(1), Degraded(True), DONE]) + WIRE.encoder(STREAM, EPOCH, CREATED).ping
    )
    assert {line.partition(b":")[0] for line in everything.split(b"\n")} == {b"data", b""}


def test_the_schema_is_that_of_an_event() -> None:
    assert WIRE.item_schema({})["itemSchema"]["properties"] == {"data": {"type": "string"}}


# The vendor's own client, over a socket


async def completion(said: Sequence[bytes]) -> tuple[list[ChatCompletionChunk], openai.APIError | None]:
    """What the SDK makes of a body that comes in these pieces: the chunks before an error, and the error."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/v1/chat/completions"
        headers = [(b"content-type", WIRE.content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in said:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    chunks: list[ChatCompletionChunk] = []
    async with (
        serving(app, lifespan="off") as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        try:
            async for received in stream:
                chunks.append(received)  # noqa: PERF401 -- those before an error count
        except openai.APIError as error:
            return chunks, error
    return chunks, None


def content(chunks: Sequence[ChatCompletionChunk]) -> str:
    return "".join(received.choices[0].delta.content or "" for received in chunks)


async def test_the_openai_sdk_reads_text() -> None:
    chunks, error = await completion([body([entry(1, "Hel"), entry(2, "lo é😀\n"), DONE])])
    assert error is None
    assert content(chunks) == "Hello é😀\n"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {received.choices[0].finish_reason for received in chunks[:-1]} == {None}
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {(received.id, received.created, received.model) for received in chunks} == {
        ("chatcmpl-s1", CREATED, "demo")
    }


async def test_the_openai_sdk_reads_tool_calls() -> None:
    arguments = {"tool_calls": [{"index": 0, "function": {"arguments": '{"depth":3}'}}]}
    chunks, error = await completion([body([entry(1, TOOL_CALL), entry(2, arguments), DONE])])
    assert error is None
    calls = [call for received in chunks for call in received.choices[0].delta.tool_calls or []]
    functions = [call.function for call in calls if call.function is not None]
    assert calls[0].id == "call_1"
    assert functions[0].name == "dive"
    assert "".join(function.arguments or "" for function in functions) == '{"depth":3}'


@pytest.mark.parametrize(
    ("end", "message", "code"),
    [
        (Outcome("error", "quota", "no more"), "no more", "quota"),
        (Outcome("error"), "error", None),
        (Outcome("cancelled", "shutdown", "the server shut down"), "the server shut down", "shutdown"),
        (Farewell("shutdown", 250), "the server ended the connection before the answer: shutdown", "shutdown"),
        (Reset("trimmed"), "the stream cannot be continued: trimmed", "stream_reset"),
    ],
)
async def test_the_openai_sdk_raises_where_an_answer_is_not_whole(end: Notice, message: str, code: str | None) -> None:
    chunks, error = await completion([body([entry(1, "Hel"), end])])
    assert content(chunks) == "Hel"
    assert error is not None
    assert (error.message, error.code, error.type) == (message, code, "server_error")


async def test_pings_and_comments_do_not_disturb_the_openai_sdk() -> None:
    encoder = WIRE.encoder(STREAM, EPOCH, CREATED)
    pieces = [encoder.preamble, encoder.encode(Entries.of([entry(1, "a")])), encoder.notice(Dropped(2), at(3))]
    pieces += [encoder.notice(Degraded(True), at(3)), encoder.notice(Degraded(False), at(3))]
    pieces += [encoder.encode(Entries.of([entry(4, "b")])), encoder.notice(DONE, at(4))]
    ping = encoder.ping
    chunks, error = await completion([ping, ping, *(part for piece in pieces for part in (piece, ping, ping))])
    assert error is None
    assert content(chunks) == "ab"
    assert len(chunks) == 4


async def test_the_openai_sdk_reads_chunks_cut_anywhere() -> None:
    whole = body([entry(1, "é😀"), DONE])
    chunks, error = await completion([whole[index : index + 7] for index in range(0, len(whole), 7)])
    assert error is None
    assert content(chunks) == "é😀"
