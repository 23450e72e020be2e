"""API keys: who may chat, and that a session belongs to its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tailrace.chat.access import ANYBODY, Access, digest
from tailrace.chat.errors import Unauthorized
from tests.chat.api.talking import JSON, Chat, Hold, Scripted, begun, body, chatting, lines
from tests.chat.counting import refusals

KEYS = ("alice-key", "bob-key")
ALICE, BOB = ({"Authorization": f"Bearer {key}"} for key in KEYS)


def calls(session_id: str, stream_id: str) -> list[dict[str, Any]]:
    """Every call that is about a session or a stream."""
    stream, session = f"/chat/stream/{stream_id}", f"/sessions/{session_id}"
    return [
        {"method": "POST", "url": "/chat/stream", "json": {**body("Hello", session_id), "create": False}},
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
        held.release.set()
        if answering:
            early += lines(await reply.rest())
        assert early[-1]["state"] == "complete"
        await _same_key_of_another(chat, early[0])


async def test_two_keys_may_have_sessions_of_the_same_name(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted("one ", held)
    async with chatting(tmp_path, model, api_keys=KEYS) as chat, chat.saying("I am Alice", "mine", **ALICE) as reply:
        await begun(reply)
        async with chat.saying("I am Bob", "mine", **BOB) as other:  # although Alice's is answering
            await begun(other)
            held.release.set()
            ends = [lines(await each.rest())[-1] for each in (reply, other)]
        assert [(end["session_id"], end["message_count"]) for end in ends] == [("mine", 2)] * 2
        for headers, said in ((ALICE, "I am Alice"), (BOB, "I am Bob")):
            details = await chat.get("/sessions/mine", headers=headers)
            assert [each["text"] for each in details["messages"]] == [said, "one "]
        await chat.delete("/sessions/mine", headers=BOB)
        await chat.get("/sessions/mine", 404, headers=BOB)
        assert (await chat.get("/sessions/mine", headers=ALICE))["message_count"] == 2
    assert [[message.text for message in asked] for asked in model.asked] == [["I am Alice"], ["I am Bob"]]


ROOT = {"Authorization": "Bearer root-key"}


async def test_a_key_sees_its_own_numbers_and_an_administrator_s_those_of_all(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(), api_keys=KEYS, admin_keys=("root-key",)) as chat:
        for number, headers in ((1, ALICE), (2, BOB)):
            for _ in range(number):
                assert (await chat.http.post("/chat/stream", json=body("Hello", None), headers=headers)).is_success
        for headers, sessions in ((ALICE, 1), (BOB, 2), (ROOT, 3)):
            stats = await chat.get("/stats", headers=headers)
            found = (stats["active_sessions"], stats["sessions_created"], stats["chunks"])
            assert found == (sessions, sessions, 4 * sessions)
            assert stats["requests"]["failed"] == 0
            metrics = await chat.http.get("/metrics", headers=headers)
            assert metrics.text.count("tailrace_chunks_total{") == (3 if headers is ROOT else 1)
            assert ("tailrace_uptime_seconds" in metrics.text) is (headers is ROOT)
        assert (await chat.get("/stats", headers=ALICE))["requests"]["total"] == 3
        assert (await chat.get("/sessions", headers=ROOT))["total"] == 0  # it sees numbers, not conversations


def test_the_only_key_is_an_administrator_s() -> None:
    for access, key, sees in (
        (Access(), "any", None),
        (Access(["a"]), "a", None),
        (Access(["a", "b"]), "a", digest("a")),
        (Access(["a"], ["root"]), "a", digest("a")),
        (Access(["a"], ["root"]), "root", None),
        (Access([], ["root"]), "root", None),
    ):
        assert access.sees(access.owner(key)) == sees


@pytest.mark.parametrize("path", ["/", "/health", "/stats", "/metrics", "/sessions", "/openapi.json", "/nowhere"])
async def test_no_answer_is_kept_or_sniffed(tmp_path: Path, path: str) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        answer = await chat.http.get(path)
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


async def _same_key_of_another(chat: Chat, info: dict[str, Any]) -> None:
    """An idempotency key says nothing about another owner's."""
    own = lines((await chat.http.post("/chat/stream", json=body("Hello", None), headers={**BOB, **_KEY})).content)
    assert own[0]["stream_id"] != info["stream_id"]
    same = lines((await chat.http.post("/chat/stream", json=body("Hello", None), headers={**ALICE, **_KEY})).content)
    assert same[0]["stream_id"] == info["stream_id"]
    assert (await chat.get("/sessions", headers=ALICE))["total"] == 1


_KEY = {"Idempotency-Key": "k"}


PAGE = "https://page.example"


async def test_a_page_of_another_origin_changes_nothing(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        port = chat.url.rpartition(":")[2]
        for origin in (PAGE, "null", f"http://localhost:{port}", "http://127.0.0.1:1", "http://127.0.0.1", "\xe9"):
            for method, path in (
                ("POST", "/sessions/new"),
                ("POST", f"/sessions/{session_id}/clear"),
                ("DELETE", f"/sessions/{session_id}"),
                ("POST", f"/chat/stream/{'A' * 22}/stop"),
            ):
                refusal = await chat.http.request(method, path, headers=[(b"origin", origin.encode("latin-1"))])
                assert (refusal.status_code, refusal.json()["code"]) == (403, "foreign_origin"), (origin, method, path)
        refusal = await chat.http.post("/chat/stream", json=body("Hello", None), headers={"Origin": "https://" * 99})
        assert refusal.status_code == 403
        assert len(refusal.text) < 400
        assert (await chat.get("/sessions", headers={"Origin": PAGE}))["total"] == 1
        assert refusals(chat.app.state.metrics) == {"foreign_origin": 25}


async def test_the_server_s_own_pages_and_programs_may_use_it(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(), hosts="chat.example") as chat:
        port = chat.url.rpartition(":")[2]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"LocalHost:{port}"):
            for origin in (f"http://{host}", f"HTTP://{host}".lower()):
                await chat.post("/sessions/new", headers={"Host": host, "Origin": origin})
            await chat.post("/sessions/new", headers={"Host": host})
        # Behind a proxy that speaks TLS; who is asked at the usual port need not name it.
        for host, origin in (
            ("chat.example", "https://chat.example"),
            ("chat.example:443", "https://chat.example"),
            ("chat.example:80", "http://chat.example"),
        ):
            await chat.post("/sessions/new", headers={"Host": host, "Origin": origin})
        refusal = await chat.http.post(
            "/sessions/new", headers={"Host": "chat.example", "Origin": "x://chat.example:1"}
        )
        assert refusal.status_code == 403
        await chat.post("/sessions/new", headers={"Host": "chat.example", "Origin": "x://chat.example"})


@pytest.mark.parametrize("origins", [PAGE, "*"])
async def test_a_named_origin_may_use_it(tmp_path: Path, origins: str) -> None:
    async with chatting(tmp_path, Scripted(), cors_origins=origins) as chat:
        answer = await chat.http.post("/sessions/new", headers={"Origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origins)
        other = await chat.http.post("/sessions/new", headers={"Origin": "https://other.example"})
        assert other.status_code == (200 if origins == "*" else 403)


FOREIGN = (
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[::1",
    "a:b:c",
    ":80",
)


@pytest.mark.parametrize(
    ("told", "known", "foreign"),
    [
        ({}, ("127.0.0.1", "10.1.2.3:80", "[::1]:8000", "[fe80::2]", "localhost", "localhost.", ""), FOREIGN),
        ({"hosts": "chat.example"}, ("chat.example", "Chat.Example.:8000", "localhost"), FOREIGN),
        ({"hosts": "*"}, FOREIGN, ()),
        ({"api_keys": "k", "key": "k"}, FOREIGN, ()),
    ],
    ids=["none", "named", "any", "keys"],
)
async def test_a_name_that_is_not_the_server_s_is_refused(
    tmp_path: Path, told: dict[str, Any], known: tuple[str, ...], foreign: tuple[str, ...]
) -> None:
    async with chatting(tmp_path, Scripted(), **told) as chat:
        for host in known:
            await chat.get("/sessions", headers={"Host": host})
        for host in foreign:
            for method, path in (("GET", "/sessions"), ("GET", "/health"), ("POST", "/sessions/new")):
                headers = {"Host": host, "Origin": f"http://{host}"}
                refusal = await chat.http.request(method, path, headers=headers)
                assert (refusal.status_code, refusal.json()["code"]) == (421, "unknown_host"), host
                assert refusal.headers["x-request-id"]
