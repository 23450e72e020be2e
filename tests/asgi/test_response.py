from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic_core import from_json
from starlette.background import BackgroundTask
from starlette.types import Message

from tailrace import SSE, Event, Job, Log, Outcome, Producer, Retention, StreamError, StreamResponse, StreamSettings
from tailrace.log.memory import MemoryStore, MemoryWriter
from tailrace.modes import DEFAULT_WIRES
from tailrace.producer import OnDisconnect
from tests.asgi.apps import ACCEPTED, SSE_HEADERS, STREAMED, Served, Server, of, small_engine
from tests.raw import BOUND, exchange, fetch, frames, values
from tests.serving import http_client, serving
from tests.silence import silent_loop as silent_loop
from tests.sources import Faucet, soon, turns

WIRES = {wire.media_type: wire for wire in DEFAULT_WIRES}

BODIES = {
    "application/json": '{{"data":[1,"two",{{"three":3}}]}}',
    "text/event-stream": (
        "id: {log}.1\ndata: 1\n\n"
        'id: {log}.2\ndata: "two"\n\n'
        'id: {log}.3\nevent: named\ndata: {{"three":3}}\n\n'
        "id: {log}.3.end\nevent: done\ndata: {{}}\n\n"
    ),
    "application/x-ndjson": (
        '{{"id":"{log}.1","data":1}}\n'
        '{{"id":"{log}.2","data":"two"}}\n'
        '{{"id":"{log}.3","event":"named","data":{{"three":3}}}}\n'
        '{{"id":"{log}.3.end","event":"done","data":{{}}}}\n'
    ),
    "text/plain": '1\ntwo{{"three":3}}\n',
}


@pytest.mark.parametrize("media_type", ACCEPTED)
async def test_one_generator_is_every_wire_to_the_byte(media_type: str) -> None:
    app = Served(x=of(1, "two", Event({"three": 3}, "named")))
    async with serving(app) as url:
        answer, body = await fetch(url, "/x", {"Accept": media_type})
    # Of the document there is nothing to go on with.
    log = answer.headers.get("tailrace-cursor", "").removesuffix(".0")
    assert bool(log) == WIRES[media_type].streaming
    assert body.decode() == BODIES[media_type].format(log=log)
    assert answer.whole
    assert answer.status == 200
    assert answer.headers["content-type"] == WIRES[media_type].content_type
    streams = media_type != "application/json"
    assert answer.headers["cache-control"] == ("no-cache, no-transform" if streams else "no-store")


async def test_a_source_that_gives_no_items_is_the_application_s_error_and_leaves_no_stream() -> None:
    app = Served(x=StreamResponse(lambda: 5, stream_id="a" * 22))  # type: ignore[arg-type, return-value]
    async with serving(app) as url:
        answer, _ = await fetch(url, "/x", SSE_HEADERS)
        assert answer.status == 500
        assert await app.engine.find_stream("/x", "a" * 22) is None
    assert "'int' object is not" in str(app.raised[0])


async def test_an_application_by_itself_resumes_its_streams() -> None:
    faucet = Faucet([1])
    async with (
        serving(StreamResponse(faucet.run), lifespan="off") as url,
        exchange(url, "/x", SSE_HEADERS) as first,
    ):
        await first.until(b"data: 1")
        async with exchange(url, f"/x?after={first.headers['tailrace-cursor']}", SSE_HEADERS) as second:
            faucet.end()
            assert values(await second.rest()) == [1, "done"]


@pytest.mark.parametrize(("accept", "status"), [("text/plain", 410), ("text/event-stream", 200)])
async def test_a_stream_that_is_trimmed_before_its_reader_could_read_is_a_reset(accept: str, status: int) -> None:
    async def never_suspends() -> AsyncIterator[int]:
        for number in range(200):
            yield number

    settings = StreamSettings(on_disconnect="detach", retention=Retention(count=10))
    async with serving(Served(x=StreamResponse(never_suspends, settings))) as url:
        answer, body = await fetch(url, "/x", {"Accept": accept})
    assert answer.status == status
    assert b"trimmed" in body


async def test_headers_status_and_background_are_those_of_any_response() -> None:
    done = asyncio.Event()
    response = of(1, status_code=202, headers={"X-Own": "yes"}, background=BackgroundTask(done.set))
    response.set_cookie("seen", "1")
    async with serving(Served(x=response)) as url:
        answer, _ = await fetch(url, "/x", SSE_HEADERS)
        await soon(done)
    assert answer.status == 202
    assert answer.headers["x-own"] == "yes"
    assert answer.headers["set-cookie"].startswith("seen=1")


async def test_own_headers_take_the_place_of_the_stream_s() -> None:
    headers = {"Content-Type": "text/x-events", "Cache-Control": "no-store", "Vary": "Cookie"}
    async with serving(Served(x=of(1, headers=headers))) as url:
        for method in ("GET", "HEAD"):
            answer, _ = await fetch(url, "/x", SSE_HEADERS, method=method)
            told = [value for name, value in answer.fields if name in ("content-type", "cache-control")]
            assert told == ["text/x-events", "no-store"]
            assert [value for name, value in answer.fields if name == "vary"] == ["accept", "Cookie"]


@pytest.mark.parametrize("media_type", ACCEPTED)
async def test_head_says_what_get_would_and_starts_nothing(media_type: str) -> None:
    faucet = Faucet([1])
    done = asyncio.Event()
    app = Served(x=StreamResponse(faucet.run, background=BackgroundTask(done.set)))
    async with serving(app) as url:
        answer, body = await fetch(url, "/x", {"Accept": media_type}, method="HEAD")
        await soon(done)
    assert (answer.status, body) == (200, b"")
    assert answer.headers["content-type"] == WIRES[media_type].content_type
    assert not faucet.started.is_set()
    assert app.engine.statistics().kept == 0


ITEMS = [1, "two", {"three": 3}]


@pytest.mark.parametrize("way", ["header", "query"])
@pytest.mark.parametrize("media_type", STREAMED)
async def test_an_ended_stream_is_resumed_from_every_offset(media_type: str, way: str) -> None:
    wire = WIRES[media_type]
    async with serving(Served(x=of(*ITEMS))) as url:
        answer, whole = await fetch(url, "/x", {"Accept": media_type})
        log = answer.headers["tailrace-cursor"].removesuffix(".0")
        for offset in range(4):
            cursor = f"{log}.{offset}"
            path, headers = ("/x", {"Last-Event-ID": cursor}) if way == "header" else (f"/x?after={cursor}", {})
            answer, body = await fetch(url, path, {"Accept": media_type, **headers})
            assert answer.headers["tailrace-cursor"] == cursor
            assert answer.whole
            if media_type == "text/plain":
                assert body.decode() == "".join(["1\n", "two", '{"three":3}\n'][offset:])
            else:
                assert frames(body, wire) == frames(whole, wire)[offset:]


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_a_running_stream_is_resumed_without_gap_or_duplicate(cut: int) -> None:
    faucet = Faucet(range(cut))
    async with serving(Served(x=StreamResponse(faucet.run))) as url:
        async with exchange(url, "/x", SSE_HEADERS) as first:
            seen = frames(await first.until(f".{cut}\ndata: {cut - 1}\n\n".encode()))
        cursor = seen[-1].id
        faucet.put("meanwhile")
        async with exchange(url, f"/x?after={cursor}", SSE_HEADERS) as second:
            missed = await second.until(b"meanwhile")
            faucet.put("live")
            faucet.end()
            rest = frames(missed + await second.rest())
    assert [frame.data for frame in [*seen, *rest]] == [*range(cut), "meanwhile", "live", {}]
    assert [frame.id and frame.id.split(".")[2] for frame in [*seen, *rest[:-1]]] == [
        str(offset) for offset in range(1, cut + 3)
    ]


async def test_the_header_beats_the_query() -> None:
    async with serving(Served(x=of(*ITEMS))) as url:
        answer, _ = await fetch(url, "/x", SSE_HEADERS)
        log = answer.headers["tailrace-cursor"].removesuffix(".0")
        _, body = await fetch(url, f"/x?after={log}.0", {**SSE_HEADERS, "Last-Event-ID": f"{log}.2"})
    assert values(body)[-1] == "done"
    assert [frame.data for frame in frames(body)] == [{"three": 3}, {}]


@pytest.mark.parametrize("media_type", ACCEPTED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_has_the_end_already_gets_204(media_type: str, method: str) -> None:
    faucet = Faucet()
    async with serving(Served(x=StreamResponse(faucet.run))) as url:
        answer, body = await fetch(url, "/x?after=s.e.3.end", {"Accept": media_type}, method=method)
    assert (answer.status, body) == (204, b"")
    assert "content-length" not in answer.headers
    assert not faucet.started.is_set()


async def test_two_readers_of_one_log_read_the_same() -> None:
    engine = small_engine()
    log = await engine.log("news")
    app = Served(engine, x=StreamResponse(log))
    await log.append(1)
    async with (
        serving(app) as url,
        exchange(url, "/x", SSE_HEADERS) as first,
        exchange(url, "/x", {"Accept": "application/x-ndjson"}) as second,
        exchange(url, "/x", SSE_HEADERS) as third,
    ):
        for got in (first, second, third):
            await got.until(b"\n")
        await log.append(2)
        await log.close()
        assert values(await first.rest()) == [2, "done"]
        assert values(await second.rest(), WIRES["application/x-ndjson"]) == [2, "done"]
        assert values(await third.rest()) == [2, "done"]


async def test_a_second_reader_joins_a_running_stream_and_does_not_start_it_again() -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS) as first:
        start = first.headers["tailrace-cursor"]
        await first.until(b"data: 1")
        async with exchange(url, f"/x?after={start}", SSE_HEADERS) as second:
            faucet.put(2)
            faucet.end()
            assert values(await first.rest()) == [2, "done"]
            assert values(await second.rest()) == [1, 2, "done"]
        assert app.engine.statistics().kept == 1


async def test_sync_items_are_a_source() -> None:
    def sync() -> Iterator[int]:
        yield from (1, 2)

    app = Served(list=StreamResponse([1, 2]), sync=StreamResponse(sync))
    async with serving(app) as url:
        for path in ("/list", "/sync"):
            _, body = await fetch(url, path, SSE_HEADERS)
            assert values(body) == [1, 2, "done"]


async def test_a_failure_before_the_first_event_has_its_status() -> None:
    app = Served(known=of(StreamError("closed", code="closed", status=409)), unknown=of(ValueError("secret")))
    async with serving(app) as url:
        answer, body = await fetch(url, "/known", SSE_HEADERS)
        assert answer.status == 409
        assert from_json(body) == {"detail": "closed", "code": "closed"}
        assert not app.raised
        answer, body = await fetch(url, "/unknown", SSE_HEADERS)
        assert (answer.status, body) == (500, b"Internal Server Error")
        assert [str(error) for error in app.raised] == ["secret"]


async def test_a_response_may_begin_before_its_first_event_and_then_a_failure_is_said_in_band() -> None:
    begun, fail = asyncio.Event(), asyncio.Event()

    async def run(producer: Producer) -> None:
        producer.begin()
        begun.set()
        await fail.wait()
        raise StreamError("no more", code="dry")

    app = Served(x=StreamResponse(lambda: Job(run), StreamSettings(status_wait=BOUND)))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS) as got:
        assert got.status == 200
        assert begun.is_set()
        fail.set()
        (frame,) = frames(await got.rest())
        assert (frame.event, frame.data) == ("error", {"code": "dry", "message": "no more"})


async def test_a_response_waits_until_its_job_begins() -> None:
    begin = asyncio.Event()

    async def run(producer: Producer) -> None:
        await begin.wait()
        producer.begin()
        await asyncio.Event().wait()

    server = Server()
    response = StreamResponse(Job(run), StreamSettings(status_wait=BOUND, grace=0), engine=small_engine())
    answering = asyncio.create_task(response(server.scope, server.receive, server.send))
    await turns()
    assert server.messages == []
    begin.set()
    await turns()
    assert server.messages[0]["status"] == 200
    server.gone.set()
    await asyncio.wait_for(answering, BOUND)


async def test_a_job_fails_before_it_begins_with_its_status() -> None:
    async def run(producer: Producer) -> None:
        raise StreamError("closed", code="closed", status=409)

    app = Served(x=StreamResponse(Job(run)))
    async with serving(app) as url:
        answer, body = await fetch(url, "/x", SSE_HEADERS)
    assert (answer.status, from_json(body)) == (409, {"detail": "closed", "code": "closed"})


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", SSE_HEADERS, 200),
        ("GET", {"Accept": "image/png"}, 406),
        ("GET", {**SSE_HEADERS, "Last-Event-ID": "no cursor"}, 400),
        ("GET", {**SSE_HEADERS, "Last-Event-ID": "aaaaaaaaaaaaaaaaaaaaaa.aaaaaaaa.1"}, 200),
    ],
)
async def test_a_job_that_no_request_needs_does_not_run(
    given: bool, method: str, headers: dict[str, str], status: int
) -> None:
    ran = asyncio.Event()

    async def run(producer: Producer) -> None:
        ran.set()

    app = Served(x=StreamResponse(Job(run) if given else lambda: Job(run)))
    async with serving(app) as url:
        answer, _ = await fetch(url, "/x", headers, method=method)
    assert answer.status == status
    assert not ran.is_set()


@pytest.mark.parametrize("media_type", ACCEPTED)
async def test_a_response_ends_when_its_job_says_so_and_is_seen_out_when_the_job_is_done(media_type: str) -> None:
    release, done = asyncio.Event(), asyncio.Event()

    async def run(producer: Producer) -> None:
        await producer.send(1)
        await producer.finish()
        await release.wait()
        done.set()

    app = Served(x=StreamResponse(lambda: Job(run)))
    async with serving(app) as url:
        answer, body = await fetch(url, "/x", {"Accept": media_type})
        assert answer.whole
        assert b"1" in body
        assert not app.left.is_set()
        release.set()
        await soon(app.left)
        assert done.is_set()


async def test_background_tasks_are_for_streams_that_were_answered() -> None:
    # As in Starlette, where an exception leaves no response that could have tasks.
    ran = asyncio.Event()
    app = Served(x=of(ValueError("secret"), background=BackgroundTask(ran.set)))
    async with serving(app) as url:
        await fetch(url, "/x", SSE_HEADERS)
    assert not ran.is_set()


@pytest.mark.parametrize("error", [StreamError("no more", code="dry"), ValueError("secret"), OSError("disk")])
@pytest.mark.parametrize("media_type", STREAMED)
async def test_a_failure_between_events_is_said_and_breaks_the_body_off(error: Exception, media_type: str) -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run))
    async with serving(app) as url, exchange(url, "/x", {"Accept": media_type}) as got:
        await got.until(b"1")
        faucet.put(error)
        body = await got.rest()
        assert not got.whole
    public = {"code": "dry", "message": "no more"}
    if not isinstance(error, StreamError):
        public = {"code": "internal_error", "message": "Internal Server Error"}
    if media_type == "text/plain":
        assert body in (b"", b"\n")
    else:
        (frame,) = frames(body.lstrip(), WIRES[media_type])
        assert (frame.event, frame.data) == ("error", public)
        assert frame.id is not None
        assert frame.id.endswith(".1.end")
    # A StreamError has said all that there is; any other is the server's to log.
    assert app.raised == ([] if isinstance(error, StreamError) else [error])


async def test_a_failed_stream_fails_again_for_who_resumes_it() -> None:
    app = Served(x=of(1, ValueError("secret")))
    async with serving(app) as url:
        answer, _ = await fetch(url, "/x", SSE_HEADERS)
        assert len(app.raised) == 1
        again, body = await fetch(url, f"/x?after={answer.headers['tailrace-cursor']}", SSE_HEADERS)
        assert [frame.event for frame in frames(body)] == [None, "error"]
        assert not again.whole
        # The server has logged it once.
        assert len(app.raised) == 1


async def test_an_item_that_cannot_be_serialised_is_an_error_in_band() -> None:
    app = Served(x=of(1, object(), 3))
    async with serving(app) as url:
        answer, body = await fetch(url, "/x", SSE_HEADERS)
    assert [frame.data for frame in frames(body)] == [
        1,
        {"code": "not_serializable", "message": "an event could not be encoded"},
    ]
    assert not answer.whole
    assert "got object" in str(app.raised[0])


@pytest.mark.parametrize("state", ["done", "cancelled"])
async def test_text_ends_cleanly_only_when_it_is_whole(state: Any) -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append("abc")
    await log.close(Outcome(state))
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        answer, body = await fetch(url, "/x", {"Accept": "text/plain"})
    assert body == b"abc"
    assert answer.whole == (state == "done")


@pytest.mark.parametrize("leave", ["send", "send later", "disconnect"])
async def test_a_server_may_say_by_an_oserror_that_the_client_has_gone(leave: str) -> None:
    # ASGI 2.4; such a client is no failure of the application.
    faucet = Faucet([1])
    server = Server()
    allowed = {"send": 0, "send later": 1, "disconnect": 9}[leave]

    async def send(message: Any) -> None:
        if len(server.messages) == allowed:
            raise BrokenPipeError
        await server.send(message)
        if leave == "disconnect" and "body" in message:
            server.gone.set()

    response = StreamResponse(faucet.run, StreamSettings(grace=0.0), engine=small_engine())
    async with asyncio.timeout(BOUND):
        await response(server.scope, server.receive, send)
    assert faucet.closed.is_set()


async def test_an_oserror_of_the_generator_s_own_is_a_failure() -> None:
    server = Server()
    response = of(1, FileNotFoundError("gone"), engine=small_engine())
    async with asyncio.timeout(BOUND):
        with pytest.raises(FileNotFoundError):
            await response(server.scope, server.receive, server.send)
    assert [frame.event for frame in frames(server.body)] == [None, "error"]


async def test_without_an_application_each_response_has_an_engine_of_its_own() -> None:
    server = Server()
    async with asyncio.timeout(BOUND):
        await of(1)(server.scope, server.receive, server.send)
    assert values(server.body) == [1, "done"]


async def test_a_log_may_outlive_its_readers() -> None:
    engine = small_engine()
    log: Log = await engine.log("news")
    async with serving(Served(engine, x=StreamResponse(log))) as url:
        async with exchange(url, "/x", SSE_HEADERS):
            pass
        async with exchange(url, "/x", SSE_HEADERS) as got:
            await log.append(1)
            await got.until(b"data: 1")
            assert log.readers <= 2


@pytest.mark.parametrize("starts", [False, True])
async def test_a_wire_that_fails_leaves_no_reader(starts: bool) -> None:
    class Broken(SSE):
        def encoder(self, stream: str, epoch: str, created: int) -> Any:
            raise LookupError("broken")

    engine, server = small_engine(), Server()
    log = await engine.log("news")
    response = StreamResponse(of(1).source if starts else log, StreamSettings([Broken()], grace=0.0), engine=engine)
    with pytest.raises(LookupError):
        await response(server.scope, server.receive, server.send)
    assert log.readers == 0
    assert engine.statistics().producers == 0


async def test_cancelling_the_request_cancels_its_reader() -> None:
    faucet = Faucet([1])
    server = Server()
    response = StreamResponse(faucet.run, StreamSettings(grace=0.0), engine=small_engine())
    running = asyncio.create_task(response(server.scope, server.receive, server.send))
    await soon(faucet.started)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await soon(faucet.closed)


@pytest.mark.parametrize("media_type", ["text/event-stream", "application/json"])
async def test_a_request_that_is_cancelled_after_its_client_left_cancels_its_generator(media_type: str) -> None:
    faucet = Faucet([1])
    server = Server()
    server.scope["headers"] = [(b"accept", media_type.encode())]
    engine = small_engine()
    response = StreamResponse(faucet.run, StreamSettings(grace=BOUND), engine=engine)
    running = asyncio.create_task(response(server.scope, server.receive, server.send))
    await soon(faucet.started)
    (producer,) = engine.producers._running.values()
    server.gone.set()
    while producer.log.readers:  # noqa: ASYNC110 - no event tells of it in the same turn
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert faucet.closed.is_set()
    assert producer.finished
    assert engine.statistics().kept == (media_type == "text/event-stream")


async def test_a_request_that_is_cancelled_while_its_stream_starts_leaves_no_stream() -> None:
    class Slow(MemoryStore):
        leasing = asyncio.Event()

        async def lease(self, log: Log) -> MemoryWriter:
            self.leasing.set()
            await asyncio.Event().wait()
            raise AssertionError("expected the request to be cancelled")

    engine = small_engine()
    engine.store = engine.producers._store = Slow()
    server = Server()
    response = StreamResponse(Faucet([1]).run, engine=engine, stream_id="a" * 22)
    running = asyncio.create_task(response(server.scope, server.receive, server.send))
    await soon(Slow.leasing)
    log = await engine.find_stream("/x", "a" * 22)
    assert log is not None
    with log.tail() as waiting:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.wait_for(anext(waiting, None), BOUND) is None
    assert log.outcome is not None
    assert log.outcome.message == "the request was cancelled"
    assert await engine.find_stream("/x", "a" * 22) is None


async def test_a_browser_s_reconnect_is_answered_by_httpx_too() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async with (
        serving(Served(x=StreamResponse(numbers))) as url,
        http_client(url) as client,
    ):
        first = await client.get("/x", headers=SSE_HEADERS)
        last = frames(first.content)[-1].id
        assert last is not None
        assert (await client.get("/x", headers={**SSE_HEADERS, "Last-Event-ID": last})).status_code == 204


@pytest.mark.parametrize("on_disconnect", ["detach", "cancel"])
async def test_an_error_that_comes_when_the_client_is_gone_is_logged(
    on_disconnect: OnDisconnect, caplog: pytest.LogCaptureFixture
) -> None:
    faucet = Faucet([1])
    app = Served(x=StreamResponse(faucet.run, StreamSettings(on_disconnect=on_disconnect, grace=BOUND)))
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS):
            await soon(faucet.started)
        async with asyncio.timeout(BOUND):
            while app.engine.statistics().readers:  # noqa: ASYNC110 - nobody says that a reader has parted
                await asyncio.sleep(0)
        faucet.put(ValueError("secret"))
        await soon(faucet.closed)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["secret"]
    assert not app.raised


@pytest.mark.usefixtures("silent_loop")
@pytest.mark.parametrize("error", [ValueError("secret"), OSError("secret")])
@pytest.mark.parametrize("refused", [1, 2])
async def test_an_error_that_comes_when_the_server_has_refused_the_body_is_logged_once(
    refused: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The server raises OSError (ASGI 2.4) either before the generator fails, or when the client is to be told."""
    faucet = Faucet([1])
    server = Server()
    bodies = 0

    async def send(message: Message) -> None:
        nonlocal bodies
        if message.get("body"):
            bodies += 1
            faucet.put(error)
            if bodies >= refused:
                raise BrokenPipeError("gone")
        await server.send(message)

    settings = StreamSettings(on_disconnect="detach")
    response = StreamResponse(faucet.run, settings, engine=small_engine())
    async with asyncio.timeout(BOUND):
        await response(server.scope, server.receive, send)
    assert bodies == refused
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[1] for record in logged if record.exc_info] == [error]
    assert logged[0].getMessage().endswith("the generator raised after its client had left")


@pytest.mark.usefixtures("silent_loop")
@pytest.mark.parametrize("on_disconnect", ["detach", "cancel"])
async def test_an_error_that_comes_when_the_request_is_cancelled_is_logged_once(
    on_disconnect: OnDisconnect, caplog: pytest.LogCaptureFixture
) -> None:
    faucet = Faucet([1])
    server = Server()
    engine = small_engine()
    response = StreamResponse(faucet.run, StreamSettings(on_disconnect=on_disconnect), engine=engine)
    running = asyncio.create_task(response(server.scope, server.receive, server.send))
    await soon(faucet.started)
    await turns()
    (producer,) = engine.producers._running.values()
    faucet.put(ValueError("secret"))
    if on_disconnect == "cancel":
        # The error comes before the cancellation, and the request is about to raise it.
        while producer.error is None:  # noqa: ASYNC110 - nobody says that a generator has failed
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(producer.wait(), BOUND)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["secret"]


# One reader at a time


async def test_a_second_reader_is_refused_until_the_first_has_left() -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(1)
    async with serving(Served(engine, x=StreamResponse(log, exclusive=True))) as url:
        async with exchange(url, "/x", SSE_HEADERS) as first:
            await first.until(b"data: 1")
            refused, body = await fetch(url, f"/x?after={log.cursor(0)}", SSE_HEADERS)
            assert (refused.status, from_json(body)["code"]) == (409, "already_read")
            assert refused.headers["retry-after"] == "1"
            await log.append(2)
            assert values((await first.until(b"data: 2")).lstrip()) == [2]
        await until_free(log)
        await log.close()
        assert values((await fetch(url, "/x", SSE_HEADERS))[1]) == [1, 2, "done"]
        assert values((await fetch(url, "/x", SSE_HEADERS))[1]) == [1, 2, "done"]


async def until_free(log: Log) -> None:
    """Wait until the server has noticed that the readers of a log have left."""
    left = asyncio.Event()

    def listener(log: Log) -> None:
        if not log.readers:
            left.set()

    log.listen(listener)
    listener(log)
    await soon(left)
    log.unlisten(listener)


async def test_an_application_says_in_its_own_words_that_somebody_reads() -> None:
    engine = small_engine()
    log = await engine.log("news")
    busy = StreamError("one at a time", code="session_busy", status=423, retry_after=7)
    async with (
        serving(Served(engine, x=StreamResponse(log, exclusive=busy))) as url,
        exchange(url, "/x", SSE_HEADERS),
    ):
        refused, body = await fetch(url, "/x", SSE_HEADERS)
    assert (refused.status, refused.headers["retry-after"]) == (423, "7")
    assert from_json(body) == {"detail": "one at a time", "code": "session_busy"}


async def test_what_reads_no_stream_needs_no_seat() -> None:
    engine = small_engine()
    log = await engine.log("news", retention=Retention(count=1))
    await log.append(1, 2, 3)
    async with (
        serving(Served(engine, x=StreamResponse(log, exclusive=True))) as url,
        exchange(url, "/x", SSE_HEADERS) as first,
    ):
        await first.until(b"data: 3")
        assert (await fetch(url, "/x", SSE_HEADERS, method="HEAD"))[0].status == 200
        assert (await fetch(url, f"/x?after={log.cursor(3)}.end", SSE_HEADERS))[0].status == 204
        assert values((await fetch(url, f"/x?after={log.cursor(0)}", SSE_HEADERS))[1]) == ["reset"]
        _, document = await fetch(url, "/x", {"Accept": "application/json"})
        assert from_json(document)["data"] == [3]
        await log.append(4)
        await first.until(b"data: 4")


async def test_a_reader_in_another_process_counts_and_stays() -> None:
    engine = small_engine()
    log = await engine.log("news")
    await log.append(1)
    await log.close()
    log.set_control(elsewhere=1)
    async with serving(Served(engine, x=StreamResponse(log, exclusive=True))) as url:
        assert (await fetch(url, "/x", SSE_HEADERS))[0].status == 409
        assert values((await fetch(url, "/x?takeover=true", SSE_HEADERS))[1]) == [1, "done"]


async def test_a_repeated_request_reads_in_place_of_the_first() -> None:
    faucet = Faucet([1])
    options: dict[str, Any] = {"stream_id": "a" * 22, "exclusive": True, "addressed": True}
    app = Served(x=StreamResponse(faucet.run, **options))
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS) as first:
        await first.until(b"data: 1")
        cursor = first.headers["tailrace-cursor"]
        assert (await fetch(url, f"/x?after={cursor}", SSE_HEADERS))[0].status == 409
        async with exchange(url, "/x", SSE_HEADERS) as second:
            (farewell,) = frames(await first.rest())
            assert (farewell.event, farewell.data) == ("farewell", {"reason": "replaced", "retry": 0})
            faucet.put(2)
            faucet.end()
            assert values(await second.rest()) == [1, 2, "done"]


async def test_a_repeated_request_may_come_before_the_first_reads() -> None:
    engine = small_engine()
    faucet, called, proceed = Faucet([1]), asyncio.Event(), asyncio.Event()

    async def function() -> AsyncIterator[int]:
        called.set()
        await proceed.wait()
        return faucet.run()

    response = StreamResponse(function, engine=engine, stream_id="a" * 22, exclusive=True)
    one, two = Server(), Server()
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        group.create_task(response(one.scope, one.receive, one.send))
        await called.wait()
        group.create_task(response(two.scope, two.receive, two.send))
        await turns()
        proceed.set()
        await turns()
        faucet.end()
    assert frames(one.body)[-1].data == {"reason": "replaced", "retry": 0}
    assert values(two.body) == [1, "done"]
    await engine.aclose()


async def test_a_stream_that_fails_before_its_first_event_leaves_no_seat() -> None:
    failing = StreamResponse(fails, StreamSettings(grace=0.0), stream_id="a" * 22, exclusive=True)
    app = Served(x=failing)
    async with serving(app) as url:
        for _ in range(2):
            assert (await fetch(url, "/x", SSE_HEADERS))[0].status == 418
    assert not app.engine.readers._seats


async def fails() -> AsyncIterator[int]:
    raise StreamError("no", status=418)
    yield
