"""What the server says of itself."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tailrace import __version__
from tailrace.chat.journal import FRAMEWORK
from tailrace.chat.models.base import ModelError, Usage
from tailrace.chat.store import database
from tests.chat.api.talking import JSON, Chat, Hold, Scripted, begun, body, chatting, text, within
from tests.raw import BOUND


async def test_the_server_says_what_it_is_and_where_things_are(tmp_path: Path) -> None:
    async with chatting(tmp_path) as chat:
        said = await chat.get("/")
    assert (said["name"], said["version"], said["model"]) == ("tailrace", __version__, "demo")
    assert said["multi_turn"]
    assert said["streaming"]
    assert {"POST /chat/stream", "GET /chat/stream/{stream_id}", "POST /chat/stream/{stream_id}/stop"} <= set(
        said["endpoints"]
    )
    assert all(said["endpoints"].values())
    assert said["streaming_endpoints"] == [
        "POST /chat/stream",
        "GET /chat/stream/{stream_id}",
        "GET /sessions/changes",
    ]
    assert set(said["streaming_endpoints"]) < set(said["endpoints"])


async def test_what_can_be_asked_for_as_it_is_listed_is_there(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        listed = (await chat.get("/"))["endpoints"]
        assert {"GET /", "GET /demo", "GET /docs", "GET /openapi.json", "GET /health"} <= set(listed)
        for method, path in (name.split() for name in listed):
            if method == "GET" and "{" not in path:
                async with chat.http.stream("GET", path) as answer:
                    assert answer.status_code == 200, path


async def test_health_counts_streams_and_who_reads_them(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held)) as chat:
        healthy = await chat.get("/health")
        assert (healthy["status"], healthy["reason"], healthy["database"]) == ("healthy", None, "reachable")
        assert 0 <= healthy["event_loop_lag"] < 1
        assert healthy["uptime"] > 0
        assert (healthy["active_streams"], healthy["active_connections"]) == (0, 0)
        async with chat.saying("Hello") as reply:
            [info, *_] = await begun(reply)
            async with chat.reading(info["stream_id"]) as other:
                await begun(other)
                await chat.health(active_streams=1, active_connections=2)
        await chat.health(active_streams=1, active_connections=0)
        held.release.set()
        await chat.health(active_streams=0)


async def test_health_is_bad_without_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FRESH", 0)
    async with chatting(tmp_path, Scripted()) as chat:
        _ruin(tmp_path)
        unhealthy = await chat.get("/health", 503)
        assert (unhealthy["status"], unhealthy["database"]) == ("unhealthy", "unreachable")
        assert unhealthy["reason"] == "the database cannot be written to"
        for call in (
            chat.http.get("/sessions"),
            chat.http.post("/sessions/new"),
            chat.http.post("/chat/stream", json=body("Hello", None)),
        ):
            refusal = await call
            assert (refusal.status_code, refusal.json()["code"]) == (503, "storage_failed")
            assert refusal.json()["detail"] == "the database cannot be used now: try again later"
            assert refusal.headers["retry-after"] == "5"
        assert str(tmp_path) not in refusal.text


async def test_the_figures_are_there_without_the_database(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        await chat.say("Hello")
        assert (await _account(chat))[0]["active_sessions"] == 1
        _ruin(tmp_path)
        stats, metrics = await _account(chat)
        assert stats["active_sessions"] is None
        assert stats["sessions_created"] == metrics["tailrace_sessions_created_total"] == 1
        assert "tailrace_sessions" not in metrics


async def test_health_tells_of_the_last_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FRESH", 0)
    file, aside = tmp_path / "chat.sqlite3", tmp_path / "aside"
    async with chatting(tmp_path, Scripted(), database=f"sqlite:///{file}?timeout=1") as chat:
        assert (await chat.get("/health"))["last_write"] < BOUND
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            unhealthy = await chat.get("/health", 503)
            assert unhealthy["reason"] == "the database cannot be written to"
        file.rename(aside)
        unhealthy = await chat.get("/health", 503)
        assert (unhealthy["database"], unhealthy["status"]) == ("unreachable", "unhealthy")
        assert (await chat.post("/chat/stream", 503, json=body("Hello", None)))["code"] == "storage_failed"
        aside.rename(file)
        assert (await chat.get("/health"))["status"] == "healthy"
        await chat.say("Hello")


def _ruin(folder: Path) -> None:
    with sqlite3.connect(folder / "chat.sqlite3") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'tailrace%'")]
        for name in tables:
            if db.execute("SELECT type FROM sqlite_master WHERE name = ?", (name,)).fetchone() == ("table",):
                db.execute(f"ALTER TABLE {name} RENAME TO gone_{name}")
    db.close()


async def test_a_server_that_ends_takes_nothing_new_and_says_so(tmp_path: Path) -> None:
    held = Hold()
    async with chatting(tmp_path, Scripted("one ", held, "two")) as chat, chat.saying("Hello") as reply:
        early = await begun(reply)
        chat.app.state.tailrace_engine.drain()
        unhealthy = await chat.get("/health", 503)
        assert (unhealthy["reason"], unhealthy["database"]) == ("the server is shutting down", "reachable")
        refusal = await chat.http.post("/chat/stream", json=body("Hello", None))
        assert (refusal.status_code, refusal.json()["code"]) == (503, "shutting_down")
        assert "retry-after" in refusal.headers
        # What is being written may still be read, from anywhere, and ends whole.
        rest = asyncio.create_task(chat.read(early[0]["stream_id"], early[1]["id"]))
        held.release.set()
        assert text(await rest) == "one two"
        assert b'"complete"' in await reply.rest()
        assert reply.whole


async def test_stats_and_metrics_agree_after_a_mixed_load(tmp_path: Path) -> None:
    held = Hold()
    model = Scripted("one ", "two", Usage(7, 11))
    async with chatting(tmp_path, model) as chat:
        await asyncio.gather(*(chat.say("Hello") for _ in range(5)))
        model.steps = ("one ", ModelError("broken", code="model_error"))
        with pytest.raises(httpx.RemoteProtocolError):
            await chat.say("Hello")
        assert (await chat.http.post("/chat/stream", json=body("Hello", None), headers=JSON)).status_code == 502
        await chat.post("/sessions/new")
        await chat.get("/sessions/a.b", 422)
        await chat.get("/nowhere", 404)
        await chat.get(f"/chat/stream/{'A' * 22}", 404)
        model.steps = ("one ", held, "never")
        async with chat.saying("Hello") as reply:
            [info, *_] = await begun(reply)
            await chat.post("/chat/stream", 409, json=body("Hello", info["session_id"]))
            await chat.post(f"/chat/stream/{info['stream_id']}/stop")
            await reply.rest()
        held.reached.clear()
        async with chat.saying("Hello") as left:
            await begun(left)
        await within(held.reached)
        await chat.health(active_connections=0)
        stats, metrics = await _account(chat)
        held.release.set()
    assert stats["active_streams"] == metrics["tailrace_streams_active"] == metrics["vllm:num_requests_running"] == 1
    assert stats["active_sessions"] == metrics["tailrace_sessions"] == 10
    assert stats["sessions_created"] == metrics["tailrace_sessions_created_total"] == 10
    requests, answered = stats["requests"], metrics["tailrace_http_requests_total"]
    # Each is itself being answered: /stats counts among the answered ones for /metrics only.
    assert requests["successful"] + requests["failed"] == answered - 1
    assert requests["total"] == answered
    assert metrics["tailrace_http_requests_in_flight"] == 1
    assert requests["failed"] == 6  # a body broken off, a failed document, and four refusals; leaving is no failure
    assert metrics["tailrace_turns_total"] == {"complete": 5, "failed": 2, "stopped": 1, "interrupted": 0}
    assert stats["chunks"] == metrics["tailrace_chunks_total"] == 5 * 3 + 2 * 1 + 2
    assert metrics["vllm:prompt_tokens_total"] == 5 * 7
    assert metrics["vllm:generation_tokens_total"] == 5 * 11
    assert metrics["vllm:e2e_request_latency_seconds_count"] == 8
    average = metrics["vllm:e2e_request_latency_seconds_sum"] / 8
    assert stats["average_response_time"] == pytest.approx(average)
    assert metrics["vllm:time_to_first_token_seconds_count"] == 9
    assert metrics["tailrace_refused_total"]["session_busy"] == 1
    assert metrics["tailrace_refused_total"]["stream_not_found"] == 1
    assert (stats["model"], stats["framework"]) == ("scripted", FRAMEWORK)
    assert stats["uptime"] > 0


async def _account(chat: Chat) -> tuple[dict[str, Any], dict[str, Any]]:
    """/stats and, right after it, /metrics: a number for each name; by its only label where there is one that tells."""
    stats = await chat.get("/stats")
    answer = await chat.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            label = sample.labels.get("state") or sample.labels.get("code")
            if label is not None:
                found.setdefault(sample.name, {})[label] = sample.value
            else:
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return stats, found


async def test_metrics_are_openmetrics_for_who_asks(tmp_path: Path) -> None:
    async with chatting(tmp_path) as chat:
        answer = await chat.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert answer.text.endswith("# EOF\n")


async def test_every_answer_has_the_id_of_its_request(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted()) as chat:
        for path, given, expected in (
            ("/health", "mine-1", "mine-1"),
            ("/nowhere", "mine-2", "mine-2"),
            ("/", "not one of mine", None),
            ("/", "", None),
        ):
            answer = await chat.http.get(path, headers={"X-Request-ID": given})
            assert answer.headers["x-request-id"] == (expected or answer.headers["x-request-id"])
            assert answer.headers["x-request-id"] != given or expected
        async with chat.saying("Hello", **{"X-Request-ID": "mine-3"}) as reply:
            assert reply.headers["x-request-id"] == "mine-3"
