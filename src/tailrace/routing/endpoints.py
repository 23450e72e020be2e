"""The path functions that FastAPI calls: the application's own ones, wrapped, and those of the streams' addresses.

FastAPI reads only the signature of a path function. So each function here is a plain coroutine function with the
signature that its dependencies need, and returns a response.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Depends, HTTPException, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..asgi.decision import address, remaining_query
from ..asgi.lifespan import app_engine
from ..asgi.reply import refusal
from ..asgi.response import StreamResponse
from ..asgi.settings import StreamSettings
from ..engine.engine import Engine
from ..events import Outcome
from ..iterators import Items, Job
from ..log.base import Log
from ..producer import describe_error
from .openapi import StopResult

Endpoint = Callable[..., Awaitable[Response]]
Principal = Callable[..., Any]

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

_REQUEST = "tailrace_request"
_RESPONSE = "tailrace_response"
_PRINCIPAL = "tailrace_principal"


def describe_http_error(error: Exception) -> Outcome:
    """Do as `describe_error` does, but give clients the `detail` of an HTTPException, which is meant for them."""
    if isinstance(error, HTTPException):
        detail = error.detail if isinstance(error.detail, str) else to_json(error.detail).decode()
        return Outcome("error", f"http_{error.status_code}", detail)
    return describe_error(error)


def stream_endpoint(
    function: Callable[..., Any],
    settings: StreamSettings,
    engine: Engine | None,
    status: int,
    *,
    principal: Principal | None = None,
    addressed: bool = True,
) -> Endpoint:
    """Wrap an application's function in an endpoint that returns a StreamResponse."""
    signature = inspect.signature(function, eval_str=True)
    own = set(signature.parameters)
    asked, told = _parameter_of(signature, Request, _REQUEST), _parameter_of(signature, Response, _RESPONSE)
    generates = is_generator(function)

    async def endpoint(**values: Any) -> Response:
        request: Request = values[asked]
        answer: Response = values[told]
        arguments = {name: value for name, value in values.items() if name in own}
        stream_id, fingerprint = await _key(engine, request, values.get(_PRINCIPAL))
        response = StreamResponse(
            partial(function, **arguments) if generates else partial(_checked, function, arguments),
            settings,
            engine=engine,
            addressed=addressed,
            stream_id=stream_id,
            fingerprint=fingerprint,
        )
        if not generates:
            # Call the function now: FastAPI closes function-scoped dependencies before it sends the response.
            await response.prepare(request.scope)
        response.status_code = answer.status_code or status
        response.raw_headers.extend(answer.headers.raw)
        return response

    parameters = list(signature.parameters.values())
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
        for name, kind in ((asked, Request), (told, Response))
        if name not in own
    ]
    if principal is not None:
        default = Depends(principal)
        parameters.append(inspect.Parameter(_PRINCIPAL, inspect.Parameter.KEYWORD_ONLY, default=default))
    return _named(endpoint, function, parameters)


def resume_endpoint(
    function: Callable[..., Any], shared: list[inspect.Parameter], settings: StreamSettings, engine: Engine | None
) -> Endpoint:
    """Make the endpoint that resumes the stream at the request's own path."""

    async def endpoint(tailrace_request: Request, stream_id: str, **_: Any) -> Response:
        own_engine = engine or app_engine(tailrace_request.app)
        if (log := await _stream_at(own_engine, address(tailrace_request.scope))) is None:
            return _not_found(stream_id)
        return StreamResponse(log, settings, engine=own_engine, addressed=True)

    return _named(endpoint, function, [*_ADDRESSED, *shared], "Resume {}")


def stop_endpoint(function: Callable[..., Any], shared: list[inspect.Parameter], engine: Engine | None) -> Endpoint:
    """Make the endpoint that stops the stream at the request's path without `/stop`."""

    async def endpoint(tailrace_request: Request, stream_id: str, **_: Any) -> Response:
        own_engine = engine or app_engine(tailrace_request.app)
        if (log := await _stream_at(own_engine, address(tailrace_request.scope).removesuffix("/stop"))) is None:
            return _not_found(stream_id)
        outcome = await own_engine.stop(log)
        if outcome is None:
            return JSONResponse(StopResult(stream_id=stream_id, state="open").model_dump(exclude_none=True), 202)
        result = StopResult(stream_id=stream_id, state=outcome.state, code=outcome.code, message=outcome.message)
        return JSONResponse(result.model_dump(exclude_none=True))

    return _named(endpoint, function, [*_ADDRESSED, *shared], "Stop {}")


def shared_parameters(endpoint: Endpoint, path: str) -> list[inspect.Parameter]:
    """Return the parameters that an endpoint shares with its streams' addresses: path parameters and dependencies.

    The addresses have no body, so dependencies that read the body, such as a login form, are left out.
    """
    dependant = get_dependant(path=path, call=endpoint)
    shared = {field.name for field in dependant.path_params}
    shared.update(child.name or "" for child in dependant.dependencies if not _reads_body(child))
    parameters = inspect.signature(endpoint).parameters.values()
    return [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in parameters
        if parameter.name in shared - {_PRINCIPAL}
    ]


def without_body(dependencies: Sequence[params.Depends], path: str) -> list[params.Depends]:
    """Return those of a decorator's dependencies that do not read the body."""
    return [
        each
        for each in dependencies
        if each.dependency is None or not _reads_body(get_dependant(path=path, call=each.dependency, scope=each.scope))
    ]


def query_names(function: Callable[..., Any], path: str, dependencies: Sequence[params.Depends] = ()) -> set[str]:
    """Return the names of the query parameters that a path function and its dependencies declare."""
    # Without the scope, FastAPI takes a generator function for a request-scoped dependency, and such a dependency may
    # not use function-scoped ones.
    dependants = [get_dependant(path=path, call=function, scope="function")]
    dependants += [
        get_dependant(path=path, call=each.dependency, scope=each.scope)
        for each in dependencies
        if each.dependency is not None
    ]
    return set().union(*map(_query_names, dependants))


def is_generator(function: Callable[..., Any]) -> bool:
    return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)


async def call(function: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
    """Call a function that does not yield. Sync functions run in a worker thread, as in FastAPI."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments, **values)
    returned = await run_in_threadpool(function, *arguments, **values)
    return await returned if inspect.isawaitable(returned) else returned


def checked_source(source: Any, function: Callable[..., Any]) -> Log | Items:
    """Return a function's return value if it is an iterator, a Job or a Log; otherwise raise TypeError."""
    if not isinstance(source, Log | Job | AsyncIterable | Iterable) or isinstance(
        source, str | bytes | dict | BaseModel
    ):
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"expected {name} to yield, or to return an iterator, a Job or a Log, but got {type(source).__qualname__}"
        )
    return source


async def _checked(function: Callable[..., Any], values: dict[str, Any]) -> Log | Items:
    return checked_source(await call(function, **values), function)


async def _stream_at(engine: Engine, name: str) -> Log | None:
    path, _, stream_id = name.rpartition("/")
    return await engine.find_stream(path, stream_id)


async def _key(engine: Engine | None, request: Request, principal: Any) -> tuple[str | None, bytes]:
    """Return the id of the stream for an Idempotency-Key, and a digest of the request's query and body.

    Equal keys of different principals give different ids. There is no id without a key or a principal. There is none
    either if a dependency has consumed the body, because repeated requests must have the same body.
    """
    key = request.headers.get("idempotency-key")
    if key is None or principal is None:
        return None, b""
    owner = principal_name(principal)
    if (fingerprint := await _fingerprint(request)) is None:
        return None, b""
    parts = (address(request.scope), request.method, key, *owner)
    return await (engine or app_engine(request.app)).derive_id(*parts), fingerprint


def principal_name(principal: Any) -> tuple[str, str]:
    """Return the texts that tell a principal from all others, including those of another type."""
    # A bool only tells that somebody is logged in, but not who.
    if not isinstance(principal, str | int | UUID) or isinstance(principal, bool) or principal == "":
        raise TypeError(
            f"expected the principal to be a non-empty str, an int, a UUID or None, but got {principal!r:.80}"
        )
    return type(principal).__name__, str(principal)


async def _fingerprint(request: Request) -> bytes | None:
    """Return a digest of a request's query and body, or None if the body is gone."""
    digest = hashlib.sha256(remaining_query(request.scope).encode())
    try:
        digest.update(await request.body())
    except RuntimeError:  # a dependency has consumed the body as a stream
        if not request.headers.get("content-type", "").startswith(_FORMS):
            return None
        try:
            form = await request.form()  # FastAPI has read the body as a form, and keeps the form
        except RuntimeError:
            return None
        for name, value in form.multi_items():
            digest.update(to_json([name, await _content(value)]))
    return digest.digest()


async def _content(value: UploadFile | str) -> str:
    if isinstance(value, str):
        return value
    await value.seek(0)
    digest = hashlib.sha256()
    while piece := await value.read(1 << 16):
        digest.update(piece)
    await value.seek(0)
    return digest.hexdigest()


_ADDRESSED = [
    inspect.Parameter(_REQUEST, inspect.Parameter.KEYWORD_ONLY, annotation=Request),
    inspect.Parameter("stream_id", inspect.Parameter.KEYWORD_ONLY, annotation=str),
]


def _reads_body(dependant: Dependant) -> bool:
    return bool(dependant.body_params) or any(_reads_body(child) for child in dependant.dependencies)


def _query_names(dependant: Dependant) -> set[str]:
    names = {field.alias for field in dependant.query_params}
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            names.update(each.alias or name for name, each in model.model_fields.items())
    return names.union(*(_query_names(child) for child in dependant.dependencies))


def _parameter_of(signature: inspect.Signature, kind: type, default: str) -> str:
    """Return the name of the application's own parameter of a type, else `default`. FastAPI fills only one per type."""
    for parameter in signature.parameters.values():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, kind):
            return parameter.name
    return default


def _named(
    endpoint: Endpoint, function: Callable[..., Any], parameters: list[inspect.Parameter], doc: str | None = None
) -> Endpoint:
    """Give an endpoint the name, docstring and signature that FastAPI should see.

    Not by functools.wraps: FastAPI unwraps the endpoint and would find the generator.
    """
    endpoint.__name__ = function.__name__ if doc is None else f"{doc.split()[0].lower()}_{function.__name__}"
    endpoint.__qualname__ = endpoint.__name__
    endpoint.__module__ = function.__module__
    endpoint.__doc__ = function.__doc__ if doc is None else doc.format(f"a stream of `{function.__name__}`.")
    endpoint.__signature__ = inspect.Signature(sorted(parameters, key=lambda each: each.kind))  # type: ignore[attr-defined]
    return endpoint


def _not_found(stream_id: str) -> Response:
    detail = f"expected the id of a stream that is running or ended recently, but got {stream_id!r}"
    return refusal(404, detail, "stream_not_found")
