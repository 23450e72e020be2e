"""The path functions that FastAPI calls: an application's own, wrapped, and those of its streams' addresses.

FastAPI reads a function's signature and nothing else of it. So each of these is a plain coroutine function with the
signature that its dependencies need, and answers a response.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from fastapi import HTTPException, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..asgi.lifespan import app_engine
from ..asgi.request import address
from ..asgi.response import StreamResponse
from ..asgi.settings import StreamSettings
from ..engine import Engine
from ..events import Outcome
from ..log.base import Log
from ..producer import Items, describe_error
from .openapi import StopResult

Endpoint = Callable[..., Awaitable[Response]]

_INJECTED = "tailrace_response"


def describe_http_error(error: Exception) -> Outcome:
    """Like `describe_error`, with the words of an HTTPException, which are meant for the client."""
    if isinstance(error, HTTPException):
        detail = error.detail if isinstance(error.detail, str) else to_json(error.detail).decode()
        return Outcome("error", f"http_{error.status_code}", detail)
    return describe_error(error)


def stream_endpoint(
    function: Callable[..., Any], settings: StreamSettings, engine: Engine | None, status: int
) -> Endpoint:
    """An application's function, answering a StreamResponse of what it yields."""
    signature = inspect.signature(function, eval_str=True)
    injected = _response_parameter(signature)
    generates = is_generator(function)

    async def endpoint(**values: Any) -> Response:
        told: Response = values[injected] if injected in signature.parameters else values.pop(injected)
        source = partial(function, **values) if generates else checked_source(await call(function, **values), function)
        # A log that the function has from elsewhere is not to be found below this path.
        addressed = not isinstance(source, Log)
        response = StreamResponse(
            source, settings, status_code=told.status_code or status, engine=engine, addressed=addressed
        )
        response.raw_headers.extend(told.headers.raw)
        return response

    parameters = list(signature.parameters.values())
    if injected not in signature.parameters:
        parameters.append(inspect.Parameter(injected, inspect.Parameter.KEYWORD_ONLY, annotation=Response))
    return _named(endpoint, function, parameters)


def resume_endpoint(
    function: Callable[..., Any], shared: list[inspect.Parameter], settings: StreamSettings, engine: Engine | None
) -> Endpoint:
    """The stream at the request's own address."""

    async def endpoint(tailrace_request: Request, stream_id: str, **_: Any) -> Response:
        own_engine = engine or app_engine(tailrace_request.app)
        if (log := await own_engine.find(address(tailrace_request.scope))) is None:
            return _not_found(stream_id)
        return StreamResponse(log, settings, engine=own_engine, addressed=True)

    return _named(endpoint, function, [*_ADDRESSED, *shared], "Resume {}")


def stop_endpoint(function: Callable[..., Any], shared: list[inspect.Parameter], engine: Engine | None) -> Endpoint:
    """Stops the stream whose address is the request's, less `/stop`."""

    async def endpoint(tailrace_request: Request, stream_id: str, **_: Any) -> Response:
        own_engine = engine or app_engine(tailrace_request.app)
        if (log := await own_engine.find(address(tailrace_request.scope).removesuffix("/stop"))) is None:
            return _not_found(stream_id)
        outcome = await own_engine.stop(log)
        if outcome is None:
            return JSONResponse(StopResult(stream_id=stream_id, state="open").model_dump(exclude_none=True), 202)
        result = StopResult(stream_id=stream_id, state=outcome.state, code=outcome.code, message=outcome.message)
        return JSONResponse(result.model_dump(exclude_none=True))

    return _named(endpoint, function, [*_ADDRESSED, *shared], "Stop {}")


def shared_parameters(endpoint: Endpoint, path: str) -> list[inspect.Parameter]:
    """An endpoint's parameters that its streams' other addresses have too: path parameters, and dependencies.

    A dependency, such as authentication, that reads the body cannot be had where there is none.
    """
    dependant = get_dependant(path=path, call=endpoint)
    shared = {field.name for field in dependant.path_params}
    shared.update(child.name or "" for child in dependant.dependencies if not _reads_body(child))
    parameters = inspect.signature(endpoint).parameters.values()
    return [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters if parameter.name in shared
    ]


def without_body(dependencies: Sequence[params.Depends], path: str) -> list[params.Depends]:
    """The same for a decorator's dependencies, which are no parameters."""
    return [
        each
        for each in dependencies
        if each.dependency is None or not _reads_body(get_dependant(path=path, call=each.dependency, scope=each.scope))
    ]


_ADDRESSED = [
    inspect.Parameter("tailrace_request", inspect.Parameter.KEYWORD_ONLY, annotation=Request),
    inspect.Parameter("stream_id", inspect.Parameter.KEYWORD_ONLY, annotation=str),
]


def _reads_body(dependant: Dependant) -> bool:
    return bool(dependant.body_params) or any(_reads_body(child) for child in dependant.dependencies)


def _response_parameter(signature: inspect.Signature) -> str:
    """The name under which FastAPI hands over the Response whose headers and status the application may set."""
    for parameter in signature.parameters.values():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Response):
            return parameter.name
    return _INJECTED


def is_generator(function: Callable[..., Any]) -> bool:
    return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)


async def call(function: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
    """What a function that does not yield returns; a sync one runs in a worker thread, as FastAPI's do."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments, **values)
    returned = await run_in_threadpool(function, *arguments, **values)
    return await returned if inspect.isawaitable(returned) else returned


def checked_source(source: Any, function: Callable[..., Any]) -> Log | Items:
    """What a function has returned, if that is an iterator or a log."""
    if not isinstance(source, Log | AsyncIterable | Iterable) or isinstance(source, str | bytes | dict | BaseModel):
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"expected {name} to yield, or to return an iterator or a Log, but got {type(source).__qualname__}"
        )
    return source


def _named(
    endpoint: Endpoint, function: Callable[..., Any], parameters: list[inspect.Parameter], doc: str | None = None
) -> Endpoint:
    """`endpoint` as FastAPI should see it. Not functools.wraps: FastAPI would look through it and find a generator."""
    endpoint.__name__ = function.__name__ if doc is None else f"{doc.split()[0].lower()}_{function.__name__}"
    endpoint.__qualname__ = endpoint.__name__
    endpoint.__module__ = function.__module__
    endpoint.__doc__ = function.__doc__ if doc is None else doc.format(f"a stream of `{function.__name__}`.")
    endpoint.__signature__ = inspect.Signature(sorted(parameters, key=lambda each: each.kind))  # type: ignore[attr-defined]
    return endpoint


def _not_found(stream_id: str) -> Response:
    detail = f"expected the id of a stream that runs or ended lately, but got {stream_id!r}"
    return JSONResponse({"detail": detail, "code": "stream_not_found"}, 404)
