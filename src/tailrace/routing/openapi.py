"""What the OpenAPI document says of a stream: the items on every wire, the cursor, and where to resume and stop."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import to_json

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
    "Tailrace-Cursor": {"description": "The cursor at which the body begins.", "schema": {"type": "string"}},
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


def schema_name(name: str, schema: Any) -> str:
    """A name for the schema of the items of a stream, which no other schema has.

    Streams may have one name and different items, where a function makes routers. Of two different models with one
    name pydantic would rename both, and what points at them would point at nothing.
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return f"Stream_{plain}_{hashlib.sha256(to_json(schema)).hexdigest()[:8]}"


def stream_response(wires: Sequence[Wire], name: str, item: Any) -> dict[str, Any]:
    """The response that is a stream of items of a type; `name` is the stream's own."""
    response: dict[str, Any] = {"description": "The stream.", "headers": _HEADERS}
    try:
        schema = TypeAdapter(item).json_schema(mode="serialization")
    except PydanticInvalidForJsonSchema:
        # Whether anybody asks for a document in which it has to be is for FastAPI to find out.
        schema = {"description": repr(item)}
    unique = schema_name(name, schema)
    if any(not wire.streaming for wire in wires):
        response["model"] = create_model(unique, data=(list[item], Field(description="All items.")))
        schema = {"$ref": f"#/components/schemas/{unique}/properties/data/items"}
    else:
        # Without a document there is no component to point at; the $id makes the schema's own references local to it.
        schema = {"$id": f"urn:tailrace:{unique}", **schema}
    response["content"] = {wire.media_type: wire.item_schema(schema) for wire in wires if wire.streaming}
    return response


def stream_responses(status: int, response: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """All responses where a stream is begun or resumed, for FastAPI's `responses`."""
    return {
        status: response,
        204: {"description": "The cursor says that the client has the end already."},
        400: {"description": "The cursor cannot be read.", "model": Refusal},
        406: {"description": "No media type that is accepted.", "model": Refusal},
        410: {"description": "The cursor cannot be continued, on a wire with no room to say so.", "model": Refusal},
    }


NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No such stream, or no more.", "model": Refusal}}
