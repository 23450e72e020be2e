"""The application as a whole: what it is made of, who may use it from a page, and that it leaks nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Message

from tailrace import StoreUnavailable
from tailrace.chat import create_app
from tailrace.chat.models.spec import UnusableModel
from tailrace.chat.store import StoreError
from tests.chat.api.talking import Scripted, begun, chatting, settings, text
from tests.chat.counting import counted
from tests.serving import free_port
from tests.silence import silent_loop

PREFLIGHT = {
    "Origin": "https://page.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,x-stainless-lang",
}


async def test_the_settings_are_those_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_DATABASE", str(tmp_path / "named.sqlite3"))
    monkeypatch.setenv("TAILRACE_MAX_MESSAGE", "7")
    monkeypatch.setenv("TAILRACE_MODEL", "demo")
    app = create_app()
    assert app.state.settings.max_message == 7
    async with app.router.lifespan_context(app):
        assert app.state.conversations.model.name == "demo"
    assert (tmp_path / "named.sqlite3").exists()


async def test_an_application_brings_its_own_model(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted("mine")) as chat:
        assert text(await chat.say("Hello")) == "mine"
        assert (await chat.get("/stats"))["model"] == "scripted"


async def test_what_cannot_be_opened_is_told_at_the_start(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, model="nobody:nothing"))
    with pytest.raises(UnusableModel):
        async with app.router.lifespan_context(app):
            pass
    (tmp_path / "chat.sqlite3").write_text("no database, but long enough to be looked at as one" * 40)
    app = create_app(settings(tmp_path))
    with pytest.raises(StoreError, match=r"chat\.sqlite3"):
        async with app.router.lifespan_context(app):
            pass


async def lifespan(app: FastAPI) -> list[Message]:
    """Start and stop an application, and return the messages that it sends its server."""
    told: list[Message] = []
    orders = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> Message:
        return {"type": next(orders)}

    async def send(message: Message) -> None:
        told.append(message)

    with suppress(UnusableModel, StoreError, StoreUnavailable, AttributeError):
        await app({"type": "lifespan", "state": {}}, receive, send)
    return told


async def test_a_server_is_told_in_one_line_why_an_application_cannot_start(tmp_path: Path) -> None:
    [started, stopped] = await lifespan(create_app(settings(tmp_path)))
    assert (started, stopped) == ({"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"})
    for wrong, told in (
        ({"model": "nobody:nothing"}, "expected "),
        ({"database": "/dev/null/chat"}, "cannot use the database: /dev/null/chat: "),
        ({"streams": f"redis://127.0.0.1:{free_port()}"}, "cannot use the streams: expected 127.0.0.1:"),
    ):
        [failed] = await lifespan(create_app(settings(tmp_path, **wrong)))
        assert failed["type"] == "lifespan.startup.failed"
        assert failed["message"].startswith(told)
        assert "\n" not in failed["message"]


async def test_a_server_gets_the_traceback_of_any_other_error(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    app.state.tailrace_engine = None
    [failed] = await lifespan(app)
    assert failed["message"].startswith("Traceback")


async def test_no_page_of_another_origin_may_use_it_unless_named(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        answer = await chat.http.options("/chat/stream", headers=PREFLIGHT)
        assert answer.status_code == 204
        assert "access-control-allow-origin" not in answer.headers
    async with chatting(tmp_path, Scripted(), cors_origins="https://page.example") as chat:
        answer = await chat.http.options("/chat/stream", headers=PREFLIGHT)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
        answer = await chat.http.options("/chat/stream", headers={**PREFLIGHT, "Origin": "https://other.example"})
        assert "access-control-allow-origin" not in answer.headers
        answer = await chat.http.get("/health", headers={"Origin": "https://page.example"})
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        exposed = answer.headers["access-control-expose-headers"].lower()
        assert {"content-location", "tailrace-cursor", "x-request-id"} <= set(exposed.split(", "))


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        (FORM, b'{"message":"x"}', f"expected Content-Type: application/json, but got {FORM}"),
        ("text/plain", b"x", "expected Content-Type: application/json, but got text/plain"),
        (None, b'{"message":"x"}', "expected Content-Type: application/json, but got none"),
        ("application/json", b'"x"', "Input should be "),
        ("Application/JSON ; charset=utf-8", b'"x"', "Input should be "),
        ("application/problem+json", b'"x"', "Input should be "),
        (FORM, b"", "Field required"),
    ],
)
async def test_a_body_of_another_kind_is_told_its_name(
    tmp_path: Path, kind: str | None, content: bytes, said: str
) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        headers = {"Content-Type": kind} if kind else {}
        refusal = await chat.post("/chat/stream", 422, content=content, headers=headers)
    assert refusal["code"] == "invalid_request"
    assert refusal["detail"][0]["loc"] == ["body"]
    assert refusal["detail"][0]["msg"].startswith(said)


@pytest.mark.usefixtures(silent_loop.__name__)
async def test_readers_who_leave_at_any_moment_leave_nothing_behind(tmp_path: Path) -> None:
    dice = random.Random(1)
    async with chatting(tmp_path) as chat:

        async def visit() -> None:
            async with chat.saying("Hello") as reply:
                await begun(reply, f'"chunk_number":{dice.randint(1, 20)},')

        async def visits(count: int) -> tuple[int, int]:
            """Tasks and open files afterwards."""
            for _ in range(count // 20):
                await asyncio.gather(*(visit() for _ in range(20)))
            await chat.health(active_streams=0, active_connections=0)
            gc.collect()
            return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

        before = await visits(40)
        after = await visits(200)
        assert after[0] <= before[0] + 2  # a connection may be closing yet
        assert after[1] <= before[1] + 4
        stats = await chat.get("/stats")
        assert stats["sessions_created"] == 240
        assert stats["requests"]["failed"] == 0
        assert counted(chat.app.state.metrics, "tailrace_turns_total", "state") == {"complete": 240}
