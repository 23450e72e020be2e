"""What a stream's routes do with requests of strangers: keys, queries, bodies, methods, mistakes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Annotated, Any, NoReturn
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI, Form, Header, HTTPException, Query, Request, UploadFile
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import to_json

from tailrace import (
    NDJSON,
    Engine,
    Flow,
    Log,
    MemoryLog,
    MemoryStore,
    Retention,
    StoreUnavailable,
    StreamError,
    StreamRouter,
)
from tailrace.asgi import disconnect
from tailrace.engine.engine import STORES
from tests.asgi.apps import SSE_HEADERS, small_engine
from tests.raw import BOUND, values
from tests.routing.apps import NDJSON_HEADERS, Recording, client_of
from tests.sources import Faucet, turns

NDJSON_WIRE = NDJSON()
USERS = {"ka": "alice", "kb": "bob"}


def user(x_api_key: Annotated[str, Header()] = "") -> str | None:
    return USERS.get(x_api_key)


class Question(BaseModel):
    text: str


# Idempotency-Key


class Asked:
    """An application that remembers the questions that it has begun to answer."""

    def __init__(self, **options: Any) -> None:
        self.questions: list[str] = []
        router = StreamRouter()

        @router.stream("/ask", methods=["POST"], **options)
        async def ask(question: Question, who: str | None = Depends(user)) -> AsyncIterator[str]:
            self.questions.append(f"{who}: {question.text}")
            yield f"{who} asked {question.text}"

        @router.stream("/form", methods=["POST"], **options)
        async def form(text: Annotated[str, Form()], file: UploadFile | None = None) -> AsyncIterator[str]:
            content = "" if file is None else (await file.read()).decode()
            self.questions.append(text + content)
            yield text + content

        self.app = Recording(router)


ALICE, BOB = ({**SSE_HEADERS, "Idempotency-Key": "1", "X-API-Key": key} for key in ("ka", "kb"))


async def test_a_repeated_key_of_a_principal_reads_the_same_stream() -> None:
    asked = Asked(principal=user)
    async with client_of(asked.app) as client:
        first = await client.post("/ask", json={"text": "a"}, headers=ALICE)
        again = await client.post("/ask?stream=true", json={"text": "a"}, headers={**ALICE, "Cookie": "_ga=2"})
        assert first.content == again.content
        assert first.headers["content-location"] == again.headers["content-location"]
    assert asked.questions == ["alice: a"]


async def test_of_equal_requests_at_once_one_starts_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Far(MemoryStore):
        """A store that answers late, so that all requests ask before the first one has made the stream."""

        async def find(self, name: str) -> MemoryLog | None:
            found = await super().find(name)
            await turns(20)
            return found

    monkeypatch.setitem(STORES, "far", lambda url, keeping, pulse: Far(keeping, pulse))
    asked = Asked(principal=user)
    asked.app.state.tailrace_engine = Engine("far://")
    async with client_of(asked.app) as client:
        requests = [client.post("/ask", json={"text": "a"}, headers=ALICE) for _ in range(4)]
        answers = await asyncio.gather(*requests)
    assert asked.questions == ["alice: a"]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert values(answers[0].content) == ["alice asked a", "done"]


class Silent(MemoryStore):
    """A store that does not answer."""

    async def find(self, name: str, *arguments: Any, **options: Any) -> NoReturn:
        raise StoreUnavailable(name, "it is frozen")

    attach = create = find


@pytest.mark.parametrize("path", ["/feed", "/words", "/ask", "/ask/an-id_of-22_characters", "/publish"])
async def test_a_store_that_does_not_answer_is_503(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(STORES, "silent", lambda url, keeping, pulse: Silent(keeping, pulse))
    engine = Engine("silent://")
    router = StreamRouter(engine=engine)

    @router.stream("/ask")
    async def ask() -> AsyncIterator[str]:
        yield "never"

    @router.stream("/feed")
    async def feed() -> Log:
        return await engine.log("/feed")

    @router.stream("/words")
    async def words() -> AsyncIterator[str]:
        return ask()

    @router.get("/publish")
    async def publish() -> None:
        await engine.log("/feed")

    async with client_of(Recording(router)) as client:
        refused = await client.get(path, headers=SSE_HEADERS)
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert "it is frozen" in caplog.text
    assert "it is frozen" not in refused.text  # a reason may tell where the store is


async def test_a_key_is_taken_while_the_generator_of_its_forgotten_stream_ends() -> None:
    engine, began, release = Engine(), asyncio.Event(), asyncio.Event()
    router = StreamRouter(engine=engine)

    @router.stream("/ask", methods=["POST"], principal=user)
    async def ask() -> AsyncIterator[str]:
        yield "a"
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async with client_of(Recording(router)) as client, asyncio.timeout(BOUND):
        first = asyncio.create_task(client.post("/ask", headers=ALICE))
        await began.wait()
        (producer,) = engine.producers._running.values()
        await engine.forget(producer.log)
        refused = await client.post("/ask", headers=ALICE)
        assert (refused.status_code, refused.json()["code"]) == (503, "still_ending")
        release.set()
        assert values((await first).content)[-1] == "reset"
        await producer.wait()
        assert len(engine.producers) == 0


async def test_a_function_that_returns_a_log_makes_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Counting(MemoryStore):
        async def create(self, name: str, *arguments: Any, **options: Any) -> MemoryLog:
            made.append(name)
            return await super().create(name, *arguments, **options)

    monkeypatch.setitem(STORES, "counting", lambda url, keeping, pulse: Counting(keeping, pulse))
    engine = Engine("counting://")
    router = StreamRouter(engine=engine)

    @router.stream("/feed")
    async def feed(named: bool = True) -> Log | AsyncIterator[str]:
        return await engine.log("/feed") if named else words()

    async def words() -> AsyncIterator[str]:
        yield "own"

    await (await engine.log("/feed")).append("shared")
    async with client_of(Recording(router)) as client:
        assert (await client.get("/feed")).json()["data"] == ["shared"]
        assert made == []
        assert (await client.get("/feed?named=false")).json()["data"] == ["own"]
        assert len(made) == 1


async def test_another_principal_s_key_is_another_stream() -> None:
    asked = Asked(principal=user)
    async with client_of(asked.app) as client:
        await client.post("/ask", json={"text": "my salary"}, headers=ALICE)
        other = await client.post("/ask", json={"text": "my salary"}, headers=BOB)
        assert values(other.content) == ["bob asked my salary", "done"]


@pytest.mark.parametrize(("path", "text"), [("/ask", "b"), ("/ask?q=1", "a")])
async def test_another_request_under_the_same_key_is_409(path: str, text: str) -> None:
    asked = Asked(principal=user)
    async with client_of(asked.app) as client:
        await client.post("/ask", json={"text": "a"}, headers=ALICE)
        refused = await client.post(path, json={"text": text}, headers=ALICE)
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    assert asked.questions == ["alice: a"]


async def test_a_failure_before_the_first_event_leaves_the_key_free() -> None:
    router = StreamRouter()
    answers: list[Any] = [StreamError("busy", code="busy", status=503), "done now"]

    @router.stream("/ask", methods=["POST"], principal=user)
    async def ask() -> AsyncIterator[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield answer

    async with client_of(Recording(router)) as client:
        assert (await client.post("/ask", headers=ALICE)).status_code == 503
        assert values((await client.post("/ask", headers=ALICE)).content) == ["done now", "done"]
        assert values((await client.post("/ask", headers=ALICE)).content) == ["done now", "done"]


async def test_a_form_counts_with_its_files() -> None:
    asked = Asked(principal=user)
    async with client_of(asked.app) as client:

        async def post(text: str, content: bytes) -> int:
            answer = await client.post("/form", data={"text": text}, files={"file": ("a.txt", content)}, headers=ALICE)
            return answer.status_code

        assert [await post("a", b"x"), await post("a", b"x"), await post("a", b"y"), await post("b", b"x")] == [
            200,
            200,
            409,
            409,
        ]
    assert asked.questions == ["ax"]


@pytest.mark.parametrize("options", [{}, {"principal": lambda: None}])
async def test_without_a_principal_a_key_is_ignored(options: dict[str, Any]) -> None:
    asked = Asked(**options)
    async with client_of(asked.app) as client:
        for _ in range(2):
            await client.post("/ask", json={"text": "a"}, headers=ALICE)
    assert len(asked.questions) == 2


async def test_nobody_can_compute_the_address_of_another_s_stream() -> None:
    asked = Asked(principal=user)
    async with client_of(asked.app) as client:
        address = (await client.post("/ask", json={"text": "a"}, headers=ALICE)).headers["content-location"]
    told = to_json(["/ask", "POST", "1", "str", "alice"])
    guesses = [hashlib.sha256(told).digest(), hmac.digest(b"", told, "sha256")]
    ids = [urlsafe_b64encode(guess[:16]).rstrip(b"=").decode() for guess in guesses]
    assert address.removeprefix("/ask/") not in ids
    other = small_engine()
    assert await other.derive_id("a") == await other.derive_id("a") != await small_engine().derive_id("a")


async def test_a_body_that_a_dependency_has_consumed_leaves_no_key() -> None:
    async def consume(request: Request) -> bytes:
        return b"".join([piece async for piece in request.stream()])

    router = StreamRouter()

    @router.stream("/ask", methods=["POST"], principal=user)
    async def ask(body: bytes = Depends(consume)) -> AsyncIterator[str]:
        yield body.decode()

    async with client_of(Recording(router)) as client:
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            for text in ("one", "two"):
                headers = {**ALICE, "Content-Type": content_type}
                assert values((await client.post("/ask", content=text, headers=headers)).content) == [text, "done"]


@pytest.mark.parametrize("principal", [7, UUID(int=7)])
async def test_a_principal_is_a_number_or_a_uuid_as_well(principal: Any) -> None:
    asked = Asked(principal=lambda: principal)
    async with client_of(asked.app) as client:
        for _ in range(2):
            await client.post("/ask", json={"text": "a"}, headers=ALICE)
    assert len(asked.questions) == 1


@pytest.mark.parametrize("principal", [True, "", Question(text="no id")])
async def test_a_principal_that_names_nobody_is_the_application_s_error(principal: Any) -> None:
    asked = Asked(principal=lambda: principal)
    async with client_of(asked.app) as client:
        assert (await client.post("/ask", json={"text": "a"}, headers=ALICE)).status_code == 500
    assert "expected the principal to be a non-empty str, an int, a UUID or None, but got" in str(asked.app.raised)


async def test_a_number_and_its_digits_are_two_principals() -> None:
    given: list[Any] = [1, "1"]
    asked = Asked(principal=lambda: given.pop())
    async with client_of(asked.app) as client:
        for _ in range(2):
            await client.post("/ask", json={"text": "a"}, headers=ALICE)
    assert len(asked.questions) == 2


async def test_a_principal_that_is_refused_refuses_the_request() -> None:
    def nobody() -> str:
        raise HTTPException(401)

    asked = Asked(principal=nobody)
    async with client_of(asked.app) as client:
        assert (await client.post("/ask", json={"text": "a"}, headers=ALICE)).status_code == 401


# What lies below a path


async def test_a_log_of_the_application_s_is_not_below_a_public_path() -> None:
    def admin() -> None:
        raise HTTPException(403)

    router = StreamRouter()

    @router.stream("/rooms")
    async def rooms() -> AsyncIterator[str]:
        yield "lobby"

    app = Recording(router)
    secret = await app.engine.log("/rooms/board")

    @router.stream("/rooms/board", flow=Flow.log(), dependencies=[Depends(admin)])
    async def board() -> Log:
        return secret

    await secret.append("the merger closes on Friday")
    async with client_of(app) as client:
        assert (await client.get("/rooms/board")).status_code == 403
        for stream in ("true", "false"):
            answer = await client.get("/rooms", params={"after": str(secret.cursor(0)), "stream": stream})
            assert "merger" not in answer.text


async def test_a_stream_that_lost_its_beginning_is_never_shown_as_the_whole() -> None:
    router = StreamRouter()

    @router.stream("/x", on_disconnect="detach", retention=Retention(count=10))
    async def x() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    async with client_of(Recording(router)) as client:
        first = await client.get("/x", headers=NDJSON_HEADERS)
        address = first.headers["content-location"]
        whole = values(first.content, NDJSON_WIRE)
        reset = await client.get(address, headers=NDJSON_HEADERS)
        assert values(reset.content, NDJSON_WIRE) == ["reset"]
        rest = await client.get(address, headers=NDJSON_HEADERS, params={"after": reset.headers["tailrace-cursor"]})
        assert values(rest.content, NDJSON_WIRE)[-2:] == [99, "done"]
        assert whole[-1] in ("done", "reset")
        assert (await client.get(address, headers={"Accept": "text/plain"})).status_code == 410


# The query of a stream's addresses


async def test_the_addresses_keep_the_query_that_dependencies_need() -> None:
    def token(token: str) -> None:
        if token != "t 1":
            raise HTTPException(401)

    router = StreamRouter()
    faucet = Faucet([1])

    @router.stream("/x", dependencies=[Depends(token)])
    async def x() -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    async with client_of(Recording(router)) as client, asyncio.timeout(BOUND):
        query = {"token": "t 1", "stream": "true"}
        async with client.stream("GET", "/x", params=query, headers=SSE_HEADERS) as first:
            address, link = first.headers["content-location"], first.headers["link"]
            assert address.endswith("?token=t+1")
            stop = link.removeprefix("<").removesuffix('>; rel="stop"')
            assert (await client.post(stop)).json()["state"] == "cancelled"
            resumed = await client.get(address, headers=SSE_HEADERS)
            assert values(resumed.content) == [1, "cancelled"]
            assert (await client.get(address.partition("?")[0])).status_code == 422


async def test_a_router_s_dependency_that_reads_the_body_is_not_asked_at_the_addresses() -> None:
    def password(password: str = Form()) -> str:
        return password

    router = StreamRouter(dependencies=[Depends(password)])

    @router.stream("/x", methods=["POST"])
    async def x() -> AsyncIterator[int]:
        yield 1

    async with client_of(Recording(router)) as client:
        assert (await client.post("/x", headers=SSE_HEADERS)).status_code == 422
        first = await client.post("/x", data={"password": "p"}, headers=SSE_HEADERS)
        assert (await client.get(first.headers["content-location"], headers=SSE_HEADERS)).content == first.content
        assert (await client.post(first.links["stop"]["url"])).json()["state"] == "done"


# The body


async def test_a_client_that_leaves_an_unread_body_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect, "READ_WITHIN", 0.05)
    faucet = Faucet([1])
    router = StreamRouter()

    @router.stream("/x", methods=["POST"], grace=0.0)
    async def x() -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    async with client_of(Recording(router)) as client, asyncio.timeout(BOUND):
        async with client.stream("POST", "/x", content=b"a" * 300_000, headers=SSE_HEADERS) as answer:
            await anext(answer.aiter_bytes())
        await faucet.closed.wait()


@pytest.mark.parametrize("size", [0, 3, 300_000])
async def test_a_generator_can_read_the_body_itself(size: int) -> None:
    router = StreamRouter()

    @router.stream("/length", methods=["POST"])
    async def length(request: Request) -> AsyncIterator[int]:
        yield 0
        yield len(await request.body())

    @router.stream("/pieces", methods=["POST"])
    async def pieces(request: Request) -> AsyncIterator[int]:
        yield 0
        yield sum([len(piece) async for piece in request.stream()])

    @router.stream("/form", methods=["POST"])
    async def form(request: Request) -> AsyncIterator[int]:
        yield 0
        yield len(str((await request.form())["text"]))

    async with client_of(Recording(router)) as client:
        for path in ("/length", "/pieces"):
            answer = await client.post(path, content=b"a" * size, headers=SSE_HEADERS)
            assert values(answer.content) == [0, size, "done"]
        answer = await client.post("/form", data={"text": "a" * size}, headers=SSE_HEADERS)
        assert values(answer.content) == [0, size, "done"]


async def test_a_client_that_leaves_is_noticed_although_its_body_is_unread() -> None:
    faucet = Faucet([1])
    router = StreamRouter()

    @router.stream("/x", methods=["POST"], grace=0.0)
    async def x(request: Request) -> AsyncIterator[Any]:
        async for item in faucet.run():
            yield item

    async with client_of(Recording(router)) as client, asyncio.timeout(BOUND):
        async with client.stream("POST", "/x", content=b"a" * 1000, headers=SSE_HEADERS) as answer:
            await anext(answer.aiter_bytes())
        await faucet.closed.wait()


# Dependencies


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_stream_has_a_reader_before_its_time_without_one_is_counted(accept: str) -> None:
    async def slowly() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0.05)

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await asyncio.sleep(0.02)

    router = StreamRouter()

    @router.stream("/x", grace=0.0)
    async def x(session: None = Depends(slowly, scope="function")) -> AsyncIterator[int]:
        return items()

    async with client_of(Recording(router)) as client:
        answer = await client.get("/x", headers={"Accept": accept})
        assert answer.status_code == 200
        read = answer.json()["data"] if "json" in accept else values(answer.content)[:-1]
        assert read == [0, 1, 2]


async def test_a_request_that_is_cancelled_keeps_its_dependencies_until_the_generator_is_done() -> None:
    order: list[str] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            order.append("session closed")

    router = StreamRouter()

    @router.stream("/x", dependencies=[Depends(session)])
    async def x() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            order.append("generator closed")

    class Deadline:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.app(scope, receive, send)

    app = Recording(router)
    app.add_middleware(Deadline)
    async with client_of(app) as client:
        with contextlib.suppress(httpx.RemoteProtocolError):
            await client.get("/x", headers=SSE_HEADERS)
    assert order == ["generator closed", "session closed"]


# Mistakes


@pytest.mark.parametrize("framed", ["data: 1\n\n", "event: a\ndata: 1\n\n", "id: 1\ndata: 1\n\n"])
async def test_text_that_is_framed_already_is_warned_of(framed: str) -> None:
    router = StreamRouter()

    @router.stream("/framed")
    async def x() -> AsyncIterator[str]:
        yield framed

    async with client_of(Recording(router)) as client:
        with pytest.warns(UserWarning, match="the stream at /framed yields text that is framed as Server-Sent Events"):
            await client.get("/framed", headers=SSE_HEADERS)


async def test_a_method_that_a_stream_lacks_is_refused_with_those_that_it_has() -> None:
    router = StreamRouter()

    @router.stream("/x", methods=["GET", "POST"])
    async def x() -> AsyncIterator[int]:
        yield 1

    async with client_of(Recording(router)) as client:
        answer = await client.delete("/x")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, HEAD, OPTIONS")
        below = f"/x/{'a' * 22}"
        assert (await client.post(below)).headers["allow"] == "GET, HEAD, OPTIONS"
        assert (await client.get(f"{below}/stop")).headers["allow"] == "POST, OPTIONS"


async def test_a_router_keeps_its_own_class_of_routes() -> None:
    handled: list[str] = []

    class Own(APIRoute):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            handled.append(scope["path"])
            await super().handle(scope, receive, send)

    router = StreamRouter(route_class=Own)

    @router.stream("/x")
    async def x() -> AsyncIterator[int]:
        yield 1

    async with client_of(Recording(router)) as client:
        assert (await client.get("/x")).json() == {"data": [1]}
    assert handled == ["/x"]


def test_a_cursor_s_name_is_no_parameter_of_a_function() -> None:
    router = StreamRouter()

    def page(after: int = 0) -> int:
        return after

    async def own(after: int) -> AsyncIterator[int]:
        yield after

    async def given(page: int = Depends(page)) -> AsyncIterator[int]:
        yield page

    class Page(BaseModel):
        after: int = 0

    async def modelled(page: Annotated[Page, Query()]) -> AsyncIterator[int]:
        yield page.after

    expected = "expected no query parameter `after` at '/x', because that is the cursor"
    with pytest.raises(ValueError, match=expected):
        StreamRouter(dependencies=[Depends(page)]).stream("/x")(takes_nothing)
    modelled.__annotations__["page"] = Annotated[Page, Query()]
    for function in (own, given, modelled):
        with pytest.raises(ValueError, match=expected):
            router.stream("/x")(function)
    with pytest.raises(ValueError, match=expected):
        router.stream("/x", dependencies=[Depends(page)])(takes_nothing)


async def takes_nothing() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("prefix", "path"), [("", "/x/{stream_id}"), ("", "/x/{stream_id:int}/y"), ("/{stream_id}", "/x")]
)
def test_a_path_has_no_stream_id_of_its_own(prefix: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"expected a path without \{stream_id\}"):
        StreamRouter(prefix=prefix).stream(path)(takes_nothing)


async def test_an_application_s_openapi_extra_stands_beside_the_cursor() -> None:
    router = StreamRouter()
    own = {"name": "x-own", "in": "header", "schema": {"type": "string"}}
    router.stream("/x", openapi_extra={"x-tagged": True, "parameters": [own]})(takes_nothing)
    app = FastAPI()
    app.include_router(router)
    operation = app.openapi()["paths"]["/x"]["get"]
    assert operation["x-tagged"] is True
    assert [parameter["name"] for parameter in operation["parameters"]] == ["after", "Last-Event-ID", "stream", "x-own"]
