"""The stream of what happens to an owner's sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.chat.api.talking import Chat, Hold, Scripted, begun, chatting, lines, within
from tests.raw import Exchange, exchange, frames

LINES = {"Accept": "application/x-ndjson"}


@asynccontextmanager
async def following(chat: Chat, after: str = "", **headers: str) -> AsyncIterator[Exchange]:
    path = "/sessions/changes" + (f"?after={after}" if after else "")
    async with exchange(chat.url, path, {**LINES, **headers}) as got:
        assert got.status == 200
        yield got


async def told(follower: Exchange, count: int) -> list[dict[str, Any]]:
    """The next changes."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        chunk = await follower.chunk()
        assert chunk, found
        found += lines(chunk)
    assert len(found) == count, found
    return found


def kinds(changes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["change"], each["session_id"]) for each in changes]


async def test_everything_that_happens_to_a_session_is_told(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat, following(chat) as follower:
        made = await chat.post("/sessions/new")
        session_id = made["session_id"]
        [info, *_] = await chat.say("Hello", session_id)
        answered = await chat.get(f"/sessions/{session_id}")
        await chat.patch(f"/sessions/{session_id}", json={"title": "Greetings"})
        await chat.post(f"/sessions/{session_id}/clear")
        await chat.delete(f"/sessions/{session_id}")
        changes = await told(follower, 6)
        names = ["created", "turn_began", "turn_ended", "renamed", "cleared", "deleted"]
        assert kinds(changes) == [(name, session_id) for name in names]
        created, begin, end, renamed, cleared, deleted = changes
        assert {each["type"] for each in changes} == {"session"}
        listed = {name: made[name] for name in ("session_id", "title", "message_count", "created", "updated")}
        assert {name: created[name] for name in listed} == listed
        assert (begin["title"], begin["message_count"], begin["stream_id"]) == ("Hello", 2, info["stream_id"])
        assert (end["stream_id"], end["state"], end["updated"]) == (info["stream_id"], "complete", answered["updated"])
        assert end["updated"] >= begin["updated"]  # the same if the reply took less than half a millisecond
        assert (renamed["title"], renamed["message_count"]) == ("Greetings", 2)
        assert (cleared["title"], cleared["message_count"]) == ("Greetings", 0)
        assert deleted["updated"] >= cleared["updated"]
        assert not {"stream_id", "state", "title"} & deleted.keys()


async def test_a_message_to_an_unknown_session_tells_of_both(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat, following(chat) as follower:
        [info, *_] = await chat.say("Hello", "mine")
        changes = await told(follower, 3)
        assert kinds(changes) == [("created", "mine"), ("turn_began", "mine"), ("turn_ended", "mine")]
        sent = {"message": "Hello again", "session_id": "mine", "replace": info["stream_id"]}
        [second, *_] = lines((await chat.http.post("/chat/stream", json=sent)).content)
        began, ended = await told(follower, 2)
        assert (began["title"], began["message_count"]) == ("Hello again", 2)
        assert began["stream_id"] == ended["stream_id"] == second["stream_id"]


async def test_a_reply_that_is_stopped_has_ended_where_it_was_deleted(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one", held)) as chat, following(chat) as follower:
        async with chat.saying("Hello", "s") as reply:
            await begun(reply)
            await within(held.reached)
            await chat.delete("/sessions/s")
        changes = await told(follower, 4)
        assert [each["change"] for each in changes] == ["created", "turn_began", "turn_ended", "deleted"]
        assert changes[2]["state"] == "stopped"


async def test_the_changes_are_server_sent_events_by_default(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat:
        async with exchange(chat.url, "/sessions/changes") as follower:
            assert follower.headers["content-type"].startswith("text/event-stream")
            assert follower.headers["cache-control"] == "no-cache, no-store, no-transform"
            await chat.post("/sessions/new")
            [created] = frames(await follower.until(b"created"))
            assert (created.event, created.data["change"]) == (None, "created")
        await chat.delete(f"/sessions/{created.data['session_id']}")
        async with exchange(chat.url, "/sessions/changes", {"Last-Event-ID": str(created.id)}) as follower:
            [deleted] = frames(await follower.until(b"deleted"))
            assert deleted.data["change"] == "deleted"
        refused = await chat.http.get("/sessions/changes", headers={"Accept": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
        refused = await chat.http.get("/sessions/changes", params={"after": "x"})
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_cursor")


async def test_the_head_has_the_cursor_from_which_nothing_is_missed(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat:
        async with following(chat) as follower:
            cursor = follower.headers["tailrace-cursor"]
        made = await chat.post("/sessions/new")
        async with following(chat, cursor) as follower:
            [created] = await told(follower, 1)
            assert created["session_id"] == made["session_id"]
        async with following(chat, created["id"]) as follower, following(chat) as other:
            await chat.delete(f"/sessions/{made['session_id']}")
            assert kinds(await told(follower, 1)) == kinds(await told(other, 1)) == [("deleted", made["session_id"])]


async def test_after_a_restart_there_is_a_reset(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat, following(chat) as follower:
        await chat.post("/sessions/new")
        [created] = await told(follower, 1)
    async with chatting(tmp_path, Scripted("one")) as chat:
        async with following(chat, created["id"]) as follower:
            [reset] = lines(await follower.rest())
            assert (reset["type"], reset["reason"]) == ("reset", "epoch_changed")
        async with following(chat, reset["id"]) as follower:
            made = await chat.post("/sessions/new")
            assert kinds(await told(follower, 1)) == [("created", made["session_id"])]


async def test_the_end_of_the_server_is_a_farewell(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat, following(chat) as follower:
        chat.app.state.tailrace_engine.drain()
        [farewell] = lines(await follower.rest())
        assert (farewell["type"], farewell["reason"]) == ("farewell", "shutdown")


async def test_nobody_is_told_of_another_owner_s(tmp_path: Path) -> None:
    ann, bob = ({"Authorization": f"Bearer {key}"} for key in ("ann", "bob"))
    async with chatting(tmp_path, Scripted("one"), api_keys=("ann", "bob")) as chat:
        assert (await chat.http.get("/sessions/changes")).status_code == 401
        async with following(chat, **ann) as hers, following(chat, **bob) as his:
            mine = await chat.post("/sessions/new", headers=ann)
            other = await chat.post("/sessions/new", headers=bob)
            [change] = await told(hers, 1)
            assert kinds([change]) == [("created", mine["session_id"])]
            assert kinds(await told(his, 1)) == [("created", other["session_id"])]
        async with following(chat, change["id"], **bob) as his:
            [reset] = lines(await his.rest())
            assert (reset["type"], reset["reason"]) == ("reset", "epoch_changed")


async def test_a_server_that_nobody_follows_keeps_nothing(tmp_path: Path) -> None:
    keys = tuple(f"key-{number}" for number in range(50))
    async with chatting(tmp_path, Scripted("one"), api_keys=keys) as chat:
        for key in keys:
            await chat.post("/sessions/new", headers={"Authorization": f"Bearer {key}"})
        assert len(chat.app.state.tailrace_engine.store._logs) == 0


async def test_changes_is_no_session(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("one")) as chat:
        await chat.post("/chat/stream", 422, json={"message": "Hello", "session_id": "changes"})
        for method in ("DELETE", "PATCH"):
            assert (await chat.http.request(method, "/sessions/changes")).status_code == 405
