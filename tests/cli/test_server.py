from __future__ import annotations

import asyncio
import inspect
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tailrace import Engine
from tailrace.chat.settings import database_url
from tailrace.chat.store import open_store
from tailrace.cli import command, server
from tests.cli.served import PATIENCE, Reply, served

ASK = {"message": "a short one"}


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE)


async def test_a_reply_ends_whole_when_the_server_is_told_to_stop(tmp_path: Path) -> None:
    with served(tmp_path, "--model", "demo", GENAI_MODEL_ID="nobody:none", TAILRACE_DEMO_PACE="0.02") as running:
        url = await running.url()
        async with client(url) as chat:
            assert (await chat.get("/health")).status_code == 200
            async with chat.stream("POST", "/chat/stream", json=ASK) as response:
                reply = Reply(response)
                await reply.until("chunk")
                running.process.send_signal(signal.SIGTERM)
                assert (await reply.until("complete"))["state"] == "complete"
                assert await reply.is_over()
        assert await running.end() == 0
    (started,) = running.records("server_started")
    assert (started["model"], started["database"]) == ("demo", str(tmp_path / "chat.sqlite3"))
    assert "stopping: 1 reply goes on for up to 10 s; a second signal stops at once" in running.text
    assert "Traceback" not in running.text


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with served(tmp_path, TAILRACE_DEMO_PACE="60") as running:
        async with client(await running.url()) as chat:
            # A reply that nobody reads any more, and one that is being read.
            async with chat.stream("POST", "/chat/stream", json=ASK) as response:
                await Reply(response).until("chunk")
            async with chat.stream("POST", "/chat/stream", json=ASK) as response:
                reply = Reply(response)
                session_id = (await reply.until("session_info"))["session_id"]
                await reply.until("chunk")
                running.interrupt()
                assert "Ctrl-C again stops at once" in await running.line("stopping: 2 replies go on")
                running.interrupt()
                assert await running.end() == 1
    assert "stopped at once" in running.text
    assert "Traceback" not in running.text
    # As after any sudden end, the next server that opens the database finds out.
    async with open_store(database_url(str(tmp_path / "chat.sqlite3"))) as store:
        await store.interrupt_turns()
        (turn,) = (await store.turns(session_id, limit=2)).items
    assert (turn.state, turn.message) == ("interrupted", ASK["message"])


async def test_reloading_keeps_sessions_and_lets_replies_end(tmp_path: Path) -> None:
    with served(tmp_path, "--reload", TAILRACE_DEMO_PACE="0.02") as running:
        url = await running.url()
        async with client(url) as chat:
            session = (await chat.post("/sessions/new")).json()
            reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
            os.utime(command.__file__)
            # The old process takes no new connections once it has closed the idle ones.
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        # This connection waits for the new process.
        async with client(url) as chat:
            assert (await chat.get(f"/sessions/{session['session_id']}")).status_code == 200
            async with chat.stream("POST", "/chat/stream", json=ASK) as response:
                reply = Reply(response)
                await reply.until("chunk")
                # A process hears of it itself, and then again by the one that reloads.
                running.interrupt()
                assert (await reply.until("complete"))["state"] == "complete"
        assert await running.end() == 0
    assert len(running.records("server_started")) == 1
    assert "command.py'. Reloading" in running.text
    assert running.text.count('"stopping') == 2
    assert "Traceback" not in running.text


def test_the_grace_that_is_told_is_the_engines() -> None:
    parameters = inspect.signature(Engine).parameters
    assert parameters["shutdown_grace"].default == server.GRACE < server.GRACEFUL_END
