from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tailrace.asgi.opening import open_source
from tailrace.asgi.request import StreamRequest
from tailrace.asgi.settings import StreamSettings
from tailrace.engine import Engine
from tailrace.errors import LogReset, StreamError
from tailrace.flow import Flow, Retention
from tailrace.wire.base import Wire
from tailrace.wire.batch import Batch
from tailrace.wire.sse import SSE
from tests.asgi.apps import request, small_engine
from tests.raw import BOUND
from tests.sources import Faucet, soon


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = small_engine()
    yield engine
    async with asyncio.timeout(BOUND):
        await engine.aclose()


SETTINGS = StreamSettings()


async def test_without_a_cursor_a_stream_of_its_own_starts(engine: Engine) -> None:
    first, second = Faucet(), Faucet()
    openings = [await open_source(source.run, SETTINGS, engine, request(SSE())) for source in (first, second)]
    await soon(first.started)
    await soon(second.started)
    names = [opening.tail.log.name for opening in openings]
    assert names[0] != names[1]
    assert all(name.startswith("/x/") for name in names)
    assert engine.statistics().producers == 2


async def test_the_items_themselves_are_a_source_too(engine: Engine) -> None:
    opening = await open_source([1, 2], SETTINGS, engine, request(SSE()))
    assert opening.producer is not None
    await opening.producer.wait()
    assert [entry.data for entry in await opening.tail.read()] == [1, 2]


async def test_a_cursor_finds_the_stream_that_it_names_at_the_same_path(engine: Engine) -> None:
    faucet = Faucet([1, 2])
    started = await open_source(faucet.run, SETTINGS, engine, request(SSE()))
    await started.tail.wait()
    cursor = str(started.tail.log.cursor(1))
    found = await open_source(Faucet().run, SETTINGS, engine, request(SSE(), cursor))
    assert found.tail.log is started.tail.log
    assert found.producer is None
    assert [entry.offset for entry in await found.tail.read()] == [2]
    with pytest.raises(LogReset):
        await open_source(faucet.run, SETTINGS, engine, request(SSE(), cursor, path="/other"))


async def test_a_cursor_of_an_unknown_stream_is_a_reset_to_its_end(engine: Engine) -> None:
    with pytest.raises(LogReset) as reset:
        await open_source(Faucet().run, SETTINGS, engine, request(SSE(), "s.e.5"))
    assert (reset.value.reason, reset.value.resume) == ("epoch_changed", "s.e.5.end")
    assert engine.statistics().producers == 0


async def test_a_log_is_read_by_whoever_asks(engine: Engine) -> None:
    log = engine.log("news")
    await log.extend([1, 2, 3])
    whole = await open_source(log, SETTINGS, engine, request(SSE()))
    rest = await open_source(log, SETTINGS, engine, request(SSE(), str(log.cursor(2))))
    assert whole.tail.position == 0
    assert rest.tail.position == 2
    assert whole.producer is None
    assert log.readers == 2


async def test_a_reader_without_a_cursor_starts_a_trimmed_log_at_what_is_kept(engine: Engine) -> None:
    log = engine.log("news", retention=Retention(count=2))
    await log.extend(range(10))
    opening = await open_source(log, SETTINGS, engine, request(SSE()))
    assert [entry.data for entry in await opening.tail.read()] == [8, 9]


async def test_a_cursor_that_a_log_cannot_continue_is_a_reset(engine: Engine) -> None:
    log = engine.log("news")
    with pytest.raises(LogReset) as reset:
        await open_source(log, SETTINGS, engine, request(SSE(), str(log.cursor(1))))
    assert reset.value.reason == "ahead"
    assert log.readers == 0


async def test_no_stream_starts_while_the_server_leaves(engine: Engine) -> None:
    log = engine.log("news")
    engine.drain()
    with pytest.raises(StreamError) as refused:
        await open_source(Faucet().run, SETTINGS, engine, request(SSE()))
    assert (refused.value.status, refused.value.code) == (503, "shutting_down")
    assert (await open_source(log, SETTINGS, engine, request(SSE()))).tail.log is log


@pytest.mark.parametrize("flow", [Flow.drop(1), Flow.latest(), Flow.disconnect(1), Flow.log()])
async def test_the_reader_of_a_document_misses_nothing_whatever_the_flow(engine: Engine, flow: Flow) -> None:
    # It is this process that reads: no slow client can hold the producer up.
    settings = StreamSettings(flow=flow, retention=Retention(count=10))

    async def never_suspends() -> AsyncIterator[int]:
        for number in range(1000):
            yield number

    opening = await open_source(never_suspends, settings, engine, request(Batch()))
    async with asyncio.timeout(BOUND):
        data = [entry.data async for entries in opening.tail for entry in entries]
    assert data == list(range(1000))
    assert opening.tail.dropped == 0


def keyed(wire: Wire, stream_id: str = "a" * 22) -> StreamRequest:
    return replace(request(wire), stream_id=stream_id)


async def test_a_repeated_key_reads_the_stream_that_it_has_started(engine: Engine) -> None:
    faucet, never = Faucet([1, 2]), Faucet()
    first = await open_source(faucet.run, SETTINGS, engine, keyed(SSE()))
    assert first.tail.log.name == f"/x/{'a' * 22}"
    again = await open_source(never.run, SETTINGS, engine, keyed(SSE()))
    assert again.tail.log is first.tail.log
    assert again.producer is None
    assert not never.started.is_set()
    other = await open_source(Faucet().run, SETTINGS, engine, keyed(SSE(), "b" * 22))
    assert other.tail.log is not first.tail.log


async def test_the_items_of_a_repeated_request_are_closed(engine: Engine) -> None:
    first = await open_source([1], SETTINGS, engine, keyed(SSE()))
    closed: list[bool] = []

    class Items:
        def __aiter__(self) -> Items:
            return self

        async def __anext__(self) -> int:
            raise AssertionError("nobody reads this")

        async def aclose(self) -> None:
            closed.append(True)

    again = await open_source(Items(), SETTINGS, engine, keyed(SSE()))
    assert again.tail.log is first.tail.log
    assert closed == [True]


async def test_a_document_is_made_anew_whatever_the_key(engine: Engine) -> None:
    openings = [await open_source([1], SETTINGS, engine, keyed(Batch())) for _ in range(2)]
    assert openings[0].tail.log is not openings[1].tail.log
    assert all(opening.producer is not None for opening in openings)
