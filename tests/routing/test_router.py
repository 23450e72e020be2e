from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from tailrace import NDJSON, SSE, Event, Flow, Retention, StreamRouter
from tailrace.modes import DEFAULT_WIRES
from tests.asgi.apps import ACCEPTED, SSE_HEADERS, STREAMED, small_engine
from tests.raw import BOUND, exchange, fetch, frames, values
from tests.routing.apps import NDJSON_HEADERS, Recording, client_of
from tests.serving import http_client, serving
from tests.sources import Faucet, soon

WIRES = {wire.media_type: wire for wire in DEFAULT_WIRES}


class Tick(BaseModel):
    left: int


class Start(BaseModel):
    n: int


def countdown_app(**options: Any) -> Recording:
    router = StreamRouter(**options)

    @router.stream("/countdown")
    async def countdown(n: int = 2) -> AsyncIterator[Tick]:
        for left in range(n, 0, -1):
            yield Tick(left=left)

    @router.stream("/post", methods=["post"])
    async def post(start: Start) -> AsyncIterator[Tick]:
        for left in range(start.n, 0, -1):
            yield Tick(left=left)

    return Recording(router)


def faucet_app(faucet: Faucet, path: str = "/x", **options: Any) -> Recording:
    router = StreamRouter()

    @router.stream(path, **options)
    async def items() -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    return Recording(router)


# One function on every wire


async def test_one_function_is_every_wire() -> None:
    app = countdown_app()
    async with client_of(app) as client:
        assert (await client.get("/countdown")).json() == {"data": [{"left": 2}, {"left": 1}]}
        text = await client.get("/countdown", headers={"Accept": "text/plain"})
        assert text.text == '{"left":2}\n{"left":1}\n'
        for media_type in ("text/event-stream", "application/x-ndjson"):
            answer = await client.get("/countdown?n=1", headers={"Accept": media_type})
            assert values(answer.content, WIRES[media_type]) == [{"left": 1}, "done"]


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("", None, "application/json"),
        ("", "*/*", "application/json"),
        ("?stream=true", None, "text/event-stream"),
        ("?stream=1", "application/x-ndjson", "application/x-ndjson"),
        ("?stream=true", "application/json", "text/event-stream"),
        ("?stream=false", "text/event-stream", "application/json"),
        ("?stream=perhaps", "text/event-stream", "text/event-stream"),
        ("", "text/event-stream;q=0.1, application/json", "application/json"),
        ("", "application/jsonl", "application/x-ndjson"),
    ],
)
async def test_query_and_accept_choose_the_wire(query: str, accept: str | None, expected: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    async with serving(countdown_app()) as url:
        answer, _ = await fetch(url, f"/countdown{query}", headers)
    assert answer.headers["content-type"].split(";")[0] == expected


async def test_what_nothing_satisfies_is_406_with_the_list() -> None:
    async with client_of(countdown_app()) as client:
        answer = await client.get("/countdown", headers={"Accept": "image/png"})
    assert answer.status_code == 406
    assert answer.json()["available"] == ACCEPTED


async def test_a_malformed_cursor_is_400_and_a_bad_parameter_422() -> None:
    async with client_of(countdown_app()) as client:
        answer = await client.get("/countdown?after=x")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")
        assert (await client.get("/countdown?n=x")).status_code == 422
        assert (await client.post("/post", json={"n": "x"})).status_code == 422


@pytest.mark.parametrize("wires", [[NDJSON(), SSE()], [SSE()]])
async def test_a_route_may_have_wires_of_its_own(wires: list[Any]) -> None:
    router = StreamRouter()

    @router.stream("/x", wires=wires)
    async def x() -> AsyncIterator[int]:
        yield 1

    async with client_of(Recording(router)) as client:
        answer = await client.get("/x")
        assert answer.headers["content-type"] == wires[0].content_type
        refused = await client.get("/x", headers={"Accept": "text/plain"})
        assert refused.json()["available"] == [wire.media_type for wire in wires]


async def test_sync_generators_are_streamed_from_a_thread() -> None:
    router = StreamRouter()

    @router.stream("/x")
    def x(n: int) -> Iterator[Tick]:
        for left in range(n, 0, -1):
            yield Tick(left=left)

    async with client_of(Recording(router)) as client:
        answer = await client.get("/x?n=2", headers=SSE_HEADERS)
    assert values(answer.content) == [{"left": 2}, {"left": 1}, "done"]


async def test_event_names_reach_the_client() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[Event[Tick] | Tick]:
        yield Event(Tick(left=1), "tick")
        yield Tick(left=0)

    async with client_of(Recording(router)) as client:
        answer = await client.get("/x", headers=SSE_HEADERS)
    assert [(frame.event, frame.data) for frame in frames(answer.content)] == [
        ("tick", {"left": 1}),
        (None, {"left": 0}),
        ("done", {}),
    ]


# Addresses


@pytest.mark.parametrize("media_type", STREAMED)
async def test_a_posted_stream_is_resumed_at_the_address_that_it_names(media_type: str) -> None:
    headers = {"Accept": media_type}
    async with client_of(countdown_app()) as client:
        answer = await client.post("/post", json={"n": 3}, headers=headers)
        address = answer.headers["content-location"]
        assert address.startswith("/post/")
        log = answer.headers["tailrace-cursor"].removesuffix(".0")
        for offset in range(4):
            resumed = await client.get(address, headers=headers, params={"after": f"{log}.{offset}"})
            assert answer.content.endswith(resumed.content)
            assert resumed.headers["content-location"] == address
            again = await client.post("/post", headers={**headers, "Last-Event-ID": f"{log}.{offset}"}, json={"n": 9})
            assert again.content == resumed.content
        assert (await client.get(address, params={"after": f"{log}.3.end"})).status_code == 204
        assert (await client.head(address, headers=headers)).headers["content-type"].startswith(media_type)
        assert (await client.get(address)).json() == {"data": [{"left": 3}, {"left": 2}, {"left": 1}]}


async def test_a_stream_is_stopped_at_the_address_that_it_names() -> None:
    faucet = Faucet([1])
    app = faucet_app(faucet, on_disconnect="detach")
    async with serving(app) as url, exchange(url, "/x", SSE_HEADERS) as got:
        await got.until(b"data: 1")
        address = got.headers["content-location"]
        assert got.headers["link"] == f'<{address}/stop>; rel="stop"'
        await fetch(url, f"{address}/stop", method="POST")
        stream_id = address.rpartition("/")[2]
        expected = {
            "stream_id": stream_id,
            "state": "cancelled",
            "code": "stopped",
            "message": "the stream was stopped",
        }
        async with http_client(url) as client:
            # To stop what has ended says how it did.
            assert (await client.post(f"{address}/stop")).json() == expected
        assert faucet.closed.is_set()
        (cancelled,) = frames(await got.rest())
        assert (cancelled.event, cancelled.data["code"]) == ("cancelled", "stopped")
        assert got.whole


async def test_stopping_what_is_done_changes_nothing() -> None:
    async with client_of(countdown_app()) as client:
        answer = await client.get("/countdown", headers=SSE_HEADERS)
        stopped = await client.post(f"{answer.headers['content-location']}/stop")
    assert stopped.json() == {"stream_id": answer.headers["content-location"].rpartition("/")[2], "state": "done"}


async def test_an_open_stream_that_is_written_elsewhere_cannot_be_stopped_here() -> None:
    app = countdown_app()
    log = await app.engine.new_stream("/countdown")
    async with client_of(app) as client:
        stopped = await client.post(f"{log.name}/stop")
    assert stopped.status_code == 202
    assert stopped.json() == {"stream_id": log.name.rpartition("/")[2], "state": "open"}


UNKNOWN = "A" * 22


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("HEAD", ""), ("POST", "/stop")])
async def test_an_unknown_stream_is_404(method: str, path: str) -> None:
    async with client_of(countdown_app()) as client:
        answer = await client.request(method, f"/countdown/{UNKNOWN}{path}")
    assert answer.status_code == 404
    if method != "HEAD":
        detail = f"expected the id of a stream that is running or ended recently, but got {UNKNOWN!r}"
        assert answer.json() == {"detail": detail, "code": "stream_not_found"}


async def test_one_stream_is_not_found_at_the_address_of_another_function() -> None:
    async with client_of(countdown_app()) as client:
        answer = await client.get("/countdown", headers=SSE_HEADERS)
        address = answer.headers["content-location"]
        assert (await client.get(address.replace("countdown", "post"))).status_code == 404


async def test_addresses_hide_no_other_route() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[int]:
        yield 1  # pragma: no cover

    app = Recording(router)

    @app.get("/x/{name}")
    async def other(name: str) -> str:
        return name

    async with client_of(app) as client:
        assert (await client.get("/x/details")).json() == "details"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/x", "/x"),
        ("/x/", "/x/"),
        ("/räume/{name}", "/r%C3%A4ume/a%20b%3Fc"),
        ("/files/{name:path}", "/files/a/b%20c/d"),
        ("/{name:path}/log", "/a/b/log"),
    ],
)
async def test_addresses_are_those_that_the_client_sees(path: str, url: str) -> None:
    router = StreamRouter()
    faucet = Faucet([1])

    @router.stream(path)
    async def x() -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    app = Recording(router)
    async with serving(app) as base, exchange(base, url, SSE_HEADERS) as got:
        await got.until(b"data: 1")
        address = got.headers["content-location"]
        assert address.startswith(url.rstrip("/") + "/")
        async with exchange(base, address, SSE_HEADERS) as second:
            await second.until(b"data: 1")
            assert second.headers["content-location"] == address
        stopped, _ = await fetch(base, f"{address}/stop", method="POST")
        assert stopped.status == 200
        assert values(await got.rest()) == ["cancelled"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/countdown", "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/post", "POST, OPTIONS"),
        ("OPTIONS", f"/countdown/{UNKNOWN}", "GET, HEAD, OPTIONS"),
        ("OPTIONS", f"/countdown/{UNKNOWN}/stop", "POST, OPTIONS"),
    ],
)
async def test_options_says_what_is_allowed(method: str, path: str, allowed: str) -> None:
    async with client_of(countdown_app()) as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")


async def test_what_is_not_allowed_is_405() -> None:
    async with client_of(countdown_app()) as client:
        assert (await client.put("/countdown")).status_code == 405
        assert (await client.head("/post")).status_code == 405


async def test_head_says_what_get_would() -> None:
    faucet = Faucet([1])
    app = faucet_app(faucet)
    async with client_of(app) as client:
        for media_type in ACCEPTED:
            answer = await client.head("/x", headers={"Accept": media_type})
            assert answer.status_code == 200
            assert answer.headers["content-type"] == WIRES[media_type].content_type
    assert not faucet.started.is_set()


async def test_a_trailing_slash_is_redirected() -> None:
    async with client_of(countdown_app(), follow_redirects=True) as client:
        assert (await client.get("/countdown/")).json() == {"data": [{"left": 2}, {"left": 1}]}
        assert (await client.post("/post/", json={"n": 1})).json() == {"data": [{"left": 1}]}


@pytest.mark.parametrize("methods", [["GET", "POST"], ["POST", "GET"]])
async def test_a_function_may_have_several_methods(methods: list[str]) -> None:
    router = StreamRouter()

    @router.stream("/x", methods=methods)
    async def x(request: Request) -> AsyncIterator[str]:
        yield request.method

    async with client_of(Recording(router)) as client:
        for method in methods:
            answer = await client.request(method, "/x", headers=SSE_HEADERS)
            assert values(answer.content) == [method, "done"]
            assert (await client.get(answer.headers["content-location"])).json() == {"data": [method]}


async def resumed_and_stopped(base: str, path: str, faucet: Faucet) -> None:
    """Where the addresses of a running stream are used as the client sees them."""
    async with exchange(base, path, SSE_HEADERS) as got:
        body = await got.until(b"data: 1")
        address = got.headers["content-location"]
        assert address.startswith(f"{path}/")
        cursor = frames(body)[-1].id
        faucet.put(2)
        async with exchange(base, f"{address}?after={cursor}", SSE_HEADERS) as second:
            await second.until(b"data: 2")
        async with exchange(base, f"{path}?after={cursor}", SSE_HEADERS) as third:
            await third.until(b"data: 2")
        stopped, _ = await fetch(base, f"{address}/stop", method="POST")
        assert stopped.status == 200
        await soon(faucet.closed)


def prefixed(faucet: Faucet) -> tuple[Any, str]:
    inner = StreamRouter(prefix="/inner")

    @inner.stream("/x")
    async def x() -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    middle = APIRouter(prefix="/middle")
    middle.include_router(inner)
    app = Recording()
    app.include_router(middle, prefix="/outer")
    return app, "/outer/middle/inner/x"


def mounted(faucet: Faucet) -> tuple[Any, str]:
    outer = FastAPI()
    outer.mount("/sub", faucet_app(faucet))
    return outer, "/sub/x"


def behind_a_proxy(faucet: Faucet) -> tuple[Any, str]:
    app = faucet_app(faucet)

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        """Takes the prefix off, which the server has been told about."""
        if "path" in scope:
            scope = {**scope, "root_path": "/proxied", "path": scope["path"].removeprefix("/proxied")}
        await app(scope, receive, send)

    return proxy, "/proxied/x"


def empty_path(faucet: Faucet) -> tuple[Any, str]:
    router = StreamRouter(prefix="/here")

    @router.stream("")
    async def x() -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    return Recording(router), "/here"


@pytest.mark.parametrize("build", [prefixed, mounted, behind_a_proxy, empty_path])
async def test_addresses_hold_wherever_the_router_is(build: Any) -> None:
    faucet = Faucet([1])
    app, path = build(faucet)
    async with serving(app) as base:
        await resumed_and_stopped(base, path, faucet)
        answer, _ = await fetch(base, path, method="OPTIONS")
        assert answer.status == 204


async def test_a_server_s_root_path_is_part_of_the_address() -> None:
    faucet = Faucet([1])
    async with serving(faucet_app(faucet), root_path="/root") as base, exchange(base, "/x", SSE_HEADERS) as got:
        await got.until(b"data: 1")
        assert got.headers["content-location"].startswith("/root/x/")
        faucet.end()
        await got.rest()


# Before the stream: failures, dependencies, what they tell


async def test_an_http_exception_before_the_first_event_is_the_answer() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[int]:
        raise HTTPException(418, "teapot", headers={"X-Tea": "green"})
        yield 1

    app = Recording(router)
    async with client_of(app) as client:
        for accept in ACCEPTED:
            answer = await client.get("/x", headers={"Accept": accept})
            assert (answer.status_code, answer.json()) == (418, {"detail": "teapot"})
            assert answer.headers["x-tea"] == "green"
    assert not app.raised


async def test_an_http_exception_between_events_is_said_in_its_words() -> None:
    faucet = Faucet([1])
    async with serving(faucet_app(faucet)) as url, exchange(url, "/x", SSE_HEADERS) as got:
        await got.until(b"data: 1")
        faucet.put(HTTPException(402, "pay first"))
        (error,) = frames(await got.rest())
        assert (error.event, error.data) == ("error", {"code": "http_402", "message": "pay first"})
        assert not got.whole


async def test_an_exception_handler_of_the_application_answers_before_the_first_event() -> None:
    class Asleep(Exception):
        pass

    faucet = Faucet([Asleep()])
    app = faucet_app(faucet)

    @app.exception_handler(Asleep)
    async def handle(request: Request, error: Asleep) -> Response:
        return Response("zzz", 503)

    async with client_of(app) as client:
        answer = await client.get("/x", headers=SSE_HEADERS)
    assert (answer.status_code, answer.text) == (503, "zzz")


async def test_what_a_response_parameter_is_told_arrives() -> None:
    router = StreamRouter()

    def tag(response: Response) -> None:
        response.headers["X-Tag"] = "dependency"

    @router.stream("/own", status_code=202, dependencies=[Depends(tag)])
    async def own(response: Response) -> AsyncIterator[int]:
        response.headers["X-Late"] = "too late"
        yield 1

    @router.stream("/injected", dependencies=[Depends(tag)])
    async def injected() -> AsyncIterator[int]:
        yield 1

    def status(response: Response) -> None:
        response.status_code = 206
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")

    @router.stream("/status", dependencies=[Depends(status)])
    async def with_status() -> AsyncIterator[int]:
        yield 1

    @router.stream("/returned")
    async def returned(response: Response) -> list[int]:
        response.headers["X-Own"] = "1"
        return [1]

    async with client_of(Recording(router)) as client:
        answer = await client.get("/own", headers=SSE_HEADERS)
        assert (answer.status_code, answer.headers["x-tag"]) == (202, "dependency")
        assert "x-late" not in answer.headers
        assert (await client.get("/injected")).headers["x-tag"] == "dependency"
        answer = await client.get("/status", headers=SSE_HEADERS)
        assert answer.status_code == 206
        assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["a=1", "b=2"]
        assert (await client.get("/returned")).headers["x-own"] == "1"


async def test_background_tasks_run_when_the_stream_is_done() -> None:
    router = StreamRouter()
    order: list[str] = []
    done = asyncio.Event()

    def finish() -> None:
        order.append("task")
        done.set()

    @router.stream("/x")
    async def x(tasks: BackgroundTasks) -> AsyncIterator[int]:
        tasks.add_task(finish)
        yield 1
        order.append("stream")

    def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(finish)

    @router.stream("/y", dependencies=[Depends(later)])
    async def y() -> AsyncIterator[int]:
        yield 1
        order.append("stream")

    async with client_of(Recording(router)) as client:
        for path in ("/x", "/y"):
            await client.get(path, headers=SSE_HEADERS)
            await soon(done)
            assert order == ["stream", "task"]
            order.clear()
            done.clear()


bearer = HTTPBearer()
calls: list[str] = []


def authenticated(request: Request, token: Annotated[Any, Depends(bearer)]) -> str:
    if token.credentials != "secret":
        raise HTTPException(403, "wrong token")
    calls.append(f"{request.method} {request.url.path.count('/')}")
    return str(token.credentials)


class Body1(BaseModel):
    n: int


def from_body(body: Body1) -> int:
    return body.n


def guarded_app(faucet: Faucet) -> Recording:
    router = StreamRouter()

    @router.stream("/decorated", methods=["POST"], dependencies=[Depends(authenticated), Depends(from_body)])
    async def decorated() -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    @router.stream("/parameter", methods=["POST"])
    async def parameter(
        token: Annotated[str, Depends(authenticated)], n: Annotated[int, Depends(from_body)], note: str = Body("")
    ) -> AsyncIterator[Any]:
        yield [token, n]
        async for item in faucet.run():
            yield item

    return Recording(router)


@pytest.mark.parametrize("path", ["/decorated", "/parameter"])
async def test_authentication_comes_first_and_guards_resume_and_stop(path: str) -> None:
    faucet = Faucet([1])
    right = {"Authorization": "Bearer secret", **SSE_HEADERS}
    wrong = {"Authorization": "Bearer guess", **SSE_HEADERS}
    body = b'{"n": 1}' if path == "/decorated" else b'{"body": {"n": 1}, "note": "x"}'
    json = {"Content-Type": "application/json"}
    calls.clear()
    async with serving(guarded_app(faucet)) as url:
        for headers, status in ((SSE_HEADERS, 401), (wrong, 403)):
            refused, _ = await fetch(url, path, {**headers, **json}, method="POST", body=body)
            assert refused.status == status
        assert not faucet.started.is_set()
        async with exchange(url, path, {**right, **json}, method="POST", body=body) as got:
            assert got.status == 200
            await got.until(b"data: 1")
            address = got.headers["content-location"]
            for headers, status in ((SSE_HEADERS, 401), (wrong, 403)):
                for method, at in (("GET", address), ("HEAD", address), ("POST", f"{address}/stop")):
                    refused, _ = await fetch(url, at, headers, method=method)
                    assert refused.status == status
            assert not faucet.closed.is_set()
            async with exchange(url, address, right) as second:
                assert second.status == 200
                await second.until(b"data: 1")
            stopped, _ = await fetch(url, f"{address}/stop", right, method="POST")
            assert stopped.status == 200
            assert faucet.closed.is_set()
    assert calls == ["POST 1", "GET 2", "POST 3"]


async def test_dependencies_of_a_router_guard_its_addresses_too() -> None:
    router = StreamRouter(dependencies=[Depends(authenticated)])

    @router.stream("/x")
    async def x() -> AsyncIterator[int]:
        yield 1

    async with client_of(Recording(router)) as client:
        assert (await client.get("/x")).status_code == 401
        answer = await client.get("/x", headers={"Authorization": "Bearer secret", **SSE_HEADERS})
        address = answer.headers["content-location"]
        assert (await client.get(address)).status_code == 401
        assert (await client.post(f"{address}/stop")).status_code == 401


async def test_dependencies_can_be_overridden() -> None:
    faucet = Faucet([1])
    app = guarded_app(faucet)
    app.dependency_overrides[authenticated] = lambda: "overridden"
    async with serving(app) as url:
        body = b'{"body": {"n": 1}}'
        headers = {"Content-Type": "application/json", **SSE_HEADERS}
        async with exchange(url, "/parameter", headers, method="POST", body=body) as got:
            assert frames(await got.until(b"data: ["))[0].data == ["overridden", 1]
            stopped, _ = await fetch(url, f"{got.headers['content-location']}/stop", method="POST")
            assert stopped.status == 200


async def test_a_dependency_that_only_holds_the_place_of_a_class_is_kept() -> None:
    router = StreamRouter()

    class Paging:
        def __init__(self, size: int = 2) -> None:
            self.size = size

    # `Depends()` takes the annotation's class.
    async def x(paging=Depends()) -> AsyncIterator[int]:  # type: ignore[no-untyped-def]
        for number in range(paging.size):
            yield number

    x.__annotations__["paging"] = Paging
    router.stream("/x")(x)
    async with client_of(Recording(router)) as client:
        assert (await client.get("/x?size=3")).json() == {"data": [0, 1, 2]}


def life(order: list[str], closed: asyncio.Event) -> Any:
    async def database() -> AsyncIterator[str]:
        order.append("open")
        try:
            yield "connection"
        finally:
            order.append("close")
            closed.set()

    return database


@pytest.mark.parametrize("options", [{"grace": 0.0}, {"on_disconnect": "detach"}])
async def test_a_dependency_stays_open_until_the_producer_is_done(options: Any) -> None:
    order: list[str] = []
    closed = asyncio.Event()
    faucet = Faucet([1])
    router = StreamRouter()
    database = life(order, closed)

    @router.stream("/x", **options)
    async def x(connection: str = Depends(database)) -> AsyncIterator[Any]:
        try:
            async for item in faucet.run():
                yield item
        finally:
            order.append(f"stream ended with {connection}")

    app = Recording(router)
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS) as got:
            await got.until(b"data: 1")
        if "on_disconnect" in options:
            while app.engine.statistics().readers:  # noqa: ASYNC110  # the closed connection arrives when it does
                await asyncio.sleep(0)
            assert order == ["open"]
            faucet.end()
        await soon(closed)
    assert order == ["open", "stream ended with connection", "close"]


async def test_a_reconnect_within_the_grace_saves_the_stream() -> None:
    faucet = Faucet([1])
    app = faucet_app(faucet, grace=60.0)
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS) as got:
            body = await got.until(b"data: 1")
            address = got.headers["content-location"]
        async with exchange(url, f"{address}?after={frames(body)[0].id}", SSE_HEADERS) as second:
            faucet.put(2)
            faucet.end()
            assert values(await second.rest()) == [2, "done"]


async def test_a_detached_stream_finishes_after_its_client_is_gone() -> None:
    faucet = Faucet([1])
    app = faucet_app(faucet, on_disconnect="detach")
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS) as got:
            await got.until(b"data: 1")
            address = got.headers["content-location"]
        faucet.put(2)
        faucet.end()
        await soon(faucet.closed)
        _, body = await fetch(url, address, SSE_HEADERS)
    assert values(body) == [1, 2, "done"]


async def test_settings_reach_the_stream() -> None:
    router = StreamRouter()

    @router.stream("/x", flow=Flow.log(), retention=Retention(count=2), status_wait=0.5)
    async def x() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    app = Recording(router)
    async with client_of(app) as client:
        answer = await client.get("/x", headers=NDJSON_HEADERS)
        log = await app.engine.find(answer.headers["content-location"])
    assert log is not None
    assert log.retention.count == 2
    assert log.base == 8


async def test_a_router_may_have_its_own_engine() -> None:
    engine = small_engine()
    app = countdown_app(engine=engine)
    async with client_of(app) as client:
        answer = await client.get("/countdown", headers=SSE_HEADERS)
        assert await engine.find(answer.headers["content-location"]) is not None
        assert await app.engine.find(answer.headers["content-location"]) is None
        assert (await client.get(answer.headers["content-location"])).status_code == 200


# Middleware around it


def with_middleware(*middleware: Any) -> Recording:
    app = countdown_app()
    for each, options in middleware:
        app.add_middleware(each, **options)
    return app


async def passing(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["X-Passed"] = "yes"
    return response


@pytest.mark.parametrize("media_type", STREAMED)
async def test_middleware_around_it_changes_nothing(media_type: str) -> None:
    app = with_middleware(
        (BaseHTTPMiddleware, {"dispatch": passing}),
        (GZipMiddleware, {"minimum_size": 1_000_000}),
        (CORSMiddleware, {"allow_origins": ["https://page.example"]}),
    )
    headers = {"Accept": media_type, "Origin": "https://page.example"}
    async with serving(app) as url:
        answer, body = await fetch(url, "/countdown", headers)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert answer.headers["x-passed"] == "yes"
    assert answer.whole
    if media_type != "text/plain":
        assert values(body, WIRES[media_type]) == [{"left": 2}, {"left": 1}, "done"]


@pytest.mark.parametrize("media_type", STREAMED)
async def test_compression_holds_no_event_back(media_type: str) -> None:
    faucet = Faucet(["first"])
    app = faucet_app(faucet)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    headers = {"Accept": media_type, "Accept-Encoding": "gzip"}
    async with client_of(app) as client, client.stream("GET", "/x", headers=headers) as answer:
        chunks = answer.aiter_bytes()
        async with asyncio.timeout(BOUND):
            body = b""
            while b"first" not in body:
                body += await anext(chunks)
        faucet.put("second")
        faucet.end()
        async for chunk in chunks:
            body += chunk
    assert b"second" in body


async def test_a_cors_preflight_is_answered() -> None:
    app = with_middleware((CORSMiddleware, {"allow_origins": ["*"], "allow_methods": ["*"], "allow_headers": ["*"]}))
    async with client_of(app) as client:
        headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        answer = await client.options(f"/countdown/{UNKNOWN}/stop", headers=headers)
    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]


async def test_a_client_that_leaves_is_noticed_through_middleware() -> None:
    faucet = Faucet([1])
    app = faucet_app(faucet, grace=0.0)
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    async with serving(app) as url:
        async with exchange(url, "/x", SSE_HEADERS) as got:
            await got.until(b"data: 1")
        await soon(faucet.closed)


async def test_the_other_options_are_fastapi_s() -> None:
    router = StreamRouter()

    @router.stream(
        "/x", tags=["ticks"], summary="Ticks", responses={418: {"description": "Teapot"}}, include_in_schema=True
    )
    async def x(authorization: Annotated[str | None, Header()] = None) -> AsyncIterator[int]:
        yield 1  # pragma: no cover

    app = Recording(router)
    paths = app.openapi()["paths"]
    operation = paths["/x"]["get"]
    assert (operation["tags"], operation["summary"]) == (["ticks"], "Ticks")
    assert "418" in operation["responses"]
    assert paths["/x/{stream_id}"]["get"]["tags"] == ["ticks"]


def test_only_a_function_is_streamed_from() -> None:
    with pytest.raises(TypeError, match=r"expected a function to stream from at '/x', but got functools\.partial"):
        StreamRouter().stream("/x")(functools.partial(print))
