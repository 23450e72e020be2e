"""Streams in one call, for routes that are not a StreamRouter's."""

from __future__ import annotations

import codecs
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Form, params

from ..asgi.opening import Source
from ..asgi.response import StreamResponse
from ..asgi.settings import StreamSettings
from ..engine import Engine
from ..errors import EventError
from ..log.base import Log
from ..modes import DEFAULT_WIRES
from ..producer import Items, as_async, close_items
from ..wire.base import Wire
from ..wire.text import Text
from .endpoints import call, checked_source, is_generator
from .router import StreamRouter

_TEXT_FIRST: tuple[Wire, ...] = (
    *(wire for wire in DEFAULT_WIRES if isinstance(wire, Text)),
    *(wire for wire in DEFAULT_WIRES if not isinstance(wire, Text)),
)


def stream_response(
    source: Source,
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    engine: Engine | None = None,
    **settings: Any,
) -> StreamResponse:
    """A response from a generator, async or sync, of str, bytes (UTF-8) or events: plain text unless asked for more.

    `settings` are those of StreamSettings. A client that comes back to the same path with a cursor resumes the stream.
    """
    chosen = StreamSettings(**{"wires": _TEXT_FIRST, **settings})
    if not isinstance(source, Log):
        source = partial(_as_text, source)
    return StreamResponse(source, chosen, status_code=status_code, headers=headers, engine=engine)


def create_streaming_endpoint(
    app: FastAPI | APIRouter,
    path: str,
    processor: Callable[..., Any],
    dependencies: Sequence[params.Depends | Callable[..., Any]] = (),
    **options: Any,
) -> None:
    """Add a POST endpoint that hands the form field `message` to `processor` and streams what it yields.

    The values of `dependencies` follow as further arguments, in their order. `processor` may be a generator function,
    async or sync, or return an iterator, a Log or a single str. `options` are those of `StreamRouter.stream`.
    """
    names = [f"dependency_{number}" for number in range(len(dependencies))]
    parameters = [inspect.Parameter("message", inspect.Parameter.KEYWORD_ONLY, annotation=str, default=Form())]
    for name, dependency in zip(names, dependencies, strict=True):
        default = dependency if isinstance(dependency, params.Depends) else Depends(dependency)
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))

    async def endpoint(message: str, **values: Any) -> Log | Items:
        arguments = [message, *(values[name] for name in names)]
        items = processor(*arguments) if is_generator(processor) else await call(processor, *arguments)
        source = checked_source([items] if isinstance(items, str | bytes) else items, processor)
        return source if isinstance(source, Log) else _as_text(source)

    endpoint.__name__ = getattr(processor, "__name__", "processor")
    endpoint.__qualname__ = getattr(processor, "__qualname__", endpoint.__name__)
    endpoint.__module__ = processor.__module__
    endpoint.__doc__ = processor.__doc__
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    router = app if isinstance(app, StreamRouter) else StreamRouter()
    router.stream(path, **{"methods": ["POST"], "wires": _TEXT_FIRST, "websocket": False, **options})(endpoint)
    if router is not app:
        app.include_router(router)


async def _as_text(items: Items | Callable[[], Items]) -> AsyncIterator[Any]:
    """The items with bytes read as UTF-8, in which a character may be spread over several of them."""
    characters = codecs.getincrementaldecoder("utf-8")()
    source = as_async(items() if callable(items) else items)
    try:
        async for item in source:
            if not isinstance(item, bytes | bytearray | memoryview):
                yield item
            elif text := _decode(characters, bytes(item)):
                yield text
        _decode(characters, b"", final=True)
    finally:
        await close_items(source)


def _decode(characters: codecs.IncrementalDecoder, data: bytes, *, final: bool = False) -> str:
    try:
        return characters.decode(data, final)
    except UnicodeDecodeError as error:
        raise EventError(
            f"expected bytes of UTF-8 text, but got {error.object!r:.80}; for others use StreamingResponse"
        ) from error
