"""The OpenAPI document, and that the server does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import SchemaValidator

from tailrace import Cursor, CursorError
from tailrace.chat import ChatSettings, create_app
from tailrace.chat.api.replies import CURSOR
from tailrace.chat.app import methods_of
from tests.chat.api.talking import Hold, Scripted, begun, chatting
from tests.serving import accepting, free_port, process

SESSION = "8e0df3c4-0f43-4dc3-9e6a-5f9a55d6cf0f"

ENDPOINTS = {
    "/": {"get"},
    "/chat/stream": {"post"},
    "/chat/stream/{stream_id}": {"get"},
    "/chat/stream/{stream_id}/stop": {"post"},
    "/sessions": {"get"},
    "/sessions/new": {"post"},
    "/sessions/changes": {"get"},
    "/sessions/{session_id}": {"get", "patch", "delete"},
    "/sessions/{session_id}/clear": {"post"},
    "/health": {"get"},
    "/stats": {"get"},
    "/metrics": {"get"},
}


def document(**settings: Any) -> dict[str, Any]:
    return create_app(ChatSettings.model_validate({"database": "unused.sqlite3", **settings})).openapi()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_endpoint_is_described() -> None:
    described = document()
    assert {path: set(operations) for path, operations in described["paths"].items()} == ENDPOINTS
    for operations in described["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
            assert all(answer["description"] for answer in operation["responses"].values())


def test_every_reference_leads_somewhere() -> None:
    described = document()
    found = set(references(described))
    assert found
    for reference in found:
        here: Any = described
        for step in reference.removeprefix("#/").split("/"):
            here = here[step]


def test_a_reply_is_described_on_every_wire() -> None:
    answer = document()["paths"]["/chat/stream"]["post"]["responses"]["200"]["content"]
    assert set(answer) == {"application/x-ndjson", "text/event-stream", "application/json"}
    kinds = set(references(answer["application/x-ndjson"]))
    names = ("SessionInfo", "Status", "Reasoning", "Chunk", "Complete", "Error")
    assert kinds == {f"#/components/schemas/{name}" for name in names}
    assert "itemSchema" in answer["application/x-ndjson"]
    assert "itemSchema" in answer["text/event-stream"]


def test_a_key_is_asked_for_where_there_are_keys() -> None:
    locked, opened = document(api_keys=("k",)), document()
    for described, wanted in ((locked, True), (opened, False)):
        assert ("securitySchemes" in described["components"]) is wanted
        for path in ("/chat/stream", "/sessions", "/stats"):
            for operation in described["paths"][path].values():
                assert ("security" in operation) is wanted
                assert ("401" in operation["responses"]) is wanted
        assert "security" not in described["paths"]["/health"]["get"]


def test_the_document_is_made_once() -> None:
    app = create_app(ChatSettings.model_validate({"database": "unused.sqlite3"}))
    assert app.openapi() is app.openapi()
    assert methods_of(app, "/sessions/new") == ["OPTIONS", "POST"]
    assert methods_of(app, "/sessions") == ["GET", "HEAD", "OPTIONS"]
    assert methods_of(app, "/nowhere") == []


cursors = SchemaValidator({"type": "str", "pattern": CURSOR})


@given(st.from_regex(CURSOR, fullmatch=True, alphabet=st.characters(codec="ascii")) | st.text() | st.just("a.b.0.end"))
def test_the_pattern_of_a_cursor_is_what_can_be_parsed(token: str) -> None:
    fits = True
    try:
        cursors.validate_python(token)
    except ValueError:
        fits = False
    try:
        Cursor.parse(token)
    except CursorError:
        assert fits is (token == "")
    else:
        assert fits


async def test_a_method_that_is_none_is_told_which_are(tmp_path: Path) -> None:
    async with chatting(tmp_path) as chat:
        for method, path, allowed in (
            ("PUT", f"/sessions/{SESSION}", "DELETE, GET, HEAD, OPTIONS, PATCH"),
            ("GET", "/sessions/new", "OPTIONS, POST"),
            ("DELETE", "/sessions/new", "OPTIONS, POST"),
            ("DELETE", "/sessions/changes", "GET, HEAD, OPTIONS"),
            ("GET", "/chat/stream", "OPTIONS, POST"),
            ("POST", "/demo", "GET, HEAD, OPTIONS"),
        ):
            answer = await chat.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
            assert answer.json() == {"detail": "Method Not Allowed", "code": "method_not_allowed"}
        assert await chat.get("/nowhere", 404) == {"detail": "Not Found", "code": "not_found"}


async def test_options_are_the_methods(tmp_path: Path) -> None:
    async with chatting(tmp_path, api_keys=("k",)) as chat:
        for path, allowed in (
            (f"/sessions/{SESSION}", "DELETE, GET, HEAD, OPTIONS, PATCH"),
            ("/sessions/new", "OPTIONS, POST"),
            ("/chat/stream", "OPTIONS, POST"),
            (f"/chat/stream/{'A' * 22}", "GET, HEAD, OPTIONS"),
            ("/health", "GET, HEAD, OPTIONS"),
            ("/demo", "GET, HEAD, OPTIONS"),
        ):
            answer = await chat.http.options(path)
            assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")
        assert (await chat.http.options("/nowhere")).status_code == 404


async def test_head_is_get_without_the_body(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        session_id = (await chat.post("/sessions/new"))["session_id"]
        described = [path for path, operations in ENDPOINTS.items() if "get" in operations]
        paths = [path for path in described if not path.startswith(("/chat", "/sessions/changes"))]
        for path in (*paths, "/openapi.json", "/demo", "/docs", "/nowhere", "/sessions/no-uuid"):
            path = path.format(session_id=session_id)
            head, get = await chat.http.head(path), await chat.http.get(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers["content-type"] == get.headers["content-type"]
        assert (await chat.http.head("/sessions/changes")).status_code == 200
        for path in ("/sessions/new", "/chat/stream", f"/chat/stream/{'A' * 22}/stop"):
            assert (await chat.http.head(path)).status_code == 405
    async with chatting(tmp_path, Scripted(), api_keys=("k",)) as chat:
        assert (await chat.http.head("/sessions")).status_code == 401


async def test_head_of_a_reply_waits_for_nothing(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat, chat.saying("Hello") as reply:
        [info, *_] = await begun(reply)
        path = f"/chat/stream/{info['stream_id']}"
        for accept in ("application/x-ndjson", "text/event-stream", "application/json"):
            head = await chat.http.head(path, headers={"Accept": accept})
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"].startswith(accept)
            assert "content-length" not in head.headers
        held.release.set()
        await reply.rest()
        assert (await chat.http.head(path)).status_code == 200
        assert (await chat.http.head(f"/chat/stream/{'A' * 22}")).status_code == 404


@pytest.mark.parametrize(("keys", "phases"), [("", "examples,coverage,fuzzing,stateful"), ("a-key", "coverage")])
async def test_schemathesis_finds_nothing(tmp_path: Path, keys: str, phases: str) -> None:
    port = free_port()
    told: dict[str, Any] = {
        "TAILRACE_DATABASE": str(tmp_path / "chat.sqlite3"),
        "TAILRACE_MODEL": "demo",
        "TAILRACE_DEMO_PACE": "0",
        "TAILRACE_API_KEYS": keys,
    }
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"]
    command += ["--exclude-path", "/sessions/changes"]  # which has no end that could be waited for
    command += ["--checks", "all", "--phases", phases, "--max-examples", "8", "--seed", "1", "--no-color"]
    if keys:
        command += ["-H", f"Authorization: Bearer {keys}", "--include-path-regex", "sessions|stats|stop"]
    log = tmp_path / "server.log"
    with (
        log.open("wb") as output,
        process(["uvicorn", "--factory", "tailrace.chat:create_app", "--port", str(port)], stdout=output, **told),
    ):
        await accepting(port)
        # What it covers of itself is nobody's concern, and takes most of its time.
        bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        found = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stdout
    assert "FAILURES" not in found.stdout
    assert "Traceback" not in log.read_text()
