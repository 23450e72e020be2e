"""The chat server's FastAPI application."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import CursorError, Engine, NotAcceptable, OriginGuard, StoreUnavailable, __version__, lifespan
from .access import Access
from .api import pages, replies, service, sessions
from .conversations import Conversations
from .errors import STORE_REFUSALS, Refused, StreamsUnavailable, refusal_of
from .journal import FRAMEWORK, Journal, printable
from .metrics import Metrics, Observer
from .models import open_model
from .models.base import Model
from .models.spec import UnusableModel
from .requests import BodyLimit, RequestAccounting, refuse
from .settings import ChatSettings
from .store import StoreError, open_store
from .workers import streams_of

logger = logging.getLogger("tailrace.chat")

UNUSABLE = (StoreError, StoreUnavailable, UnusableModel)
"""The errors of the lifespan that an operator can mend."""

DESCRIPTION = """\
Talk with a model over many turns. Each reply is a stream that survives the network: it continues when a connection is
lost, resumes without a gap or a duplicate after the `id` of the last object you have, and stops when you ask it to.
"""


def create_app(settings: ChatSettings | None = None, *, model: Model | None = None) -> FastAPI:
    """Create the chat server, by default with the settings from the environment.

    Pass your own `model` to use it instead of the one that the settings name. You must close it yourself.

    The lifespan opens the database and the model. It raises StoreError or UnusableModel if that fails. At its end, it
    raises StoreError if replies are lost.
    """
    settings = settings or ChatSettings()
    app = FastAPI(
        title="tailrace chat",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_run,
        docs_url=None,  # FastAPI's own pages load scripts from other sites
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.settings = settings
    app.state.model = model
    app.state.metrics = metrics = Metrics()
    app.state.access = access = Access(
        (key.get_secret_value() for key in settings.api_keys), (key.get_secret_value() for key in settings.admin_keys)
    )
    app.state.tailrace_engine = Engine(settings.streams or "memory://")
    app.openapi = partial(describe, app)  # type: ignore[method-assign]  # FastAPI's way to extend the document
    for module in (replies, sessions, service, pages):
        app.include_router(module.router)
    _answer_head(app)
    refused: list[type[Exception]] = [Refused, *STORE_REFUSALS]
    for kind in refused:
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(StoreUnavailable, _streams_unavailable)
    app.add_exception_handler(CursorError, _bad_cursor)
    app.add_exception_handler(NotAcceptable, _not_acceptable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(BodyLimit, max_body=settings.max_body, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Content-Location", "Link", "Tailrace-Cursor", "X-Request-ID", "Retry-After"],
        )
    app.add_middleware(
        OriginGuard,
        origins=settings.cors_origins,
        hosts=settings.hosts if access.open else None,
        on_refusal=metrics.refuse,
    )
    app.add_middleware(RequestAccounting, metrics=metrics)
    app.add_middleware(_PlainFailures)
    return app


def failure_of(error: Exception) -> str:
    """Return one line about one of the UNUSABLE for an operator."""
    if isinstance(error, StoreUnavailable):
        return f"cannot use the streams: {error.reason}"
    return f"cannot use the database: {error}" if isinstance(error, StoreError) else str(error)


class _PlainFailures:
    """Tells the server in one line why the lifespan failed, if an operator can mend it.

    Starlette sends the traceback instead, because it does not know which errors explain themselves.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        failures: list[Message] = []

        async def hold(message: Message) -> None:
            if message["type"].endswith(".failed"):
                failures.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold)
        except UNUSABLE as error:
            for failure in failures:
                failure["message"] = failure_of(error)
            raise
        finally:
            for failure in failures:
                await send(failure)


@asynccontextmanager
async def _run(app: FastAPI) -> AsyncIterator[None]:
    state, settings = app.state, app.state.settings
    engine: Engine = state.tailrace_engine
    async with (
        _model(state.model, settings) as model,
        aclosing(engine),  # before the database opens, the store of the streams is asked
        open_store(settings.database_url, streams=await streams_of(engine, settings.streams)) as store,
    ):
        metrics: Metrics = state.metrics
        metrics.start(state.access.owners, version=__version__, model=model.name, framework=FRAMEWORK)
        observer = Observer(metrics, Journal(settings.log_chunks))
        state.conversations = chat = Conversations(engine, store, model, observer, settings)
        async with chat.running(), lifespan(app), chat.sharing():
            yield


def _model(given: Model | None, settings: ChatSettings) -> AbstractAsyncContextManager[Model]:
    if given is not None:
        return nullcontext(given)
    return open_model(
        settings.model,
        os.environ,
        demo_words=settings.demo_words,
        demo_pace=settings.demo_pace,
        timeout=settings.model_timeout,
    )


def _answer_head(app: FastAPI) -> None:
    """Answer HEAD on all paths with GET, because load balancers use it. The server omits the body."""
    for module in (replies, sessions, service):
        for route in module.router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema and "GET" in (route.methods or ()):
                app.add_api_route(
                    route.path,
                    route.endpoint,
                    methods=["HEAD"],
                    include_in_schema=False,
                    response_model=route.response_model,
                    response_class=route.response_class,
                )


def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, StoreError):
        logger.error("%s", error)
    refusal = error if isinstance(error, Refused) else refusal_of(error)
    return refuse(refusal, request.app.state.metrics)


def _streams_unavailable(request: Request, error: Exception) -> Response:
    logger.error("%s", error)
    return refuse(StreamsUnavailable(), request.app.state.metrics)


def _bad_cursor(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error), "code": "bad_cursor"}, 400)


def _not_acceptable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error), "code": "not_acceptable"}, 406)


def _invalid(request: Request, error: Exception) -> Response:
    """Answer as FastAPI does, but without the input, which may be long or invalid JSON (NaN, half a character)."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
    if detail[0]["loc"] == ("body",) and detail[0]["type"] != "missing" and not _is_json(request):
        # FastAPI reads a body of another media type as a string, and would complain about the string.
        got = printable(request.headers.get("content-type", "none")[:80])
        detail[0]["msg"] = f"expected Content-Type: application/json, but got {got}"
    # Escape the text, because it may quote half a character.
    body = json.dumps({"detail": detail, "code": "invalid_request"})
    return Response(body, 422, media_type="application/json")


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _http_error(request: Request, error: Exception) -> Response:
    """Answer the errors of FastAPI itself: an unknown path or method, or an unreadable body."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, Refused):  # the reason why the body could not be read
        return _refuse(request, error.__cause__)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # FastAPI names the methods of a single path function. That is enough for paths that are not in the document.
        methods = methods_of(request.app, request.scope["path"]) or sorted([*headers["Allow"].split(", "), "OPTIONS"])
        headers["Allow"] = ", ".join(methods)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    return JSONResponse({"detail": error.detail, "code": code}, error.status_code, headers)


def describe(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's OpenAPI document, but without null parameters, and without security if there are no keys."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        for operation in _operations(document):
            for parameter in operation.get("parameters", ()):
                _forbid_null(parameter)
        if app.state.access.open:
            _open(document)
    assert app.openapi_schema is not None
    return app.openapi_schema


def methods_of(app: FastAPI, path: str) -> list[str]:
    """Return the methods of a path, with OPTIONS and HEAD. Return none if the path is not in the document."""
    for template, operations in describe(app)["paths"].items():
        if compile_path(template)[0].match(path):
            return sorted({*map(str.upper, operations), "OPTIONS"} | ({"HEAD"} if "get" in operations else set()))
    return []


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _forbid_null(parameter: dict[str, Any]) -> None:
    """Remove null from a parameter's schema. None means that it was omitted, and in a URL `null` is just a word."""
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
