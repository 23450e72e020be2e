"""The last turn of a session, replaced: generated again, or edited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailrace.chat.models.base import Message
from tests.chat.api.talking import Chat, Scripted, chatting, headers, lines


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
