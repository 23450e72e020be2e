"""The last turn of a session, replaced: generated again, or edited."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tailrace.chat.models.base import Message, ModelError
from tests.chat.api.talking import Chat, Hold, Scripted, begun, body, chatting, headers, lines, text, within
from tests.raw import BOUND

REFUSE = """
    CREATE TRIGGER refuse BEFORE INSERT ON tailrace_turns BEGIN SELECT RAISE(ABORT, 'the test refuses this'); END
"""


async def replace(
    chat: Chat, message: str, session_id: str, replaced: str, status: int = 200, *, key: str | None = None
) -> Any:
    """The objects of the reply in the place of another, or the refusal."""
    sent = {"message": message, "session_id": session_id, "replace": replaced}
    answer = await chat.http.post("/chat/stream", json=sent, headers=headers(key))
    assert answer.status_code == status, answer.text
    return lines(answer.content) if status == 200 else answer.json()


async def test_the_last_turn_is_replaced(tmp_path: Path) -> None:
    model = Scripted("first")
    async with chatting(tmp_path, model) as chat:
        [one, *_] = await chat.say("One", "s")
        [two, *_] = await chat.say("Two", "s")
        model.steps = ("second",)
        [three, *_, complete] = await replace(chat, "Two, please", "s", two["stream_id"])
        assert complete["message_count"] == 4
        messages = (await chat.get("/sessions/s"))["messages"]
        assert [each["text"] for each in messages] == ["One", "first", "Two, please", "second"]
        assert [each["stream_id"] for each in messages] == [each["stream_id"] for each in (one, one, three, three)]
        assert (await chat.http.get(f"/chat/stream/{two['stream_id']}")).status_code == 404
    assert model.asked[2] == [Message("user", "One"), Message("assistant", "first"), Message("user", "Two, please")]


async def test_a_first_turn_gives_the_title_again_unless_the_session_was_renamed(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("an answer")) as chat:
        [one, *_] = await chat.say("One", "s")
        [two, *_] = await replace(chat, "Two", "s", one["stream_id"])
        assert (await chat.get("/sessions/s"))["title"] == "Two"
        await chat.patch("/sessions/s", json={"title": "Mine"})
        await replace(chat, "Three", "s", two["stream_id"])
        assert (await chat.get("/sessions/s"))["title"] == "Mine"


async def test_only_the_last_turn_is_replaced(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("an answer")) as chat:
        [one, *_] = await chat.say("One", "s")
        [two, *_] = await chat.say("Two", "s")
        [other, *_] = await chat.say("Elsewhere", "other")
        for stream_id in (one["stream_id"], other["stream_id"], "A" * 22, "", "x\0"):
            refusal = await replace(chat, "Three", "s", stream_id, 409)
            assert (refusal["code"], refusal["stream_id"]) == ("turn_not_last", two["stream_id"])
        await chat.post("/sessions/other/clear")
        refusal = await replace(chat, "Three", "other", other["stream_id"], 409)
        assert (refusal["code"], refusal["stream_id"]) == ("turn_not_last", None)
        assert (await replace(chat, "Three", "nowhere", two["stream_id"], 404))["code"] == "session_not_found"
        sent = {"message": "Three", "replace": two["stream_id"]}
        assert (await chat.post("/chat/stream", 422, json=sent))["code"] == "invalid_request"
        assert await chat.replies("s") == [("an answer", "complete")] * 2
        assert (await chat.get("/sessions"))["total"] == 2


async def test_a_reply_in_progress_is_not_replaced_before_it_is_stopped(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one", held)) as chat, chat.saying("Hello", "s") as reply:
        [info, *_] = await begun(reply)
        await within(held.reached)
        refusal = await replace(chat, "Hello", "s", info["stream_id"], 409)
        assert (refusal["code"], refusal["stream_id"]) == ("session_busy", info["stream_id"])
        await chat.post(f"/chat/stream/{info['stream_id']}/stop")
        assert await chat.replies("s") == [("one", "stopped")]
        held.release.set()
        [*_, complete] = await replace(chat, "Hello", "s", info["stream_id"])
        assert complete["message_count"] == 2
        assert await chat.replies("s") == [("one", "complete")]


async def test_of_several_replacements_at_once_one_happens(tmp_path: Path) -> None:
    model = Scripted("one")
    async with chatting(tmp_path, model) as chat:
        [info, *_] = await chat.say("Hello", "s")
        held = Hold()
        model.steps = ("two", held)
        sent = {"message": "Hello", "session_id": "s", "replace": info["stream_id"]}
        requests = [asyncio.create_task(chat.http.post("/chat/stream", json=sent)) for _ in range(6)]
        await within(held.reached)
        for answered in islice(asyncio.as_completed(requests, timeout=BOUND), 5):
            refused = await answered
            assert (refused.status_code, refused.json()["code"]) == (409, "session_busy")
        held.release.set()
        assert sorted(answer.status_code for answer in await asyncio.gather(*requests)) == [200, *[409] * 5]
        assert await chat.replies("s") == [("two", "complete")]
        assert len(model.asked) == 2


async def test_a_replacement_that_is_sent_again_happens_once(tmp_path: Path) -> None:
    model = Scripted("one")
    async with chatting(tmp_path, model) as chat:
        [info, *_] = await chat.say("Hello", "s", key="first")
        again = [await replace(chat, "Hello", "s", info["stream_id"], key="second") for _ in range(3)]
        assert len({each["stream_id"] for each, *_ in again}) == 1
        assert len(model.asked) == 2
        # The key names the message and what it replaced.
        elsewhere = again[0][0]["stream_id"]
        for message, replaced in (("Hi", info["stream_id"]), ("Hello", elsewhere)):
            refusal = await replace(chat, message, "s", replaced, 409, key="second")
            assert refusal["code"] == "idempotency_key_reused"
        refused = await chat.http.post("/chat/stream", json=body("Hello", "s"), headers=headers("second"))
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    async with chatting(tmp_path, model) as chat:
        [same, *_] = await replace(chat, "Hello", "s", info["stream_id"], key="second")
        assert same["stream_id"] == elsewhere
        assert len(model.asked) == 2


async def test_a_replacement_in_progress_is_joined_by_its_key(tmp_path: Path) -> None:
    model = Scripted("one")
    async with chatting(tmp_path, model) as chat:
        [info, *_] = await chat.say("Hello", "s")
        held = Hold()
        model.steps = ("two", held)
        sent = {"message": "Hello", "session_id": "s", "replace": info["stream_id"]}
        requests = [
            asyncio.create_task(chat.http.post("/chat/stream", json=sent, headers=headers("k"))) for _ in range(3)
        ]
        await within(held.reached)
        await chat.health(active_connections=3)
        held.release.set()
        answers = await asyncio.gather(*requests)
        assert {answer.status_code for answer in answers} == {200}
        assert len({lines(answer.content)[0]["stream_id"] for answer in answers}) == 1
        assert len(model.asked) == 2


@pytest.mark.parametrize("state", ["failed", "interrupted", "stopped"])
async def test_a_turn_that_ended_badly_is_replaced(tmp_path: Path, state: str) -> None:
    held = Hold()
    last = ModelError("no") if state == "failed" else held
    async with chatting(tmp_path, Scripted("one", last)) as chat, chat.saying("Hello", "s") as reply:
        [info, *_] = await begun(reply)
        if state == "stopped":
            await chat.post(f"/chat/stream/{info['stream_id']}/stop")
        elif state == "failed":
            await reply.rest()
    async with chatting(tmp_path, Scripted("two")) as chat:
        assert await chat.replies("s") == [("one", state)]
        [second, *_] = await replace(chat, "Hello", "s", info["stream_id"])
        assert await chat.replies("s") == [("two", "complete")]
        refusal = await chat.get(f"/chat/stream/{info['stream_id']}", 404)
        assert refusal["code"] == "stream_not_found"
        assert text(await chat.read(second["stream_id"])) == "two"


async def test_a_replacement_that_cannot_be_stored_leaves_the_turn(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat:
        [info, *_] = await chat.say("Hello", "s")
        with closing(sqlite3.connect(tmp_path / "chat.sqlite3")) as database, database:
            database.execute(REFUSE)
        assert (await replace(chat, "Hello", "s", info["stream_id"], 503))["code"] == "storage_failed"
        assert await chat.replies("s") == [("one", "complete")]
        assert text(await chat.read(info["stream_id"])) == "one"
        with closing(sqlite3.connect(tmp_path / "chat.sqlite3")) as database, database:
            database.execute("DROP TRIGGER refuse")
        assert text(await replace(chat, "Hello", "s", info["stream_id"])) == "one"


async def test_a_session_that_is_deleted_meanwhile_takes_its_replacement_along(tmp_path: Path) -> None:
    model = Scripted("one")
    async with chatting(tmp_path, model) as chat:
        for _ in range(5):
            [info, *_] = await chat.say("Hello", "s")
            sent = {"message": "Hello", "session_id": "s", "replace": info["stream_id"]}
            answer, deleted = await asyncio.gather(
                chat.http.post("/chat/stream", json=sent), chat.http.delete("/sessions/s")
            )
            assert deleted.status_code == 200
            assert answer.status_code in (200, 404)
            assert (await chat.get("/sessions"))["total"] == 0
        assert (await chat.get("/health"))["active_streams"] == 0


async def test_nobody_replaces_another_owner_s_turn(tmp_path: Path) -> None:
    ann, bob = ({"Authorization": f"Bearer {key}"} for key in ("ann", "bob"))
    async with chatting(tmp_path, Scripted("one"), api_keys=("ann", "bob")) as chat:
        hers, _ = [await chat.http.post("/chat/stream", json=body("Hello", "s"), headers=who) for who in (ann, bob)]
        stream_id = lines(hers.content)[0]["stream_id"]
        sent = {"message": "Mine", "session_id": "s", "replace": stream_id}
        refused = await chat.http.post("/chat/stream", json=sent, headers=bob)
        assert (refused.status_code, refused.json()["code"]) == (409, "turn_not_last")
        assert refused.json()["stream_id"] != stream_id
        assert text(lines((await chat.http.get(f"/chat/stream/{stream_id}", headers=ann)).content)) == "one"
