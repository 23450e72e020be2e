"""A real server as a process: killed in the middle of a reply, started again, and told to stop."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

from tests.chat.api.talking import begun, lines, text
from tests.raw import BOUND, Exchange, exchange
from tests.serving import accepting, free_port, http_client, process

SERVER = ("uvicorn", "--factory", "tailrace.chat:create_app", "--port")
PACE = 0.04


@asynccontextmanager
async def server(database: Path, pace: float) -> AsyncIterator[tuple[str, Popen[bytes]]]:
    port = free_port()
    told: dict[str, Any] = {
        "TAILRACE_DATABASE": str(database),
        "TAILRACE_DEMO_PACE": str(pace),
        "TAILRACE_MODEL": "demo",
    }
    with process([*SERVER, str(port)], **told) as running:
        await accepting(port)
        yield f"http://127.0.0.1:{port}", running


@asynccontextmanager
async def asked(url: str, message: str, **more: str) -> AsyncIterator[Exchange]:
    sent = json.dumps({"message": message, **more}).encode()
    fields = {"Content-Type": "application/json", "Idempotency-Key": message}
    async with exchange(url, "/chat/stream", fields, method="POST", body=sent) as reply:
        yield reply


async def test_a_server_that_is_killed_in_a_reply_loses_a_second_of_it(tmp_path: Path) -> None:
    database = tmp_path / "chat.sqlite3"
    async with server(database, PACE) as (url, running):
        async with asked(url, "Something short") as reply:
            whole = lines(await reply.rest())
        session_id = whole[0]["session_id"]
        async with asked(url, "A long answer, please", session_id=session_id) as reply:
            read = await begun(reply, '"chunk_number":45,')
            running.kill()
            read += lines(await reply.rest())
            assert not reply.whole
        running.wait(BOUND)
    async with server(database, 0) as (url, running), http_client(url) as http:
        assert (await http.get("/health")).json()["status"] == "healthy"
        asked_first, answered, question, partial = await _messages(http, session_id)
        assert (asked_first["text"], answered["text"]) == ("Something short", text(whole))
        assert (question["text"], partial["state"]) == ("A long answer, please", "interrupted")
        assert text(read).startswith(partial["text"])
        # A checkpoint a second; on a busy machine it comes a little late.
        assert partial["total_chunks"] >= 45 - 2 / PACE
        await _read_on_after_the_kill(url, read, partial["text"])
        async with asked(url, "And now?", session_id=session_id) as reply:
            _, status, *_, complete = lines(await reply.rest())
        assert (status["context_messages"], complete["state"]) == (5, "complete")


def test_a_server_that_cannot_reach_its_streams_says_so_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    streams = f"redis://:secret@127.0.0.1:{port}"
    told: dict[str, Any] = {
        "TAILRACE_DATABASE": str(tmp_path / "chat.sqlite3"),
        "TAILRACE_STREAMS": streams,
        "TAILRACE_MODEL": "demo",
    }
    with process([*SERVER, str(free_port())], **told) as running:
        assert running.stdout is not None
        said = running.stdout.read().decode()
        assert running.wait(BOUND) != 0
    assert f"ERROR:    cannot use the streams: expected 127.0.0.1:{port} to accept a connection" in said
    assert not [word for word in ("Traceback", "secret") if word in said]


async def _messages(http: httpx.AsyncClient, session_id: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = (await http.get(f"/sessions/{session_id}")).json()["messages"]
    return messages


async def _read_on_after_the_kill(url: str, read: list[dict[str, Any]], kept: str) -> None:
    """The cursor is of a stream that is no more; what is stored can be read, and says how it ended."""
    path = f"/chat/stream/{read[0]['stream_id']}"
    async with exchange(url, f"{path}?after={read[-1]['id']}") as reply:
        [reset] = lines(await reply.rest())
    assert (reset["type"], reset["reason"]) == ("reset", "epoch_changed")
    again = {"Content-Type": "application/json", "Idempotency-Key": "A long answer, please"}
    sent = json.dumps({"message": "A long answer, please"}).encode()
    for method, where, fields, content in (
        ("GET", f"{path}?after={reset['id']}", {}, b""),
        ("POST", "/chat/stream", again, sent),
    ):
        async with exchange(url, where, fields, method=method, body=content) as reply:
            *objects, error = lines(await reply.rest())
        assert not reply.whole
        assert text(objects) == kept
        assert (error["type"], error["code"]) == ("error", "interrupted")


async def test_a_server_that_is_told_to_stop_ends_its_replies_first(tmp_path: Path) -> None:
    async with server(tmp_path / "chat.sqlite3", PACE) as (url, running):
        async with asked(url, "Something short") as reply:
            early = await begun(reply)
            async with exchange(url, f"/chat/stream/{early[0]['stream_id']}") as other:
                same = await begun(other)
                running.send_signal(signal.SIGTERM)
                early += lines(await reply.rest())
                same += lines(await other.rest())
                assert reply.whole
                assert other.whole
        assert early == same
        assert (early[-1]["type"], early[-1]["state"]) == ("complete", "complete")
        assert early[-2]["is_final"]
        # uvicorn ends as it was told to.
        assert running.wait(BOUND) in (0, -signal.SIGTERM)
