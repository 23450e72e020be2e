"""Workers over one Redis that fails them, or that takes one of them for dead. All are in the test's own process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tailrace import Engine, StoreUnavailable
from tailrace.chat import create_app
from tailrace.chat.answers import WORKER_LOST
from tailrace.chat.conversations import Conversations
from tailrace.chat.store import NewTurn, Store, open_store
from tailrace.chat.turns import PATH, Question
from tailrace.chat.workers import PATH as WORKERS
from tailrace.chat.workers import RETENTION
from tailrace.log.redis.store import RedisStore
from tests.chat.api.talking import JSON, Chat, Hold, Scripted, begun, body, lines, settings, text, within
from tests.log.redis.redis_server import RedisServer, redis_server
from tests.log.redis.stores import QUICK, until
from tests.raw import BOUND, exchange
from tests.serving import http_client, serving

LIMITS = {"session_limit": 9, "turn_limit": 9, "context_turns": 9}
LINES = {"Accept": "application/x-ndjson"}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as redis:
        yield redis


@asynccontextmanager
async def working(folder: Path, redis: RedisServer, model: Scripted) -> AsyncIterator[Chat]:
    """A worker that notices quickly what happens to others."""
    app = create_app(settings(folder), model=model)
    app.state.tailrace_engine = Engine(RedisStore(redis.url, pace=QUICK), shutdown_grace=0)
    async with serving(app) as url, http_client(url) as http:
        await http.get("/health")  # it listens before it has started
        yield Chat(url, app, http)


def store_of(worker: Chat) -> RedisStore:
    store = worker.app.state.tailrace_engine.store
    assert isinstance(store, RedisStore)
    return store


def talk_of(worker: Chat) -> Conversations:
    talk: Conversations = worker.app.state.conversations
    return talk


async def stall(worker: Chat) -> None:
    """Let a worker look dead to the others."""
    beating = store_of(worker)._beating
    beating.cancel()
    await asyncio.wait([beating], timeout=BOUND)
    assert beating.cancelled()


async def until_replies(worker: Chat, session_id: str, wanted: list[tuple[str, str]]) -> None:
    async with asyncio.timeout(BOUND):
        while (found := await worker.replies(session_id)) != wanted:
            assert len(found) == len(wanted), found
            await asyncio.sleep(0.05)


async def test_a_worker_that_is_taken_for_dead_goes_on_under_another_name(tmp_path: Path, redis: RedisServer) -> None:
    held = Hold()
    async with (
        working(tmp_path, redis, Scripted("one ", held)) as stalled,
        working(tmp_path, redis, Scripted("two")) as other,
        exchange(other.url, "/sessions/changes", LINES) as changes,
    ):
        name = talk_of(stalled)._answers.workers.own
        async with stalled.saying("Hello", "s") as reply:
            await begun(reply)
            await within(held.reached)
            await stall(stalled)
            last = lines(await reply.rest())[-1]
            assert (last["type"], last["code"]) == ("error", "producer_lost")
        store_of(stalled)._beating = store_of(stalled).spawn(store_of(stalled)._beat.run())
        told = await begun(changes, '"interrupted"')
        assert await other.replies("s") == [("one ", "interrupted")]
        assert text(await other.say("And you?", "s")) == "two"
        async with asyncio.timeout(BOUND):
            while talk_of(stalled)._answers.workers.own == name:  # noqa: ASYNC110 - nobody says it
                await asyncio.sleep(0.05)
        held.release.set()
        assert text(await stalled.say("And now?", "s")) == "one "
        told += await begun(changes, '"turn_ended"')
        assert (await other.replies("s"))[0] == ("one ", "interrupted")


async def test_replies_are_interrupted_if_redis_loses_its_data(tmp_path: Path, redis: RedisServer) -> None:
    held = Hold()
    async with (
        working(tmp_path, redis, Scripted("one ", held)) as one,
        working(tmp_path, redis, Scripted("two ", held)) as two,
    ):
        async with one.saying("Hello", "s") as reply:
            await begun(reply)
            await within(held.reached)
            redis.restart()
            assert lines(await reply.rest())[-1]["reason"] == "epoch_changed"
        await until_replies(two, "s", [("one ", "interrupted")])
        # The workers know each other again.
        held.reached.clear()
        async with two.saying("And you?", "s") as reply:
            stream_id = (await begun(reply))[0]["stream_id"]
            await within(held.reached)
            assert (await one.get("/sessions/s"))["stream_id"] == stream_id
            async with asyncio.timeout(BOUND):
                while redis.ask("HLEN", store_of(two)._beat._processes) < 2:  # noqa: ASYNC110 - until both have told Redis again
                    await asyncio.sleep(0.05)
            await stall(two)
            await until_replies(one, "s", [("one ", "interrupted"), ("two ", "interrupted")])


async def test_a_reply_that_begins_right_after_redis_lost_its_data_goes_on(tmp_path: Path, redis: RedisServer) -> None:
    held = Hold()
    async with (
        working(tmp_path, redis, Scripted("one ", held)) as one,
        working(tmp_path, redis, Scripted("two")) as two,
    ):
        lost, others = talk_of(one)._answers.workers.own, talk_of(two)._answers.workers._watching
        await until(lambda: lost in others)
        redis.ask("FLUSHALL")
        async with one.saying("Hello", "s") as reply:
            stream_id = (await begun(reply))[0]["stream_id"]
            await within(held.reached)
            await until(lambda: lost not in others)  # it has seen to the turns of the worker that is lost
            assert (await two.get("/sessions/s"))["stream_id"] == stream_id
            held.release.set()
            assert lines(await reply.rest())[-1]["type"] == "complete"
        assert await two.replies("s") == [("one ", "complete")]


async def test_a_document_whose_stream_redis_loses_is_interrupted(tmp_path: Path, redis: RedisServer) -> None:
    held = Hold()
    async with working(tmp_path, redis, Scripted("one ", held)) as worker:
        asking = asyncio.create_task(worker.post("/chat/stream", 503, json=body("Hello", "s"), headers=JSON))
        await within(held.reached)
        live = talk_of(worker)._answers.of_session("s", "")
        assert live is not None
        await until(lambda: live.log.furthest == 3)  # the document has it
        redis.ask("FLUSHALL")
        async with asyncio.timeout(BOUND):
            answer = await asking
        assert (answer["code"], text(answer["data"])) == ("interrupted", "one ")
        await until_replies(worker, "s", [("one ", "interrupted")])


async def test_a_worker_is_known_to_those_who_start_after_many_others(tmp_path: Path, redis: RedisServer) -> None:
    async with working(tmp_path, redis, Scripted("one")) as old:
        engine: Engine = old.app.state.tailrace_engine
        told = await engine.log(WORKERS, retention=RETENTION)
        for number in range(300):
            await told.append(f"gone{number}")
        async with working(tmp_path, redis, Scripted("two")) as new, asyncio.timeout(BOUND):
            while not talk_of(new).elsewhere():  # noqa: ASYNC110 - nobody says it
                await asyncio.sleep(0.05)


async def test_requests_are_refused_while_redis_does_not_answer(tmp_path: Path, redis: RedisServer) -> None:
    async with working(tmp_path, redis, Scripted("one")) as worker:
        stream_id = (await worker.say("Hello", "s"))[0]["stream_id"]
        redis.stop()
        for refused in (
            await worker.post("/chat/stream", 503, json=body("Again", "s")),
            await worker.get(f"/chat/stream/{stream_id}", 503),
        ):
            assert refused["code"] == "streams_unavailable"
        assert await worker.replies("s") == [("one", "complete")]
        redis.start()
        assert text(await worker.say("Again", "s")) == "one"
        assert text(await worker.read(stream_id)) == "one"


async def test_a_reply_whose_stream_cannot_begin_has_failed(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        working(tmp_path, redis, Scripted("one")) as worker,
        working(tmp_path, redis, Scripted("two")) as other,
    ):
        with monkeypatch.context() as patch:

            async def refuse(*_: object, **options: object) -> None:
                raise StoreUnavailable("the stream", "the test refuses it")

            patch.setattr(worker.app.state.tailrace_engine, "produce", refuse)
            refused = await worker.post("/chat/stream", 503, json=body("Hello", "s"))
            assert refused["code"] == "streams_unavailable"
        assert await other.replies("s") == [("", "failed")]
        assert text(await other.say("Again", "s")) == "two"
        assert (await worker.get("/health"))["active_streams"] == 0


async def test_a_request_that_is_cancelled_while_its_turn_is_stored_gets_its_reply(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with working(tmp_path, redis, Scripted("one")) as worker, working(tmp_path, redis, Scripted("two")) as other:
        talk = talk_of(worker)
        with closing(sqlite3.connect(tmp_path / "chat.sqlite3", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # so that the turn waits
            asking = asyncio.create_task(talk.ask(Question("", "Hello", "s")))
            async with asyncio.timeout(BOUND):
                while (live := talk._answers.of_session("s", "")) is None:  # noqa: ASYNC110 - nobody says it
                    await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not live.begun.is_set()
            database.execute("ROLLBACK")
        await within(live.ended)
        assert await other.replies("s") == [("one", "complete")]
        assert text(await other.say("And you?", "s")) == "two"


async def test_what_dead_workers_left_is_interrupted_at_the_start(tmp_path: Path, redis: RedisServer) -> None:
    engine = Engine(RedisStore(redis.url, pace=QUICK))
    logs = [await engine.new_stream(PATH) for _ in range(2)]  # whose workers died before they had a producer
    async with open_store(settings(tmp_path).database_url) as store:
        for number, name in enumerate(("dead", None)):
            stream_id = logs[number].name.rpartition("/")[2]
            new = NewTurn(f"s{number}", stream_id, None, "Hello", "m", 0.0, worker=name)
            await store.begin_turn(new, "", create=True, **LIMITS)
        new = NewTurn("s2", "x" * 22, None, "Hello", "m", 0.0, worker="dead")
        await store.begin_turn(new, "", create=True, **LIMITS)
    async with working(tmp_path, redis, Scripted("one")) as worker:
        for session_id in ("s0", "s1", "s2"):
            await until_replies(worker, session_id, [("", "interrupted")])
            assert text(await worker.say("Again", session_id)) == "one"
        for log in logs:
            assert await log.wait_end() == WORKER_LOST
    await engine.aclose()


async def test_a_turn_that_is_stored_after_its_worker_was_buried_keeps_its_session_busy_for_a_moment(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with working(tmp_path, redis, Scripted("one")) as worker:
        new = NewTurn("s", "x" * 22, None, "Hello", "m", 0.0, worker="dead")
        await talk_of(worker).store.begin_turn(new, "", create=True, **LIMITS)
        assert (await worker.post("/chat/stream", 409, json=body("And you?", "s")))["code"] == "session_busy"
        await until_replies(worker, "s", [("", "interrupted")])
        assert text(await worker.say("And you?", "s")) == "one"
    workers = talk_of(worker)._answers.workers
    workers.watch("late")  # which nobody would wait for any more
    assert not workers._watching


async def test_of_two_workers_that_take_a_session_over_at_once_one_answers(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        working(tmp_path, redis, Scripted("never ", Hold())) as dead,
        working(tmp_path, redis, Scripted("one")) as one,
        working(tmp_path, redis, Scripted("two")) as two,
    ):
        both = asyncio.Barrier(2)
        for worker in (one, two):
            meet(monkeypatch, talk_of(worker).store, both)
        async with dead.saying("Hello", "s") as reply:
            await begun(reply)
            await stall(dead)
            assert lines(await reply.rest())[-1]["code"] == "producer_lost"
            for worker in (one, two):
                await until_replies(worker, "s", [("never ", "interrupted")])
            asked = [worker.http.post("/chat/stream", json=body("And you?", "s")) for worker in (one, two)]
            async with asyncio.timeout(BOUND):
                won, lost = sorted(await asyncio.gather(*asked), key=lambda answer: answer.status_code)
        assert (won.status_code, lost.status_code) == (200, 409)
        objects = lines(won.content)
        assert objects[-1]["type"] == "complete"
        assert (lost.json()["code"], lost.json()["stream_id"]) == ("session_busy", objects[0]["stream_id"])
        assert await one.replies("s") == [("never ", "interrupted"), (text(objects), "complete")]


def meet(patch: pytest.MonkeyPatch, store: Store, barrier: asyncio.Barrier) -> None:
    """Let a store wait for others at a barrier before it begins a turn."""
    begin = store.begin_turn

    async def begin_turn(*arguments: Any, **options: Any) -> Any:
        await barrier.wait()
        return await begin(*arguments, **options)

    patch.setattr(store, "begin_turn", begin_turn)


async def test_a_stored_reply_is_made_again_if_the_worker_died_that_did_so(tmp_path: Path, redis: RedisServer) -> None:
    async with working(tmp_path, redis, Scripted("one")) as worker:
        stream_id = (await worker.say("Hello", "s"))[0]["stream_id"]
        engine: Engine = worker.app.state.tailrace_engine
        log = await engine.find(f"{PATH}/{stream_id}")
        assert log is not None
        await engine.forget(log)
        await (await engine.new_stream(PATH, stream_id=stream_id)).close(WORKER_LOST)
        again = await worker.read(stream_id)
        assert (text(again), again[-1]["state"]) == ("one", "complete")


async def test_a_reply_whose_stream_is_lost_is_read_as_interrupted(tmp_path: Path, redis: RedisServer) -> None:
    held = Hold()
    async with (
        working(tmp_path, redis, Scripted("one ", held)) as one,
        working(tmp_path, redis, Scripted()) as two,
        one.saying("Hello", "s") as reply,
    ):
        stream_id = (await begun(reply))[0]["stream_id"]
        await within(held.reached)
        turn = await talk_of(two).store.find_turn(stream_id, "")
        assert turn is not None
        stored = talk_of(two).store

        async def still_generating(*_: object) -> object:
            return turn

        log = await one.app.state.tailrace_engine.find(f"{PATH}/{stream_id}")
        await one.app.state.tailrace_engine.forget(log)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stored, "find_turn", still_generating)
            assert (await talk_of(two).stop("", stream_id)).state == "generating"
            assert (await two.get(f"/chat/stream/{stream_id}", 503, headers=JSON))["code"] == "interrupted"
        await until_replies(two, "s", [("one ", "interrupted")])
