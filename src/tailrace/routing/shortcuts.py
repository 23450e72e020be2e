"""Functions that stream from routes outside of a StreamRouter."""

from __future__ import annotations

import codecs
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import NoneType
from typing import Any, Unpack, cast, get_args, get_origin, get_type_hints

from fastapi import APIRouter, Depends, FastAPI, Form, params

from ..asgi.response import Source, StreamResponse
from ..asgi.settings import StreamOptions, StreamSettings
from ..engine.engine import Engine
from ..events import BYTES_LIKE
from ..iterators import Items, Iterables, Job, as_async, close_items
from ..log.base import Log
from ..modes import DEFAULT_WIRES
from ..wire.base import Wire
from ..wire.text import Text
from .endpoints import Principal, call, checked_source, is_generator
from .router import RouteOptions, StreamRouteOptions, StreamRouter

_TEXT_FIRST: tuple[Wire, ...] = (
    *(wire for wire in DEFAULT_WIRES if isinstance(wire, Text)),
    *(wire for wire in DEFAULT_WIRES if not isinstance(wire, Text)),
)
_YIELDING = (AsyncGenerator, AsyncIterator, Generator, Iterator)


def stream_response(
    source: Source,
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str | None = None,
    engine: Engine | None = None,
    **settings: Unpack[StreamOptions],
) -> StreamResponse:
    """Respond with the items of an async or sync generator: str, bytes or events. The default wire is plain text.

    With `media_type`, the body always has that type, and bytes pass through unchanged. `settings` are those of
    StreamSettings. A client resumes the stream by a request to the same path with a cursor.
    """
    if media_type is not None and "wires" in settings:
        raise TypeError(f"expected either media_type or wires, but got {media_type!r} and wires")
    chosen = StreamSettings(**settings)
    if "wires" not in settings:
        chosen = replace(chosen, wires=_TEXT_FIRST if media_type is None else [Text(media_type)])
    return StreamResponse(_text_source(source), chosen, status_code=status_code, headers=headers, engine=engine)


def create_streaming_endpoint(
    app: FastAPI | APIRouter,
    path: str,
    processor: Callable[..., Any],
    dependencies: Sequence[params.Depends | Callable[..., Any]] = (),
    *,
    methods: Sequence[str] = ("POST",),
    principal: Principal | None = None,
    **options: Unpack[StreamRouteOptions],
) -> None:
    """Add a POST endpoint that passes the form field `message` to `processor` and streams the items.

    The values of `dependencies` follow as further arguments, in order, if `processor` takes them: all of them, or those
    of the functions that are not declared to return None. Otherwise `processor` takes the message alone, and all
    dependencies only run, as guards. Raise TypeError if none of these fits.

    `processor` is an async or sync generator function, or a function that returns an iterator, a Log or a str.
    `methods`, `principal` and `options` are those of `StreamRouter.stream`. The default wire is plain text.
    """
    needed = [each if isinstance(each, params.Depends) else Depends(each) for each in dependencies]
    passed = _passed(processor, needed)
    parameters = [inspect.Parameter("message", inspect.Parameter.KEYWORD_ONLY, annotation=str, default=Form())]
    parameters += [
        inspect.Parameter(f"dependency_{number}", inspect.Parameter.KEYWORD_ONLY, default=default)
        for number, default in enumerate(needed)
    ]

    async def endpoint(message: str, **values: Any) -> Log | Items:
        arguments = [message, *(values[f"dependency_{number}"] for number in passed)]
        items = processor(*arguments) if is_generator(processor) else await call(processor, *arguments)
        source = checked_source([items] if isinstance(items, (str, *BYTES_LIKE)) else items, processor)
        return source if isinstance(source, Log | Job) else _TextItems(source)

    named = processor.func if isinstance(processor, partial) else processor
    endpoint.__name__ = getattr(named, "__name__", "processor")
    endpoint.__qualname__ = getattr(named, "__qualname__", endpoint.__name__)
    endpoint.__module__ = getattr(named, "__module__", None) or __name__
    endpoint.__doc__ = named.__doc__
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    router = app if isinstance(app, StreamRouter) else StreamRouter()
    given: dict[str, Any] = {"wires": _TEXT_FIRST, **options}
    settings = StreamSettings(**{name: given.pop(name) for name in StreamOptions.__annotations__ if name in given})
    router.add_stream_route(
        path, endpoint, settings, methods=methods, principal=principal, **cast("RouteOptions", given)
    )
    if router is not app:
        app.include_router(router)


def _passed(processor: Callable[..., Any], dependencies: Sequence[params.Depends]) -> Sequence[int]:
    """Return the numbers of the dependencies whose values a processor takes."""
    every = range(len(dependencies))
    giving = [number for number in every if not _returns_none(dependencies[number].dependency)]
    name = getattr(processor, "__qualname__", repr(processor))
    try:
        signature = inspect.signature(processor)
    except ValueError:
        raise TypeError(f"expected a processor whose parameters can be inspected, but got {name}") from None
    for passed in (giving, every, ()):
        try:
            signature.bind("message", *passed)
        except TypeError:
            continue
        return passed
    raise TypeError(f"expected {name} to take {_takable(len(giving), len(every))}, but got {name}{signature}")


def _takable(giving: int, every: int) -> str:
    """Say which arguments a processor may take."""
    if not every:
        return "the message"
    counts = " or ".join(str(count) for count in sorted({giving, every} - {0}))
    values = f"{counts} value{'' if counts == '1' else 's'} of dependencies"
    return f"the message and {values}, or the message alone (a guard that is declared to return None gives no value)"


def _returns_none(dependency: Callable[..., Any] | None) -> bool:
    """Tell whether a dependency is declared to return None, or to yield it."""
    try:
        returned = get_type_hints(dependency).get("return", Any)
    except (NameError, TypeError):  # a name that only type checkers know, or a callable object
        return False
    if get_origin(returned) in _YIELDING:
        returned = next(iter(get_args(returned)))
    return returned in (None, NoneType)


def _text_source(source: Source) -> Source:
    """Return a source that gives the same items, but bytes as text."""
    if isinstance(source, Log | Job):
        return source
    if not callable(source):
        return _TextItems(source)

    async def given() -> Log | Items:
        items = source()
        if inspect.isawaitable(items):
            items = await items
        return items if isinstance(items, Log | Job) else _TextItems(items)

    return given


class _TextItems(AsyncIterator[Any]):
    """Decodes bytes among items as UTF-8. A character may span several items. Other bytes pass unchanged.

    Bytes of an incomplete character also pass unchanged, before the next item, the end or an error.
    """

    def __init__(self, items: Iterables) -> None:
        self._source = as_async(items)
        self._characters = codecs.getincrementaldecoder("utf-8")()
        self._next: list[Any] = []  # the item that follows incomplete bytes
        self._end: Exception | None = None

    async def __anext__(self) -> Any:
        if self._next:
            return self._next.pop()
        if self._end is not None:
            raise self._end
        try:
            return await self._following()
        except Exception as error:
            if not (rest := self._undecoded()):
                raise
            self._end = error
            return rest

    async def _following(self) -> Any:
        while True:
            item = await anext(self._source)
            if isinstance(item, BYTES_LIKE):
                if piece := self._decode(bytes(item)):
                    return piece
            elif rest := self._undecoded():
                self._next.append(item)
                return rest
            else:
                return item

    async def aclose(self) -> None:
        await close_items(self._source)

    def _decode(self, data: bytes) -> str | bytes:
        begun = self._characters.getstate()[0]
        try:
            return self._characters.decode(data)
        except UnicodeDecodeError:
            self._characters.reset()
            return begun + data

    def _undecoded(self) -> bytes:
        rest = self._characters.getstate()[0]
        self._characters.reset()
        return rest
