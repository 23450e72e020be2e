"""What there can be too much of, and what is said then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chat.api.talking import Hold, Scripted, begun, body, chatting, text


async def test_a_message_of_so_many_characters(tmp_path: Path) -> None:
    model = Scripted()
    async with chatting(tmp_path, model, max_message=10) as chat:
        assert await chat.say("👋" * 10)
        refusal = await chat.post("/chat/stream", 413, json=body("👋" * 11, None))
        assert refusal == {
            "detail": "expected a message of at most 10 characters, but got 11",
            "code": "message_too_long",
        }
        assert (await chat.get("/sessions"))["total"] == 1
    assert len(model.asked) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_so_many_bytes(tmp_path: Path, chunked: bool) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        yield b'{"message": "'
        for _ in range(size):
            yield b"x"
        yield b'"}'

    kind = {"Content-Type": "application/json"}
    async with chatting(tmp_path, Scripted(), max_body=40) as chat:
        for size, status in ((25, 200), (26, 413)):
            content = pieces(size) if chunked else b"".join([piece async for piece in pieces(size)])
            answer = await chat.http.post("/chat/stream", content=content, headers=kind)
            assert answer.status_code == status, answer.text
        assert answer.json()["code"] == "body_too_large"
        assert "40" in answer.json()["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"message": NaN}',
        b'{"message": 1e999}',
        b'{"message": "\\ud800"}',
        b'{"message": "Hello", "session_id": "\\udfff"}',
        b'{"message": "nul\\u0000"}',
        b'{"message": " \\n\\t\\u3000"}',
        b'{"message": ""}',
        b'{"message": null}',
        b'{"message": ["Hello"]}',
        b'{"session_id": null}',
        b'{"message": "Hello", "session_id": 3}',
        b'["Hello"]',
        b'"Hello"',
        b"null",
        b"{",
        b"",
    ],
)
async def test_a_body_that_says_nothing_useful_is_refused(tmp_path: Path, content: bytes) -> None:
    model = Scripted()
    async with chatting(tmp_path, model) as chat:
        answer = await chat.http.post("/chat/stream", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        refusal = answer.json()
        assert refusal["code"] == "invalid_request"
        assert all(set(each) == {"type", "loc", "msg"} for each in refusal["detail"])
    assert not model.asked


async def test_a_body_that_nobody_can_parse_is_refused(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        kind = {"Content-Type": "application/json"}
        for content in (b"[" * 100_000, b'{"message": ' + b"1" * 5000 + b"}", b'{"message": "\xff"}'):
            answer = await chat.http.post("/chat/stream", content=content, headers=kind)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
        # No page of another site can post what needs no leave for it.
        answer = await chat.http.post(
            "/chat/stream", content=b'{"message": "x"}', headers={"Content-Type": "text/plain"}
        )
        assert answer.status_code == 422


async def test_so_many_sessions(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(), max_sessions=2) as chat:
        first = await chat.post("/sessions/new")
        await chat.say("Hello")
        for refusal in (
            await chat.post("/sessions/new", 409),
            await chat.post("/chat/stream", 409, json=body("Hello", None)),
        ):
            assert refusal["code"] == "too_many_sessions"
        await chat.say("Hello", first["session_id"])
        await chat.delete(f"/sessions/{first['session_id']}")
        await chat.say("Hello")


async def test_so_many_sessions_of_each_owner(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(), max_sessions=1, api_keys=("a", "b"), key="a") as chat:
        await chat.post("/sessions/new")
        await chat.post("/sessions/new", 409)
        await chat.post("/sessions/new", headers={"Authorization": "Bearer b"})


async def test_so_many_turns_of_a_session(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(), max_turns=2) as chat:
        [info, *_] = await chat.say("One")
        session_id = info["session_id"]
        await chat.say("Two", session_id, key="two")
        refusal = await chat.post("/chat/stream", 409, json=body("Three", session_id))
        assert refusal["code"] == "session_full"
        assert text(await chat.say("Two", session_id, key="two"))  # a retry is no turn
        await chat.post(f"/sessions/{session_id}/clear")
        await chat.say("Three", session_id)


async def test_so_many_replies_at_a_time(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held), max_streams=1) as chat:
        async with chat.saying("Hello", key="k") as reply:
            [info, *_] = await begun(reply)
            answer = await chat.http.post("/chat/stream", json=body("Hello", None))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["code"] == "too_many_streams"
            async with chat.saying("Hello", info["session_id"], key="k") as same:  # a retry is no new one
                assert (await begun(same))[0] == info
        held.release.set()
        await chat.health(active_streams=0)
        assert await chat.say("Hello")
