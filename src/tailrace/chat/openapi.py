"""The OpenAPI document of the server as it is set up, and what else follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path

from .access import Access


def describe(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, but no parameter can be null, and where everybody may chat nobody is asked for a key."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        for operation in _operations(document):
            for parameter in operation.get("parameters", ()):
                _forbid_null(parameter)
        access: Access = app.state.access
        if access.open:
            _open(document)
    assert app.openapi_schema is not None
    return app.openapi_schema


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods of a path, with those that each has; none if the document does not tell of it."""
    for template, operations in describe(app)["paths"].items():
        if compile_path(template)[0].match(path):
            return sorted({*map(str.upper, operations), "OPTIONS"} | ({"HEAD"} if "get" in operations else set()))
    return []


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _forbid_null(parameter: dict[str, Any]) -> None:
    """What a path function gets as None was left out: in an address or a header `null` is a word."""
    schema = parameter["schema"]
    kinds = schema.pop("anyOf", ())
    for kind in kinds:
        if kind != {"type": "null"}:
            schema |= kind


def _open(document: dict[str, Any]) -> None:
    del document["components"]["securitySchemes"]
    for operation in _operations(document):
        if operation.pop("security", None) is not None:
            del operation["responses"]["401"]
