"""Validate and filter items by their declared type, as FastAPI does with the return value of a route."""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import zip_longest
from typing import Any, Union, get_args, get_origin, get_type_hints

from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from ..errors import EventError
from ..events import BYTES_LIKE, Encode, Event, Result, encode_bytes, encode_event, escape_line_ends

_STREAMS = (AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator)
_UNIONS = (Union, types.UnionType)


def item_type(function: Callable[..., Any]) -> Any:
    """Return the type of a function's items: `Tick` for `-> AsyncIterator[Event[Tick]]`, Any without annotation."""
    annotation = get_type_hints(inspect.unwrap(function), include_extras=True).get("return", Any)
    arguments = get_args(annotation)
    return _without_event(arguments[0]) if arguments and get_origin(annotation) in _STREAMS else Any


def _without_event(annotation: Any) -> Any:
    if _is_event(annotation):
        return _data_type(annotation)
    if get_origin(annotation) in _UNIONS:
        items = [_without_event(member) for member in get_args(annotation) if member is not Result]
        return Union[tuple(items)]  # noqa: UP007
    return annotation


def _is_event(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, Event)


def _data_type(event: Any) -> Any:
    """Return the type of an event's data: int for `Event[int]`, and for Tick of `class Tick(Event[int])`."""
    kind = get_origin(event) or event
    given = dict(zip_longest(kind.__parameters__, get_args(event), fillvalue=Any))
    if kind is Event:
        return next(iter(given.values()))
    base = next(filter(_is_event, vars(kind).get("__orig_bases__", kind.__bases__)))
    open_parameters = tuple(given.get(parameter, Any) for parameter in base.__parameters__)
    return _data_type(base[open_parameters] if open_parameters else base)


def item_encoder(declared: Any, **options: Any) -> Encode:
    """Return an encoder for items of a type. `options` are those of pydantic's `dump_json`.

    It raises ResponseValidationError for an item of another type. It does not validate instances of exactly the
    declared model again.
    """
    if declared is Any and not options:
        return encode_event
    adapter: TypeAdapter[Any] = TypeAdapter(declared)
    exact = declared if isinstance(declared, type) and issubclass(declared, BaseModel) else None
    by_alias = options.pop("by_alias", True)
    # Measured: literal keywords cost a third of a partial. So only calls with options use a partial.
    to_json: Any = adapter.serializer.to_json
    dump = partial(to_json, **options) if options else to_json

    def encode(item: Any) -> tuple[str | None, bytes]:
        event = None
        if type(item) is not exact:
            if isinstance(item, Event):
                event, item = item.event, item.data
            if type(item) is not exact:
                item = _validated(adapter, item)
        try:
            json = dump(item, by_alias=by_alias)
        except (PydanticSerializationError, UnicodeDecodeError) as error:
            if event is None and isinstance(item, BYTES_LIKE):
                return encode_bytes(item)
            raise EventError(f"expected data of {declared} that is JSON-able, but got {error}") from error
        return event, json if json.isascii() else escape_line_ends(json)

    return encode


def _validated(adapter: TypeAdapter[Any], item: Any) -> Any:
    try:
        return adapter.validate_python(item, from_attributes=True)
    except ValidationError as error:
        raise ResponseValidationError(error.errors(), body=item) from error
