from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Body, Depends, Form, HTTPException, Response
from pydantic import BaseModel

from tailrace import Job, Log, StreamError, StreamRouter, StreamSettings
from tailrace.events import Outcome
from tailrace.routing.endpoints import (
    call,
    checked_source,
    describe_http_error,
    is_generator,
    shared_parameters,
    stream_endpoint,
    without_body,
)
from tests.asgi.apps import SSE_HEADERS
from tests.raw import values
from tests.routing.apps import Recording, client_of


class Item(BaseModel):
    n: int


async def agen() -> AsyncIterator[int]:
    yield 1


def gen() -> Iterator[int]:
    yield 1


async def coroutine(value: Any) -> Any:
    return value


class Callable:
    async def __call__(self, value: Any) -> Any:
        return value


# What an exception is to the client


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (HTTPException(402, "pay first"), Outcome("error", "http_402", "pay first")),
        (HTTPException(409, {"a": 1}), Outcome("error", "http_409", '{"a":1}')),
        (StreamError("no more", code="dry"), Outcome("error", "dry", "no more")),
        (ValueError("secret"), Outcome("error", "internal_error", "Internal Server Error")),
    ],
)
def test_an_exception_has_only_words_that_are_meant_for_the_client(error: Exception, outcome: Outcome) -> None:
    assert describe_http_error(error) == outcome


# What a function is, and returns


def test_generator_functions_are_known() -> None:
    assert [is_generator(each) for each in (agen, gen, coroutine, len)] == [True, True, False, False]


@pytest.mark.parametrize("function", [coroutine, lambda value: value, Callable(), functools.partial(coroutine)])
async def test_a_function_may_be_async_or_sync(function: Any) -> None:
    assert await call(function, [1]) == [1]
    if not isinstance(function, functools.partial | Callable) and function is coroutine:
        assert await call(function, value=[1]) == [1]


async def test_a_sync_function_runs_in_a_worker_thread() -> None:
    assert await call(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("source", [[1], (1,), range(3), {1}, agen(), gen(), iter([1]), Job(coroutine)])
def test_iterators_and_jobs_are_sources(source: Any) -> None:
    assert checked_source(source, agen) is source


@pytest.mark.parametrize(
    ("nonsense", "name"),
    [
        (None, "NoneType"),
        (1, "int"),
        ("text", "str"),
        (b"bytes", "bytes"),
        ({"a": 1}, "dict"),
        (Item(n=1), "Item"),
        (Response(), "Response"),
        (agen, "function"),
    ],
)
def test_anything_else_is_refused_with_both_sides_named(nonsense: Any, name: str) -> None:
    expected = f"expected coroutine to yield, or to return an iterator, a Job or a Log, but got {name}"
    with pytest.raises(TypeError) as refused:
        checked_source(nonsense, coroutine)
    assert str(refused.value) == expected


def test_a_function_without_a_name_is_named_by_its_representation() -> None:
    function = functools.partial(coroutine, None)
    with pytest.raises(TypeError, match=r"expected functools.partial\("):
        checked_source(None, function)


async def test_returned_iterators_and_logs_are_streamed() -> None:
    router = StreamRouter()
    app = Recording(router)

    @router.stream("/async")
    async def returns_async() -> AsyncIterator[int]:
        return agen()

    @router.stream("/sync")
    def returns_sync() -> Iterator[int]:
        return gen()

    @router.stream("/list")
    async def returns_list() -> list[int]:
        return [1]

    @router.stream("/log")
    async def returns_log() -> Log:
        return await app.engine.log("news")

    app.include_router(router)
    await (await app.engine.log("news")).append(1)
    await (await app.engine.log("news")).close()
    async with client_of(app) as client:
        for path in ("/async", "/sync", "/list", "/log"):
            assert (await client.get(path)).json() == {"data": [1]}
            answer = await client.get(path, headers=SSE_HEADERS)
            assert values(answer.content) == [1, "done"]
            # A log from elsewhere is not below this path, but cursors of it are continued here.
            assert ("content-location" in answer.headers) == (path != "/log")
            assert ("link" in answer.headers) == (path != "/log")
            cursor = answer.headers["tailrace-cursor"]
            again = await client.get(path, headers={**SSE_HEADERS, "Last-Event-ID": cursor})
            assert again.content == answer.content


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_function_that_returns_nonsense_is_the_server_s_error(accept: str) -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def oops() -> dict[str, int]:
        return {"a": 1}

    app = Recording(router)
    async with client_of(app) as client:
        answer = await client.get("/x", headers={"Accept": accept})
    assert answer.status_code == 500
    assert "oops to yield, or to return an iterator, a Job or a Log, but got dict" in str(app.raised[0])


async def test_a_failure_in_a_function_that_does_not_yield_has_its_status() -> None:
    router = StreamRouter()

    @router.stream("/x")
    def refuses() -> Iterator[int]:
        raise HTTPException(403, "not you")

    async with client_of(Recording(router)) as client:
        assert (await client.get("/x", headers=SSE_HEADERS)).status_code == 403


# Generators that are hard to end


async def test_a_generator_that_ignores_its_cancellation_does_not_hold_a_stop_up_for_ever() -> None:
    router = StreamRouter()
    release, ignored = asyncio.Event(), asyncio.Event()

    @router.stream("/x")
    async def stubborn() -> AsyncIterator[int]:
        yield 1
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                ignored.set()
                yield 2
                release.set()

    app = Recording(router)
    async with client_of(app) as client, client.stream("GET", "/x", headers=SSE_HEADERS) as answer:
        chunks = answer.aiter_bytes()
        body = await anext(chunks)
        stopped = await client.post(f"{answer.headers['content-location']}/stop")
        assert stopped.json()["code"] == "stopped"
        assert ignored.is_set()
        async for chunk in chunks:
            body += chunk
    # What it still says while it ends is kept.
    assert values(body) == [1, 2, "cancelled"]


async def test_a_generator_suspended_at_its_yield_is_closed() -> None:
    router = StreamRouter()
    closed = asyncio.Event()

    @router.stream("/x", grace=0.0)
    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 100_000
        except GeneratorExit:
            closed.set()
            raise
        except asyncio.CancelledError:  # pragma: no cover
            raise

    app = Recording(router)
    async with client_of(app) as client:
        async with client.stream("GET", "/x", headers=SSE_HEADERS) as answer:
            await anext(answer.aiter_bytes())
        async with asyncio.timeout(30):
            await closed.wait()


# Dependencies for a stream's other addresses


def plain(q: int = 0) -> int:
    return q


def with_body(item: Item) -> int:
    return item.n


def with_form(a: Annotated[str, Form()]) -> str:
    return a


def deep(n: Annotated[int, Depends(with_body)]) -> int:
    return n


class Needs:
    def __init__(self, q: int = 0) -> None:
        self.q = q


def test_path_parameters_and_dependencies_are_shared_unless_they_read_the_body() -> None:
    async def function(
        item: Item,
        path: str,
        a: Annotated[int, Depends(plain)],
        b: Annotated[int, Depends(with_body)],
        c: Annotated[str, Depends(with_form)],
        d: Annotated[int, Depends(deep)],
        e: Annotated[Needs, Depends()],
        note: str = Body(""),
        f: int = Depends(plain),
    ) -> None: ...

    kept = shared_parameters(stream_endpoint(function, StreamSettings(), None, 200), "/x/{path}")
    assert [parameter.name for parameter in kept] == ["path", "a", "e", "f"]
    assert {parameter.kind for parameter in kept} == {inspect.Parameter.KEYWORD_ONLY}


def test_so_are_those_of_the_decorator() -> None:
    every = [Depends(plain), Depends(with_body), Depends(with_form), Depends(deep), Depends()]
    assert without_body(every, "/x") == [every[0], every[4]]


async def test_a_dependency_of_function_scope_is_closed_before_the_stream() -> None:
    order: list[str] = []

    async def short() -> AsyncIterator[None]:
        order.append("open")
        yield
        order.append("close")

    async def within(value: None = Depends(short, scope="function")) -> AsyncIterator[None]:
        yield

    router = StreamRouter()

    @router.stream("/x", dependencies=[Depends(within, scope="function")])
    async def x(value: None = Depends(short, scope="function")) -> AsyncIterator[int]:
        order.append("item")
        yield 1

    async with client_of(Recording(router)) as client:
        answer = await client.get("/x", headers=SSE_HEADERS)
        assert order == ["open", "close", "item"]
        assert (await client.get(answer.headers["content-location"])).status_code == 200


def test_endpoints_have_names_and_words_of_their_own() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def ticks() -> AsyncIterator[int]:
        """Ticks of a clock."""
        yield 1  # pragma: no cover

    paths = Recording(router).openapi()["paths"]
    assert paths["/x"]["get"]["description"] == "Ticks of a clock."
    assert paths["/x/{stream_id}"]["get"]["description"] == "Resume a stream of `ticks`."
    assert paths["/x/{stream_id}/stop"]["post"]["description"] == "Stop a stream of `ticks`."
    operations = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(set(operations)) == len(operations) == 3
