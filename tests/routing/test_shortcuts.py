from __future__ import annotations

import inspect
import random
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException

from tailrace import (
    SSE,
    Engine,
    Event,
    Job,
    Log,
    Producer,
    Result,
    StreamError,
    StreamResponse,
    StreamRouter,
    create_streaming_endpoint,
    stream_response,
)
from tailrace.modes import DEFAULT_WIRES
from tests.asgi.apps import SSE_HEADERS
from tests.raw import exchange, fetch, frames, values
from tests.routing.apps import Recording, client_of
from tests.serving import serving
from tests.sources import Faucet

WIRES = {wire.media_type: wire for wire in DEFAULT_WIRES}


async def words() -> AsyncIterator[str]:
    yield "one "
    yield "two"


def sync_words() -> Iterator[str]:
    yield from ("one ", "two")


async def mixed() -> AsyncIterator[Any]:
    yield b"one "
    yield bytearray(b"two ")
    yield memoryview(b"three")
    yield "\n"
    yield {"four": 4}
    yield Event(5, "five")


async def split() -> AsyncIterator[bytes]:
    for byte in "añ🜁z".encode():
        yield bytes([byte])


def responding(*sources: Any, **options: Any) -> Recording:
    """An application that answers with a source of its own for each path."""
    app = Recording()

    def add(number: int, source: Any) -> None:
        @app.get(f"/{number}")
        async def endpoint() -> StreamResponse:
            return stream_response(source() if isinstance(source, _Made) else source, **options)

    for number, source in enumerate(sources):
        add(number, source)
    return app


async def send_words(producer: Producer) -> None:
    for word in ("one ", "two"):
        await producer.send(word)


class _Made:
    """Makes a source that can be used but once."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self) -> Any:
        return self._make()


# stream_response


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (words, b"one two"),
        (_Made(words), b"one two"),
        (sync_words, b"one two"),
        (_Made(sync_words), b"one two"),
        (["one ", "two"], b"one two"),
        (mixed, b'one two three\n{"four":4}\n5\n'),
        (split, "añ🜁z".encode()),
        ([], b""),
        (Job(send_words), b"one two"),
        (lambda: Job(send_words), b"one two"),
    ],
)
async def test_any_generator_is_streamed_as_plain_text(source: Any, expected: bytes) -> None:
    async with serving(responding(source)) as url:
        for _ in range(2):
            answer, body = await fetch(url, "/0")
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["cache-control"] == "no-cache, no-transform"
            assert body == expected
            assert answer.whole


async def test_the_other_wires_are_there_for_who_asks() -> None:
    async with client_of(responding(words)) as client:
        assert (await client.get("/0", headers={"Accept": "application/json"})).json() == {"data": ["one ", "two"]}
        answer = await client.get("/0", headers=SSE_HEADERS)
        assert values(answer.content) == ["one ", "two", "done"]
        assert (await client.get("/0", headers={"Accept": "image/png"})).status_code == 406


async def test_a_character_that_is_split_is_never_cut() -> None:
    async with client_of(responding(split)) as client:
        answer = await client.get("/0", headers=SSE_HEADERS)
    assert values(answer.content) == ["a", "ñ", "🜁", "z", "done"]


BINARY: list[list[Any]] = [
    [b"\xff\xd8\xff\xe0"],
    [b"a", b"\xff", b"b"],
    ["a", b"\xf0\x9f"],
    [b"\xf0\x9f", b"\xff\xf0", b"\x9f\x9c\x81", bytearray(b"\x80"), memoryview(b"z")],
]


@pytest.mark.parametrize("source", BINARY)
async def test_bytes_that_are_no_text_pass_as_they_are(source: list[Any]) -> None:
    whole = b"".join(item.encode() if isinstance(item, str) else bytes(item) for item in source)
    async with client_of(responding(source)) as client:
        assert (await client.get("/0")).content == whole


@pytest.mark.parametrize(
    ("follows", "expected"),
    [
        ("STR", b"A\xe2\x82STR\xac!"),
        (Event("E"), b"A\xe2\x82E\xac!"),
        ({"n": 1}, b'A\xe2\x82{"n":1}\n\xac!'),
        (None, b"A\xe2\x82null\n\xac!"),
    ],
)
async def test_bytes_of_a_cut_character_keep_their_place(follows: Any, expected: bytes) -> None:
    async with client_of(responding([b"A\xe2\x82", follows, b"\xac!"])) as client:
        assert (await client.get("/0")).content == expected


async def test_bytes_of_a_cut_character_precede_a_result_or_an_error() -> None:
    async def failing() -> AsyncIterator[Any]:
        yield b"A\xe2"
        raise StreamError("no more", code="over")

    async with serving(responding([b"A\xe2", Result({"n": 1})], failing)) as url:
        for number, end in ((0, ("done", {"data": {"n": 1}})), (1, ("error", {"code": "over", "message": "no more"}))):
            _, body = await fetch(url, f"/{number}", SSE_HEADERS)
            told = [(frame.event, frame.data) for frame in frames(body)]
            assert told == [(None, "A"), ("bytes", "4g=="), end]


@pytest.mark.parametrize("source", ["aé", "aé".encode(), bytearray("aé".encode()), memoryview("aé".encode())])
async def test_a_str_or_bytes_is_one_item(source: Any) -> None:
    async with client_of(responding(source, lambda: source)) as client:
        for path in ("/0", "/1"):
            answer = await client.get(path, headers=SSE_HEADERS)
            assert values(answer.content) == ["aé", "done"]


IMAGE = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + random.Random(0).randbytes(300_000) + b"\xff\xd9"
# Some pieces are UTF-8 by chance, and many end within what could be a character.
PIECES = [IMAGE[:1], IMAGE[1:11], *(IMAGE[start : start + 4_099] for start in range(11, len(IMAGE), 4_099))]


@pytest.mark.parametrize("sync", [False, True])
async def test_an_image_is_the_same_to_the_byte_when_it_is_read_again(sync: bool) -> None:
    begun = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        for piece in PIECES:
            yield piece

    def sync_pieces() -> Iterator[bytes]:
        nonlocal begun
        begun += 1
        yield from PIECES

    app = responding(_Made(sync_pieces if sync else pieces), media_type="image/jpeg")
    async with serving(app) as url:
        async with exchange(url, "/0") as lost:
            await lost.until(IMAGE[:11])
            start = {"Last-Event-ID": lost.headers["tailrace-cursor"]}
        for _ in range(2):
            got, body = await fetch(url, "/0", start)
            assert got.headers["content-type"] == "image/jpeg"
            assert (body == IMAGE, got.whole) == (True, True)
        assert begun == 1


async def test_elsewhere_bytes_that_are_no_text_are_base64_and_named() -> None:
    async with client_of(responding([b"a", b"\xff"])) as client:
        answer = await client.get("/0", headers=SSE_HEADERS)
        assert [(frame.event, frame.data) for frame in frames(answer.content)][:2] == [(None, "a"), ("bytes", "/w==")]


async def test_a_response_has_any_media_type() -> None:
    app = Recording()

    @app.get("/image")
    async def image() -> StreamResponse:
        return stream_response([b"\x89PNG", b"\r\n\x1a\n"], media_type="image/png")

    @app.get("/page")
    async def page() -> StreamResponse:
        return stream_response(["<p>", "é"], media_type="text/html")

    async with client_of(app) as client:
        answer = await client.get("/image")
        assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG\r\n\x1a\n", "image/png")
        answer = await client.get("/page", headers={"Accept": "text/html"})
        assert (answer.text, answer.headers["content-type"]) == ("<p>é", "text/html; charset=utf-8")
        assert (await client.get("/page", headers={"Accept": "image/png"})).status_code == 406


def test_a_media_type_and_wires_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="expected either media_type or wires, but got 'a/b' and wires"):
        stream_response(["a"], media_type="a/b", wires=[SSE()])


@pytest.mark.parametrize("misspelt", [{"gracee": 1.0}, {"wire": []}])
def test_a_misspelt_option_is_a_type_error(misspelt: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(misspelt))):
        stream_response(["a"], **misspelt)
    with pytest.raises(TypeError, match=next(iter(misspelt))):
        StreamRouter().stream("/x", **misspelt)(lambda: iter("a"))
    with pytest.raises(TypeError, match=next(iter(misspelt))):
        create_streaming_endpoint(FastAPI(), "/x", lambda message: iter("a"), **misspelt)


async def test_a_function_may_give_the_source() -> None:
    app = Recording()
    log: Log = await app.engine.log("news")
    await log.append("new")
    await log.close()

    async def later(source: Any) -> Any:
        return source

    @app.get("/log")
    async def read() -> StreamResponse:
        return stream_response(lambda: later(log))

    @app.get("/items")
    async def items() -> StreamResponse:
        return stream_response(lambda: later([b"a", b"b"]))

    async with client_of(app) as client:
        assert (await client.get("/log")).text == "new"
        assert (await client.get("/items")).text == "ab"


async def test_a_log_is_read_as_it_is() -> None:
    app = Recording()
    log: Log = await app.engine.log("news")
    await log.append("one ", "two")
    await log.close()

    @app.get("/x")
    async def endpoint() -> StreamResponse:
        return stream_response(log)

    async with client_of(app) as client:
        assert (await client.get("/x")).text == "one two"
        assert (await client.get("/x", params={"after": str(log.cursor(1))})).text == "two"


async def test_status_headers_engine_and_settings_are_passed_on() -> None:
    app = Recording()
    other = Recording().engine

    @app.get("/x")
    async def endpoint() -> StreamResponse:
        wires = [WIRES["application/x-ndjson"]]
        return stream_response(words, status_code=201, headers={"X-Own": "1"}, engine=other, wires=wires)

    async with client_of(app) as client:
        answer = await client.get("/x")
        assert (answer.status_code, answer.headers["x-own"]) == (201, "1")
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert other.statistics().kept == 1
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        stream_response(words, speed=1)  # type: ignore[call-arg]


async def test_a_client_that_comes_back_with_a_cursor_resumes_and_starts_nothing() -> None:
    async with client_of(responding(words)) as client:
        answer = await client.get("/0", headers=SSE_HEADERS)
        log = answer.headers["tailrace-cursor"].removesuffix(".0")
        again = await client.get("/0", headers={**SSE_HEADERS, "Last-Event-ID": f"{log}.1"})
    assert values(again.content) == ["two", "done"]


async def test_a_generator_that_is_not_wanted_is_not_started() -> None:
    faucet = Faucet(["a"])
    app = Recording()

    @app.get("/x")
    async def endpoint() -> StreamResponse:
        return stream_response(faucet.run)

    async with client_of(app) as client:
        assert (await client.get("/x", params={"after": "s.e.1.end"})).status_code == 204
    assert not faucet.started.is_set()


async def test_one_response_may_be_an_application_for_many_requests() -> None:
    app = FastAPI()
    app.mount("/x", stream_response(words))
    async with serving(app) as url:
        for _ in range(2):
            _, body = await fetch(url, "/x/")
            assert body == b"one two"


# create_streaming_endpoint


def shout(message: str) -> str:
    return message.upper()


async def shout_async(message: str) -> str:
    return message.upper()


async def spell(message: str) -> AsyncIterator[str]:
    for letter in message:
        yield letter


def spell_sync(message: str) -> Iterator[str]:
    yield from message


def as_bytes(message: str) -> bytes:
    return message.encode()


def as_bytearray(message: str) -> bytearray:
    return bytearray(message.encode())


async def as_list(message: str) -> list[str]:
    return message.split()


class Processor:
    def __call__(self, message: str) -> Any:
        return spell(message)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (shout, ["A B"]),
        (shout_async, ["A B"]),
        (spell, ["a", " ", "b"]),
        (spell_sync, ["a", " ", "b"]),
        (as_bytes, ["a b"]),
        (as_bytearray, ["a b"]),
        (as_list, ["a", "b"]),
        (Processor(), ["a", " ", "b"]),
        (lambda message: spell(message), ["a", " ", "b"]),
    ],
)
async def test_one_call_makes_a_post_endpoint(processor: Any, expected: list[str]) -> None:
    app = Recording()
    create_streaming_endpoint(app, "/say", processor)
    async with client_of(app) as client:
        answer = await client.post("/say", data={"message": "a b"})
        assert (answer.status_code, answer.text) == (200, "".join(expected))
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        answer = await client.post("/say", data={"message": "a b"}, headers=SSE_HEADERS)
        assert values(answer.content) == [*expected, "done"]
        resumed = await client.get(answer.headers["content-location"], headers=SSE_HEADERS)
        assert resumed.content == answer.content


async def test_a_processor_may_return_a_log() -> None:
    app = Recording()

    async def processor(message: str) -> Log:
        log = await app.engine.log(message)
        await log.append(message)
        await log.close()
        return log

    create_streaming_endpoint(app, "/say", processor)
    async with client_of(app) as client:
        assert (await client.post("/say", data={"message": "hi"})).text == "hi"


async def test_a_plain_processor_does_not_block_the_event_loop() -> None:
    app = Recording()
    threads: list[int] = []

    def processor(message: str) -> str:
        threads.append(threading.get_ident())
        return message

    create_streaming_endpoint(app, "/say", processor)
    async with client_of(app) as client:
        await client.post("/say", data={"message": "a"})
    assert threads
    assert threads[0] != threading.get_ident()


async def test_a_missing_message_is_422() -> None:
    app = Recording()
    create_streaming_endpoint(app, "/say", spell)
    async with client_of(app) as client:
        for data in ({}, {"text": "a"}):
            answer = await client.post("/say", data=data)
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"] == ["body", "message"]
        assert (await client.get("/say")).status_code == 405


async def test_a_processor_may_return_a_job() -> None:
    app = FastAPI()
    create_streaming_endpoint(app, "/say", lambda message: Job(send_words))
    async with client_of(app) as client:
        assert (await client.post("/say", data={"message": "a"})).text == "one two"


@pytest.mark.parametrize("nonsense", [None, 1, {"a": 1}])
async def test_a_processor_that_returns_nonsense_is_the_server_s_error(nonsense: Any) -> None:
    app = Recording()

    def processor(message: str) -> Any:
        return nonsense

    create_streaming_endpoint(app, "/say", processor)
    async with client_of(app) as client:
        assert (await client.post("/say", data={"message": "a"})).status_code == 500
    assert "processor to yield, or to return an iterator, a Job or a Log, but got" in str(app.raised[0])


def user(x_user: Annotated[str, Header()]) -> str:
    if x_user == "nobody":
        raise HTTPException(401, "who are you?")
    return x_user


def number() -> int:
    return 7


@pytest.mark.parametrize("dependencies", [[user, number], [Depends(user), Depends(number)], (user, Depends(number))])
async def test_the_values_of_dependencies_follow_the_message(dependencies: Any) -> None:
    app = Recording()

    async def processor(message: str, name: str, lucky: int) -> AsyncIterator[Any]:
        yield [message, name, lucky]

    create_streaming_endpoint(app, "/say", processor, dependencies)
    data = {"message": "a"}
    async with client_of(app) as client:
        headers = {**SSE_HEADERS, "X-User": "ann"}
        answer = await client.post("/say", data=data, headers=headers)
        assert values(answer.content) == [["a", "ann", 7], "done"]
        assert (await client.post("/say", data=data)).status_code == 422
        assert (await client.post("/say", data=data, headers={"X-User": "nobody"})).status_code == 401
        address = answer.headers["content-location"]
        assert (await client.get(address, headers={"X-User": "nobody"})).status_code == 401
        assert (await client.get(address, headers=headers)).status_code == 200
        assert (await client.post(f"{address}/stop", headers={"X-User": "nobody"})).status_code == 401


async def test_it_can_be_added_to_a_router() -> None:
    router = APIRouter(prefix="/api")
    create_streaming_endpoint(router, "/say", spell, tags=["speech"])
    app = Recording(router)
    async with client_of(app) as client:
        answer = await client.post("/api/say", data={"message": "ab"})
        assert answer.text == "ab"
        assert (await client.get(answer.headers["content-location"])).status_code == 200
    assert app.openapi()["paths"]["/api/say"]["post"]["tags"] == ["speech"]


async def test_it_is_documented_as_its_processor() -> None:
    app = Recording()

    async def translate(message: str) -> AsyncIterator[str]:
        """Translate a message."""
        yield message  # pragma: no cover

    create_streaming_endpoint(app, "/say", translate)
    operation = app.openapi()["paths"]["/say"]["post"]
    assert operation["summary"] == "Translate"
    assert operation["description"] == "Translate a message."
    assert set(operation["responses"]["200"]["content"]) == set(WIRES)


async def test_on_a_stream_router_it_has_the_router_s_engine() -> None:
    engine = Engine()
    router = StreamRouter(engine=engine)
    create_streaming_endpoint(router, "/say", spell)
    async with client_of(Recording(router)) as client:
        answer = await client.post("/say", data={"message": "ab"})
        assert await engine.find(answer.headers["content-location"]) is not None


async def test_a_guard_is_only_run_where_the_processor_takes_the_message_alone() -> None:
    guarded: list[bool] = []

    def guard(x_key: Annotated[str, Header()] = "") -> None:
        guarded.append(True)
        if x_key != "secret":
            raise HTTPException(401)

    async def processor(message: str) -> AsyncIterator[str]:
        yield message.upper()

    app = Recording()
    create_streaming_endpoint(app, "/say", processor, [Depends(guard)])
    async with client_of(app) as client:
        assert (await client.post("/say", data={"message": "hi"})).status_code == 401
        answer = await client.post("/say", data={"message": "hi"}, headers={"X-Key": "secret"})
        assert (answer.status_code, answer.text) == (200, "HI")
    assert guarded == [True, True]


async def sees_guard() -> None:
    pass


def sees_guard_yielding() -> Iterator[None]:
    yield


async def sees_guard_yielding_async() -> AsyncGenerator[None]:
    yield


class Guard:
    def __call__(self) -> int:
        return 3


def echo(message: str, *values: Any) -> list[Any]:
    return [message, *values]


def echo_one(message: str, first: Any) -> list[Any]:
    return [message, first]


def echo_some(message: str, first: Any = "-", second: Any = "-") -> list[Any]:
    return [message, first, second]


class Echo:
    async def method(self, message: str, first: Any) -> AsyncIterator[Any]:
        """Repeat."""
        for item in (message, first):
            yield item

    def generate(self, message: str, first: Any) -> Iterator[Any]:
        yield from (message, first)

    async def __call__(self, message: str, first: Any) -> list[Any]:
        return [message, first]


@pytest.mark.parametrize(
    ("processor", "dependencies", "expected"),
    [
        (echo, [], ["a"]),
        (echo, [number, sees_guard, Guard()], ["a", 7, 3]),
        (echo_one, [sees_guard, number], ["a", 7]),
        (echo_one, [number, Depends(sees_guard)], ["a", 7]),
        (echo_one, [sees_guard_yielding, number, sees_guard_yielding_async], ["a", 7]),
        # A processor that has room for a guard's None gets it.
        (echo_one, [sees_guard], ["a", None]),
        (echo_some, [sees_guard], ["a", "-", "-"]),
        (echo_some, [sees_guard, number], ["a", 7, "-"]),
        (Echo().method, [number], ["a", 7]),
        (Echo().generate, [number], ["a", 7]),
        (Echo(), [number], ["a", 7]),
        (partial(Echo().method, first=9), [], ["a", 9]),
        (partial(echo_some, second=9), [number], ["a", 7, 9]),
        (partial(echo, "before"), [number], ["before", "a", 7]),
        (str.upper, [number], ["A"]),
    ],
)
async def test_values_reach_whatever_has_room_for_them(processor: Any, dependencies: Any, expected: list[Any]) -> None:
    app = Recording()
    create_streaming_endpoint(app, "/say", processor, dependencies)
    async with client_of(app) as client:
        answer = await client.post("/say", data={"message": "a"}, headers=SSE_HEADERS)
    assert values(answer.content) == [*expected, "done"]


def test_a_partial_is_documented_as_its_function() -> None:
    app = Recording()
    create_streaming_endpoint(app, "/say", partial(Echo().method, first=9))
    operation = app.openapi()["paths"]["/say"]["post"]
    assert (operation["summary"], operation["description"]) == ("Method", "Repeat.")


def test_a_return_type_that_only_type_checkers_know_is_a_value() -> None:
    def dependency() -> Unknown:  # type: ignore[name-defined]  # noqa: F821
        raise AssertionError

    with pytest.raises(TypeError, match="the message and 1 value of dependencies"):
        create_streaming_endpoint(FastAPI(), "/say", takes_two, [dependency])


def takes_two(message: str, first: int, second: int) -> Iterator[str]:
    yield message


def takes_none() -> Iterator[str]:
    yield ""


def takes_names(*, message: str) -> Iterator[str]:
    yield message


@pytest.mark.parametrize("processor", [takes_two, takes_none, takes_names])
def test_dependencies_that_do_not_fit_are_a_type_error_at_once(processor: Any) -> None:
    name = processor.__qualname__
    expected = (
        f"expected {name} to take the message and 1 value of dependencies, or the message alone "
        f"(a guard that is declared to return None gives no value), but got {name}{inspect.signature(processor)}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        create_streaming_endpoint(FastAPI(), "/say", processor, [lambda: 1])


def test_without_dependencies_a_processor_takes_the_message() -> None:
    with pytest.raises(TypeError, match=r"^expected takes_two to take the message, but got takes_two\(message"):
        create_streaming_endpoint(FastAPI(), "/say", takes_two)


def test_the_counts_that_would_fit_are_named() -> None:
    with pytest.raises(TypeError, match="to take the message and 1 or 3 values of dependencies, or the message alone"):
        create_streaming_endpoint(FastAPI(), "/say", takes_two, [sees_guard, number, sees_guard])


def test_parameters_that_python_cannot_tell_are_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"expected a processor whose parameters can be inspected, but got str\.format"):
        create_streaming_endpoint(FastAPI(), "/say", "{}".format)


async def test_items_that_have_not_begun_are_closed() -> None:
    closed: list[bool] = []

    class Upstream:
        def __aiter__(self) -> Upstream:
            return self

        async def __anext__(self) -> bytes:
            raise AssertionError("expected nobody to read this")

        async def aclose(self) -> None:
            closed.append(True)

    async with client_of(responding(Upstream())) as client:
        assert (await client.get("/0", headers={"Accept": "image/png"})).status_code == 406
    assert closed == [True]
