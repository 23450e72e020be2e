"""What the OpenAPI document says of a stream: the items on every wire, the cursor, and where to resume and stop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, count
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, create_model

from ..wire.base import Wire


class Refusal(BaseModel):
    """Why a stream was refused."""

    detail: str
    code: str


class StopResult(BaseModel):
    """How a stream ended."""

    stream_id: str
    state: str = Field(description="`done`, `error` or `cancelled`; `open` if it runs where it cannot be stopped from.")
    code: str | None = None
    message: str | None = None


_HEADERS: dict[str, Any] = {
    "Stream-Cursor": {"description": "The cursor at which the body begins.", "schema": {"type": "string"}},
    "Content-Location": {"description": "Where the stream is resumed: GET, `?after=`.", "schema": {"type": "string"}},
    "Link": {"description": 'Where the stream is stopped: POST, `rel="stop"`.', "schema": {"type": "string"}},
}

CURSOR_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "after",
        "in": "query",
        "description": "A cursor: go on after it.",
        "schema": {"type": "string"},
    },
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "A cursor, as a browser's EventSource sends it; it beats `after`.",
        "schema": {"type": "string"},
    },
]

STREAM_PARAMETER: dict[str, Any] = {
    "name": "stream",
    "in": "query",
    "description": "Stream, or answer with one document; it beats Accept.",
    "schema": {"type": "boolean"},
}


_documents: dict[str, tuple[Any, type[BaseModel]]] = {}


def document_model(name: str, item: Any) -> type[BaseModel]:
    """The JSON document of a stream, as a schema with a name that no stream of other items has.

    Of two models with one name pydantic would rename both, and what points at them would point at nothing.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"Stream_{name}").strip("_")
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    unique = next(each for each in names if each not in _documents or _documents[each][0] == item)
    if unique not in _documents:
        _documents[unique] = item, create_model(unique, data=(list[item], Field(description="All items.")))
    return _documents[unique][1]


def stream_responses(wires: Sequence[Wire], name: str, item: Any, status: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a stream of items of a type, for FastAPI's `responses`; `name` is the stream's own."""
    response: dict[str, Any] = {"description": "The stream.", "headers": _HEADERS}
    if any(not wire.streaming for wire in wires):
        response["model"] = model = document_model(name, item)
        schema = {"$ref": f"#/components/schemas/{model.__name__}/properties/data/items"}
    else:
        # Without a document there is no component to point at; the $id makes the schema's own references local to it.
        schema = {"$id": f"urn:tailrace:{name}", **TypeAdapter(item).json_schema(mode="serialization")}
    response["content"] = {wire.media_type: wire.item_schema(schema) for wire in wires if wire.streaming}
    return {
        status: response,
        204: {"description": "The cursor says that the client has the end already."},
        400: {"description": "The cursor cannot be read.", "model": Refusal},
        406: {"description": "No media type that is accepted.", "model": Refusal},
        410: {"description": "The cursor cannot be continued, on a wire with no room to say so.", "model": Refusal},
    }


NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No such stream, or no more.", "model": Refusal}}
