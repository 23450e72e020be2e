"""Sessions: begun, listed, shown in pages, emptied and deleted."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tailrace.chat.models.base import Message
from tests.chat.api.talking import Chat, Hold, Scripted, begun, body, chatting, lines, text, within


async def test_a_new_session_is_empty(tmp_path: Path) -> None:
    async with chatting(tmp_path) as chat:
        made = await chat.post("/sessions/new")
        assert str(UUID(made["session_id"])) == made["session_id"]
        assert (made["title"], made["message_count"], made["stream_id"]) == ("", 0, None)
        assert datetime.fromisoformat(made["created"]).utcoffset() is not None
        assert (await chat.get("/sessions"))["sessions"] == [made]
        details = await chat.get(f"/sessions/{made['session_id']}")
        assert (details["messages"], details["earlier"], details["model"]) == ([], None, "demo")
        assert {name: details[name] for name in made} == made


async def test_a_session_keeps_the_conversation_and_sends_it_each_time(tmp_path: Path) -> None:
    model = Scripted("An answer.")
    async with chatting(tmp_path, model) as chat:
        [info, *_, first] = await chat.say("First question\nwith a second line")
        session_id = info["session_id"]
        [_, status, *_, second] = await chat.say("Second question", session_id)
        assert (first["message_count"], second["message_count"]) == (2, 4)
        assert status["context_messages"] == 3
        assert status["message"] == "Generating response… (3 messages in context)"
        [elsewhere, *_] = await chat.say("Elsewhere")
        assert elsewhere["session_id"] != session_id
        details = await chat.get(f"/sessions/{session_id}")
    assert model.asked == [
        [Message("user", "First question\nwith a second line")],
        [
            Message("user", "First question\nwith a second line"),
            Message("assistant", "An answer."),
            Message("user", "Second question"),
        ],
        [Message("user", "Elsewhere")],
    ]
    assert details["title"] == "First question"
    assert details["message_count"] == 4
    assert [(each["role"], each["text"]) for each in details["messages"]] == [
        ("user", "First question\nwith a second line"),
        ("assistant", "An answer."),
        ("user", "Second question"),
        ("assistant", "An answer."),
    ]
    user, reply, *_ = details["messages"]
    assert (user["state"], user["stream_id"]) == (None, info["stream_id"])
    assert (reply["state"], reply["stream_id"], reply["model"]) == ("complete", info["stream_id"], "scripted")
    assert (reply["total_chunks"], reply["error"]) == (first["total_chunks"], None)
    assert reply["processing_time"] == first["processing_time"]
    assert reply["timestamp"] >= user["timestamp"]
    assert details["updated"] > details["created"]


@pytest.mark.parametrize("session_id", ["abc123", "a", "A-b_9", "x" * 64])
async def test_an_unknown_id_begins_that_session(tmp_path: Path, session_id: str) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        for turn in (1, 2):
            [info, *_, complete] = await chat.say("Hello", session_id)
            assert info["session_id"] == complete["session_id"] == session_id
            assert complete["message_count"] == 2 * turn
        assert (await chat.get(f"/sessions/{session_id}"))["title"] == "Hello"
        assert (await chat.get("/sessions"))["total"] == (await chat.get("/stats"))["sessions_created"] == 1
        await chat.delete(f"/sessions/{session_id}")
        assert (await chat.say("Again", session_id))[-1]["message_count"] == 2


async def test_two_messages_that_begin_the_same_session_at_once_are_one_session(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        sent = {"message": "Hello", "session_id": "abc123"}
        answers = await asyncio.gather(*(chat.http.post("/chat/stream", json=sent) for _ in range(6)))
        answered = [answer.status_code for answer in answers].count(200)
        assert answered >= 1
        assert all(answer.status_code == 200 or answer.json()["code"] == "session_busy" for answer in answers)
        assert (await chat.get("/sessions/abc123"))["message_count"] == 2 * answered
        assert (await chat.get("/stats"))["sessions_created"] == 1


async def test_sessions_on_demand_can_be_turned_off(tmp_path: Path) -> None:
    model = Scripted()
    async with chatting(tmp_path, model, sessions_on_demand=False) as chat:
        refusal = await chat.post("/chat/stream", 404, json={"message": "Hello", "session_id": "abc123"})
        assert refusal["code"] == "session_not_found"
        [info, *_] = await chat.say("Hello")
        assert (await chat.say("Hello", info["session_id"]))[-1]["message_count"] == 4
        assert (await chat.get("/sessions"))["total"] == 1
    assert len(model.asked) == 2


async def test_sessions_are_listed_in_pages_the_last_used_first(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        made = [(await chat.post("/sessions/new"))["session_id"] for _ in range(5)]
        await chat.say("Hello", made[1])
        expected = [made[1], made[4], made[3], made[2], made[0]]
        got: list[str] = []
        token = None
        for size in (2, 2, 1):
            page = await chat.get("/sessions", params={"limit": 2, **({"after": token} if token else {})})
            assert page["total"] == 5
            assert len(page["sessions"]) == size
            got += [each["session_id"] for each in page["sessions"]]
            token = page["next"]
        assert got == expected
        assert token is None
        for limit in ("0", "201", "many"):
            await chat.get("/sessions", 422, params={"limit": limit})


async def test_history_is_read_in_pages_from_the_newest(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        for number in range(5):
            await chat.say(f"Question {number}", session_id)
        pages: list[list[str]] = []
        token: str | None = None
        while not pages or token is not None:
            page = await chat.get(
                f"/sessions/{session_id}", params={"limit": 2, **({"before": token} if token else {})}
            )
            pages.append([each["text"] for each in page["messages"] if each["role"] == "user"])
            token = page["earlier"]
        assert pages == [["Question 3", "Question 4"], ["Question 1", "Question 2"], ["Question 0"]]


@pytest.mark.parametrize("token", ["x", "!", "é", "AAAA"])
async def test_a_token_that_no_page_gave_is_refused(tmp_path: Path, token: str) -> None:
    async with chatting(tmp_path) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        for path, name in (("/sessions", "after"), (f"/sessions/{session_id}", "before")):
            refusal = await chat.get(path, 404, params={name: token})
            assert refusal["code"] == "bad_page"


async def test_a_session_is_emptied(tmp_path: Path) -> None:
    model = Scripted()
    async with chatting(tmp_path, model) as chat:
        [info, *_] = await chat.say("Hello")
        session_id = info["session_id"]
        cleared = await chat.post(f"/sessions/{session_id}/clear")
        assert (cleared["session_id"], cleared["message_count"], cleared["title"]) == (session_id, 0, "")
        assert (await chat.get(f"/sessions/{session_id}"))["messages"] == []
        await chat.get(f"/chat/stream/{info['stream_id']}", 404)
        [_, status, *_, complete] = await chat.say("Again", session_id)
        assert (status["context_messages"], complete["message_count"]) == (1, 2)
        assert (await chat.get(f"/sessions/{session_id}"))["title"] == "Again"
    assert model.asked[1] == [Message("user", "Again")]


async def test_a_session_is_deleted(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        [info, *_] = await chat.say("Hello")
        session_id = info["session_id"]
        assert await chat.delete(f"/sessions/{session_id}") == {"session_id": session_id, "deleted": True}
        assert (await chat.get("/sessions")) == {"sessions": [], "total": 0, "next": None}
        await chat.get(f"/chat/stream/{info['stream_id']}", 404)
        await _expect_unknown(chat, session_id)


async def test_an_unknown_session_is_not_found_and_a_malformed_id_is_none(tmp_path: Path) -> None:
    async with chatting(tmp_path) as chat:
        await _expect_unknown(chat, str(uuid4()))
        for malformed in ("a b", "ü", "x" * 65, "a.b", "~"):
            for call in _all_calls(malformed):
                refusal = await chat.http.request(**call)
                assert (refusal.status_code, refusal.json()["code"]) == (422, "invalid_request")
        for malformed in ("", "new", "a/b", "a\n"):
            sent = {"message": "Hello", "session_id": malformed}
            assert (await chat.post("/chat/stream", 422, json=sent))["code"] == "invalid_request"
        assert (await chat.get("/sessions"))["total"] == 0


def _all_calls(session_id: str) -> list[dict[str, Any]]:
    return [
        {"method": "GET", "url": f"/sessions/{session_id}"},
        {"method": "DELETE", "url": f"/sessions/{session_id}"},
        {"method": "POST", "url": f"/sessions/{session_id}/clear"},
        {
            "method": "POST",
            "url": "/chat/stream",
            "json": {**body("Hello", session_id), "create": False},
        },
    ]


async def _expect_unknown(chat: Chat, session_id: str) -> None:
    for call in _all_calls(session_id):
        refusal = await chat.http.request(**call)
        assert (refusal.status_code, refusal.json()["code"]) == (404, "session_not_found"), call
        assert session_id in refusal.json()["detail"]


@pytest.mark.parametrize("ending", ["clear", "delete"])
async def test_a_session_that_is_answering_is_stopped_first(tmp_path: Path, ending: str) -> None:
    held = Hold()
    model = Scripted("one ", held, "never")
    async with chatting(tmp_path, model) as chat, chat.saying("Hello") as reply:
        [info, *_] = await begun(reply)
        session_id = info["session_id"]
        [listed] = (await chat.get("/sessions"))["sessions"]
        assert listed["stream_id"] == info["stream_id"]
        if ending == "clear":
            assert (await chat.post(f"/sessions/{session_id}/clear"))["message_count"] == 0
            assert (await chat.get(f"/sessions/{session_id}"))["messages"] == []
        else:
            await chat.delete(f"/sessions/{session_id}")
            await chat.get(f"/sessions/{session_id}", 404)
        assert model.closed == 1
        assert lines(await reply.rest())[-1]["state"] == "stopped"
        assert (await chat.get("/health"))["active_streams"] == 0


async def test_a_session_is_deleted_while_messages_come(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted(held)) as chat:
        for _ in range(5):
            session_id = (await chat.post("/sessions/new"))["session_id"]
            sent = {"message": "Hello", "session_id": session_id, "create": False}
            asking = asyncio.create_task(chat.http.post("/chat/stream", json=sent))
            await chat.delete(f"/sessions/{session_id}")
            answer = await asking
            if answer.status_code == 200:
                assert lines(answer.content)[-1]["state"] == "stopped"
            else:
                assert answer.status_code == 404
        assert (await chat.health(active_streams=0))["status"] == "healthy"
        assert (await chat.get("/sessions"))["total"] == 0


async def test_sessions_survive_a_restart(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("kept")) as chat:
        [info, *_] = await chat.say("Hello")
        before = await chat.get(f"/sessions/{info['session_id']}")
    model = Scripted()
    async with chatting(tmp_path, model) as chat:
        assert await chat.get(f"/sessions/{info['session_id']}") == before
        await chat.say("Again", info["session_id"])
    assert [each.text for each in model.asked[0]] == ["Hello", "kept", "Again"]


# What of a conversation the model is sent


async def test_a_context_of_so_many_messages(tmp_path: Path) -> None:
    model = Scripted("answer")
    async with chatting(tmp_path, model, context_messages=4) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        statuses = [(await chat.say(f"q{number}", session_id))[1] for number in range(4)]
    assert [(each["context_messages"], each["dropped_messages"]) for each in statuses] == [
        (1, 0),
        (3, 0),
        (3, 2),
        (3, 4),
    ]
    assert statuses[3]["message"] == "Generating response… (3 messages in context; the 4 oldest did not fit)"
    assert [each.text for each in model.asked[3]] == ["q2", "answer", "q3"]


async def test_a_context_of_so_many_characters(tmp_path: Path) -> None:
    model = Scripted("a" * 30)
    async with chatting(tmp_path, model, context_characters=100) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        for number in range(4):
            *_, complete = await chat.say(f"question {number}", session_id)
        [_, status, *_] = await chat.say("a question that is too long for any other beside it" * 2, session_id)
    assert complete["message_count"] == 8
    assert [len(each) for each in model.asked] == [1, 3, 5, 5, 1]
    assert status["dropped_messages"] == 8


async def test_a_reply_without_text_is_not_sent_to_the_model(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted(held, "answer")
    async with chatting(tmp_path, model) as chat:
        async with chat.saying("First") as reply:
            [info, _] = await begun(reply, '"status"')
            await within(held.reached)
            await chat.post(f"/chat/stream/{info['stream_id']}/stop")
        held.release.set()
        assert text(await chat.say("Second", info["session_id"])) == "answer"
    assert model.asked[1] == [Message("user", "First"), Message("user", "Second")]


async def test_a_session_is_renamed_and_keeps_its_name(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        path = f"/sessions/{session_id}"
        renamed = await chat.patch(path, json={"title": "  Logs and cursors 🪵 "})
        assert (renamed["session_id"], renamed["title"]) == (session_id, "Logs and cursors 🪵")
        await chat.say("A first message", session_id)
        assert (await chat.get(path))["title"] == "Logs and cursors 🪵"
        assert (await chat.post(f"{path}/clear"))["title"] == "Logs and cursors 🪵"
        await chat.patch(path, json={"title": "x" * 200})
        assert [each["title"] for each in (await chat.get("/sessions"))["sessions"]] == ["x" * 200]
        assert (await chat.patch(f"/sessions/{uuid4()}", 404, json={"title": "x"}))["code"] == "session_not_found"


@pytest.mark.parametrize(
    "title", ["", "  ", "x" * 201, "two\nlines", "\x1b[31mred", "a\u2028b", "a\x85b", "\ud800", None, 1]
)
async def test_a_title_that_is_none_is_refused(tmp_path: Path, title: object) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        sent = {"content": json.dumps({"title": title}), "headers": {"Content-Type": "application/json"}}
        refusal = await chat.patch(f"/sessions/{session_id}", 422, **sent)
        assert refusal["code"] == "invalid_request"
        assert (await chat.get(f"/sessions/{session_id}"))["title"] == ""


async def test_sessions_are_searched(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("An Answer about Äpfel.")) as chat:
        made = [(await chat.say(message))[0]["session_id"] for message in ("Pears", "100 %", "Plums")]
        await chat.patch(f"/sessions/{made[0]}", json={"title": "Fruit"})
        for q, found in {
            "pEAR": [0],
            "fruit": [0],
            " äPFEL ": [2, 1, 0],
            "0 %": [1],
            "%": [1],
            "_": [],
            "\0": [],
        }.items():
            page = await chat.get("/sessions", params={"q": q})
            assert [each["session_id"] for each in page["sessions"]] == [made[each] for each in found], q
            assert (page["total"], page["next"]) == (None, None)
        first = await chat.get("/sessions", params={"q": "answer", "limit": 2})
        rest = await chat.get("/sessions", params={"q": "answer", "limit": 2, "after": first["next"]})
        assert [each["session_id"] for each in first["sessions"] + rest["sessions"]] == made[::-1]
        assert (await chat.get("/sessions", params={"q": " "}))["total"] == 3
        await chat.get("/sessions", 422, params={"q": "x" * 201})
        await chat.get("/sessions", 404, params={"q": "x", "after": "x"})
