"""Pages of others, in the browser of somebody who can reach the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chat.api.talking import Scripted, body, chatting

PAGE = "https://page.example"


async def test_a_page_of_another_origin_changes_nothing(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        port = chat.url.rpartition(":")[2]
        for origin in (PAGE, "null", "", f"http://localhost:{port}", "http://127.0.0.1:1", "http://127.0.0.1", "\xe9"):
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
        assert len(refusal.text) < 300
        assert (await chat.get("/sessions", headers={"Origin": PAGE}))["total"] == 1
        assert chat.app.state.statistics.refusals == {"foreign_origin": 29}


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
