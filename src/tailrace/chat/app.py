"""The chat server as an application."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from .. import CursorError, Engine, NotAcceptable, __version__, lifespan
from .access import Access
from .api import pages, replies, service, sessions
from .conversations import Conversations
from .errors import STORE_REFUSALS, Refused, refusal_of
from .journal import Journal
from .models import open_model
from .models.base import Model
from .observer import Observer
from .openapi import describe, methods_of
from .origins import OriginGuard
from .printable import printable
from .requests import BodyLimit, RequestAccounting
from .settings import ChatSettings
from .statistics import Statistics
from .store import StoreError, open_store

logger = logging.getLogger("tailrace.chat")

DESCRIPTION = """\
Talk with a model, many turns, each reply a stream that survives the network: it goes on when a connection is lost, is
resumed without a gap or a duplicate by the `id` of the last object that came, and stops when it is told to.
"""


def create_app(settings: ChatSettings | None = None, *, model: Model | None = None) -> FastAPI:
    """The chat server; by default with the settings of the environment.

    A `model` of your own answers in place of the one that the settings name. You close it.

    Its lifespan opens the database and the model: StoreError or UnusableModel if that fails.
    """
    settings = settings or ChatSettings.from_environment(os.environ)
    app = FastAPI(
        title="tailrace chat",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_run,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.settings = settings
    app.state.model = model
    app.state.statistics = statistics = Statistics()
    app.state.access = Access(key.get_secret_value() for key in settings.api_keys)
    app.state.tailrace_engine = Engine()
    app.openapi = partial(describe, app)  # type: ignore[method-assign]  # as FastAPI says to extend the document
    for module in (replies, sessions, service, pages):
        app.include_router(module.router)
    _answer_head(app)
    refused: list[type[Exception]] = [Refused, *STORE_REFUSALS]
    for kind in refused:
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(CursorError, _bad_cursor)
    app.add_exception_handler(NotAcceptable, _not_acceptable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(BodyLimit, max_body=settings.max_body, statistics=statistics)
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
        hosts=settings.hosts if app.state.access.open else None,
        statistics=statistics,
    )
    app.add_middleware(RequestAccounting, statistics=statistics)
    return app


@asynccontextmanager
async def _run(app: FastAPI) -> AsyncIterator[None]:
    state, settings = app.state, app.state.settings
    async with (
        _model(state.model, settings) as model,
        open_store(settings.database_url) as store,
    ):
        observer = Observer(state.statistics, Journal())
        state.conversations = chat = Conversations(state.tailrace_engine, store, model, observer, settings)
        async with chat.running(), lifespan(app):
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
    """HEAD wherever there is GET: load balancers ask that way. The server leaves the body out."""
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
    request.app.state.statistics.refused(refusal.code)
    return JSONResponse(refusal.problem.model_dump(), refusal.status, refusal.headers)


def _bad_cursor(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error), "code": "bad_cursor"}, 400)


def _not_acceptable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error), "code": "not_acceptable"}, 406)


def _invalid(request: Request, error: Exception) -> Response:
    """FastAPI's own words, without the input: it may be long, or what JSON cannot say, as NaN or half a character."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
    if detail[0]["loc"] == ("body",) and detail[0]["type"] != "missing" and not _is_json(request):
        # What FastAPI does not take for JSON fails as what it then is, a text.
        got = printable(request.headers.get("content-type", "none")[:80])
        detail[0]["msg"] = f"expected Content-Type: application/json, but got {got}"
    # Escaped, because a message can quote half a character.
    body = json.dumps({"detail": detail, "code": "invalid_request"})
    return Response(body, 422, media_type="application/json")


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _http_error(request: Request, error: Exception) -> Response:
    """What FastAPI refuses itself: an unknown path, a method, a body that is no JSON."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # FastAPI names those of one path function; of what is not in the document there is only one.
        methods = methods_of(request.app, request.scope["path"]) or sorted([*headers["Allow"].split(", "), "OPTIONS"])
        headers["Allow"] = ", ".join(methods)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    return JSONResponse({"detail": error.detail, "code": code}, error.status_code, headers)
