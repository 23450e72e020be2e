from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tailrace import Engine
from tailrace.chat.settings import ChatSettings, database_url
from tailrace.chat.store import open_store
from tailrace.cli import command, server
from tailrace.cli.server import check
from tests.cli.served import PATIENCE, SILENT, Reply, Served, served
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.serving import free_port, http_client

ASK = {"message": "a short one"}
SHORT = {"message": "short"}


def client(url: str) -> httpx.AsyncClient:
    return http_client(url)


async def begun(reply: Reply) -> tuple[str, str]:
    """The session and the first text of a reply."""
    session_id = (await reply.until("session_info"))["session_id"]
    return session_id, (await reply.until("chunk"))["text"]


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
    assert "stopping: waiting up to 10 s for 1 reply; a second signal stops now" in running.text
    assert "Traceback" not in running.text


async def test_a_second_signal_stops_at_once_and_keeps_what_there_is(tmp_path: Path) -> None:
    with served(tmp_path, TAILRACE_DEMO_PACE="60") as running:
        async with client(await running.url()) as chat:
            # A reply that nobody reads any more, and one that is being read.
            async with chat.stream("POST", "/chat/stream", json=ASK) as response:
                unread = await begun(Reply(response))
            async with chat.stream("POST", "/chat/stream", json=ASK) as response:
                reply = Reply(response)
                read = await begun(reply)
                running.interrupt()
                assert "waiting up to 10 s for 2 replies; Ctrl-C again stops now" in await running.line('"stopping')
                running.interrupt()
                error = await reply.until("error")
                assert (error["code"], error["id"].endswith(".end")) == ("interrupted", True)
                with pytest.raises(httpx.RemoteProtocolError):  # as every failure, it breaks the body off
                    await reply.is_over()
        assert await running.end() == 0
    assert {record["end"] for record in running.records("request_ended") if record["method"] == "POST"} == {
        "client left",
        "broken off",
    }
    assert "stopping now: 2 replies interrupted; the text so far is kept" in running.text
    assert "Traceback" not in running.text
    async with open_store(database_url(str(tmp_path / "chat.sqlite3"))) as store:
        for session_id, text in (unread, read):
            (turn,) = (await store.turns(session_id, "", limit=2)).items
            assert (turn.state, turn.message, turn.reply) == ("interrupted", ASK["message"], text)
            assert turn.seconds < Engine().shutdown_grace


async def test_replies_that_are_lost_make_the_end_a_failure(tmp_path: Path) -> None:
    with served(tmp_path, TAILRACE_DEMO_PACE="0") as running:
        async with client(await running.url()) as chat:
            assert (await chat.get("/health")).json()["status"] == "healthy"
            with closing(sqlite3.connect(tmp_path / "chat.sqlite3")) as db, db:
                refuse = "SELECT RAISE(ABORT, 'the test refuses this')"
                db.execute(f"CREATE TRIGGER refuse BEFORE UPDATE ON tailrace_turns BEGIN {refuse}; END")
            document = await chat.post("/chat/stream", json=ASK, headers={"Accept": "application/json"})
            assert (document.status_code, document.json()["code"]) == (500, "storage_failed")
            stream_id = document.json()["data"][0]["stream_id"]
        running.process.send_signal(signal.SIGTERM)
        assert await running.end() == 1
    assert f"did not take 1 replies, which are lost: {stream_id}" in running.text
    assert "Traceback" not in running.text


async def test_a_second_server_is_kept_out(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        url = await running.url()
        with served(tmp_path) as second:
            assert await second.end() == 1
        wanted = "expected a database that no other server uses, or several that share TAILRACE_STREAMS"
        owner = f"the server with process id {running.process.pid} has it open"
        assert f"chat.sqlite3: {wanted}, but {owner}" in second.text
        assert len(second.text.splitlines()) == 1
        async with client(url) as chat:
            assert (await chat.get("/health")).json()["status"] == "healthy"


async def test_a_third_signal_ends_what_does_not_end(tmp_path: Path) -> None:
    with served(tmp_path, TAILRACE_DEMO_PACE="60") as running:
        url = urlsplit(await running.url())
        # A request that never comes to its end keeps a server waiting.
        _, writer = await asyncio.open_connection("127.0.0.1", url.port)
        writer.write(b"POST /chat/stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        await writer.drain()
        async with client(url.geturl()) as chat:
            await chat.get("/health")
        for said in ('"stopping"', '"stopping now"'):
            running.process.send_signal(signal.SIGTERM)
            await running.line(said)
        running.process.send_signal(signal.SIGTERM)
        assert await running.end() == -signal.SIGTERM
        writer.close()
    assert "Traceback" not in running.text


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
    assert (running.text.count('"reloading'), running.text.count('"stopping')) == (1, 1)
    assert "Traceback" not in running.text


async def test_a_reload_lets_open_streams_go_at_once(tmp_path: Path) -> None:
    with served(tmp_path, "--reload", TAILRACE_DEMO_PACE="60") as running:
        url = await running.url()
        async with client(url) as chat:
            async with chat.stream("POST", "/chat/stream", json=ASK) as response:
                reply = Reply(response)
                session_id, text = await begun(reply)
                os.utime(command.__file__)
                assert (await reply.until("error"))["code"] == "interrupted"
            said = json.loads(await running.line('"reloading'))
            assert said["message"] == "reloading: 1 reply interrupted; the text so far is kept"
        async with client(url) as chat:
            messages = (await chat.get(f"/sessions/{session_id}")).json()["messages"]
            assert (messages[-1]["state"], messages[-1]["text"]) == ("interrupted", text)
        running.interrupt()
        assert await running.end() == 0
    assert "waiting up to" not in running.text
    assert "Traceback" not in running.text


async def test_a_start_that_fails_after_the_check_is_one_line(tmp_path: Path) -> None:
    """As when the reloader starts the server anew, but the database has gone."""
    code = "from tailrace.cli import server; server.Server(server._config()).run([])"
    environment = {**os.environ, **SILENT, "TAILRACE_DATABASE": "/dev/null/chat", "TAILRACE_LOG_FORMAT": "json"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=PATIENCE)
    (line,) = ended.stderr.splitlines()
    said = json.loads(line)
    assert (said["level"], ended.returncode, ended.stdout) == ("error", 1, b"")
    assert said["message"].startswith("cannot use the database: /dev/null/chat: ")


def test_a_server_collects_garbage_rarely_while_it_runs(tmp_path: Path) -> None:
    code = """if True:
        import gc
        from tailrace.cli import server

        class Watched(server.Server):
            async def startup(self, sockets=None):
                await super().startup(sockets)
                print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000)
                self.should_exit = True

        before = gc.get_threshold()
        Watched(server._config()).run([])
        print(gc.get_threshold() == before, gc.get_freeze_count())
    """
    environment = {**os.environ, **SILENT, "TAILRACE_DATABASE": str(tmp_path / "chat.sqlite3")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout.decode().split()) == (0, ["10000", "True", "True", "0"]), ended.stderr


def test_what_is_left_after_the_grace_has_time_to_end() -> None:
    assert Engine().shutdown_grace < server.GRACEFUL_END


ADDRESS = "http://127.0.0.1:8000"


def test_what_has_been_checked_can_be_announced(tmp_path: Path) -> None:
    database = tmp_path / "new" / "chat.sqlite3"
    facts = check(settings(str(database)), {}, ADDRESS)
    assert (facts.model, facts.address, facts.database) == ("demo", ADDRESS, str(database))
    assert database.is_file()


def test_a_database_in_memory_has_no_file() -> None:
    assert check(settings("sqlite://"), {}, ADDRESS).database == "SQLite in memory"


def settings(database: str) -> ChatSettings:
    return ChatSettings.model_validate({"model": "demo", "database": database})


# Several workers


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as redis:
        yield redis


def workers_of(server: Served) -> list[int]:
    """The process ids of a server's workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def wait_for_workers(url: str, server: Served, without: int = 0) -> list[int]:
    """Wait until two workers run, which nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while without in (pids := workers_of(server)) or len(pids) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with client(url) as chat:
        assert (await chat.get("/health")).json()["status"] == "healthy"
    return pids


async def test_workers_on_one_database_serve_replace_each_other_and_end(tmp_path: Path, redis: RedisServer) -> None:
    with served(tmp_path, "--workers", "2", "--streams", redis.url, TAILRACE_DEMO_PACE="0.02") as running:
        url = await running.url()
        (started,) = running.records("server_started")
        assert (started["status"], started["streams"]) == ("starting 2 workers", redis.url)
        victim, _ = await wait_for_workers(url, running)
        async with client(url) as chat:
            said = await asyncio.gather(*(chat.post("/chat/stream", json=SHORT) for _ in range(4)))
            assert [each.status_code for each in said] == [200] * 4
            os.kill(victim, signal.SIGKILL)
            await running.line("ended with status -9 and is replaced")
        await wait_for_workers(url, running, without=victim)
        async with client(url) as chat:
            assert (await chat.get("/sessions")).json()["total"] == 4
            async with chat.stream("POST", "/chat/stream", json=SHORT) as response:
                reply = Reply(response)
                await reply.until("chunk")
                running.process.send_signal(signal.SIGTERM)
                await reply.until("farewell")
        assert await running.end() == 0
    assert "Traceback" not in running.text
    async with open_store(database_url(str(tmp_path / "chat.sqlite3"))) as store:
        for session in (await store.sessions("", limit=9)).items:
            (turn,) = (await store.turns(session.id, "", limit=2)).items
            assert turn.state == "complete"


async def until_refused(url: str) -> None:
    """Wait until nobody listens at an address any more."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            while True:
                _, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
                writer.close()
                await asyncio.sleep(0.05)


async def test_workers_stop_when_the_process_that_started_them_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    with served(tmp_path, "--workers", "2", "--streams", redis.url, TAILRACE_DEMO_PACE="0.02") as running:
        url = await running.url()
        workers = await wait_for_workers(url, running)
        async with client(url) as chat, chat.stream("POST", "/chat/stream", json=SHORT) as response:
            reply = Reply(response)
            await reply.until("chunk")
            running.process.kill()
            try:
                await reply.until("farewell")
                await until_refused(url)
            except BaseException:  # pragma: no cover - they would live on
                for worker in workers:
                    os.kill(worker, signal.SIGKILL)
                raise


async def test_workers_that_cannot_start_end_the_server(tmp_path: Path, redis: RedisServer) -> None:
    with served(tmp_path, "--workers", "2", "--streams", redis.url) as running:
        url = await running.url()
        victim, _ = await wait_for_workers(url, running)
        redis.stop()
        os.kill(victim, signal.SIGKILL)
        assert await running.end() == 1
    assert "cannot use the streams: expected 127.0.0.1:" in running.text


async def test_streams_that_cannot_be_reached_are_told(tmp_path: Path) -> None:
    with served(tmp_path, "--streams", f"redis://127.0.0.1:{free_port()}") as running:
        assert await running.end() == 1
    assert "tailrace serve: cannot use the streams: " in running.lines[-1]
    assert "Traceback" not in running.text


async def test_a_server_without_shared_streams_is_kept_out_by_workers(tmp_path: Path, redis: RedisServer) -> None:
    with served(tmp_path, "--streams", redis.url) as running:
        await running.url()
        with served(tmp_path) as second:
            assert await second.end() == 1
        assert "but a server that shares its streams has it open" in second.text
