"""A reply: on every wire, resumed, stopped and failed."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tailrace import StreamError
from tailrace.chat.models.base import ModelError, Reasoning, Usage
from tailrace.client import tail
from tests.chat.api.talking import JSON, SSE, Chat, Hold, Scripted, begun, body, chatting, lines, text, within
from tests.raw import BOUND, exchange, frames

TEXT = "one two three"
TYPES = ["session_info", "status", "chunk", "chunk", "chunk", "chunk", "complete"]


# Wires


async def test_a_reply_is_lines_of_json_by_default(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat, chat.saying("Hello") as reply:
        objects = lines(await reply.rest())
    assert reply.status == 200
    assert reply.whole
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.headers["cache-control"].startswith("no-cache")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.headers.get("connection") != "close"
    assert [each["type"] for each in objects] == TYPES
    info, status, *chunks, complete = objects
    assert info["model"] == "scripted"
    assert str(UUID(info["session_id"])) == info["session_id"]
    assert status["context_messages"] == 1
    assert status["message"] == "Generating response… (1 message in context)"
    assert [each["chunk_number"] for each in chunks] == [1, 2, 3, 4]
    assert [each["is_final"] for each in chunks] == [False, False, False, True]
    assert text(objects) == TEXT
    assert complete["total_chunks"] == len(chunks)
    assert complete["message_count"] == 2
    assert complete["session_id"] == info["session_id"]
    assert complete["state"] == "complete"
    assert 0 <= complete["processing_time"] < BOUND
    moments = [datetime.fromisoformat(each["timestamp"]) for each in objects]
    assert all(moment.utcoffset() is not None for moment in moments)
    assert moments == sorted(moments)
    assert [each["id"].split(".")[0] for each in objects] == [info["stream_id"]] * len(objects)
    assert len({each["id"] for each in objects}) == len(objects)


async def test_a_response_says_where_it_is_resumed_and_stopped(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat, chat.saying("Hello") as reply:
        info, *_ = lines(await reply.rest())
        path = reply.headers["content-location"]
        assert path == f"/chat/stream/{info['stream_id']}"
        assert reply.headers["link"] == f'<{path}/stop>; rel="stop"'
        assert reply.headers["tailrace-cursor"] == info["id"].removesuffix("1") + "0"


@pytest.mark.parametrize(("query", "asked"), [("", SSE), ("?stream=true", SSE), ("?stream=1", {**SSE, **JSON})])
async def test_a_reply_is_server_sent_events_for_who_accepts_those(
    tmp_path: Path, query: str, asked: dict[str, str]
) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        answer = await chat.http.post(f"/chat/stream{query}", json=body("Hello", None), headers=SSE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *objects, done = frames(answer.content)
    assert [each.data["type"] for each in objects] == TYPES[:-1]
    assert all(each.event is None and each.id and "timestamp" in each.data for each in objects)
    assert (done.event, done.data["data"]["type"]) == ("done", "complete")
    assert str(done.id).endswith(".end")


@pytest.mark.parametrize(("query", "accept"), [("", JSON), ("?stream=false", {}), ("?stream=false", SSE)])
async def test_a_reply_is_one_document_for_who_wants_that(tmp_path: Path, query: str, accept: dict[str, str]) -> None:
    model = Scripted("one ", "two ", "three", Usage(3, 5))
    async with chatting(tmp_path, model) as chat:
        answer = await chat.http.post(f"/chat/stream{query}", json=body("Hello", None), headers=accept)
        document = answer.json()
        streamed = await chat.read(document["stream_id"])
        stored = await chat.replies(document["session_id"])
    assert answer.headers["content-type"] == "application/json"
    assert document["text"] == TEXT == text(streamed)
    assert stored == [(TEXT, "complete")]
    assert document["data"] == streamed
    info, status, *_, complete = streamed
    assert {name: document[name] for name in ("session_id", "stream_id", "model")} == {
        name: info[name] for name in ("session_id", "stream_id", "model")
    }
    for name in ("total_chunks", "processing_time", "message_count", "state"):
        assert document[name] == complete[name]
    assert document["context_messages"] == status["context_messages"]


async def test_stream_true_beats_an_accept_that_names_a_document(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        answer = await chat.http.post("/chat/stream?stream=true", json=body("Hello", None), headers=JSON)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [each["type"] for each in lines(answer.content)] == TYPES


async def test_what_nobody_can_spell_is_refused_before_the_model_is_asked(tmp_path: Path) -> None:
    model = Scripted()
    async with chatting(tmp_path, model) as chat:
        refusal = await chat.post("/chat/stream", 406, json=body("Hello", None), headers={"Accept": "image/png"})
        assert refusal["code"] == "not_acceptable"
        assert (await chat.get("/sessions"))["total"] == 0
    assert not model.asked


async def test_chunks_come_as_the_model_writes_them(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("early", held, "late")) as chat, chat.saying("Hello") as reply:
        assert text(await begun(reply)) == "early"
        held.release.set()
        assert text(lines(await reply.rest())) == "late"


async def test_text_of_any_script_arrives_as_it_is(tmp_path: Path) -> None:
    pieces = ("日本\n", 'a "quote" \\ ', "👩‍👩‍👧 ", "\u2028</script>", "\0\x1b[31m")
    async with chatting(tmp_path, Scripted(*pieces)) as chat:
        objects = await chat.say("naïve 👋")
        [(stored, _)] = await chat.replies(objects[0]["session_id"])
    assert text(objects) == "".join(pieces)
    assert stored == "".join(pieces).replace("\0", "\N{REPLACEMENT CHARACTER}")  # which databases refuse


# Reading on


async def test_from_every_cursor_the_rest_follows_without_gap_or_duplicate(tmp_path: Path) -> None:
    async with chatting(tmp_path) as chat:
        whole = await chat.say("Hello")
        stream_id = whole[0]["stream_id"]
        before = str(whole[0]["id"]).removesuffix("1") + "0"
        assert await chat.read(stream_id) == whole
        for number, cursor in enumerate([before, *(each["id"] for each in whole[:-1])]):
            assert await chat.read(stream_id, cursor) == whole[number:]


async def test_a_reader_who_comes_in_the_middle_gets_history_and_then_what_comes(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held, "two")) as chat, chat.saying("Hello") as first:
        early = await begun(first)
        stream_id, cursor = early[0]["stream_id"], early[1]["id"]
        async with chat.reading(stream_id) as second, chat.reading(stream_id, cursor) as third:
            assert await begun(second) == early
            assert await begun(third) == early[2:]
            held.release.set()
            late = [lines(await each.rest()) for each in (first, second, third)]
        assert late[0] == late[1] == late[2]
        assert text(early + late[0]) == "one two"


async def test_a_reader_who_leaves_does_not_stop_the_model(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held, "two")) as chat:
        async with chat.saying("Hello") as reply:
            early = await begun(reply)
        assert (await chat.health(active_connections=0))["active_streams"] == 1
        held.release.set()
        late = await chat.read(early[0]["stream_id"], early[-1]["id"])
        assert text(early + late) == "one two"
        assert late[-1]["state"] == "complete"
        assert await chat.replies(early[0]["session_id"]) == [("one two", "complete")]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_cursor_in_a_header_beats_the_one_in_the_address(tmp_path: Path, method: str) -> None:
    model = Scripted()
    async with chatting(tmp_path, model) as chat:
        whole = await chat.say("Hello")
        path = "/chat/stream" + (f"/{whole[0]['stream_id']}" if method == "GET" else "")
        answer = await chat.http.request(
            method,
            path,
            params={"after": whole[0]["id"]},
            headers={"Last-Event-ID": whole[3]["id"]},
            json=body("Hello", None),
        )
        assert lines(answer.content) == whole[4:]
    assert len(model.asked) == 1


@pytest.mark.parametrize("accept", [{}, SSE, JSON], ids=["lines", "events", "document"])
async def test_who_has_the_end_gets_nothing_more(tmp_path: Path, accept: dict[str, str]) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        answer = await chat.http.post("/chat/stream", json=body("Hello", None), headers=accept)
        end = str(frames(answer.content)[-1].id) if accept is SSE else lines(answer.content)[-1].get("id")
        end = end or answer.json()["data"][-1]["id"]
        assert end.endswith(".end")
        path = f"/chat/stream/{end.split('.')[0]}"
        for asked in (
            await chat.http.get(path, headers={**accept, "Last-Event-ID": end}),
            await chat.http.get(path, params={"after": end}, headers=accept),
            await chat.http.post("/chat/stream", params={"after": end}, json=body("Hello", None), headers=accept),
        ):
            assert (asked.status_code, asked.content) == (204, b"")


@pytest.mark.parametrize("stopped", [False, True])
async def test_the_last_line_has_the_cursor_of_the_end(tmp_path: Path, stopped: bool) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat, chat.saying("Hello") as reply:
        *_, newest = await begun(reply)
        stream_id = newest["id"].split(".")[0]
        async with chat.reading(stream_id, newest["id"]) as reading:
            assert reading.status == 200  # it goes on
            if stopped:
                await chat.post(f"/chat/stream/{stream_id}/stop")
            else:
                held.release.set()
            final, complete = lines(await reading.rest())
        assert (final["type"], complete["type"]) == ("chunk", "complete")
        assert complete["state"] == ("stopped" if stopped else "complete")
        assert complete["id"] == f"{final['id']}.end"
        # Who has only the final chunk lacks the end, on every wire.
        assert await chat.read(stream_id, final["id"]) == [complete]
        events = await chat.http.get(f"/chat/stream/{stream_id}", params={"after": final["id"]}, headers=SSE)
        [done] = frames(events.content)
        assert (done.event, done.id, done.data["data"]) == ("done", complete["id"], without_id(complete))
        other = complete["id"].removesuffix(".end").replace(".", ".x", 1)
        assert [each["type"] for each in await chat.read(stream_id, other)] == ["reset"]


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_any_client_sees_the_end_and_its_value(tmp_path: Path, accept: str) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        [info, *_] = whole = await chat.say("Hello")
        url = f"{chat.url}/chat/stream/{info['stream_id']}"
        async with tail(url, headers={"accept": accept}) as events:
            objects = [event.data async for event in events]
        assert text(objects) == text(whole)
        assert events.outcome is not None
        assert events.outcome.state == "done"
        assert without_id(events.outcome.data) == without_id(whole[-1])


async def test_reasoning_is_for_those_who_ask(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted(Reasoning("hm "), held, Reasoning("yes"), "one ", "two")
    async with chatting(tmp_path, model) as chat:
        sent = chat.http.post("/chat/stream?reasoning=true", json=body("Hello", None))
        asking = asyncio.create_task(sent)
        await within(held.reached)
        [session] = (await chat.get("/sessions"))["sessions"]
        path = f"/chat/stream/{session['stream_id']}"
        plain = asyncio.create_task(chat.http.get(path))
        events = asyncio.create_task(chat.http.get(path, params={"reasoning": True}, headers=SSE))
        held.release.set()
        objects = lines((await asking).content)
        thoughts = [each for each in objects if each["type"] == "reasoning"]
        assert [each["text"] for each in thoughts] == ["hm ", "yes"]
        assert all("timestamp" in each and each["id"] for each in thoughts)
        assert [each["type"] for each in objects].index("chunk") == 4
        assert text(objects) == "one two"
        assert lines((await plain).content) == [each for each in objects if each["type"] != "reasoning"]
        *shown, _ = frames((await events).content)
        assert [each.data for each in shown] == [without_id(each) for each in objects[:-1]]
        # To continue, everybody uses the same cursors.
        after = {"after": thoughts[0]["id"]}
        assert lines((await chat.http.get(path, params={**after, "reasoning": True})).content) == objects[3:]
        assert lines((await chat.http.get(path, params=after)).content) == objects[4:]
        document = await chat.get(path, headers=JSON)
        assert document["data"] == lines((await plain).content)
        assert document["text"] == "one two"
        with_thoughts = await chat.get(path, params={"reasoning": True}, headers=JSON)
        assert with_thoughts["data"] == objects
        assert await chat.replies(session["session_id"]) == [("one two", "complete")]
        await chat.say("Again", session["session_id"])
    assert [each.text for each in model.asked[1]] == ["Hello", "one two", "Again"]


@pytest.mark.parametrize("path", ["/chat/stream", "/chat/stream/{id}"])
@pytest.mark.parametrize("accept", [SSE, JSON])
async def test_a_cursor_that_is_none_is_refused(tmp_path: Path, path: str, accept: dict[str, str]) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        [info, *_] = await chat.say("Hello")
        method, sent = ("GET", None) if "{" in path else ("POST", body("Hello", None))
        answer = await chat.http.request(
            method, path.format(id=info["stream_id"]), params={"after": "no cursor"}, json=sent, headers=accept
        )
        assert answer.status_code == 400
        assert answer.json()["code"] == "bad_cursor"


async def test_a_cursor_of_another_stream_or_from_the_future_is_reset(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        first, second = await chat.say("Hello"), await chat.say("Hello")
        stream_id, epoch, _ = first[0]["id"].split(".")
        for cursor, reason in ((second[2]["id"], "epoch_changed"), (f"{stream_id}.{epoch}.99", "ahead")):
            [reset] = await chat.read(stream_id, cursor)
            assert (reset["type"], reset["reason"]) == ("reset", reason)
            assert await chat.read(stream_id, reset["id"]) == first


async def test_a_stream_that_nobody_has_is_not_found(tmp_path: Path) -> None:
    nowhere = "A" * 22
    async with chatting(tmp_path) as chat:
        for refusal in (
            await chat.get(f"/chat/stream/{nowhere}", 404),
            await chat.post(f"/chat/stream/{nowhere}/stop", 404),
            await chat.post(f"/chat/stream?after={nowhere}.epoch.3", 404, json=body("Hello", None)),
        ):
            assert refusal["code"] == "stream_not_found"
            assert nowhere in refusal["detail"]
        for no_id in ("tooshort", "A" * 21 + "%00", "A" * 22 + "%0A"):
            assert (await chat.get(f"/chat/stream/{no_id}", 404))["code"] == "stream_not_found"


def without_id(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


async def _forget(chat: Chat, stream_id: str) -> None:
    engine = chat.app.state.tailrace_engine
    log = await engine.find(f"/chat/stream/{stream_id}")
    assert log is not None
    await engine.forget(log)


async def test_a_stream_that_was_forgotten_is_made_again(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        whole = await chat.say("Hello")
        stream_id = whole[0]["stream_id"]
        await _forget(chat, stream_id)
        # Both at once: there must be one stream of that id.
        first, second = await asyncio.gather(chat.read(stream_id), chat.read(stream_id))
        assert first == second
        assert [each["type"] for each in first] == ["session_info", "status", "chunk", "complete"]
        assert text(first) == TEXT
        assert first[2]["is_final"]
        assert first[-1]["total_chunks"] == 1
        assert first[-1]["state"] == "complete"
        [reset] = await chat.read(stream_id, whole[3]["id"])
        assert (reset["type"], reset["reason"]) == ("reset", "epoch_changed")
        assert await chat.read(stream_id, reset["id"]) == first
        document = await chat.get(f"/chat/stream/{stream_id}", headers=JSON)
        assert (document["text"], document["total_chunks"]) == (TEXT, 1)


async def test_a_stream_is_read_after_a_restart_of_the_server(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("part", ModelError("it broke", code="model_error"))) as chat:
        with pytest.raises(httpx.RemoteProtocolError):
            await chat.say("Hello", key="failed")
        [session] = (await chat.get("/sessions"))["sessions"]
    async with chatting(tmp_path, Scripted()) as chat:
        good = await chat.say("Hello")
    model = Scripted("never")
    async with chatting(tmp_path, model) as chat:
        [reset] = await chat.read(good[0]["stream_id"], good[2]["id"])
        assert reset["reason"] == "epoch_changed"
        assert text(await chat.read(good[0]["stream_id"], reset["id"])) == TEXT
        history = await chat.get(f"/sessions/{session['session_id']}")
        async with chat.reading(history["messages"][1]["stream_id"]) as reply:
            *objects, error = lines(await reply.rest())
        assert not reply.whole
        assert (error["type"], error["code"], error["message"]) == ("error", "model_error", "it broke")
        assert text(objects) == "part"
        assert not objects[-1]["is_final"]
    assert not model.asked


# Stopping


async def test_a_stop_ends_the_model_and_keeps_what_it_wrote(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted("one ", held, "never")
    async with chatting(tmp_path, model) as chat, chat.saying("Hello") as reply:
        early = await begun(reply)
        info = early[0]
        stopped = await chat.post(f"/chat/stream/{info['stream_id']}/stop")
        assert stopped == {"stream_id": info["stream_id"], "session_id": info["session_id"], "state": "stopped"}
        assert model.closed == 1
        final, complete = lines(await reply.rest())
        assert reply.whole
        assert (final["type"], final["text"], final["is_final"]) == ("chunk", "", True)
        assert (complete["type"], complete["state"], complete["total_chunks"]) == ("complete", "stopped", 2)
        assert await chat.replies(info["session_id"]) == [("one ", "stopped")]
        # Again, and of one that ended by itself.
        assert await chat.post(f"/chat/stream/{info['stream_id']}/stop") == stopped
        held.release.set()
        whole = await chat.say("Go on", info["session_id"])
        assert (await chat.post(f"/chat/stream/{whole[0]['stream_id']}/stop"))["state"] == "complete"
    assert [each.text for each in model.asked[1]] == ["Hello", "one ", "Go on"]


async def test_a_stop_before_the_first_word_is_a_reply_without_text(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted(held, "never")) as chat, chat.saying("Hello") as reply:
        [info, _] = await begun(reply, '"status"')
        await within(held.reached)
        await chat.post(f"/chat/stream/{info['stream_id']}/stop")
        final, complete = lines(await reply.rest())
        assert (final["chunk_number"], final["is_final"], complete["state"]) == (1, True, "stopped")
        assert await chat.replies(info["session_id"]) == [("", "stopped")]
        await _forget(chat, info["stream_id"])
        assert [each["type"] for each in await chat.read(info["stream_id"])][2:] == ["chunk", "complete"]


async def test_a_stopped_reply_is_a_whole_document_and_a_clean_end_of_events(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat:
        asking = asyncio.create_task(chat.post("/chat/stream", json=body("Hello", None), headers=JSON))
        await within(held.reached)
        [session] = (await chat.get("/sessions"))["sessions"]
        stream_id = session["stream_id"]
        events = asyncio.create_task(chat.http.get(f"/chat/stream/{stream_id}", headers=SSE))
        await chat.post(f"/chat/stream/{stream_id}/stop")
        document = await asking
        assert (document["text"], document["state"]) == ("one ", "stopped")
        *_, done = frames((await events).content)
        assert (done.event, done.data["data"]["state"]) == ("done", "stopped")


async def test_a_model_that_fails_because_it_is_stopped_has_been_stopped(tmp_path: Path) -> None:
    class Rude(Scripted):
        async def reply(self, conversation):  # type: ignore[no-untyped-def]
            yield "one "
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ModelError("the connection was closed", code="model_unavailable") from None

    async with chatting(tmp_path, Rude()) as chat, chat.saying("Hello") as reply:
        [info, *_] = await begun(reply)
        assert (await chat.post(f"/chat/stream/{info['stream_id']}/stop"))["state"] == "stopped"
        assert lines(await reply.rest())[-1]["state"] == "stopped"


# One reply at a time, and no question twice


async def test_a_session_that_is_answering_names_the_stream(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat, chat.saying("Hello") as reply:
        [info, *_] = await begun(reply)
        session_id = info["session_id"]
        busy = await chat.post("/chat/stream", 409, json=body("More", session_id))
        assert busy["code"] == "session_busy"
        assert (busy["session_id"], busy["stream_id"]) == (session_id, info["stream_id"])
        details = await chat.get(f"/sessions/{session_id}")
        assert details["stream_id"] == info["stream_id"]
        assert details["messages"][1]["state"] == "generating"
        other = asyncio.create_task(chat.say("Hello"))  # another session is not concerned
        held.release.set()
        assert (await other)[-1]["state"] == "complete"


async def test_of_two_messages_to_a_session_at_once_one_is_answered(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        asking = [asyncio.create_task(chat.http.post("/chat/stream", json=body("Hello", session_id))) for _ in range(5)]
        await within(held.reached)
        refused = [await each for each in islice(asyncio.as_completed(asking, timeout=BOUND), 4)]
        assert {each.status_code for each in refused} == {409}
        [answered] = [each for each in asking if not each.done()]
        [stream_id] = {each.json()["stream_id"] for each in refused}
        held.release.set()
        assert lines((await answered).content)[0]["stream_id"] == stream_id


async def test_a_post_that_is_repeated_gets_the_same_reply(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted("one ", held, "two")
    async with chatting(tmp_path, model) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        at_once = [asyncio.create_task(chat.say("Hello", session_id, key="k")) for _ in range(3)]
        new = [asyncio.create_task(chat.say("New", key="n")) for _ in range(2)]
        await within(held.reached)
        busy = await chat.post("/chat/stream", 409, json=body("Hello", session_id), headers={"Idempotency-Key": "x"})
        assert busy["code"] == "session_busy"
        other = {"Idempotency-Key": "k"}
        reused = await chat.post("/chat/stream", 409, json=body("Other", session_id), headers=other)
        assert reused["code"] == "idempotency_key_reused"
        held.release.set()
        first, *same = await asyncio.gather(*at_once)
        assert all(each == first for each in same)
        one, two = await asyncio.gather(*new)
        assert one == two
        # Afterwards, by who has learned the session and by who has not, and at the same time.
        assert await asyncio.gather(*(chat.say("Hello", session_id, key="k") for _ in range(3))) == [first] * 3
        assert await chat.say("New", key="n") == one
        assert await chat.say("New", one[0]["session_id"], key="n") == one
        for message, where in (("Other", session_id), ("Hello", one[0]["session_id"])):
            reused = await chat.post("/chat/stream", 409, json=body(message, where), headers=other)
            assert reused["code"] == "idempotency_key_reused"
        for wrong in ("", "k" * 256):
            await chat.post("/chat/stream", 422, json=body("Hello", None), headers={"Idempotency-Key": wrong})
    assert len(model.asked) == 2
    async with chatting(tmp_path, model) as chat:
        again = await chat.say("Hello", session_id, key="k")
        assert again[0]["stream_id"] == first[0]["stream_id"]
        assert text(again) == "one two"
    assert len(model.asked) == 2


async def test_an_old_key_gets_its_reply_while_its_session_answers_another_message(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted("one")
    async with chatting(tmp_path, model) as chat:
        first = await chat.say("First", "abc123", key="old")
        model.steps = ("two ", held)
        async with chat.saying("Second", "abc123", key="new") as reply:
            [info, *_] = await begun(reply)
            assert await chat.say("First", "abc123", key="old") == first
            for message, key, code in (
                ("Other", "old", "idempotency_key_reused"),
                ("Second", "old", "idempotency_key_reused"),
                ("First", "unknown", "session_busy"),
            ):
                refusal = await chat.post(
                    "/chat/stream", 409, json=body(message, "abc123"), headers={"Idempotency-Key": key}
                )
                assert refusal["code"] == code
            async with chat.saying("Second", "abc123", key="new") as same:
                assert (await begun(same))[0] == info
            held.release.set()
            await reply.rest()
    assert len(model.asked) == 2


async def test_a_key_of_a_post_that_failed_to_begin_can_be_used_again(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        nowhere = {**body("Hello", str(uuid4())), "create": False}
        asked = [chat.http.post("/chat/stream", json=nowhere, headers={"Idempotency-Key": "k"})]
        asked += [chat.http.post("/chat/stream", json=nowhere) for _ in range(3)]
        answers = await asyncio.gather(*asked)
        assert [each.status_code for each in answers] == [404] * 4
        assert {each.json()["code"] for each in answers} == {"session_not_found"}
        assert text(await chat.say("Hello", key="k")) == TEXT


# Failures


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (ModelError("too many", code="model_rate_limited"), "model_rate_limited", "too many"),
        (StreamError("odd", code="odd"), "odd", "odd"),
        (ValueError("secret: hunter2"), "internal_error", "Internal Server Error"),
    ],
)
@pytest.mark.parametrize("pieces", [(), ("one ", "two ")])
async def test_a_model_that_fails_is_an_error_that_breaks_the_body_off(
    tmp_path: Path, pieces: tuple[str, ...], failure: Exception, code: str, message: str
) -> None:
    async with chatting(tmp_path, Scripted(*pieces, failure)) as chat:
        async with chat.saying("Hello") as reply:
            content = await reply.rest()
        assert not reply.whole
        *objects, error = lines(content)
        assert reply.status == 200
        assert b"hunter2" not in content
        assert (error["type"], error["code"], error["message"]) == ("error", code, message)
        assert error["id"].endswith(".end")
        assert text(objects) == "".join(pieces)
        assert not any(each.get("is_final") for each in objects)
        session_id = objects[0]["session_id"]
        details = await chat.get(f"/sessions/{session_id}")
        assert details["messages"][1]["text"] == "".join(pieces)
        assert (details["messages"][1]["state"], details["messages"][1]["error"]) == ("failed", message)
        # A client who was there to the end has nothing to come back for.
        assert (
            await chat.http.get(reply.headers["content-location"], params={"after": error["id"]})
        ).status_code == 204
        document = await chat.http.post("/chat/stream", json=body("Hello", session_id), headers=JSON)
        assert document.status_code == {"internal_error": 500, "model_rate_limited": 503}.get(code, 502)
        failed = document.json()
        assert (failed["code"], failed["detail"]) == (code, message)
        assert text(failed["data"]) == "".join(pieces)
        assert failed["data"][0]["session_id"] == session_id


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("model_rate_limited", 503),
        ("model_unavailable", 503),
        ("context_too_long", 413),
        ("model_refused", 422),
        ("model_truncated", 502),
        ("storage_failed", 500),
    ],
)
async def test_a_document_has_the_status_of_its_failure(tmp_path: Path, code: str, status: int) -> None:
    async with chatting(tmp_path, Scripted("one ", ModelError("no", code=code))) as chat:
        failed = await chat.post("/chat/stream", status, json=body("Hello", None), headers=JSON)
        assert (failed["code"], text(failed["data"])) == (code, "one ")


async def test_an_unavailable_model_says_when_to_come_back(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(ModelError("away", code="model_unavailable"))) as chat:
        answer = await chat.http.post("/chat/stream", json=body("Hello", None), headers=JSON)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_reply_that_the_end_of_the_server_cuts_is_broken_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tailrace.chat.requests")
    async with chatting(tmp_path, Scripted("one ", Hold())) as chat, chat.saying("Hello") as reply:
        [info, *_] = early = await begun(reply)
        path = f"/chat/stream/{info['stream_id']}"
        async with exchange(chat.url, path, SSE) as events:
            await events.until(b'"is_final"')
            document = asyncio.create_task(chat.http.get(path, headers=JSON))
            await chat.health(active_connections=2)
            chat.app.state.tailrace_engine.drain(grace=0)
            [error] = lines(await reply.rest())
            [event] = frames(await events.rest())
            failed = await document
    assert not reply.whole
    assert not events.whole
    assert (error["type"], error["code"]) == ("error", "interrupted")
    assert error["id"] == f"{early[-1]['id']}.end"
    assert (event.event, event.id, event.data) == ("error", error["id"], without_id(error))
    assert (failed.status_code, failed.json()["code"], text(failed.json()["data"])) == (503, "interrupted", "one ")
    said = [record.getMessage() for record in caplog.records if record.name == "tailrace.chat.requests"]
    assert sorted(line.split(", ")[1] for line in said if "/chat/stream" in line) == [
        "broken off",
        "broken off",
        "complete",
    ]


async def test_a_model_that_says_nothing_has_failed(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(Usage(1, 0))) as chat, chat.saying("Hello") as reply:
        *objects, error = lines(await reply.rest())
        assert error["code"] == "model_empty"
        assert not reply.whole
        assert [each["type"] for each in objects] == ["session_info", "status"]


async def test_the_event_of_an_error_ends_its_stream(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one ", ModelError("broken", code="model_error"))) as chat:
        async with chat.saying("Hello", Accept="text/event-stream") as reply:
            *_, error = frames(await reply.rest())
        assert not reply.whole
        assert (error.event, error.data["code"]) == ("error", "model_error")
        assert error.data["type"] == "error"
