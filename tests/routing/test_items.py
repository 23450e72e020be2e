from __future__ import annotations

import math
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_serializer

from tailrace import SSE, Event, EventError, Log, Result, StreamRouter, Text
from tailrace.events import encode_event
from tailrace.routing.items import item_encoder, item_type
from tests.asgi.apps import SSE_HEADERS
from tests.raw import fetch, frames, values
from tests.routing.apps import Recording, client_of
from tests.serving import serving


class User(BaseModel):
    name: str


class UserInDB(User):
    password: str


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    left_over: int = Field(alias="leftOver")
    note: str | None = None


T = TypeVar("T")
S = TypeVar("S")


class AnyTick(Event):  # type: ignore[type-arg]  # as users write it
    pass


class Tick(Event[int]):
    pass


class Tagged(Event[T]):
    pass


class Tuned(Tagged[list[T]], Generic[S, T]):
    pass


class Deep(Tuned[str, int]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str]


@dataclass
class Point:
    x: int


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


def returning(annotation: Any) -> Callable[[], Any]:
    def function() -> None: ...

    function.__annotations__["return"] = annotation
    return function


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (AsyncIterator[User], User),
        (AsyncIterable[User], User),
        (AsyncGenerator[User, None], User),
        (Iterator[User], User),
        (Iterable[User], User),
        (Generator[User, None, None], User),
        (typing.AsyncIterator[User], User),
        (typing.AsyncIterator, Any),
        (AsyncIterator, Any),
        (AsyncIterator[Any], Any),
        (AsyncIterator[Event[User]], User),
        (AsyncIterator[Event], Any),  # type: ignore[type-arg]  # as users write it
        (AsyncIterator[Event[User] | str], User | str),
        (AsyncIterator[AnyTick], Any),
        (AsyncIterator[Tick], int),
        (AsyncIterator[Tick | None], int | None),
        (AsyncIterator[Tagged[User]], User),
        (AsyncIterator[Tagged], Any),  # type: ignore[type-arg]
        (AsyncIterator[Tuned[str, User]], list[User]),
        (AsyncIterator[Deep], list[int]),
        (AsyncIterator[User | Event[User]], User),
        (AsyncIterator[Event[User] | None], User | None),
        (AsyncIterator[User | Result], User),
        (AsyncIterator[Pet], Pet),
        (AsyncIterator["User"], User),
        (list[User], Any),
        (Log, Any),
        (None, Any),
    ],
)
def test_the_type_of_an_item_is_read_from_the_annotation(annotation: Any, expected: Any) -> None:
    assert item_type(returning(annotation)) == expected


def test_without_an_annotation_an_item_is_anything() -> None:
    def function():  # type: ignore[no-untyped-def]
        yield 1  # pragma: no cover

    assert item_type(function) is Any


def test_the_annotation_is_that_of_the_function_within_decorators() -> None:
    async def function() -> AsyncIterator[User]:
        yield User(name="Ann")  # pragma: no cover

    @wraps(function)
    def decorated(*arguments: Any) -> Any: ...

    assert item_type(decorated) is User


def test_items_of_any_type_are_encoded_as_they_are() -> None:
    assert item_encoder(Any) is encode_event


@pytest.mark.parametrize(
    ("declared", "item", "expected"),
    [
        (User, User(name="Ann"), b'{"name":"Ann"}'),
        (User, UserInDB(name="Ann", password="secret"), b'{"name":"Ann"}'),
        (User, {"name": "Ann", "password": "secret"}, b'{"name":"Ann"}'),
        (User | None, UserInDB(name="Ann", password="secret"), b'{"name":"Ann"}'),
        (User | None, None, b"null"),
        (list[User], [UserInDB(name="Ann", password="secret")], b'[{"name":"Ann"}]'),
        (Pet, Dog(tricks=["sit"]), b'{"kind":"dog","tricks":["sit"]}'),
        (Pet, {"kind": "cat", "lives": 9}, b'{"kind":"cat","lives":9}'),
        (Cat | Dog, Dog(tricks=[]), b'{"kind":"dog","tricks":[]}'),
        (Aliased, Aliased(leftOver=1), b'{"leftOver":1,"note":null}'),
        (Aliased, {"left_over": 1}, b'{"leftOver":1,"note":null}'),
        (Point, Point(1), b'{"x":1}'),
        (int, "1", b"1"),
        (float, math.nan, b"null"),
        (str, "é", '"é"'.encode()),
        (str, "\x85\u2028\u2029", b'"\\u0085\\u2028\\u2029"'),
    ],
)
def test_items_are_validated_and_filtered_by_their_declared_type(declared: Any, item: Any, expected: bytes) -> None:
    encode = item_encoder(declared)
    assert encode(item) == (None, expected)
    assert encode(Event(item, "named")) == ("named", expected)
    assert encode(AnyTick(item, "named")) == ("named", expected)


def test_an_instance_of_the_very_class_is_not_validated_again() -> None:
    user = User.model_construct(name=1)
    with pytest.warns(UserWarning, match="Expected `str`"):
        assert item_encoder(User)(user) == (None, b'{"name":1}')


def test_objects_with_the_attributes_are_read_like_orm_rows() -> None:
    class Row:
        name = "Ann"
        password = "secret"

    assert item_encoder(User)(Row()) == (None, b'{"name":"Ann"}')


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"by_alias": False}, b'{"left_over":1,"note":null}'),
        ({"exclude_none": True}, b'{"leftOver":1}'),
        ({"exclude_unset": True}, b'{"leftOver":1}'),
        ({"exclude_defaults": True}, b'{"leftOver":1}'),
        ({"include": {"note"}}, b'{"note":null}'),
        ({"exclude": {"note"}, "by_alias": False}, b'{"left_over":1}'),
    ],
)
def test_the_options_are_those_of_a_route_s_response_model(options: dict[str, Any], expected: bytes) -> None:
    assert item_encoder(Aliased, **options)(Aliased(leftOver=1)) == (None, expected)


def test_options_hold_for_items_of_any_type_too() -> None:
    assert item_encoder(Any, exclude_none=True)(Aliased(leftOver=1)) == (None, b'{"leftOver":1}')


@pytest.mark.parametrize(("declared", "item"), [(User, {"nam": "Ann"}), (int, "x"), (Pet, User(name="x"))])
def test_an_item_of_another_type_is_an_error(declared: Any, item: Any) -> None:
    encode = item_encoder(declared)
    with pytest.raises(ResponseValidationError):
        encode(item)
    with pytest.raises(ResponseValidationError):
        encode(Event(item))


@pytest.mark.parametrize("declared", [bytes, bytes | str, str | bytes, bytes | None, Any])
@pytest.mark.parametrize("item", [b"\xff", bytearray(b"\xff"), Event(b"\xff")])
def test_bytes_that_are_no_text_are_base64_and_named(declared: Any, item: Any) -> None:
    assert item_encoder(declared, by_alias=True)(item) == ("bytes", b'"/w=="')


class Faulty(BaseModel):
    value: int = 1

    @computed_field
    def derived(self) -> int:
        raise RuntimeError("sensor lost")


class Lossy(BaseModel):
    value: int = 1

    @field_serializer("value")
    def lose(self, value: int) -> int:
        raise ValueError("value lost")


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def nested(depth: int) -> list[Any]:
    outer: list[Any] = []
    for _ in range(depth):
        outer = [outer]
    return outer


@pytest.mark.parametrize(
    ("declared", "item"),
    [
        (Faulty, Faulty()),
        (Lossy, Lossy()),
        (dict[str, Any], {"a": object()}),
        (list[Any], endless()),
        (list[Any], nested(100_000)),
        (list[Any], ["\ud800"]),
        (str, "\ud800"),
        (bytes, Event(b"\xff", "named")),
    ],
)
def test_an_item_that_cannot_be_serialised_is_an_event_error(declared: Any, item: Any) -> None:
    with pytest.raises(EventError, match=r"expected data of .* that is JSON-able, but got"):
        item_encoder(declared)(item)


# Through a router


def app_of(response: Any = None, **options: Any) -> Recording:
    router = StreamRouter()

    @router.stream("/x", response_model=response, **options)
    async def x() -> AsyncIterator[User]:
        yield UserInDB(name="Ann", password="secret")

    return Recording(router)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "application/x-ndjson", "text/plain"])
async def test_what_is_not_declared_does_not_leave_the_server(accept: str) -> None:
    async with client_of(app_of()) as client:
        answer = await client.get("/x", headers={"Accept": accept})
    assert "Ann" in answer.text
    assert "secret" not in answer.text


async def test_a_response_model_beats_the_annotation() -> None:
    async with client_of(app_of(UserInDB)) as client:
        assert (await client.get("/x")).json() == {"data": [{"name": "Ann", "password": "secret"}]}
    async with client_of(app_of(UserInDB, response_model_exclude={"name"})) as client:
        assert (await client.get("/x")).json() == {"data": [{"password": "secret"}]}


def invalid_app(first: Any, second: Any) -> Recording:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[User]:
        yield first
        yield second

    return Recording(router)


async def test_an_item_that_fails_validation_is_the_server_s_error() -> None:
    app = invalid_app({"nam": "Ann"}, None)
    async with client_of(app) as client:
        for accept in ("application/json", "text/event-stream"):
            answer = await client.get("/x", headers={"Accept": accept})
            assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert all(isinstance(error, ResponseValidationError) for error in app.raised)
    assert len(app.raised) == 2


@pytest.mark.parametrize(("item", "code"), [({"nam": "Ann"}, "internal_error"), (Event(object()), "internal_error")])
async def test_an_item_that_fails_validation_later_is_an_error_in_band(item: Any, code: str) -> None:
    app = invalid_app(User(name="Ann"), item)
    async with serving(app) as url:
        answer, body = await fetch(url, "/x", SSE_HEADERS)
    assert [frame.event for frame in frames(body)] == [None, "error"]
    assert frames(body)[-1].data["code"] == code
    assert b"nam" not in body.replace(b'"name"', b"")
    assert not answer.whole


async def test_declared_bytes_are_any_bytes() -> None:
    router = StreamRouter()

    @router.stream("/x", wires=[Text("image/png"), SSE()])
    async def x() -> AsyncIterator[bytes]:
        yield b"\x89PNG"
        yield b"\r\n"

    async with client_of(Recording(router)) as client:
        assert (await client.get("/x")).content == b"\x89PNG\r\n"
        answer = await client.get("/x", headers=SSE_HEADERS)
    told = [(frame.event, frame.data) for frame in frames(answer.content)]
    assert told[:2] == [("bytes", "iVBORw=="), (None, "\r\n")]


async def test_unions_are_told_apart() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[Event[Cat] | Dog]:
        yield Event(Cat(lives=9), "cat")
        yield Dog(tricks=[])

    async with client_of(Recording(router)) as client:
        answer = await client.get("/x", headers=SSE_HEADERS)
    assert values(answer.content) == ["cat", {"kind": "dog", "tricks": []}, "done"]
