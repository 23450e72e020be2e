"""What the server says of itself."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Request, Response

from ... import __version__
from ...client import Health, Requests, ServerInformation, Stats
from ..access import Owner
from ..conversations import Conversations
from ..errors import Unauthorized, refusals
from ..metrics import Build, render_metrics
from ..store import StoreError
from ..wire import STREAMS
from .state import Chat, Counted

router = APIRouter(tags=["service"])

SLOW_LOOP = 0.5
"""Seconds that a turn of the event loop may take before the server calls itself unhealthy."""

PAGES = {
    "GET /demo": "A page to talk on",
    "GET /docs": "A page about the endpoints",
    "GET /openapi.json": "The same, for programs",
}
"""What the document does not tell of."""

STREAM = STREAMS[False][0].media_type
"""What can be had from every endpoint that streams."""


@router.get("/", summary="Server information")
async def information(request: Request, chat: Chat) -> ServerInformation:
    """What this server is, and its endpoints."""
    endpoints = dict(PAGES)
    streaming = []
    for path, operations in request.app.openapi()["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            endpoints[name] = operation["summary"]
            if STREAM in operation["responses"]["200"]["content"]:
                streaming.append(name)
    return ServerInformation(
        version=__version__,
        model=chat.model.name,
        framework=chat.model.framework,
        endpoints=endpoints,
        streaming_endpoints=streaming,
    )


@router.get("/health", summary="Health", responses={503: {"model": Health, "description": "Unhealthy."}})
async def health(chat: Chat, statistics: Counted, response: Response) -> Health:
    """Whether the database can be reached and the event loop is free."""
    began = time.perf_counter()
    await asyncio.sleep(0)
    lag = time.perf_counter() - began
    reasons = [f"a turn of the event loop takes {lag:.1f} s"] if lag > SLOW_LOOP else []
    if chat.engine.draining:
        reasons.append("the server is shutting down")
    try:
        await chat.store.ping()
        reachable = True
    except StoreError:
        reachable = False
        reasons.append("the database cannot be reached")
    if reasons:
        response.status_code = 503
    return Health(
        status="unhealthy" if reasons else "healthy",
        reason=", ".join(reasons) or None,
        active_streams=chat.active,
        active_connections=chat.engine.statistics().readers,
        database="reachable" if reachable else "unreachable",
        event_loop_lag=lag,
        uptime=statistics.uptime,
    )


@router.get("/stats", summary="Statistics", responses=refusals(Unauthorized))
async def stats(chat: Chat, statistics: Counted, owner: Owner) -> Stats:
    """The same figures as `/metrics`."""
    counted = statistics.snapshot()
    return Stats(
        uptime=counted.uptime,
        requests=Requests(
            total=counted.requests_total, successful=counted.requests_successful, failed=counted.requests_failed
        ),
        active_sessions=await _stored(chat),
        active_streams=counted.active_streams,
        sessions_created=counted.sessions_created,
        average_response_time=counted.average_response_time,
        chunks=counted.chunks,
        model=chat.model.name,
        framework=chat.model.framework,
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(Unauthorized)},
)
async def metrics(request: Request, chat: Chat, statistics: Counted, owner: Owner) -> Response:
    """In Prometheus' text format, or as OpenMetrics by Accept."""
    body, content_type = render_metrics(
        statistics,
        Build(__version__, chat.model.name, chat.model.framework),
        connections=chat.engine.statistics().readers,
        sessions=await _stored(chat),
        accept=request.headers.get("accept"),
    )
    return Response(body, media_type=content_type)


async def _stored(chat: Conversations) -> int | None:
    """How many sessions there are. The other figures are wanted most when the database cannot say."""
    try:
        return await chat.store.count()
    except StoreError:
        return None
