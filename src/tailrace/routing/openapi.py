"""The entries of a stream in the OpenAPI document: its items on every wire, its cursor, and its addresses."""

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
    """The reason why a stream was refused."""

    detail: str
    code: str


class StopResult(BaseModel):
    """The end of a stream, after a stop."""

    stream_id: str
    state: str = Field(description="`done`, `error` or `cancelled`; `open` if this process cannot stop it.")
    code: str | None = None
    message: str | None = None


_HEADERS: dict[str, Any] = {
    "Tailrace-Cursor": {"description": "The cursor at which the body begins.", "schema": {"type": "string"}},
    "Content-Location": {"description": "The address to resume from: GET, `?after=`.", "schema": {"type": "string"}},
    "Link": {"description": 'The address to stop the stream: POST, `rel="stop"`.', "schema": {"type": "string"}},
}

CURSOR_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "after",
        "in": "query",
        "description": "A cursor. The stream continues after it.",
        "schema": {"type": "string"},
    },
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "A cursor, as a browser's EventSource sends it. It takes precedence over `after`.",
        "schema": {"type": "string"},
    },
]

STREAM_PARAMETER: dict[str, Any] = {
    "name": "stream",
    "in": "query",
    "description": "Whether to stream or to answer with one document. It takes precedence over Accept.",
    "schema": {"type": "boolean"},
}


def schema_name(name: str, schema: Any) -> str:
    """Return a unique name for the schema of a stream's items.

    The stream's name is not enough: a function that makes routers can give one name to streams with different items.
    pydantic would then rename both models, and the references to them would break.
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return f"Stream_{plain}_{hashlib.sha256(to_json(schema)).hexdigest()[:8]}"


def stream_response(wires: Sequence[Wire], name: str, item: Any) -> dict[str, Any]:
    """Describe the response that streams items of a type. `name` is the stream's name."""
    response: dict[str, Any] = {"description": "The stream.", "headers": _HEADERS}
    try:
        schema = TypeAdapter(item).json_schema(mode="serialization")
    except PydanticInvalidForJsonSchema:
        # The type has no JSON Schema. That is an error only if somebody asks for the OpenAPI document.
        schema = {"description": repr(item)}
    unique = schema_name(name, schema)
    if any(not wire.streaming for wire in wires):
        response["model"] = create_model(unique, data=(list[item], Field(description="All items.")))
        schema = {"$ref": f"#/components/schemas/{unique}/properties/data/items"}
    else:
        # Without a document, no component can hold the schema. The $id makes its own references resolve within it.
        schema = {"$id": f"urn:tailrace:{unique}", **schema}
    response["content"] = {wire.media_type: wire.item_schema(schema) for wire in wires if wire.streaming}
    return response


def stream_responses(status: int, response: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses` for a path that starts or resumes a stream."""
    return {
        status: response,
        204: {"description": "The client already has the end, by its cursor."},
        400: {"description": "The cursor cannot be read.", "model": Refusal},
        406: {"description": "The Accept header admits none of the media types.", "model": Refusal},
        410: {"description": "The cursor cannot be continued, and the media type has no notices.", "model": Refusal},
    }


NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No such stream, or no longer.", "model": Refusal}}
