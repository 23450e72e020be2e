"""API keys: who may chat, and that a session belongs to its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tailrace.chat.access import ANYBODY, Access, digest
from tailrace.chat.errors import Unauthorized
from tests.chat.api.talking import JSON, Chat, Hold, Scripted, begun, body, chatting, lines

KEYS = ("alice-key", "bob-key")
ALICE, BOB = ({"Authorization": f"Bearer {key}"} for key in KEYS)


def calls(session_id: str, stream_id: str) -> list[dict[str, Any]]:
    """Every call that is about a session or a stream."""
    stream, session = f"/chat/stream/{stream_id}", f"/sessions/{session_id}"
    return [
        {"method": "POST", "url": "/chat/stream", "json": body("Hello", session_id)},
        {"method": "POST", "url": "/chat/stream", "json": body("x", None), "params": {"after": f"{stream_id}.e.1"}},
        {"method": "GET", "url": stream},
        {"method": "GET", "url": stream, "headers": JSON},
        {"method": "GET", "url": stream, "params": {"after": f"{stream_id}.e.1"}},
        {"method": "POST", "url": f"{stream}/stop"},
        {"method": "GET", "url": session},
        {"method": "POST", "url": f"{session}/clear"},
        {"method": "DELETE", "url": session},
    ]


def test_without_keys_everybody_is_the_same_owner() -> None:
    access = Access([])
    assert access.open
    assert access.owner(None) == access.owner("any") == ANYBODY


def test_a_key_is_known_by_its_digest_only() -> None:
    access = Access(KEYS)
    assert not access.open
    owner = access.owner(KEYS[0])
    assert owner == digest(KEYS[0]) != access.owner(KEYS[1])
    assert KEYS[0] not in owner
    for wrong in (None, "", "other", owner):
        with pytest.raises(Unauthorized):
            access.owner(wrong)


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}, {"Authorization": KEYS[0]}]
)
async def test_nothing_is_said_without_a_key(tmp_path: Path, header: dict[str, str]) -> None:
    async with chatting(tmp_path, Scripted(), api_keys=KEYS) as chat:
        made = await chat.post("/sessions/new", headers=ALICE)
        every = [
            *calls(made["session_id"], "A" * 22),
            {"method": "GET", "url": "/sessions"},
            {"method": "POST", "url": "/sessions/new"},
            {"method": "GET", "url": "/stats"},
            {"method": "GET", "url": "/metrics"},
        ]
        for call in every:
            refusal = await chat.http.request(**{**call, "headers": {**call.get("headers", {}), **header}})
            assert (refusal.status_code, refusal.json()["code"]) == (401, "unauthorized"), call
            assert refusal.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/", "/openapi.json"):
            assert (await chat.http.get(path, headers=header)).status_code == 200
        assert (await chat.get("/sessions", headers=ALICE))["total"] == 1


async def test_a_body_is_not_read_without_a_key(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(), api_keys=KEYS) as chat:
        for headers, status in ((ALICE, 422), ({"Authorization": "Bearer wrong"}, 401), ({}, 401)):
            for junk in (b"{", b'{"message": 1}', b""):
                sent = {"Content-Type": "application/json", **headers}
                answer = await chat.http.post("/chat/stream", content=junk, headers=sent)
                assert answer.status_code == status


@pytest.mark.parametrize("answering", [False, True])
async def test_what_belongs_to_one_key_is_nowhere_for_another(tmp_path: Path, answering: bool) -> None:
    held = Hold()
    if not answering:
        held.release.set()
    async with (
        chatting(tmp_path, Scripted("one ", held, "two"), api_keys=KEYS) as chat,
        chat.saying("Hello", key="k", **ALICE) as reply,
    ):
        early = await begun(reply) if answering else lines(await reply.rest())
        session_id, stream_id = early[0]["session_id"], early[0]["stream_id"]
        for call in calls(session_id, stream_id):
            refusal = await chat.http.request(**{**call, "headers": {**call.get("headers", {}), **BOB}})
            assert refusal.status_code == 404, (call, refusal.text)
        assert (await chat.get("/sessions", headers=BOB)) == {"sessions": [], "total": 0, "next": None}
        assert (await chat.get("/stats", headers=BOB))["active_sessions"] == 1
        held.release.set()
        if answering:
            early += lines(await reply.rest())
        assert early[-1]["state"] == "complete"
        await _same_key_of_another(chat, early[0])


async def _same_key_of_another(chat: Chat, info: dict[str, Any]) -> None:
    """An idempotency key says nothing about another owner's."""
    own = lines((await chat.http.post("/chat/stream", json=body("Hello", None), headers={**BOB, **_KEY})).content)
    assert own[0]["stream_id"] != info["stream_id"]
    same = lines((await chat.http.post("/chat/stream", json=body("Hello", None), headers={**ALICE, **_KEY})).content)
    assert same[0]["stream_id"] == info["stream_id"]
    assert (await chat.get("/sessions", headers=ALICE))["total"] == 1


_KEY = {"Idempotency-Key": "k"}
