"""`StreamRouter`: a FastAPI router whose functions yield."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack, cast

from fastapi import APIRouter, HTTPException, params
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from ..asgi.disconnect import SharedReceive
from ..asgi.lifespan import app_engine, running
from ..asgi.reply import refusal_of
from ..asgi.settings import StreamOptions, StreamSettings
from ..asgi.socket import serve_socket
from ..cursor import STREAM_ID_PATTERN
from ..engine.engine import Engine
from ..errors import StoreUnavailable, StreamError
from ..flow import Flow, Retention
from ..modes import DEFAULT_WIRES
from ..producer import OnDisconnect
from ..wire.base import Wire
from ..wire.ndjson import NDJSON
from .endpoints import (
    Endpoint,
    Principal,
    describe_http_error,
    query_names,
    resume_endpoint,
    shared_parameters,
    stop_endpoint,
    stream_endpoint,
    without_body,
)
from .items import item_encoder, item_type
from .openapi import CURSOR_PARAMETERS, NOT_FOUND, STREAM_PARAMETER, StopResult, stream_response, stream_responses

Function = TypeVar("Function", bound=Callable[..., Any])


class RouterOptions(TypedDict, total=False):
    """The keywords of FastAPI's APIRouter."""

    prefix: str
    tags: list[str | Enum] | None
    dependencies: Sequence[params.Depends] | None
    default_response_class: type[Response]
    responses: dict[int | str, dict[str, Any]] | None
    callbacks: list[BaseRoute] | None
    routes: list[BaseRoute] | None
    redirect_slashes: bool
    default: ASGIApp | None
    dependency_overrides_provider: Any
    route_class: type[APIRoute]
    on_startup: Sequence[Callable[[], Any]] | None
    on_shutdown: Sequence[Callable[[], Any]] | None
    lifespan: Lifespan[Any] | None
    deprecated: bool | None
    include_in_schema: bool
    generate_unique_id_function: Callable[[APIRoute], str]
    strict_content_type: bool
    max_body_size: int | None
    form_limits: Any


class _RouteOptions(TypedDict, total=False):
    response_model: Any
    status_code: int | None
    tags: list[str | Enum] | None
    summary: str | None
    description: str | None
    response_description: str
    responses: dict[int | str, dict[str, Any]] | None
    deprecated: bool | None
    operation_id: str | None
    response_model_include: Any
    response_model_exclude: Any
    response_model_by_alias: bool
    response_model_exclude_unset: bool
    response_model_exclude_defaults: bool
    response_model_exclude_none: bool
    include_in_schema: bool
    name: str | None
    callbacks: list[BaseRoute] | None
    openapi_extra: dict[str, Any] | None
    generate_unique_id_function: Callable[[APIRoute], str]
    strict_content_type: bool
    max_body_size: int | None
    form_limits: Any


class RouteOptions(_RouteOptions, total=False):
    """The keywords that a stream's route shares with FastAPI's path operations.

    `response_model` is the type of an item. Default: the declared type.
    """

    dependencies: Sequence[params.Depends] | None


class StreamRouteOptions(StreamOptions, _RouteOptions, total=False):
    """The keywords that `StreamRouter.stream` shares with `create_streaming_endpoint`."""


_DUMP_OPTIONS = ("include", "exclude", "by_alias", "exclude_unset", "exclude_defaults", "exclude_none")
_SHARED_OPTIONS = ("dependencies", "tags", "deprecated", "include_in_schema")


class StreamIdConvertor(StringConvertor):
    """Matches a path segment only if it has the form of a stream's id, so that other routes stay reachable."""

    regex = STREAM_ID_PATTERN


register_url_convertor("tailrace_stream", StreamIdConvertor())

_STREAM_ID = "/{stream_id:tailrace_stream}"


class StreamRouter(APIRouter):
    """An APIRouter with a `stream` decorator. Including it also makes the application drain its streams on shutdown."""

    def __init__(
        self, *, engine: Engine | None = None, origins: Collection[str] = (), **options: Unpack[RouterOptions]
    ) -> None:
        """Make a router. `options` are those of APIRouter.

        - `engine`: where the streams live. Default: the application's own engine.
        - `origins`: the origins whose pages may open a WebSocket, in addition to those of the same host.
        """
        options.setdefault("route_class", _Route)
        super().__init__(**options)
        self.engine = engine
        self._origins = origins
        self._own_lifespan = self.lifespan_context
        self.lifespan_context = self._run

    def stream(
        self,
        path: str,
        *,
        methods: Sequence[str] = ("GET",),
        wires: Sequence[Wire] = DEFAULT_WIRES,
        flow: Flow | None = None,
        retention: Retention | None = None,
        on_disconnect: OnDisconnect = "cancel",
        grace: float = 10.0,
        status_wait: float = 1.0,
        cache_control: str | None = None,
        principal: Principal | None = None,
        websocket: bool = False,
        **options: Unpack[RouteOptions],
    ) -> Callable[[Function], Function]:
        """Serve a function at `path` that yields (async or sync), or that returns an iterator, a Job or a Log.

        Clients resume a stream by GET at `path/{stream_id}` and stop it by POST at `path/{stream_id}/stop`. The
        function's dependencies run there too. `wires` to `cache_control` are the settings of StreamSettings, and
        `options` are those of FastAPI's path operations.

        - `principal`: a dependency that returns the id of the user who sends the request, as a str, int or UUID, or
          None for an anonymous one. It enables the Idempotency-Key header: a repeated request reads the stream that the
          first request started.
        - `websocket`: whether to answer WebSockets at `path` too. NDJSON must be among the wires.
        """
        settings = StreamSettings(wires, flow, retention, on_disconnect, grace, status_wait, cache_control)

        def decorate(function: Function) -> Function:
            self.add_stream_route(
                path, function, settings, methods=methods, principal=principal, websocket=websocket, **options
            )
            return function

        return decorate

    def add_stream_route(
        self,
        path: str,
        function: Callable[..., Any],
        settings: StreamSettings,
        *,
        methods: Sequence[str] = ("GET",),
        principal: Principal | None = None,
        websocket: bool = False,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Do as `stream` does, without a decorator."""
        _check(self.prefix + path, function, [*self.dependencies, *(options.get("dependencies") or ())])
        methods = [method.upper() for method in methods]
        given = cast("dict[str, Any]", options)
        declared, status = given.pop("response_model", None), int(given.pop("status_code", None) or 200)
        item = item_type(function) if declared is None else declared
        dump = {name: given[key] for name in _DUMP_OPTIONS if (key := f"response_model_{name}") in given}
        settings = replace(settings, encode=item_encoder(item, **dump), describe=describe_http_error)
        name = f"{function.__module__}.{function.__qualname__} {self.prefix}{path}"
        response = stream_response(settings.wires, name, item)
        responses = stream_responses(status, response)
        extra = given.pop("openapi_extra", None) or {}
        extra = {**extra, "parameters": [*CURSOR_PARAMETERS, STREAM_PARAMETER, *extra.get("parameters", ())]}

        endpoint = stream_endpoint(function, settings, self.engine, status, principal=principal)
        responses = {**responses, **(given.pop("responses", None) or {})}
        own = {"responses": responses, "openapi_extra": extra}
        shared = {key: given[key] for key in _SHARED_OPTIONS if key in given}
        resumed = {**stream_responses(200, response), **NOT_FOUND}
        add_addresses = partial(self._add_addresses, path, function, endpoint, settings, resumed, shared)
        # A path with a `:path` parameter matches its streams' addresses too, so those must come first.
        takes_all = ":path}" in path
        if takes_all:
            add_addresses()
        allowed = _allowed(methods)
        for method in methods:
            self._add(path, endpoint, method, allowed, **{**own, **given, "status_code": status})
        if "GET" in methods:
            self._add(path, endpoint, "HEAD", allowed, **{**shared, "include_in_schema": False})
        if not takes_all:
            add_addresses()
        self._add_options(path, allowed)
        if websocket:
            self._add_socket(path, settings, methods)

    def _add_socket(self, path: str, settings: StreamSettings, methods: Sequence[str]) -> None:
        if not any(isinstance(wire, NDJSON) for wire in settings.wires):
            offered = ", ".join(wire.media_type for wire in settings.wires)
            raise ValueError(f"expected NDJSON among the wires of the WebSocket at {path!r}, but got {offered}")
        self._add_socket_at(path, "GET" if "GET" in methods else methods[0])

    def _add_socket_at(self, path: str, method: str) -> None:
        """Answer WebSockets at a path with the stream that a method gets there."""
        # Starlette also accepts an ASGI application, but its annotation lacks that.
        socket: Any = _SocketEndpoint(method, self._origins)
        self.add_websocket_route(self.prefix + path, socket)

    def _add_addresses(
        self,
        path: str,
        function: Callable[..., Any],
        endpoint: Endpoint,
        settings: StreamSettings,
        responses: Any,
        shared: dict[str, Any],
    ) -> None:
        """Add the addresses at which clients resume and stop a stream."""
        path = path.rstrip("/") + _STREAM_ID
        if shared.get("dependencies"):
            shared = {**shared, "dependencies": without_body(shared["dependencies"], path)}
        # FastAPI adds the router's own dependencies to each new route, so remove those that read the body meanwhile.
        dependencies, self.dependencies = self.dependencies, without_body(self.dependencies, path)
        try:
            self._add_resume(path, function, endpoint, settings, responses, shared)
            self._add_stop(path, function, endpoint, shared)
        finally:
            self.dependencies = dependencies

    def _add_resume(
        self,
        path: str,
        function: Callable[..., Any],
        endpoint: Endpoint,
        settings: StreamSettings,
        responses: Any,
        shared: dict[str, Any],
    ) -> None:
        parameters = shared_parameters(endpoint, path)
        resume = resume_endpoint(function, parameters, settings, self.engine)
        extra = {"parameters": [*CURSOR_PARAMETERS, STREAM_PARAMETER]}
        reading = _allowed(["GET"])
        self._add(path, resume, "GET", reading, responses=responses, openapi_extra=extra, **shared)
        self._add(path, resume, "HEAD", reading, **{**shared, "include_in_schema": False})
        self._add_options(path, reading)

    def _add_stop(self, path: str, function: Callable[..., Any], endpoint: Endpoint, shared: dict[str, Any]) -> None:
        stop = stop_endpoint(function, shared_parameters(endpoint, path), self.engine)
        stopped = {200: {"model": StopResult}, 202: {"model": StopResult}, **NOT_FOUND}
        stopping = _allowed(["POST"])
        self._add(f"{path}/stop", stop, "POST", stopping, responses=stopped, **shared)
        self._add_options(f"{path}/stop", stopping)

    def _add(self, path: str, endpoint: Callable[..., Any], method: str, allowed: str, **options: Any) -> None:
        self.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_model=None,
            response_class=Response,
            route_class_override=_stream_route(self.route_class, allowed),
            **options,
        )

    def _add_options(self, path: str, allowed: str) -> None:
        def tell(request: Request) -> Response:
            return Response(status_code=204, headers={"Allow": allowed})

        self.add_route(self.prefix + path, tell, methods=["OPTIONS"], include_in_schema=False)

    @asynccontextmanager
    async def _run(self, app: Any) -> AsyncIterator[Any]:
        async with running(self.engine or app_engine(app)), self._own_lifespan(app) as state:
            yield state


def _check(path: str, function: Callable[..., Any], dependencies: Sequence[params.Depends]) -> None:
    """Raise an error for a route that could not work with any request."""
    if not inspect.isroutine(function):
        raise TypeError(f"expected a function to stream from at {path!r}, but got {function!r}")
    if re.search(r"\{stream_id[:}]", path):
        raise ValueError(f"expected a path without {{stream_id}}, which names the streams below it, but got {path!r}")
    if "after" in query_names(function, path, dependencies):
        raise ValueError(
            f"expected no query parameter `after` at {path!r}, because that is the cursor: give yours another name"
        )


def _allowed(methods: Sequence[str]) -> str:
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


class _Route(APIRoute):
    """A route that answers with the status of a StreamError, and with 503 if a store does not answer.

    The 503 means that the request, for example one that publishes, may or may not have taken effect.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except (StreamError, StoreUnavailable) as error:
                return refusal_of(error)

        return handler


class _StreamRoute(_Route):
    """A route that knows all methods of its path, and that keeps the body for generators that read it late."""

    allowed: ClassVar[str]

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405, headers={"Allow": self.allowed})
        # Each idle connection would keep the frame of a coroutine here.
        return super().handle(scope, SharedReceive.of(scope, receive), send)


def _stream_route(own: type[APIRoute], allowed: str) -> type[APIRoute]:
    """Return a subclass of the router's own route class that serves streams."""
    bases = (_StreamRoute,) if own is _Route else (_StreamRoute, own)
    return cast("type[APIRoute]", type("StreamRoute", bases, {"allowed": allowed}))


class _SocketEndpoint:
    """An ASGI application that serves a stream to a WebSocket."""

    def __init__(self, method: str, origins: Collection[str]) -> None:
        self._method = method
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serve_socket(scope["app"], scope, receive, send, method=self._method, origins=self._origins)
