"""Several server processes over one Redis and one PostgreSQL: what one of them began, any other can go on with."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import pytest

from tailrace import Engine
from tailrace.chat.rendering import PATH as HTML
from tailrace.chat.workers import streams_of
from tests.chat.api.talking import begun, lines, text
from tests.chat.store.postgresql import postgresql_server
from tests.log.redis.redis_server import redis_server
from tests.raw import BOUND, Exchange, exchange
from tests.serving import accepting, free_port, http_client, process

SERVER = ("uvicorn", "--factory", "--port")
CHAT = "tailrace.chat:create_app"
SERVE = ("tailrace", "serve", "--port")

BURIED = 20.0
"""Seconds after which the others know of a dead process: three rounds of a second, on a busy machine."""


class Worker:
    """A server process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process

    @asynccontextmanager
    async def asked(self, message: str, session_id: str, **more: str) -> AsyncIterator[Exchange]:
        """Send a message, and read the reply as it comes."""
        sent = json.dumps({"message": message, "session_id": session_id, **more}).encode()
        fields = {"Content-Type": "application/json"}
        async with exchange(self.url, "/chat/stream", fields, method="POST", body=sent) as reply:
            yield reply

    async def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        async with http_client(self.url) as client:
            answer = await client.request(method, path, **options)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json() if answer.headers["content-type"] == "application/json" else lines(answer.content)

    async def say(self, message: str, session_id: str, status: int = 200, *, key: str = "", **more: str) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"message": message, "session_id": session_id, **more}
        return await self.call("POST", "/chat/stream", status, json=body, headers=headers)

    async def replies(self, session_id: str) -> list[tuple[str, str]]:
        """The text and the state of each reply of a session."""
        messages = (await self.call("GET", f"/sessions/{session_id}"))["messages"]
        return [(each["text"], each["state"]) for each in messages if each["role"] == "assistant"]


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[str, str]]:
    """The settings of servers that share everything."""
    with redis_server() as redis, postgresql_server() as database:
        yield {
            "TAILRACE_STREAMS": redis.url,
            "TAILRACE_DATABASE": database,
            "TAILRACE_MODEL": "demo",
            "TAILRACE_DEMO_PACE": "0.05",
        }


@contextmanager
def working(shared: dict[str, str], factory: str = CHAT) -> Iterator[Worker]:
    port = free_port()
    with process([*SERVER, str(port), factory], stdout=subprocess.DEVNULL, **shared) as running:
        asyncio.run(accepting(port))
        yield Worker(port, running)


@pytest.fixture(scope="module")
def first(shared: dict[str, str]) -> Iterator[Worker]:
    with working(shared) as worker:
        yield worker


@pytest.fixture(scope="module")
def second(shared: dict[str, str]) -> Iterator[Worker]:
    with working(shared) as worker:
        yield worker


@pytest.fixture
def mortal(shared: dict[str, str]) -> Iterator[Worker]:
    """A worker for one test, which may end it."""
    with working(shared) as worker:
        yield worker


@pytest.fixture
def session_id() -> str:
    return uuid4().hex


def stream_of(objects: Sequence[dict[str, Any]]) -> str:
    stream_id: str = objects[0]["stream_id"]
    return stream_id


@pytest.mark.parametrize("html", [False, True])
async def test_a_reply_is_resumed_and_stopped_at_another_worker(
    first: Worker, second: Worker, session_id: str, html: bool
) -> None:
    async with first.asked("A long answer, please", session_id) as here:
        early = await begun(here)
        path = f"/chat/stream/{stream_of(early)}"
        assert (await second.call("GET", f"/sessions/{session_id}"))["stream_id"] == stream_of(early)
        listed = (await second.call("GET", "/sessions"))["sessions"][0]
        assert (listed["session_id"], listed["stream_id"]) == (session_id, stream_of(early))
        async with exchange(second.url, f"{path}?html={str(html).lower()}") as there:
            same = await begun(there)
            assert stream_of(same) == stream_of(early)
            stopped = await second.call("POST", f"{path}/stop")
            assert stopped["state"] == "stopped"
            early += lines(await here.rest())
            same += lines(await there.rest())
            assert here.whole
            assert there.whole
    assert text(early) == text(same)
    assert (early[-1]["type"], early[-1]["state"]) == ("complete", "stopped")
    assert any("blocks" in each for each in same) == html
    for worker in (first, second):
        assert await worker.replies(session_id) == [(text(early), "stopped")]
    assert (await first.call("GET", f"/sessions/{session_id}"))["stream_id"] is None


async def test_a_session_is_busy_for_all_workers(first: Worker, second: Worker, session_id: str) -> None:
    async with first.asked("A long answer, please", session_id) as reply:
        stream_id = stream_of(await begun(reply))
        for more in ({}, {"replace": stream_id}):
            busy = await second.say("And now?", session_id, 409, **more)
            assert (busy["code"], busy["stream_id"]) == ("session_busy", stream_id)
        assert (await second.call("POST", f"/chat/stream/{stream_id}/stop"))["state"] == "stopped"
        await reply.rest()
    replaced = await second.say("short", session_id, replace=stream_id)
    assert (replaced[-1]["state"], replaced[-1]["message_count"]) == ("complete", 2)
    assert await first.replies(session_id) == [(text(replaced), "complete")]


async def test_of_two_messages_at_once_one_is_answered(first: Worker, second: Worker) -> None:
    async def say(worker: Worker, session_id: str) -> int:
        body = {"message": "short", "session_id": session_id}
        async with http_client(worker.url) as client:
            return (await client.post("/chat/stream", json=body)).status_code

    for session_id in [uuid4().hex for _ in range(5)]:
        for turns in (1, 2):  # in a session that both begin, and in one that exists
            statuses = await asyncio.gather(*(say(worker, session_id) for worker in (first, second)))
            assert sorted(statuses) == [200, 409]
            assert [state for _, state in await first.replies(session_id)] == ["complete"] * turns


async def test_a_repeated_key_gets_one_reply_from_all_workers(first: Worker, second: Worker) -> None:
    for number in range(5):
        key, session_id = uuid4().hex, uuid4().hex
        for turns in (1, 2):
            here, there = await asyncio.gather(
                *(worker.say("short", session_id, key=f"{key}-{turns}") for worker in (first, second))
            )
            assert here == there, number
            assert len(await second.replies(session_id)) == turns
        assert (await second.say("short and else", session_id, 409, key=f"{key}-1"))["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/clear")])
async def test_a_session_is_removed_while_another_worker_answers(
    first: Worker, second: Worker, session_id: str, method: str, path: str
) -> None:
    async with exchange(second.url, "/sessions/changes", {"Accept": "application/x-ndjson"}) as changes:
        async with first.asked("A long answer, please", session_id) as reply:
            stream_id = stream_of(await begun(reply))
            await second.call(method, f"/sessions/{session_id}{path}")
            last = lines(await reply.rest())[-1]
            assert (last["type"], last["state"]) == ("complete", "stopped")
        assert (await first.call("GET", f"/chat/stream/{stream_id}", 404))["code"] == "stream_not_found"
        told = await begun(changes, '"cleared"' if path else '"deleted"')
    changed = [each["change"] for each in told if each["session_id"] == session_id]
    assert changed == ["created", "turn_began", "turn_ended", "cleared" if path else "deleted"]


async def test_a_server_that_starts_leaves_running_replies_alone(
    first: Worker, shared: dict[str, str], session_id: str
) -> None:
    slow = {**shared, "TAILRACE_DEMO_PACE": "0.5"}
    async with started(slow) as second:
        async with second.asked("A long answer, please", session_id) as reply:
            path = f"/chat/stream/{stream_of(await begun(reply))}"
        async with started(shared) as third:
            assert [state for _, state in await third.replies(session_id)] == ["generating"]
            assert (await third.call("POST", f"{path}/stop"))["state"] == "stopped"
            assert await first.replies(session_id) == await third.replies(session_id)


async def test_statistics_are_those_of_all_workers_that_live(
    mortal: Worker, first: Worker, second: Worker, session_id: str
) -> None:
    before = await first.call("GET", "/stats")
    async with mortal.asked("A long answer, please", session_id) as reply:
        await begun(reply)
        await second.say("short", uuid4().hex)
        told = await until_stats(first, active_streams=before["active_streams"] + 1, chunks=before["chunks"] + 1)
        assert told["sessions_created"] >= before["sessions_created"] + 2
        assert told["requests"]["successful"] > before["requests"]["successful"]
        assert told["average_response_time"] > 0
        assert told["uptime"] >= before["uptime"]
        mortal.process.kill()
    await until_stats(first, active_streams=0)
    await until_stats(second, active_streams=0)


async def until_stats(worker: Worker, *, active_streams: int, chunks: int = 0) -> dict[str, Any]:
    """The statistics with so many streams, and at least so many chunks: workers tell each other once a second."""
    async with asyncio.timeout(3 * BOUND):
        while True:
            told: dict[str, Any] = await worker.call("GET", "/stats")
            if told["active_streams"] == active_streams and told["chunks"] >= chunks:
                return told
            await asyncio.sleep(0.1)


async def test_a_server_with_another_redis_refuses_to_start_while_others_live(
    first: Worker, second: Worker, shared: dict[str, str]
) -> None:
    with redis_server() as other:
        elsewhere = {**shared, "TAILRACE_STREAMS": other.url}
        with process([*SERVE, str(free_port())], stdout=subprocess.PIPE, **elsewhere) as refused:
            said, _ = await asyncio.to_thread(refused.communicate, timeout=3 * BOUND)
    assert refused.returncode == 1
    assert f"this one keeps its streams in {other.url}" in said.decode()
    assert shared["TAILRACE_STREAMS"][:20] in said.decode()
    assert "Traceback" not in said.decode()


@asynccontextmanager
async def started(shared: dict[str, str], factory: str = CHAT) -> AsyncIterator[Worker]:
    with ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, working(shared, factory))


async def test_a_reply_whose_worker_is_killed_is_interrupted_with_what_was_written(
    mortal: Worker, first: Worker, second: Worker, session_id: str
) -> None:
    async with (
        exchange(second.url, "/sessions/changes", {"Accept": "application/x-ndjson"}) as changes,
        mortal.asked("A long answer, please", session_id) as here,
    ):
        early = await begun(here, '"chunk_number":10,')
        path = f"/chat/stream/{stream_of(early)}"
        async with exchange(first.url, f"{path}?after={early[-1]['id']}") as there:
            await begun(there)
            mortal.process.kill()
            killed = time.monotonic()
            rest = lines(await there.rest())
            assert time.monotonic() - killed < BURIED
            assert not there.whole
        assert (rest[-1]["type"], rest[-1]["code"]) == ("error", "producer_lost")
        told = await begun(changes, '"interrupted"')
        assert time.monotonic() - killed < BURIED
    whole = lines((await _read(first, path)).encode())
    [(kept, state)] = await second.replies(session_id)
    assert (state, kept) == ("interrupted", text(whole))
    assert kept.startswith(text(early))
    # The session is free, and nobody tells the end a second time.
    async with exchange(second.url, "/sessions/changes", {"Accept": "application/x-ndjson"}) as changes:
        assert (await first.say("short", session_id))[-1]["state"] == "complete"
        told += await begun(changes, '"turn_ended"')
    ends = [each["state"] for each in told if each.get("session_id") == session_id and each["change"] == "turn_ended"]
    assert ends == ["interrupted", "complete"]


async def test_readers_of_html_are_told_if_its_worker_is_killed_before_it_renders(
    first: Worker, second: Worker, session_id: str, shared: dict[str, str]
) -> None:
    async with (
        started(shared, "tests.chat.stalled_app:create") as stalled,
        first.asked("A long answer, please", session_id) as reply,
    ):
        stream_id = stream_of(await begun(reply))
        path = f"/chat/stream/{stream_id}?html=true"
        reading = asyncio.create_task(_read(stalled, path))
        await made(shared["TAILRACE_STREAMS"], f"{HTML}/{stream_id}")
        async with exchange(second.url, path) as html:
            stalled.process.kill()
            killed = time.monotonic()
            assert lines(await html.rest())[-1]["code"] == "producer_lost"
            assert time.monotonic() - killed < BURIED
        with pytest.raises((EOFError, ConnectionError)):
            await reading
        # Whoever comes back gets it from a worker that lives.
        async with exchange(second.url, path) as again:
            assert await begun(again, '"blocks"')
        await second.call("POST", f"/chat/stream/{stream_id}/stop")
        await reply.rest()


async def made(streams: str, name: str) -> None:
    """Wait until some worker has made a stream."""
    engine = Engine(streams)
    try:
        async with asyncio.timeout(BOUND):
            while await engine.find(name) is None:  # noqa: ASYNC110 - nobody says it
                await asyncio.sleep(0.05)
    finally:
        await engine.aclose()


async def _read(worker: Worker, path: str) -> str:
    async with exchange(worker.url, path) as reply:
        return (await reply.rest()).decode()


async def test_readers_of_a_worker_that_stops_go_on_at_another(mortal: Worker, second: Worker, session_id: str) -> None:
    async with mortal.asked("short", session_id) as here:
        early = await begun(here)
        mortal.process.send_signal(signal.SIGTERM)
        early += lines(await here.rest())
        farewell = early.pop()
        assert (farewell["type"], farewell["reason"]) == ("farewell", "shutdown")
    path = f"/chat/stream/{stream_of(early)}"
    async with exchange(second.url, f"{path}?after={farewell['id']}") as there:
        late = lines(await there.rest())
        assert there.whole
    assert late[-1]["state"] == "complete"
    numbers = [each["chunk_number"] for each in early + late if each["type"] == "chunk"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert await second.replies(session_id) == [(text(early + late), "complete")]
    assert await asyncio.to_thread(mortal.process.wait, BOUND) in (0, -signal.SIGTERM)


async def test_the_place_of_the_streams_shows_no_password() -> None:
    with redis_server() as redis:
        redis.ask("CONFIG", "SET", "requirepass", "pass/word")
        url = f"redis://:pass%2Fword@127.0.0.1:{redis.port}/0?password=pass/word"
        async with aclosing(Engine(url)) as engine:
            streams = await streams_of(engine, url)
    assert streams is not None
    assert streams.place == f"redis://***@127.0.0.1:{redis.port}/0"
