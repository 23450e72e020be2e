from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from tailrace import Batch, Event, Flow, Log, Outcome, Retention, StreamError, StreamResponse, StreamSettings
from tailrace.asgi.document import Document
from tailrace.asgi.reading import Reading
from tailrace.events import DONE
from tests.asgi.apps import Served, Server, of, request, small_engine
from tests.raw import exchange
from tests.serving import http_client, serving
from tests.sources import Faucet, soon


async def get(app: Any, path: str, **options: Any) -> httpx.Response:
    async with serving(app) as url, http_client(url) as client:
        return await client.get(path, **options)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], b'{"data":[]}'),
        ([1, "a", None], b'{"data":[1,"a",null]}'),
        ([Event({"a": 1}, "named")], b'{"data":[{"a":1}]}'),
    ],
)
async def test_the_whole_stream_is_one_document(items: list[Any], expected: bytes) -> None:
    answer = await get(Served(x=of(*items)), "/x")
    assert answer.status_code == 200
    assert answer.content == expected
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(expected))
    assert "content-location" not in answer.headers


async def test_a_document_leaves_nothing_behind() -> None:
    app = Served(x=of(1))
    await get(app, "/x")
    statistics = app.engine.statistics()
    assert (statistics.producers, statistics.kept) == (0, 0)


async def test_a_long_stream_is_read_in_many_batches() -> None:
    answer = await get(Served(x=of(*range(5000))), "/x")
    assert answer.json() == {"data": list(range(5000))}


@pytest.mark.parametrize("flow", [Flow.drop(1), Flow.latest(), Flow.disconnect(1), Flow.log(), Flow.block(1)])
async def test_a_document_is_whole_whatever_the_flow(flow: Flow) -> None:
    settings = StreamSettings(flow=flow, retention=Retention(count=10))
    answer = await get(Served(x=of(*range(600), settings=settings)), "/x")
    assert answer.json() == {"data": list(range(600))}


async def test_a_stream_error_has_its_status_and_what_came_before_it() -> None:
    answer = await get(Served(x=of(1, 2, StreamError("no more", code="dry", status=502))), "/x")
    assert answer.status_code == 502
    assert answer.json() == {"detail": "no more", "code": "dry", "data": [1, 2]}
    assert answer.headers["cache-control"] == "no-store"


async def test_any_other_error_is_the_server_s() -> None:
    app = Served(x=of(1, ValueError("secret")))
    answer = await get(app, "/x")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert [str(error) for error in app.raised] == ["secret"]


async def test_an_item_that_cannot_be_serialised_is_the_server_s_error() -> None:
    app = Served(x=of(1, object()))
    answer = await get(app, "/x")
    assert answer.status_code == 500
    assert "expected JSON-able data, but got object" in str(app.raised[0])


async def test_a_cancelled_stream_is_not_shown_as_whole() -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url, http_client(url) as client:
        asking = asyncio.create_task(client.get("/x"))
        await soon(faucet.started)
        (producer,) = app.engine.producers._running.values()
        producer.stop(Outcome("cancelled", "maintenance", "come back later"))
        answer = await asking
    assert answer.status_code == 503
    assert answer.json() == {"detail": "come back later", "code": "maintenance", "data": [1]}
    assert answer.headers["retry-after"] == "1"


async def test_a_stream_that_its_store_loses_is_not_shown_as_whole() -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url, http_client(url) as client:
        asking = asyncio.create_task(client.get("/x"))
        await soon(faucet.started)
        (producer,) = app.engine.producers._running.values()
        while not producer.log.furthest:  # until the document has the item
            await producer.log.wait_change()
        await app.engine.forget(producer.log)
        answer = await asking
    assert answer.status_code == 503
    assert answer.json() == {"detail": "the store has lost the stream", "code": "entries_lost", "data": [1]}
    assert app.engine.statistics().producers == 0


async def test_a_cancelled_stream_may_have_no_words() -> None:
    faucet = Faucet()
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url, http_client(url) as client:
        asking = asyncio.create_task(client.get("/x"))
        await soon(faucet.started)
        (producer,) = app.engine.producers._running.values()
        producer.stop(Outcome("cancelled"))
        answer = await asking
    assert answer.json() == {"detail": "", "code": "cancelled", "data": []}


@pytest.mark.parametrize("shared", [False, True])
async def test_a_document_beyond_the_wire_s_bound_is_refused(shared: bool) -> None:
    settings = StreamSettings(wires=[Batch(max_bytes=100)])
    engine = small_engine()
    if shared:
        log = await engine.log("news")
        await log.append(*["a" * 50] * 3)
        app = Served(engine, x=StreamResponse(log, settings))
    else:
        app = Served(engine, x=of(*["a" * 50] * 3, settings=settings))
    answer = await get(app, "/x")
    assert answer.status_code == 500
    assert answer.json() == {
        "detail": "expected at most 100 bytes in a document, but there are more: ask for a stream",
        "code": "document_too_large",
    }
    assert not app.raised
    assert engine.statistics().kept == 0


async def test_a_document_too_large_stops_its_stream() -> None:
    faucet = Faucet(["a" * 101])
    app = Served(x=StreamResponse(faucet.run, StreamSettings(wires=[Batch(max_bytes=100)])))
    assert (await get(app, "/x")).status_code == 500
    assert faucet.closed.is_set()


async def test_of_an_open_log_a_document_says_what_is_there_and_the_cursor() -> None:
    app = Served()
    log = await app.engine.log("news")
    await log.append(1, 2)
    app = Served(app.engine, x=StreamResponse(log))
    async with serving(app) as url, http_client(url) as client:
        first = (await client.get("/x")).json()
        assert first == {"data": [1, 2], "cursor": str(log.cursor(2))}
        await log.append(3)
        second = (await client.get("/x", params={"after": first["cursor"]})).json()
        assert second == {"data": [3], "cursor": str(log.cursor(3))}


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome("done"), {"data": [1]}),
        (
            Outcome("error", "dry", "no more"),
            {"data": [1], "outcome": {"state": "error", "code": "dry", "message": "no more"}},
        ),
    ],
)
async def test_of_an_ended_log_a_document_says_how_it_ended(outcome: Outcome, expected: Any) -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(1)
    await log.close(outcome)
    answer = await get(Served(engine, x=StreamResponse(log)), "/x")
    assert answer.status_code == 200
    assert answer.json() == expected


async def test_a_log_that_is_trimmed_before_it_was_read_is_a_reset() -> None:
    engine = small_engine()
    log = await engine.log("news", retention=Retention(count=2))
    await log.append(1)
    server = Server()
    asked = request(Batch())
    reading = Reading(engine, asked.wire, log.tail())
    await log.append(*range(2, 11))
    document = Document(reading, asked, 200, [], server.scope, server.receive, server.send)
    await document.run(server.scope, server.receive)
    assert server.messages[0]["status"] == 410
    assert f'"cursor":"{log.cursor(8)}"'.encode() in server.body


async def test_a_client_that_does_not_wait_for_the_document_cancels_at_once() -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url:
        async with exchange(url, "/x", head=False):
            await soon(faucet.started)
        # Nobody knows an address at which to come back: there is no grace of ten seconds.
        await soon(faucet.closed)


async def test_a_detached_generator_finishes_after_the_client_of_its_document_is_gone() -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run, StreamSettings(on_disconnect="detach")))
    async with serving(app) as url:
        async with exchange(url, "/x", head=False):
            await soon(faucet.started)
            (producer,) = app.engine.producers._running.values()
            left = asyncio.Event()

            def listener(log: Log) -> None:
                if not log.readers:
                    left.set()

            producer.log.listen(listener)
        await soon(left)
        faucet.put(2)
        faucet.end()
        await soon(app.left)
        assert (producer.log.top, producer.log.outcome) == (2, DONE)
        assert app.engine.statistics().kept == 0


async def test_a_function_answers_anew_each_time() -> None:
    async def endpoint(asked: Request) -> StreamResponse:
        return of(asked.query_params["n"])

    async with serving(Served(x=endpoint)) as url, http_client(url) as client:
        for n in ("1", "2"):
            assert (await client.get("/x", params={"n": n})).json() == {"data": [n]}


async def test_a_document_says_where_it_begins_when_what_was_before_is_gone() -> None:
    engine = small_engine()
    log = await engine.log("news", retention=Retention(count=2))
    await log.append("a", "b", "c", "d")
    await log.close()
    app = StreamResponse(log, engine=engine)
    assert (await get(app, "/")).json() == {"data": ["c", "d"], "after": str(log.cursor(2))}
    resumed = await get(app, f"/?after={log.cursor(3)}")
    assert resumed.json() == {"data": ["d"]}
