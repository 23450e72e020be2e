from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI

from tailrace import (
    Engine,
    EngineStatistics,
    Flow,
    Job,
    Log,
    LogFenced,
    Outcome,
    Producer,
    Retention,
    StreamResponse,
    StreamRouter,
    create_streaming_endpoint,
    stream_response,
)
from tailrace.engine.producers import SHUTDOWN
from tailrace.log.memory import MemoryStore
from tailrace.producer import STOPPED
from tests.raw import exchange
from tests.serving import http_client, serving
from tests.silence import silent_loop as silent_loop

pytestmark = pytest.mark.usefixtures("silent_loop")

LIMIT = 30.0


class Reader:
    """A connection that counts how often it is told that the server stops."""

    def __init__(self) -> None:
        self.told = 0

    def leave(self) -> None:
        self.told += 1

    def abandon(self) -> None:
        raise AssertionError("expected no reader to be left after the grace")


async def items(count: int, item: Any = 1) -> AsyncIterator[Any]:
    for _ in range(count):
        yield item


async def endless() -> AsyncIterator[int]:
    yield 1
    await asyncio.Event().wait()


async def stubborn(release: asyncio.Event) -> AsyncIterator[int]:
    """Ignores every cancellation until it is released."""
    yield 1
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue


async def play(engine: Engine, count: int = 1, item: Any = 1) -> Log:
    """Return a stream that has ended."""
    log = await engine.new_stream("/play")
    await asyncio.wait_for((await engine.produce(log, items(count, item))).wait(), LIMIT)
    return log


async def started(engine: Engine, source: AsyncIterator[int], **options: Any) -> Producer:
    """Return a producer whose generator has yielded its first item and waits."""
    producer = await engine.produce(await engine.new_stream("/started"), source, **options)
    with producer.log.tail() as tail:
        await asyncio.wait_for(anext(tail), LIMIT)
    return producer


async def missing(engine: Engine, log: Log) -> bool:
    return await engine.find(log.name) is None


# Logs


@pytest.mark.parametrize("url", ["carrier-pigeon://loft", "memory", ""])
def test_an_unknown_url_scheme_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected a URL that begins with memory:// .*, but got "):
        Engine(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redi://user:s3cr/t@host/1", "'redi://'"),
        ("redi://host/name?sentinel_password=s3cr@t", "'redi://'"),
        ("user:s3cret@host:6379", "no scheme"),
        ("", "no scheme"),
    ],
)
def test_a_refused_url_is_shown_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(ValueError, match=f", but got {shown}$"):
        Engine(url)


async def test_a_name_always_finds_the_same_log() -> None:
    engine = Engine(retention=Retention(count=7))
    assert await engine.find("room") is None
    log = await engine.log("room")
    assert await engine.log("room") is log
    assert await engine.find("room") is log
    assert log.retention == Retention(count=7)
    assert (await engine.log("other", retention=Retention(count=3))).retention == Retention(count=3)


async def test_streams_have_unguessable_names_below_their_path() -> None:
    engine = Engine()
    first, second = await engine.new_stream("/a/b"), await engine.new_stream("/a/b", retention=Retention(count=3))
    assert first.name != second.name
    path, _, stream = first.name.rpartition("/")
    assert (path, len(stream)) == ("/a/b", 22)
    assert first.stream == stream
    assert await engine.find(first.name) is first
    assert second.retention == Retention(count=3)


async def test_a_stream_can_have_an_id_that_the_application_knows_already() -> None:
    engine = Engine()
    known = "an-id_of-22_characters"
    log = await engine.new_stream("/a/b", stream_id=known, retention=Retention(count=3))
    assert (log.name, log.stream, log.retention) == (f"/a/b/{known}", known, Retention(count=3))
    assert await engine.find(log.name) is log
    assert await engine.new_stream("/a/c", stream_id=known) is not log


@pytest.mark.parametrize(
    "stream_id", ["", "short", "a" * 21, "a" * 23, "a" * 21 + "/", "a" * 21 + "é", "a" * 22 + "\n"]
)
async def test_an_id_of_another_form_is_refused(stream_id: str) -> None:
    engine = Engine()
    with pytest.raises(ValueError, match=r"expected a stream id of the form .*\{22\}, but got "):
        await engine.new_stream("/a", stream_id=stream_id)
    assert await engine.find(f"/a/{stream_id}") is None


async def test_a_stream_is_found_at_its_path_and_a_named_log_is_not() -> None:
    engine = Engine()
    stream, _ = await engine.new_stream("/a", fingerprint=b"f"), await engine.log("/a/named")
    assert stream.fingerprint == b"f"
    assert await engine.find_stream("/a", stream.stream) is stream
    assert await engine.find_stream("/a", "named") is None
    assert await engine.find_stream("/b", stream.stream) is None
    await stream.close()
    assert await engine.find_stream("/a", stream.stream) is stream
    await engine.forget(stream)
    assert await engine.find_stream("/a", stream.stream) is None
    await engine.aclose()


async def test_an_id_is_taken_until_its_stream_is_forgotten() -> None:
    engine = Engine()
    log = await play(engine)
    path, _, stream_id = log.name.rpartition("/")
    with pytest.raises(ValueError, match=f"expected no log named '{log.name}' yet"):
        await engine.new_stream(path, stream_id=stream_id)
    assert await engine.find(log.name) is log
    await engine.forget(log)
    again = await engine.new_stream(path, stream_id=stream_id)
    assert again is not log
    await asyncio.wait_for((await engine.produce(again, items(2))).wait(), LIMIT)
    assert (again.top, engine.statistics().kept) == (2, 1)


async def test_an_id_is_taken_while_its_forgotten_stream_still_runs() -> None:
    engine = Engine()
    producer = await started(engine, endless())
    path, _, stream_id = producer.log.name.rpartition("/")
    await engine.forget(producer.log)
    with pytest.raises(ValueError, match=f"expected no log named '{producer.log.name}' yet, but there is one"):
        await engine.new_stream(path, stream_id=stream_id)
    producer.stop()
    await asyncio.wait_for(producer.wait(), LIMIT)
    assert (await engine.new_stream(path, stream_id=stream_id)).top == 0


async def test_a_forgotten_stream_is_gone_at_once() -> None:
    engine = Engine()
    ended, fresh = await play(engine), await engine.new_stream()
    for log in (ended, fresh):
        await engine.forget(log)
        await engine.forget(log)
        assert await missing(engine, log)
    assert (engine.statistics().kept, engine.statistics().kept_size) == (0, 0)


async def test_a_log_can_be_forgotten_later() -> None:
    engine = Engine()
    read, unread = await play(engine), await play(engine)
    with read.tail():
        for log in (read, unread):
            await engine.forget(log, within=0.01)
        async with asyncio.timeout(LIMIT):
            while not await missing(engine, unread):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        assert not await missing(engine, read)
    await engine.aclose()


async def test_a_stream_forgotten_while_it_runs_is_not_kept() -> None:
    engine = Engine()
    producer = await started(engine, endless())
    await engine.forget(producer.log)
    producer.stop()
    await asyncio.wait_for(producer.wait(), LIMIT)
    assert engine.statistics().kept == 0
    assert engine.statistics().producers == 0
    await engine.aclose()


# Producers


async def test_a_log_has_one_producer_at_a_time() -> None:
    engine = Engine()
    producer = await started(engine, endless())
    assert engine.producer(producer.log) is producer
    with pytest.raises(LogFenced, match=r"to be the writer of log .*, but it belongs to the holder of lease 1"):
        await engine.produce(producer.log, items(1))
    assert await asyncio.wait_for(engine.stop(producer.log), LIMIT) == STOPPED
    assert engine.producer(producer.log) is None


async def test_a_log_whose_producer_lost_its_lease_gets_another_one_when_that_has_ended() -> None:
    release = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await release.wait()

    engine = Engine()
    log = await engine.log("/feed")
    producer = await engine.produce(log, slow())
    await asyncio.sleep(0)
    log.set_control(fence=2, leased=False)
    with pytest.raises(LogFenced, match="holder of lease 1"):
        await engine.produce(log, items(1))
    release.set()
    await asyncio.wait_for(producer.wait(), LIMIT)
    assert log.outcome is None
    other = await engine.produce(log, items(1))
    assert engine.producer(log) is other
    await asyncio.wait_for(other.wait(), LIMIT)
    assert log.outcome == Outcome("done")
    await engine.aclose()


async def test_a_log_without_a_producer_stays_free_if_none_can_start() -> None:
    engine = Engine()
    log = await engine.log("news")
    with pytest.raises(TypeError):
        await engine.produce(log, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await engine.produce(log, items(1), gracious=1.0)  # type: ignore[call-arg]
    await log.append("free")
    producer = await engine.produce(log, items(1))
    await producer.wait()
    assert log.top == 2


async def test_the_producer_of_a_log_that_is_forgotten_ends() -> None:
    engine = Engine()
    log = await engine.log("news")
    producer = await engine.produce(log, endless())
    await engine.forget(log)
    await asyncio.wait_for(producer.wait(), LIMIT)
    assert engine.statistics().producers == 0
    assert (await engine.log("news")).epoch != log.epoch


async def test_a_producer_takes_its_options() -> None:
    engine = Engine()
    log = await engine.new_stream()
    producer = await engine.produce(log, items(9), on_disconnect="cancel", flow=Flow.block(4))
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.top == 4
    assert await asyncio.wait_for(engine.stop(log), LIMIT) == STOPPED
    assert producer.finished


async def test_stopping_a_log_that_has_ended_does_not_wait_for_its_generator() -> None:
    engine, release = Engine(), asyncio.Event()

    async def run(producer: Producer) -> None:
        await producer.finish()
        await release.wait()

    log = await engine.new_stream()
    producer = await engine.produce(log, Job(run))
    assert await asyncio.wait_for(log.wait_end(), LIMIT) == Outcome("done")
    assert await asyncio.wait_for(engine.stop(log), LIMIT) == Outcome("done")
    assert not producer.finished
    release.set()
    await asyncio.wait_for(producer.wait(), LIMIT)
    assert engine.statistics().producers == 0


async def test_stopping_a_log_without_a_producer_returns_its_outcome() -> None:
    engine = Engine()
    log = await engine.log("quiet")
    assert await engine.stop(log) is None
    await log.close()
    assert await engine.stop(log) == Outcome("done")


async def test_a_stop_waits_for_a_writer_that_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine()
    log = await engine.new_stream()
    writer = await engine.store.lease(log)  # no producer of this engine has it
    monkeypatch.setattr("tailrace.engine.producers.STOP_PATIENCE", 0.01)
    assert await engine.stop(log) is None
    assert "asked to stop, but not ended within 0.01 s" in caplog.text
    monkeypatch.setattr("tailrace.engine.producers.STOP_PATIENCE", LIMIT)
    stopping = asyncio.create_task(engine.stop(log))
    await asyncio.sleep(0)
    assert log.control.stopping
    assert await writer.end(STOPPED, patience=LIMIT) == STOPPED
    assert await asyncio.wait_for(stopping, LIMIT) == STOPPED


async def test_a_stuck_producer_is_counted_until_its_task_ends() -> None:
    engine, release = Engine(), asyncio.Event()
    producer = await started(engine, stubborn(release), patience=0.01)
    assert await asyncio.wait_for(engine.stop(producer.log), LIMIT) == STOPPED
    assert (engine.statistics().producers, engine.statistics().stuck) == (0, 1)
    release.set()
    await asyncio.wait([producer.task], timeout=LIMIT)
    await asyncio.sleep(0)
    assert engine.statistics().stuck == 0


async def test_routes_run_while_sync_generators_wait_and_the_bound_is_told() -> None:
    tokens = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
    engine, go_on = Engine(threads=tokens + 1), threading.Event()
    router = StreamRouter(engine=engine)

    @router.stream("/waits")
    def waits() -> Iterator[int]:
        assert go_on.wait(LIMIT)
        yield 1

    @router.get("/plain")
    def plain() -> str:
        return "here"

    app = FastAPI()
    app.include_router(router)
    limits = httpx.Limits(max_connections=None)
    async with serving(app) as url, http_client(url, limits=limits) as client:
        waiting = [asyncio.create_task(client.get("/waits")) for _ in range(tokens + 1)]
        async with asyncio.timeout(LIMIT):
            while engine.statistics().threads <= tokens:  # noqa: ASYNC110 - a thread tells nobody that it is taken
                await asyncio.sleep(0.005)
        assert (await client.get("/plain")).json() == "here"
        for params in ({"stream": "true"}, {}):
            refused = await client.get("/waits", params=params)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert "Retry-After" in refused.headers
        go_on.set()
        assert [(await response).json() for response in waiting] == [{"data": [1]}] * (tokens + 1)
    assert engine.statistics().threads == 0


async def test_every_kind_of_route_counts_its_sync_generators() -> None:
    engine = Engine(threads=0)
    router = StreamRouter(engine=engine)

    def words(message: str = "") -> Iterator[str]:
        yield message

    router.stream("/stream")(words)
    create_streaming_endpoint(router, "/form", words)
    app = FastAPI()
    app.include_router(router)

    @app.get("/response", response_model=None)
    async def response() -> StreamResponse:
        return stream_response(words(), engine=engine)

    async with serving(app) as url, http_client(url) as client:
        refused = [
            await client.get("/stream"),
            await client.get("/response"),
            await client.post("/form", data={"message": "hi"}),
        ]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(503, "overloaded")] * 3
    assert engine.statistics().threads == 0


# Kept logs


async def test_an_ended_stream_is_kept_for_replay() -> None:
    engine = Engine()
    log = await play(engine, 3)
    assert await engine.find(log.name) is log
    assert (engine.statistics().kept, engine.statistics().kept_size) == (1, 3)
    await engine.aclose()


async def test_kept_logs_are_bounded_by_count_and_size() -> None:
    for engine in (Engine(keep_count=2), Engine(keep_size=250)):
        logs = [await play(engine, 1, "x" * 98) for _ in range(4)]
        assert [await missing(engine, log) for log in logs] == [True, True, False, False]
        assert (engine.statistics().kept, engine.statistics().kept_size) == (2, 200)
        await engine.aclose()


async def test_ended_logs_are_forgotten_while_nothing_else_happens() -> None:
    engine = Engine(keep=0.01, heartbeat=0.008)
    logs = [await play(engine) for _ in range(2)]
    for named in (await engine.log("produced"), await engine.log("closed")):
        logs.append(named)
        await named.append(1)
    await asyncio.wait_for((await engine.produce(logs[2], items(1))).wait(), LIMIT)
    await logs[3].close()
    by_hand = await engine.new_stream("/by-hand")
    logs.append(by_hand)
    await by_hand.close()
    async with asyncio.timeout(LIMIT):
        while engine.statistics().kept:  # noqa: ASYNC110 - time itself is what is waited for
            await asyncio.sleep(0.005)
    assert [await missing(engine, log) for log in logs] == [True] * 5
    assert await engine.log("closed") is not logs[3]
    await engine.aclose()


async def test_a_slow_reader_of_an_ended_stream_can_come_back() -> None:
    engine = Engine(keep=2.0, heartbeat=0.08)
    router = StreamRouter(engine=engine)

    @router.stream("/export", retention=Retention(size=None), flow=Flow.log())
    async def export() -> AsyncIterator[str]:
        for _ in range(400):
            yield "x" * 50_000  # more in all than sockets hold back

    app = FastAPI()
    app.include_router(router)
    headers = {"Accept": "application/x-ndjson"}
    async with serving(app) as base:
        async with exchange(base, "/export", headers, window=65_536) as slow:
            address = slow.headers["content-location"]
            cursor = json.loads((await slow.until(b"\n")).partition(b"\n")[0])["id"]
            log = await engine.find(address)
            assert log is not None
            await asyncio.sleep(2.2)  # longer than an unread stream is kept
            assert (log.outcome, log.readers, engine.statistics().kept) == (Outcome("done"), 1, 0)
        async with exchange(base, f"{address}?after={cursor}", headers) as again:
            ids = [json.loads(line)["id"] for line in (await again.rest()).split(b"\n") if line]
            assert again.whole
    assert [token.rpartition(".")[2] for token in ids] == [*map(str, range(2, 401)), "end"]


async def test_idle_named_logs_are_forgotten_unless_they_are_held_or_produced_into() -> None:
    engine = Engine(keep_idle=0.01, heartbeat=0.008)
    for number in range(5):
        await engine.log(f"/rooms/{number}")
    held = await engine.log("/held")
    producer = await started(engine, endless())
    async with asyncio.timeout(LIMIT):
        while await engine.find("/rooms/4") is not None:  # noqa: ASYNC110 - time itself is what is waited for
            await asyncio.sleep(0.005)
    assert await engine.log("/held") is held
    assert engine.producer(producer.log) is producer
    assert await engine.find(producer.log.name) is producer.log
    producer.stop()
    await engine.aclose()


# Readers and the end


async def test_readers_are_told_once_that_the_server_stops() -> None:
    engine = Engine()
    stays, left = Reader(), Reader()
    engine.readers.join(stays)
    engine.readers.join(left)
    engine.readers.part(left)
    engine.readers.part(left)
    assert engine.statistics().readers == 1
    engine.drain()
    engine.drain()
    assert (stays.told, left.told) == (1, 0)
    engine.readers.part(stays)
    await engine.aclose()


async def test_readers_that_do_not_leave_are_abandoned_after_the_grace() -> None:
    engine = Engine(shutdown_grace=0.01)

    class Stalled(Reader):
        def abandon(self) -> None:
            engine.readers.part(self)

    engine.readers.join(Stalled())
    await asyncio.wait_for(engine.aclose(), LIMIT)
    assert engine.statistics().readers == 0


async def test_farewells_differ_within_their_range() -> None:
    engine = Engine(reconnect=(0.5, 3.0))
    farewells = [engine.readers.farewell("shutdown") for _ in range(100)]
    assert {farewell.reason for farewell in farewells} == {"shutdown"}
    assert all(500 <= farewell.retry <= 3_000 for farewell in farewells)
    assert len({farewell.retry for farewell in farewells}) > 10


async def test_readers_of_a_stream_that_is_still_produced_may_stay() -> None:
    engine = Engine()
    producer = await started(engine, endless())
    quiet = await engine.log("quiet")
    assert not engine.leaving(quiet)
    engine.drain()
    assert engine.leaving(quiet)
    assert not engine.leaving(producer.log)
    engine.store.shared = True
    assert engine.leaving(producer.log)
    producer.stop()
    await engine.aclose()


async def test_a_producer_within_its_grace_finishes() -> None:
    engine, go_on = Engine(shutdown_grace=LIMIT), asyncio.Event()

    async def finishing() -> AsyncIterator[int]:
        yield 1
        await go_on.wait()
        yield 2

    producer = await started(engine, finishing())
    closing = asyncio.create_task(engine.aclose())
    await asyncio.sleep(0)
    assert engine.statistics().draining
    assert not closing.done()
    go_on.set()
    await asyncio.wait_for(closing, LIMIT)
    assert producer.log.outcome == Outcome("done")
    assert producer.log.top == 2


async def test_a_stream_that_nobody_reads_is_not_waited_for_at_the_end() -> None:
    engine = Engine(shutdown_grace=LIMIT)
    producer = await started(engine, endless(), on_disconnect="cancel", grace=LIMIT)
    await asyncio.wait_for(engine.aclose(), LIMIT / 2)
    assert producer.log.outcome == Outcome("cancelled", "disconnected", "every reader left")


async def test_readers_of_a_shared_log_go_although_its_producer_has_its_grace() -> None:
    engine = Engine(shutdown_grace=LIMIT)
    shared, requested = await engine.log("shared"), await engine.new_stream("/requested")
    for log in (shared, requested):
        await engine.produce(log, endless())
    assert not engine.leaving(shared)
    engine.drain()
    assert engine.leaving(shared)
    assert not engine.leaving(requested)
    for log in (shared, requested):
        await asyncio.wait_for(engine.stop(log), LIMIT)
    await engine.aclose()


async def test_closing_twice_at_once_is_closing_once() -> None:
    engine = Engine(shutdown_grace=0.01)
    producer = await started(engine, endless())
    await asyncio.wait_for(asyncio.gather(engine.aclose(), engine.aclose()), LIMIT)
    assert producer.log.outcome == SHUTDOWN
    assert not engine.draining


async def test_producers_beyond_their_grace_are_stopped() -> None:
    engine = Engine(shutdown_grace=0.01)
    producers = [await started(engine, endless()) for _ in range(3)]
    await asyncio.wait_for(engine.aclose(), LIMIT)
    assert [producer.log.outcome for producer in producers] == [SHUTDOWN] * 3


@pytest.mark.parametrize("shorter", [0.0, 0.01])
async def test_the_grace_can_be_shortened(shorter: float) -> None:
    engine = Engine(shutdown_grace=LIMIT)
    assert engine.shutdown_grace == LIMIT
    producer = await started(engine, endless())
    reader = Reader()
    engine.readers.join(reader)
    engine.drain()
    engine.drain(grace=shorter)
    await asyncio.wait_for(producer.wait(), LIMIT / 2)
    assert producer.log.outcome == SHUTDOWN
    assert reader.told == 1
    engine.readers.part(reader)
    await engine.aclose()


async def test_a_shutdown_can_begin_without_a_grace() -> None:
    engine = Engine(shutdown_grace=LIMIT)
    producer = await started(engine, endless())
    engine.drain(grace=0)
    await asyncio.wait_for(engine.aclose(), LIMIT / 2)
    assert producer.log.outcome == SHUTDOWN


@pytest.mark.parametrize("longer", [None, LIMIT])
async def test_the_grace_cannot_be_lengthened(longer: float | None) -> None:
    engine = Engine(shutdown_grace=LIMIT)
    producer = await started(engine, endless())
    engine.drain(grace=0.01)
    engine.drain(grace=longer)
    await asyncio.wait_for(engine.aclose(), LIMIT / 2)
    assert producer.log.outcome == SHUTDOWN


async def test_a_producer_that_starts_after_the_grace_is_stopped() -> None:
    engine = Engine()
    engine.drain(grace=0)
    engine.drain(grace=0)
    log = await engine.new_stream()
    await asyncio.wait_for((await engine.produce(log, endless())).wait(), LIMIT / 2)
    assert log.outcome == SHUTDOWN
    await engine.aclose()


async def test_a_generator_that_is_left_running_is_named(caplog: pytest.LogCaptureFixture) -> None:
    engine, release = Engine(shutdown_grace=0.01), asyncio.Event()
    producer = await started(engine, stubborn(release), patience=0.01)
    with caplog.at_level(logging.ERROR, "tailrace"):
        await asyncio.wait_for(engine.aclose(), LIMIT)
    assert f"tailrace producer {producer.log.name} is left running" in caplog.messages
    release.set()
    await asyncio.wait([producer.task], timeout=LIMIT)


async def test_a_closed_engine_is_empty_and_can_be_used_again() -> None:
    engine = Engine(heartbeat=0.008, keep=1.0)
    old, never_produced = await play(engine), await engine.new_stream()
    assert engine.statistics().kept == 1
    await engine.aclose()
    await engine.aclose()
    assert engine.statistics() == EngineStatistics(
        readers=0, producers=0, stuck=0, threads=0, kept=0, kept_size=0, draining=False
    )
    assert await missing(engine, old)
    assert await missing(engine, never_produced)
    new = await play(engine, 2)
    assert (engine.statistics().kept, engine.statistics().kept_size) == (1, 2)
    async with asyncio.timeout(LIMIT):
        while engine.statistics().kept:  # noqa: ASYNC110 - time itself is what is waited for
            await asyncio.sleep(0.005)
    assert await missing(engine, new)


async def test_the_engine_is_in_memory_by_default() -> None:
    assert isinstance(Engine().store, MemoryStore)


async def test_an_engine_takes_a_store() -> None:
    store = MemoryStore()
    engine = Engine(store)
    assert engine.store is store
    assert await engine.log("/log") is await store.find("/log")
    await engine.aclose()
    assert isinstance(Engine("memory://").store, MemoryStore)


async def test_statistics_count_readers_producers_and_kept_logs() -> None:
    engine = Engine()
    producer = await started(engine, endless())
    reader = Reader()
    engine.readers.join(reader)
    await play(engine, 2)
    assert engine.statistics() == EngineStatistics(
        readers=1, producers=1, stuck=0, threads=0, kept=1, kept_size=2, draining=False
    )
    producer.stop()
    engine.readers.part(reader)
    await engine.aclose()
