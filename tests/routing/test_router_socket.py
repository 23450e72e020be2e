"""The WebSocket at the path of a stream, through FastAPI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import websockets
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel
from pydantic_core import from_json, to_json
from starlette.middleware.base import BaseHTTPMiddleware
from websockets.asyncio.client import ClientConnection

from tailrace import SSE, StreamRouter
from tests.raw import BOUND
from tests.routing.apps import NDJSON_HEADERS, Recording, client_of
from tests.serving import serving
from tests.sources import Faucet, soon


class Start(BaseModel):
    n: int


@asynccontextmanager
async def connected(url: str, path: str = "/x", **options: Any) -> AsyncIterator[ClientConnection]:
    async with asyncio.timeout(BOUND):
        async with websockets.connect(url.replace("http", "ws", 1) + path, **options) as connection:
            yield connection


async def receive_all(connection: ClientConnection) -> list[Any]:
    return [from_json(message) async for message in connection]


def said(messages: list[Any]) -> list[Any]:
    return [message.get("event") or message["data"] for message in messages]


async def refused(url: str, path: str = "/x", **options: Any) -> Any:
    """The HTTP answer instead of the upgrade."""
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connected(url, path, **options):
            pass  # pragma: no cover
    return refusal.value.response


def app_of(faucet: Faucet, path: str = "/x", router: StreamRouter | None = None, **options: Any) -> Recording:
    router = router or StreamRouter()

    @router.stream(path, **{"websocket": True, **options})
    async def x(request: Request) -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    return Recording(router)


async def test_the_cursors_and_addresses_are_those_of_http() -> None:
    faucet = Faucet([1])
    app = app_of(faucet)
    async with client_of(app) as client, connected(str(client.base_url).rstrip("/")) as connection:
        url = str(client.base_url).rstrip("/")
        first = from_json(await connection.recv())
        assert connection.response is not None
        address = connection.response.headers["content-location"]
        assert connection.response.headers["link"] == f'<{address}/stop>; rel="stop"'
        async with connected(url, f"/x?after={first['id']}") as second:
            faucet.put(2)
            faucet.end()
            assert said(await receive_all(second)) == [2, "done"]
        assert said(await receive_all(connection)) == [2, "done"]
        over_http = await client.get(address, headers=NDJSON_HEADERS)
        assert from_json(over_http.text.splitlines()[0]) == first


@pytest.mark.parametrize("prefix", ["", "/räume"])
@pytest.mark.parametrize("middleware", [False, True])
async def test_a_stop_ends_the_stream_and_is_said(prefix: str, middleware: bool) -> None:
    faucet = Faucet([1])
    app = app_of(faucet, router=StreamRouter(prefix=prefix), on_disconnect="detach")
    if middleware:
        app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    async with serving(app) as url, connected(url, f"{prefix}/x".replace("ä", "%C3%A4")) as connection:
        await connection.recv()
        await connection.send('{"event": "stop"}')
        (last,) = await receive_all(connection)
        assert (last["event"], last["data"]["code"]) == ("cancelled", "stopped")
    assert connection.close_code == 1000
    assert faucet.closed.is_set()
    assert not app.raised


async def test_leaving_cancels_after_the_grace_and_never_stops_a_detached_stream() -> None:
    faucet, detached = Faucet([1]), Faucet([1])
    router = StreamRouter()
    app = app_of(faucet, "/cancel", router, grace=0.0)
    app.include_router(detached_router := StreamRouter())

    @detached_router.stream("/detach", websocket=True, on_disconnect="detach")
    async def detach() -> AsyncIterator[Any]:
        async for item in detached.run():
            yield item

    async with client_of(app) as client:
        url = str(client.base_url).rstrip("/")
        async with connected(url, "/cancel") as connection:
            await connection.recv()
        await soon(faucet.closed)
        async with connected(url, "/detach") as connection:
            await connection.recv()
            assert connection.response is not None
            address = connection.response.headers["content-location"]
        detached.put(2)
        detached.end()
        await soon(detached.closed)
        answer = await client.get(address)
        assert answer.json() == {"data": [1, 2]}


# Functions with a body


def posting_app() -> Recording:
    router = StreamRouter()

    @router.stream("/x", methods=["POST"], websocket=True)
    async def x(start: Start) -> AsyncIterator[int]:
        if start.n == 0:
            raise HTTPException(409, "nothing to count")
        for number in range(start.n):
            yield number

    return Recording(router)


async def test_the_first_message_is_the_body() -> None:
    async with serving(posting_app()) as url, connected(url) as connection:
        await connection.send('{"n": 2}')
        assert said(await receive_all(connection)) == [0, 1, "done"]
    assert connection.close_code == 1000


@pytest.mark.parametrize(
    ("message", "status", "expected"),
    [
        ('{"n": "x"}', 422, '"loc":["body","n"]'),
        ("{", 422, "json_invalid"),
        ("", 422, "missing"),
        ('{"n": 0}', 409, "nothing to count"),
    ],
)
async def test_a_body_that_is_refused_is_an_error_with_the_words_of_http(
    message: str, status: int, expected: str
) -> None:
    async with serving(posting_app()) as url, connected(url) as connection:
        await connection.send(message)
        error = from_json(await connection.recv())
        assert (error["event"], error["data"]["code"]) == ("error", f"http_{status}")
        assert expected in to_json(error["data"]).decode()
        await connection.wait_closed()
    assert (connection.close_code, connection.close_reason) == (1008, f"HTTP {status}")


async def test_a_client_that_leaves_before_its_body_leaves_nothing_behind() -> None:
    app = posting_app()
    async with serving(app) as url, connected(url):
        pass
    assert not app.raised
    assert app.engine.statistics().producers == 0


async def test_a_posted_stream_is_stopped_by_its_second_message() -> None:
    faucet = Faucet([1])
    app = app_of(faucet, methods=["POST"])
    async with serving(app) as url, connected(url) as connection:
        await connection.send("{}")
        await connection.recv()
        await connection.send('{"event": "stop"}')
        assert said(await receive_all(connection)) == ["cancelled"]


async def test_with_several_methods_it_is_the_get() -> None:
    faucet = Faucet(["a"])
    faucet.end()
    async with serving(app_of(faucet, methods=["POST", "GET"])) as url, connected(url) as connection:
        assert said(await receive_all(connection)) == ["a", "done"]


# A route that takes what the client sends


def duplex_app(
    faucet: Faucet, sent: list[Any], *, dependencies: Sequence[Any] = (), status_wait: float = 1.0
) -> Recording:
    """A stream whose client may send numbers to it. A zero ends it."""
    router = StreamRouter(dependencies=dependencies)

    def name_address(response: Response) -> None:
        response.headers["link"] = '</x>; rel="up", </numbers>; rel="send"'

    own = [Depends(name_address)]

    @router.stream("/x", methods=["POST"], websocket=True, grace=0.0, dependencies=own, status_wait=status_wait)
    async def x(start: Start) -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    @router.post("/numbers", status_code=202)
    async def send(request: Request) -> None:
        numbers = [from_json(line) for line in (await request.body()).splitlines()]
        for number in numbers:
            if type(number) is not int:
                raise HTTPException(422, f"expected a number, but got {number!r}")
        sent.extend(numbers)
        if 0 in numbers:
            faucet.end()

    return Recording(router)


@pytest.mark.parametrize("middleware", [False, True])
async def test_what_the_client_sends_is_posted_to_the_address_that_the_response_names(middleware: bool) -> None:
    faucet, sent = Faucet(["hello"]), list[Any]()
    app = duplex_app(faucet, sent)
    if middleware:
        app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    async with serving(app) as url, connected(url) as connection:
        await connection.send('{"n": 1}')
        assert said([from_json(await connection.recv())]) == ["hello"]
        for message in ("1", '"two"', "3"):
            await connection.send(message)
        assert from_json(await connection.recv()) == {
            "event": "refused",
            "data": {"code": "http_422", "status": 422, "message": "expected a number, but got 'two'"},
        }
        await connection.send("0")
        assert said(await receive_all(connection)) == ["done"]
    assert sent == [1, 3, 0]
    assert connection.close_code == 1000
    assert not app.raised


async def test_what_the_client_sends_before_the_response_is_posted_after_it() -> None:
    sent: list[Any] = []
    app = duplex_app(Faucet(), sent, status_wait=0.05)
    async with serving(app) as url, connected(url) as connection:
        for message in ('{"n": 1}', "1", "2", "0"):
            await connection.send(message)
        assert said(await receive_all(connection)) == ["done"]
    assert sent == [1, 2, 0]


async def test_a_stop_also_ends_a_stream_whose_client_may_send() -> None:
    app = duplex_app(Faucet(["hello"]), [])
    async with serving(app) as url, connected(url) as connection:
        await connection.send('{"n": 1}')
        await connection.recv()
        await connection.send('{"event": "stop"}')
        assert said(await receive_all(connection)) == ["cancelled"]


async def test_security_guards_what_the_client_sends() -> None:
    sent: list[Any] = []
    app = duplex_app(Faucet(["hello"]), sent, dependencies=[Depends(HTTPBearer())])
    headers = {"Authorization": "Bearer secret"}
    async with serving(app) as url, connected(url, additional_headers=headers) as connection:
        for message in ('{"n": 1}', "0"):
            await connection.send(message)
        assert said(await receive_all(connection)) == ["hello", "done"]
    assert sent == [0]


async def test_an_error_in_the_route_is_logged_and_the_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Any] = []
    app = duplex_app(Faucet(["hello"]), sent)
    async with serving(app) as url, connected(url) as connection:
        for message in ('{"n": 1}', "no json"):
            await connection.send(message)
        assert said([from_json(await connection.recv()) for _ in range(2)]) == ["hello", "refused"]
        await connection.send("0")
        assert said(await receive_all(connection)) == ["done"]
    assert "/numbers: a POST for a WebSocket failed" in caplog.messages
    assert sent == [0]


# Refusals, security, origins


async def test_before_the_upgrade_refusals_are_http_answers() -> None:
    router = StreamRouter()

    @router.stream("/x", websocket=True)
    async def x(n: int) -> AsyncIterator[int]:
        if n == 0:
            raise HTTPException(404, "nothing here")
        yield n  # pragma: no cover

    @router.stream("/broken", websocket=True)
    async def broken() -> AsyncIterator[int]:
        raise ValueError("secret")
        yield 1

    app = Recording(router)
    async with serving(app) as url:
        answer = await refused(url, "/x?n=0")
        assert (answer.status_code, from_json(bytes(answer.body))) == (404, {"detail": "nothing here"})
        assert (await refused(url, "/x")).status_code == 422
        assert (await refused(url, "/x?n=1&after=x")).status_code == 400
        answer = await refused(url, "/broken")
        assert (answer.status_code, bytes(answer.body)) == (500, b"Internal Server Error")
        assert answer.headers["content-type"].startswith("text/plain")
        assert (await refused(url, "/elsewhere")).status_code == 403
    # The application is called twice, within itself.
    assert {str(error) for error in app.raised} == {"secret"}


def test_a_socket_needs_lines_of_json() -> None:
    expected = "expected NDJSON among the wires of the WebSocket at '/x', but got text/event-stream"
    with pytest.raises(ValueError, match=expected):
        app_of(Faucet(), wires=[SSE()])


async def test_a_stream_has_a_socket_only_if_the_route_says_so() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[int]:
        yield 1

    async with serving(Recording(router)) as url:
        assert (await refused(url)).status_code == 403


async def test_a_stop_never_breaks_off_the_teardown_of_its_dependencies() -> None:
    order: list[str] = []
    committing = asyncio.Event()
    proceed = asyncio.Event()

    async def session(request: Request) -> AsyncIterator[None]:
        who = "stop" if request.url.path.endswith("/stop") else "stream"
        yield
        if who == "stop":
            committing.set()
        await proceed.wait()
        order.append(f"{who} committed")

    app = app_of(Faucet([1]), dependencies=[Depends(session)])
    async with serving(app) as url, connected(url) as connection:
        await connection.recv()
        await connection.send('{"event": "stop"}')
        await connection.send('{"event": "stop"}')
        assert said(await receive_all(connection)) == ["cancelled"]
        await committing.wait()
        proceed.set()
    assert sorted(order) == ["stop committed", "stream committed"]


async def test_a_stop_that_comes_before_the_headers_is_kept_for_them() -> None:
    faucet = Faucet()
    router = StreamRouter()

    @router.stream("/post", methods=["POST"], websocket=True, status_wait=0.1)
    async def post(start: Start) -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    async with serving(Recording(router)) as url, connected(url, "/post") as connection:
        await connection.send('{"n": 1}')
        await connection.send('{"event": "stop"}')
        assert said(await receive_all(connection)) == ["cancelled"]


async def test_a_stop_that_fails_is_logged_and_the_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    faucet = Faucet([1])

    def fails(request: Request) -> None:
        if request.url.path.endswith("/stop"):
            raise RuntimeError("no session")

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            faucet.put("still here")
            faucet.end()

    logger, told = logging.getLogger("tailrace"), Told(logging.ERROR)
    logger.addHandler(told)
    try:
        async with serving(app_of(faucet, dependencies=[Depends(fails)])) as url, connected(url) as connection:
            await connection.recv()
            await connection.send('{"event": "stop"}')
            assert said(await receive_all(connection)) == ["still here", "done"]
    finally:
        logger.removeHandler(told)


def scoped(scopes: SecurityScopes, token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> str:
    if token != "secret":
        raise HTTPException(403, "wrong token")
    return token


@pytest.mark.parametrize("dependency", [HTTPBearer(), scoped])
@pytest.mark.parametrize("where", ["decorator", "router"])
async def test_security_guards_the_socket_and_its_stop(dependency: Any, where: str) -> None:
    faucet = Faucet([1])
    dependencies = [Depends(dependency)]
    if where == "router":
        app = app_of(faucet, router=StreamRouter(dependencies=dependencies))
    else:
        app = app_of(faucet, dependencies=dependencies)
    async with serving(app) as url:
        answer = await refused(url)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert not faucet.started.is_set()
        headers = {"Authorization": "Bearer secret"}
        async with connected(url, additional_headers=headers) as connection:
            await connection.recv()
            await connection.send('{"event": "stop"}')
            assert said(await receive_all(connection)) == ["cancelled"]


async def test_a_dependency_stays_open_until_the_producer_is_done() -> None:
    order: list[str] = []
    closed = asyncio.Event()
    faucet = Faucet([1])

    async def database() -> AsyncIterator[None]:
        yield
        order.append("closed")
        closed.set()

    router = StreamRouter()

    @router.stream("/x", dependencies=[Depends(database)], grace=0.0, websocket=True)
    async def x() -> AsyncIterator[Any]:
        try:
            async for item in faucet.run():
                yield item
        finally:
            order.append("stream ended")

    async with serving(Recording(router)) as url:
        async with connected(url) as connection:
            await connection.recv()
        await soon(closed)
    assert order == ["stream ended", "closed"]


async def guard(request: Request, call_next: Any) -> Response:
    if request.headers.get("x-key") != "secret":
        return Response('{"detail":"no key"}', 401, media_type="application/json")
    response: Response = await call_next(request)
    return response


async def test_middleware_for_http_guards_the_socket_as_well() -> None:
    faucet = Faucet([1])
    app = app_of(faucet)
    app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
    async with serving(app) as url:
        answer = await refused(url)
        assert (answer.status_code, from_json(bytes(answer.body))) == (401, {"detail": "no key"})
        assert not faucet.started.is_set()
        faucet.end()
        async with connected(url, additional_headers={"X-Key": "secret"}) as connection:
            assert said(await receive_all(connection)) == [1, "done"]


async def test_a_mounted_application_has_its_sockets_and_addresses() -> None:
    faucet = Faucet([1])
    outer = FastAPI()
    outer.mount("/sub", app_of(faucet))
    async with serving(outer) as url, connected(url, "/sub/x") as connection:
        await connection.recv()
        assert connection.response is not None
        assert connection.response.headers["content-location"].startswith("/sub/x/")
        await connection.send('{"event": "stop"}')
        assert said(await receive_all(connection)) == ["cancelled"]


@pytest.mark.parametrize(("origin", "allowed"), [("https://friend.example", True), ("https://stranger.example", False)])
async def test_only_allowed_pages_may_connect(origin: str, allowed: bool) -> None:
    faucet = Faucet([1])
    faucet.end()
    app = app_of(faucet, router=StreamRouter(origins=["https://friend.example"]))
    headers = {"Origin": origin}
    async with serving(app) as url:
        if allowed:
            async with connected(url, additional_headers=headers) as connection:
                assert said(await receive_all(connection)) == [1, "done"]
        else:
            assert (await refused(url, additional_headers=headers)).status_code == 403
            assert not faucet.started.is_set()


async def test_path_parameters_and_the_query_are_those_of_http() -> None:
    router = StreamRouter()

    @router.stream("/x/{name}", websocket=True)
    async def x(name: str, q: str, request: Request) -> AsyncIterator[list[str]]:
        yield [name, q, request.cookies["a"], request.headers["x-own"]]

    async with serving(Recording(router)) as url:
        headers = {"Cookie": "a=1", "X-Own": "yes"}
        async with connected(url, "/x/a%20%C3%A4?q=%3F", additional_headers=headers) as connection:
            assert said(await receive_all(connection)) == [["a ä", "?", "1", "yes"], "done"]
