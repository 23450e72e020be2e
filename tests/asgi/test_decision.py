from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from tailrace import Engine, Log, MemoryLog, Retention, StreamError, StreamResponse, StreamSettings
from tailrace.asgi.decision import (
    MAX_QUERY,
    Decision,
    Ended,
    Headers,
    Read,
    Refuse,
    ResetTo,
    Start,
    StreamRequest,
    address,
    decide,
    place_of,
    remaining_query,
)
from tailrace.cursor import Cursor
from tailrace.errors import CursorError, NotAcceptable
from tailrace.modes import DEFAULT_WIRES
from tailrace.wire.base import Wire
from tailrace.wire.batch import Batch
from tailrace.wire.sse import SSE
from tests.asgi.apps import request, small_engine
from tests.raw import BOUND
from tests.sources import Faucet

# What a request says


def scope(query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/x", "query_string": query, "headers": headers or [], **more}


def read(*arguments: Any, **more: Any) -> StreamRequest:
    return StreamRequest.read(scope(*arguments, **more), DEFAULT_WIRES)


def test_a_request_that_asks_for_nothing_gets_the_first_wire_from_the_start() -> None:
    assert read() == StreamRequest("GET", "/x", DEFAULT_WIRES[0], None)


@pytest.mark.parametrize(
    ("query", "headers", "token"),
    [
        (b"after=s.e.1", [], "s.e.1"),
        (b"", [(b"last-event-id", b"s.e.2")], "s.e.2"),
        (b"", [(b"last-event-id", b" s.e.2 ")], "s.e.2"),
        (b"after=s.e.1", [(b"last-event-id", b"s.e.2")], "s.e.2"),
        (b"after=s.e.1&after=s.e.3", [], "s.e.3"),
        (b"after=s%2Ee.3.end", [], "s.e.3.end"),
    ],
)
def test_the_cursor_is_the_header_or_else_the_last_of_the_query(
    query: bytes, headers: list[tuple[bytes, bytes]], token: str
) -> None:
    assert read(query, headers).cursor == Cursor.parse(token)


@pytest.mark.parametrize(("query", "header"), [(b"after=", b""), (b"", b"  "), (b"other=1", b"")])
def test_an_empty_cursor_is_none(query: bytes, header: bytes) -> None:
    # A browser's EventSource whose last event had an empty id, and forms that send every field.
    assert read(query, [(b"last-event-id", header)]).cursor is None


@pytest.mark.parametrize("token", [b"x", b"s.e.-1", b"\xff\xfe", b"%00", b"s.e.1 s.e.2", b"s.e.01"])
def test_what_is_no_cursor_is_refused(token: bytes) -> None:
    with pytest.raises(CursorError):
        read(b"after=" + token)
    with pytest.raises(CursorError):
        read(b"", [(b"last-event-id", token)])


def test_several_accept_headers_count_as_one() -> None:
    headers = [(b"accept", b"text/html"), (b"accept", b"application/x-ndjson")]
    assert read(b"", headers).wire.media_type == "application/x-ndjson"


@pytest.mark.parametrize(
    ("query", "expected"), [(b"stream=true", "text/event-stream"), (b"stream=0", "application/json")]
)
def test_the_query_beats_accept(query: bytes, expected: str) -> None:
    other = b"application/json" if b"true" in query else b"text/event-stream"
    assert read(query, [(b"accept", other)]).wire.media_type == expected


def test_no_wire_is_refused_with_the_list() -> None:
    with pytest.raises(NotAcceptable) as refused:
        read(b"", [(b"accept", b"image/png")])
    assert refused.value.available == tuple(wire.media_type for wire in DEFAULT_WIRES)


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("", "/a", "/a"),
        ("", "/a/", "/a"),
        ("", "/", ""),
        ("/v1", "/a", "/v1/a"),  # a proxy has taken the prefix off
        ("/v1/", "/a", "/v1/a"),
        ("/v1", "/v1/a", "/v1/a"),  # mounted, or a server that puts it on
        ("/v1", "/v1", "/v1"),
        ("/v1", "/v10", "/v1/v10"),
    ],
)
def test_an_address_is_the_path_that_the_client_sees(root: str, path: str, expected: str) -> None:
    assert address({"root_path": root, "path": path}) == expected


def test_an_address_needs_no_root_path() -> None:
    assert address({"path": "/a"}) == "/a"


@pytest.mark.parametrize(
    ("query", "remaining"),
    [
        (b"", ""),
        (b"after=s.e.1&stream=true&takeover=true", ""),
        (b"token=a%20b&after=s.e.1&q=&q=2", "token=a+b&q=&q=2"),
        (b"q=%3E%0D%0A", "q=%3E%0D%0A"),
        (b"q=>;x", "q=%3E%3Bx"),
    ],
)
def test_a_query_is_kept_without_what_belongs_to_one_request(query: bytes, remaining: str) -> None:
    assert read(query).query == remaining_query(scope(query)) == remaining


@pytest.mark.parametrize(
    ("query", "expected"),
    [(b"", False), (b"takeover=true", True), (b"takeover=1", True), (b"takeover=false", False), (b"takeover=x", False)],
)
def test_a_request_says_that_it_takes_over(query: bytes, expected: bool) -> None:
    assert read(query).takes_over is expected


def test_an_overlong_query_is_refused_unread() -> None:
    assert read(b"q=" + b"a" * (MAX_QUERY - 2)).query
    with pytest.raises(StreamError) as refused:
        read(b"a=b&" * (MAX_QUERY // 4) + b"a")
    assert (refused.value.status, refused.value.code) == (414, "query_too_long")
    assert str(MAX_QUERY) in refused.value.message


# What it gets


class Known:
    """A log with entries 3 and 4; 1 and 2 are trimmed."""

    def __init__(self) -> None:
        self.log = MemoryLog("/x/s", Retention(count=2), epoch="e")
        for _ in range(4):
            self.log.write(None, b"1")

    @property
    def whole(self) -> Log:
        """The same log with its beginning."""
        log = MemoryLog("/x/s", epoch="e")
        for _ in range(4):
            log.write(None, b"1")
        return log

    @property
    def lost(self) -> Log:
        """The same log, which its store has given up."""
        self.log.lose("diverged")
        return self.log


def kind(decision: Decision) -> object:
    """A decision in a word, or with what matters of it."""
    if isinstance(decision, Read):
        return "read", decision.after
    if isinstance(decision, ResetTo):
        return "reset", decision.error.reason, decision.error.resume
    if isinstance(decision, Refuse):
        assert isinstance(decision.error, StreamError)
        return "refuse", decision.error.status, decision.error.code
    return {Start: "start", Ended: "ended", Headers: "headers"}[type(decision)]


TRIMMED, WHOLE, LOST = "trimmed", "whole", "lost"
DECISIONS: list[tuple[str, str, str | None, str | None, dict[str, bool], object]] = [
    # what it shows, method, cursor, the log that is known, what else is known, the decision
    ("nothing is known: a stream starts", "GET", None, None, {}, "start"),
    ("a POST as well", "POST", None, None, {}, "start"),
    ("a server that leaves starts none", "GET", None, None, {"draining": True}, ("refuse", 503, "shutting_down")),
    ("a log is read from what is kept", "GET", None, TRIMMED, {}, ("read", 2)),
    ("no part passes for the whole", "GET", None, TRIMMED, {"whole": True}, ("reset", "trimmed", "s.e.2")),
    ("a whole stream is read from its beginning", "GET", None, WHOLE, {"whole": True}, ("read", 0)),
    ("a cursor goes on", "GET", "s.e.3", TRIMMED, {"whole": True}, ("read", 3)),
    ("from the place before what is kept", "GET", "s.e.2", TRIMMED, {"whole": True}, ("read", 2)),
    ("not from before", "GET", "s.e.1", TRIMMED, {}, ("reset", "trimmed", "s.e.2")),
    ("nor from beyond the end", "GET", "s.e.5", TRIMMED, {}, ("reset", "ahead", "s.e.2")),
    ("nor in another epoch", "GET", "s.f.3", TRIMMED, {}, ("reset", "epoch_changed", "s.e.2")),
    ("nor in a log that is lost", "GET", "s.e.3", LOST, {}, ("reset", "diverged", "s.e.0")),
    ("which has no beginning either", "GET", None, LOST, {}, ("reset", "diverged", "s.e.0")),
    ("nor is it whole", "GET", None, LOST, {"whole": True}, ("reset", "diverged", "s.e.0")),
    ("a cursor of an unknown stream", "GET", "s.e.3", None, {}, ("reset", "epoch_changed", "s.e.3.end")),
    ("also while the server leaves", "GET", "s.e.3", None, {"draining": True}, ("reset", "epoch_changed", "s.e.3.end")),
    ("a log is read while the server leaves", "GET", None, WHOLE, {"draining": True}, ("read", 0)),
    ("a client that has the end", "GET", "s.e.4.end", WHOLE, {}, "ended"),
    ("even of a stream that nobody knows", "GET", "s.e.4.end", None, {}, "ended"),
    ("and by HEAD", "HEAD", "s.e.4.end", None, {}, "ended"),
    ("HEAD starts nothing", "HEAD", None, None, {}, "headers"),
    ("and resumes nothing", "HEAD", "s.e.1", TRIMMED, {}, "headers"),
    ("the same request under a key", "POST", None, WHOLE, {"whole": True}, ("read", 0)),
    ("another under the same", "POST", None, WHOLE, {"same": False}, ("refuse", 409, "idempotency_key_reused")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "cursor", "known", "facts", "expected"),
    [row[1:] for row in DECISIONS],
    ids=[row[0] for row in DECISIONS],
)
async def test_a_request_and_what_is_known_decide(
    method: str, cursor: str | None, known: str | None, facts: dict[str, bool], expected: object
) -> None:
    asked = replace(request(SSE(), cursor), method=method)
    log = {None: None, TRIMMED: Known().log, WHOLE: Known().whole, LOST: Known().lost}[known]
    assert kind(decide(asked, log, await place_of(asked.cursor, log), **facts)) == expected


# How a response finds out what is known


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = small_engine()
    yield engine
    async with asyncio.timeout(BOUND):
        await engine.aclose()


async def planned(source: Any, engine: Engine, wire: Wire, query: bytes = b"", **options: Any) -> Decision:
    """The decision for a request at `/x`."""
    response = StreamResponse(
        source, StreamSettings(wires=[wire], **options.pop("settings", {})), engine=engine, **options
    )
    await response.prepare(scope(query))
    assert response._plan is not None
    return response._plan.decision


def read_of(decision: Decision) -> Read:
    assert isinstance(decision, Read), decision
    return decision


async def test_each_request_without_a_cursor_starts_a_stream_of_its_own(engine: Engine) -> None:
    faucets = [Faucet(), Faucet()]
    names = [read_of(await planned(faucet.run, engine, SSE())).log.name for faucet in faucets]
    assert names[0] != names[1]
    assert all(name.startswith("/x/") for name in names)


async def test_a_cursor_finds_the_stream_that_it_names_and_calls_nothing(engine: Engine) -> None:
    started = read_of(await planned(Faucet().run, engine, SSE()))
    await started.log.append(1, 2)
    found = read_of(await planned(uncallable, engine, SSE(), f"after={started.log.cursor(1)}".encode()))
    assert found == Read(started.log, 1)


async def test_a_named_log_is_no_stream_of_a_path(engine: Engine) -> None:
    board = await engine.log("/x/board")
    await board.append("the merger closes on Friday")
    decision = await planned(Faucet().run, engine, SSE(), f"after={board.cursor(0)}".encode())
    assert kind(decision) == ("reset", "epoch_changed", f"{board.cursor(0)}.end")
    assert engine.statistics().producers == 0


async def test_a_log_that_a_function_returns_is_resumed_by_its_own_cursor(engine: Engine) -> None:
    board = await engine.log("board")
    await board.append(1, 2)

    async def function() -> Log:
        return board

    assert await planned(function, engine, SSE()) == Read(board, 0)
    assert await planned(function, engine, SSE(), f"after={board.cursor(1)}".encode()) == Read(board, 1)
    assert engine.statistics().kept == 0


async def test_a_function_that_raises_leaves_no_stream(engine: Engine) -> None:
    async def function() -> Log:
        raise PermissionError("not yours")

    with pytest.raises(PermissionError):
        await planned(function, engine, SSE(), stream_id="a" * 22)
    assert await engine.find_stream("/x", "a" * 22) is None


async def test_a_function_may_raise_where_no_stream_starts(engine: Engine) -> None:
    async def function() -> Log:
        raise PermissionError("not yours")

    with pytest.raises(PermissionError):
        await planned(function, engine, SSE(), b"after=s.e.1")


def uncallable() -> Any:
    raise AssertionError("expected nothing to call this")


class Items:
    """Items that are neither read nor left open."""

    def __init__(self) -> None:
        self.closed = 0

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> int:
        raise AssertionError("expected nobody to read this")

    async def aclose(self) -> None:
        self.closed += 1


class SyncItems:
    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> SyncItems:
        return self

    def __next__(self) -> int:
        raise AssertionError("expected nobody to read this")

    def close(self) -> None:
        self.closed += 1


UNUSED: list[tuple[str, dict[str, Any]]] = [
    ("an end that the client has", {"query": b"after=s.e.1.end"}),
    ("a cursor of an unknown stream", {"query": b"after=s.e.1"}),
    ("no cursor", {"query": b"after=nonsense"}),
    ("no wire", {"headers": [(b"accept", b"image/png")]}),
    ("HEAD", {"method": "HEAD"}),
]


@pytest.mark.parametrize("make", [Items, SyncItems])
@pytest.mark.parametrize("asked", [row[1] for row in UNUSED], ids=[row[0] for row in UNUSED])
async def test_items_that_are_not_needed_are_closed(
    engine: Engine, make: Callable[[], Items | SyncItems], asked: dict[str, Any]
) -> None:
    items = make()
    response = StreamResponse(items, engine=engine)
    await response.prepare(scope(**asked))
    assert items.closed == 1
    assert engine.statistics().producers == 0


@pytest.mark.parametrize("asked", [row[1] for row in UNUSED if row[0] != "a cursor of an unknown stream"])
async def test_a_function_that_is_not_needed_is_not_called(engine: Engine, asked: dict[str, Any]) -> None:
    await StreamResponse(uncallable, engine=engine).prepare(scope(**asked))


async def test_what_a_function_returns_for_nothing_is_closed(engine: Engine) -> None:
    items = Items()
    await StreamResponse(lambda: items, engine=engine).prepare(scope(b"after=s.e.1"))
    assert items.closed == 1


# A stream that the application names


NAME = "a" * 22


async def test_a_stream_with_an_id_starts_once(engine: Engine) -> None:
    first = read_of(await planned(Faucet().run, engine, SSE(), stream_id=NAME, fingerprint=b"1"))
    assert first.log.name == f"/x/{NAME}"
    again = Items()
    assert await planned(again, engine, SSE(), stream_id=NAME, fingerprint=b"1") == first
    assert again.closed == 1
    other = await planned(Items(), engine, SSE(), stream_id=NAME, fingerprint=b"2")
    assert kind(other) == ("refuse", 409, "idempotency_key_reused")
    assert read_of(await planned(Faucet().run, engine, SSE(), stream_id="b" * 22)).log is not first.log


async def test_two_requests_at_once_start_a_stream_once(engine: Engine) -> None:
    called = asyncio.Event()
    proceed = asyncio.Event()

    async def function() -> list[int]:
        called.set()
        await proceed.wait()
        return [1]

    async with asyncio.timeout(BOUND):
        first = asyncio.create_task(planned(function, engine, SSE(), stream_id=NAME))
        await called.wait()
        second = read_of(await planned(uncallable, engine, SSE(), stream_id=NAME))
        proceed.set()
        assert second == await first


async def test_a_key_stands_for_no_log_of_the_application_s(engine: Engine) -> None:
    board = await engine.log("board")
    called = asyncio.Event()
    proceed = asyncio.Event()

    async def function() -> Log:
        called.set()
        await proceed.wait()
        return board

    async with asyncio.timeout(BOUND):
        first = asyncio.create_task(planned(function, engine, SSE(), stream_id=NAME))
        await called.wait()
        second = read_of(await planned(uncallable, engine, SSE(), stream_id=NAME))
        proceed.set()
        assert await first == Read(board, 0)
        assert second.log.outcome is not None
        assert second.log.outcome.code == "not_a_stream"


async def test_who_waits_for_a_stream_that_does_not_start_is_told(engine: Engine) -> None:
    called = asyncio.Event()
    proceed = asyncio.Event()

    async def function() -> list[int]:
        called.set()
        await proceed.wait()
        raise StreamError("no model", code="no_model")

    async with asyncio.timeout(BOUND):
        first = asyncio.create_task(planned(function, engine, SSE(), stream_id=NAME))
        await called.wait()
        second = read_of(await planned(uncallable, engine, SSE(), stream_id=NAME))
        proceed.set()
        with pytest.raises(StreamError):
            await first
        assert second.log.outcome is not None
        assert second.log.outcome.code == "no_model"


async def test_a_document_is_made_anew_whatever_its_id(engine: Engine) -> None:
    logs = [read_of(await planned([1], engine, Batch(), stream_id=NAME)).log for _ in range(2)]
    assert logs[0] is not logs[1]
