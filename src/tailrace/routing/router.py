"""`StreamRouter`: a FastAPI router whose functions yield."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from ..asgi.lifespan import app_engine, running
from ..asgi.settings import StreamSettings
from ..asgi.socket import serve_socket
from ..cursor import STREAM_ID_PATTERN
from ..engine import Engine
from ..flow import Flow, Retention
from ..modes import DEFAULT_WIRES
from ..producer import OnDisconnect
from ..wire.base import Wire
from ..wire.ndjson import NDJSON
from .endpoints import (
    Endpoint,
    describe_http_error,
    resume_endpoint,
    shared_parameters,
    stop_endpoint,
    stream_endpoint,
    without_body,
)
from .items import item_encoder, item_type
from .openapi import CURSOR_PARAMETERS, NOT_FOUND, STREAM_PARAMETER, StopResult, stream_response, stream_responses

Function = TypeVar("Function", bound=Callable[..., Any])


class StreamIdConvertor(StringConvertor):
    """A path segment that is a stream's id and nothing else, so that it hides no other route."""

    regex = STREAM_ID_PATTERN


register_url_convertor("tailrace_stream", StreamIdConvertor())

_STREAM_ID = "/{stream_id:tailrace_stream}"
_DUMP_OPTIONS = ("include", "exclude", "by_alias", "exclude_unset", "exclude_defaults", "exclude_none")
_SHARED_OPTIONS = ("dependencies", "tags", "deprecated", "include_in_schema")


class StreamRouter(APIRouter):
    """An APIRouter with `stream`. An application that includes it also drains its streams when the server stops."""

    def __init__(self, *, engine: Engine | None = None, origins: Collection[str] = (), **options: Any) -> None:
        """`options` are APIRouter's.

        - `engine`: where the streams live; by default in the application's own engine.
        - `origins`: of which pages may open a WebSocket, besides those of the same host.
        """
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
        websocket: bool = True,
        **options: Any,
    ) -> Callable[[Function], Function]:
        """Serve a generator function (async or sync), or one that returns an iterator or a Log, at `path`.

        A stream is resumed by GET at `path/{stream_id}` and stopped by POST at `path/{stream_id}/stop`, where the
        function's dependencies run too. A WebSocket is at `path`, if NDJSON is among the wires. The settings are those
        of StreamSettings, `options` those of `add_api_route`; `response_model` is the type of an item, by default the
        declared one.
        """
        settings = StreamSettings(wires, flow, retention, on_disconnect, grace, status_wait)

        def decorate(function: Function) -> Function:
            self.add_stream_route(path, function, settings, methods=methods, websocket=websocket, **options)
            return function

        return decorate

    def add_stream_route(
        self,
        path: str,
        function: Callable[..., Any],
        settings: StreamSettings,
        *,
        methods: Sequence[str] = ("GET",),
        websocket: bool = True,
        response_model: Any = None,
        status_code: int | None = None,
        **options: Any,
    ) -> None:
        """What `stream` does, as a call."""
        if not inspect.isroutine(function):
            raise TypeError(f"expected a function to stream from at {path!r}, but got {function!r}")
        methods = [method.upper() for method in methods]
        item = item_type(function) if response_model is None else response_model
        dump = {name: options[key] for name in _DUMP_OPTIONS if (key := f"response_model_{name}") in options}
        settings = replace(settings, encode=item_encoder(item, **dump), describe=describe_http_error)
        status = int(status_code or 200)
        name = f"{function.__module__}.{function.__qualname__} {self.prefix}{path}"
        response = stream_response(settings.wires, name, item)
        responses = stream_responses(status, response)
        parameters = [*CURSOR_PARAMETERS, STREAM_PARAMETER]

        endpoint = stream_endpoint(function, settings, self.engine, status)
        own = {"responses": {**responses, **options.pop("responses", {})}, "openapi_extra": {"parameters": parameters}}
        shared = {key: options[key] for key in _SHARED_OPTIONS if key in options}
        resumed = {**stream_responses(200, response), **NOT_FOUND}
        add_addresses = partial(self._add_addresses, path, function, endpoint, settings, resumed, shared)
        # Where the path takes slashes it would take its streams' addresses, too, if it came first.
        takes_all = ":path}" in path
        if takes_all:
            add_addresses()
        for method in methods:
            self._add(path, endpoint, method, **{**own, **options, "status_code": status})
        if "GET" in methods:
            self._add(path, endpoint, "HEAD", **{**shared, "include_in_schema": False})
        if not takes_all:
            add_addresses()
        self._add_options(path, methods)
        if websocket and any(isinstance(wire, NDJSON) for wire in settings.wires):
            method = "GET" if "GET" in methods else methods[0]
            # Starlette takes an ASGI application too, which its annotation does not say.
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
        """Where a stream is resumed and stopped."""
        path = path.rstrip("/") + _STREAM_ID
        if "dependencies" in shared:
            shared = {**shared, "dependencies": without_body(shared["dependencies"], path)}
        parameters = shared_parameters(endpoint, path)
        resume = resume_endpoint(function, parameters, settings, self.engine)
        extra = {"parameters": [*CURSOR_PARAMETERS, STREAM_PARAMETER]}
        self._add(path, resume, "GET", responses=responses, openapi_extra=extra, **shared)
        self._add(path, resume, "HEAD", **{**shared, "include_in_schema": False})
        self._add_options(path, ["GET"])
        stop = stop_endpoint(function, parameters, self.engine)
        stopped = {200: {"model": StopResult}, 202: {"model": StopResult}, **NOT_FOUND}
        self._add(f"{path}/stop", stop, "POST", responses=stopped, **shared)
        self._add_options(f"{path}/stop", ["POST"])

    def _add(self, path: str, endpoint: Callable[..., Any], method: str, **options: Any) -> None:
        self.add_api_route(path, endpoint, methods=[method], response_model=None, response_class=Response, **options)

    def _add_options(self, path: str, methods: Sequence[str]) -> None:
        allowed = [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]

        def tell(request: Request) -> Response:
            return Response(status_code=204, headers={"Allow": ", ".join(allowed)})

        self.add_route(self.prefix + path, tell, methods=["OPTIONS"], include_in_schema=False)

    @asynccontextmanager
    async def _run(self, app: Any) -> AsyncIterator[Any]:
        async with running(self.engine or app_engine(app)), self._own_lifespan(app) as state:
            yield state


class _SocketEndpoint:
    """An ASGI application: the WebSocket at the path of a stream."""

    def __init__(self, method: str, origins: Collection[str]) -> None:
        self._method = method
        self._origins = origins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await serve_socket(scope["app"], scope, receive, send, method=self._method, origins=self._origins)
