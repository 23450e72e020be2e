from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field, PlainSerializer

from tailrace import NDJSON, SSE, Event, OpenAIChunks, StreamRouter, Text
from tailrace.routing.openapi import schema_name
from tests.asgi.apps import ACCEPTED


class Tick(BaseModel):
    left: int = Field(alias="leftOver")


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Both(BaseModel):
    """Used as input as well, it has two schemas."""

    value: int = 1


class Start(BaseModel):
    n: int


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


def documented(*routers: APIRouter) -> dict[str, Any]:
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    return app.openapi()


def router_of(item: Any, path: str = "/x", **options: Any) -> StreamRouter:
    router = StreamRouter()

    @router.stream(path, response_model=item, **options)
    async def function() -> AsyncIterator[Any]:
        yield 1  # pragma: no cover

    return router


# References, as OpenAPI 3.1 and JSON Schema 2020-12 define them


def references(schema: Any, base: Any = None) -> Iterator[tuple[str, Any]]:
    """Every $ref with the schema that is its base: the document, or the nearest one with an $id."""
    if isinstance(schema, dict):
        base = schema if base is None or "$id" in schema else base
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"], base
        for value in schema.values():
            yield from references(value, base)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value, base)


def resolve(reference: str, base: Any) -> Any:
    assert reference.startswith("#/"), reference
    for part in reference[2:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        base = base[int(part)] if isinstance(base, list) else base[part]
    return base


def check_structure(document: dict[str, Any]) -> None:
    """What of the OpenAPI specification can be checked by eye."""
    assert document["openapi"].startswith("3.1")
    found = list(references(document))
    for reference, base in found:
        assert isinstance(resolve(reference, base), dict), reference
    operations = []
    for path, item in document["paths"].items():
        assert path.startswith("/")
        for method, operation in item.items():
            assert method in ("get", "post", "put", "delete"), method
            operations.append(operation["operationId"])
            names = [(each["in"], each["name"]) for each in operation.get("parameters", [])]
            assert len(set(names)) == len(names)
            in_path = {name for place, name in names if place == "path"}
            assert in_path == {part.strip("{}") for part in path.split("/") if part.startswith("{")}
            for status, response in operation["responses"].items():
                assert status.isdigit()
                assert response["description"]
                for media_type, content in response.get("content", {}).items():
                    assert "/" in media_type
                    assert set(content) <= {"schema", "itemSchema"}
    assert len(set(operations)) == len(operations)


def item_schema(document: dict[str, Any], media_type: str, path: str = "/x", method: str = "get") -> Any:
    """The schema of an item on a wire, with its references resolved to the end."""
    content = document["paths"][path][method]["responses"]["200"]["content"][media_type]
    base: Any = document
    if media_type == "application/json":
        schema = resolve(content["schema"]["$ref"], document)["properties"]["data"]["items"]
    elif media_type == "text/event-stream":
        data = content["itemSchema"]["properties"]["data"]
        assert (data["type"], data["contentMediaType"]) == ("string", "application/json")
        schema = data["contentSchema"]
    else:
        schema = content["itemSchema"]["properties"]["data"]
    while "$ref" in schema or "$id" in schema:
        if "$id" in schema:
            base = schema
        if "$ref" not in schema:
            break
        schema = resolve(schema["$ref"], base)
    return schema


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("wires", [None, [SSE(), NDJSON(), Text()]], ids=["all wires", "no document"])
@pytest.mark.parametrize("item", [Tick, Node, int, Any, str | None, list[Tick], Pet, Cat | Dog])
def test_the_schema_of_an_item_is_there_for_each_media_type(item: Any, wires: Any, method: str) -> None:
    options = {} if wires is None else {"wires": wires}
    document = documented(router_of(item, methods=[method], **options))
    check_structure(document)
    content = document["paths"]["/x"][method.lower()]["responses"]["200"]["content"]
    offered = [media_type for media_type in ACCEPTED if wires is None or media_type != "application/json"]
    assert set(content) == set(offered)
    assert content["text/plain"] == {"schema": {"type": "string"}}
    schemas = [item_schema(document, each, method=method.lower()) for each in offered if each != "text/plain"]
    members = [schema.keys() - {"$id", "$defs"} for schema in schemas]
    assert members == members[:1] * len(schemas)
    if item is Tick:
        assert all("leftOver" in schema["properties"] for schema in schemas)
    if item is Node:
        assert all(schema["properties"]["children"]["items"]["$ref"].endswith("/Node") for schema in schemas)


def test_the_annotation_is_what_is_documented() -> None:
    router = StreamRouter()

    @router.stream("/x")
    async def x() -> AsyncIterator[Event[Tick]]:
        yield Event(Tick(leftOver=1))  # pragma: no cover

    document = documented(router)
    check_structure(document)
    assert item_schema(document, "text/event-stream")["title"] == "Tick"


def test_frames_carry_the_cursor_and_the_event_name() -> None:
    document = documented(router_of(Tick))
    content = document["paths"]["/x"]["get"]["responses"]["200"]["content"]
    for media_type in ("text/event-stream", "application/x-ndjson"):
        assert {"id", "event", "data"} <= set(content[media_type]["itemSchema"]["properties"])


def test_a_wire_may_document_itself() -> None:
    document = documented(router_of(Tick, wires=[OpenAIChunks("m")]))
    check_structure(document)
    content = document["paths"]["/x"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"text/event-stream"}


def test_resume_and_stop_are_documented_with_their_parameters() -> None:
    document = documented(router_of(Tick, methods=["POST"]))
    check_structure(document)
    assert set(document["paths"]) == {"/x", "/x/{stream_id}", "/x/{stream_id}/stop"}
    resume = document["paths"]["/x/{stream_id}"]
    stop = document["paths"]["/x/{stream_id}/stop"]
    assert set(resume) == {"get"}
    assert set(stop) == {"post"}
    names = [(each["in"], each["name"]) for each in resume["get"]["parameters"]]
    assert sorted(names) == [
        ("header", "Last-Event-ID"),
        ("path", "stream_id"),
        ("query", "after"),
        ("query", "stream"),
    ]
    start = document["paths"]["/x"]["post"]
    names = [(each["in"], each["name"]) for each in start["parameters"]]
    assert sorted(names) == [("header", "Last-Event-ID"), ("query", "after"), ("query", "stream")]
    assert set(start["responses"]) == {"200", "204", "400", "406", "410"}
    assert set(resume["get"]["responses"]) == {"200", "204", "400", "404", "406", "410", "422"}
    assert set(stop["post"]["responses"]) == {"200", "202", "404", "422"}
    schema = stop["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(resolve(schema["$ref"], document)["properties"]) == {"stream_id", "state", "code", "message"}
    assert set(start["responses"]["200"]["headers"]) == {"Tailrace-Cursor", "Content-Location", "Link"}


def test_parameters_body_and_security_are_fastapi_s_own() -> None:
    router = StreamRouter()

    @router.stream("/x/{name}", methods=["POST"], dependencies=[Depends(HTTPBearer())])
    async def x(name: str, start: Start, q: int = 1) -> AsyncIterator[Tick]:
        yield Tick(leftOver=1)  # pragma: no cover

    document = documented(router)
    check_structure(document)
    start = document["paths"]["/x/{name}"]["post"]
    assert start["security"] == [{"HTTPBearer": []}]
    assert "requestBody" in start
    assert ("query", "q") in [(each["in"], each["name"]) for each in start["parameters"]]
    for path, method in (("/x/{name}/{stream_id}", "get"), ("/x/{name}/{stream_id}/stop", "post")):
        operation = document["paths"][path][method]
        assert operation["security"] == [{"HTTPBearer": []}]
        assert "requestBody" not in operation


def test_a_status_of_its_own_is_documented() -> None:
    document = documented(router_of(Tick, status_code=202))
    assert "202" in document["paths"]["/x"]["get"]["responses"]
    assert "200" not in document["paths"]["/x"]["get"]["responses"]
    # What is resumed is only read.
    assert "200" in document["paths"]["/x/{stream_id}"]["get"]["responses"]


def test_what_is_not_in_the_schema_is_not_there() -> None:
    assert documented(router_of(Tick, include_in_schema=False))["paths"] == {}


def test_schemas_have_names_of_their_own() -> None:
    first, second, third = router_of(Cat), router_of(Dog), router_of(Cat)
    app = FastAPI()
    for prefix, router in (("/cats", first), ("/dogs", second), ("/more", third)):
        app.include_router(router, prefix=prefix)
    document = app.openapi()
    check_structure(document)
    for path, title in (("/cats/x", "Cat"), ("/dogs/x", "Dog"), ("/more/x", "Cat")):
        for media_type in ("application/json", "text/event-stream", "application/x-ndjson"):
            assert item_schema(document, media_type, path)["title"] == title


def test_schemas_without_a_document_have_names_of_their_own() -> None:
    app = FastAPI()
    for prefix, item in (("/cats", Cat), ("/dogs", Dog), ("/more", Cat)):
        app.include_router(router_of(item, wires=[SSE()]), prefix=prefix)
    document = app.openapi()
    check_structure(document)
    ids: dict[str, str] = {}
    for path in ("/cats/x", "/dogs/x", "/more/x"):
        schema = item_schema(document, "text/event-stream", path)
        assert re.fullmatch(r"urn:tailrace:Stream_\w+", schema["$id"])
        assert ids.setdefault(schema["$id"], schema["title"]) == schema["title"]
    assert sorted(ids.values()) == ["Cat", "Dog"]


def test_items_of_one_name_and_different_schemas_are_told_apart() -> None:
    def numbered(kind: Any) -> Any:
        class Numbered(BaseModel):
            value: kind

        return Numbered

    app = FastAPI()
    for prefix, kind in (("/integers", int), ("/strings", str)):
        app.include_router(router_of(numbered(kind)), prefix=prefix)
    document = app.openapi()
    check_structure(document)
    for path, type_ in (("/integers/x", "integer"), ("/strings/x", "string")):
        for media_type in ("application/json", "text/event-stream", "application/x-ndjson"):
            assert item_schema(document, media_type, path)["properties"]["value"]["type"] == type_


def test_a_schema_has_the_same_name_each_time() -> None:
    name = schema_name("module.function /once/{name}", {"type": "integer"})
    assert name == schema_name("module.function /once/{name}", {"type": "integer"})
    assert re.fullmatch(r"Stream_module_function_once_name_[0-9a-f]{8}", name)
    assert name != schema_name("module.function /once/{name}", {"type": "string"})
    first, second = documented(router_of(Cat)), documented(router_of(Cat))
    assert first == second


def test_items_without_a_schema_can_be_streamed_where_nobody_asks_for_it() -> None:
    item = Annotated[Callable[[], int], PlainSerializer(lambda function: function())]
    assert documented(router_of(item, include_in_schema=False))["paths"] == {}


def test_a_document_beside_fastapi_s_own_use_of_the_model() -> None:
    app = FastAPI()
    app.include_router(router_of(Both))

    @app.post("/both")
    async def both(item: Both) -> Both:
        return item  # pragma: no cover

    document = app.openapi()
    check_structure(document)
    assert item_schema(document, "text/event-stream")["properties"].keys() == {"value"}
