"""The endpoints about the server itself: information, health, statistics and metrics."""

from __future__ import annotations

import asyncio
import logging
import math
import time

from fastapi import APIRouter, Request, Response

from ... import __version__
from ...client import Health, Requests, ServerInformation, Stats
from ..access import Owner
from ..conversations import Conversations
from ..errors import Unauthorized, refusals
from ..journal import FRAMEWORK
from ..metrics import Totals
from ..store import StoreError
from ..wire import STREAMS
from . import Chat, Counted, Known

logger = logging.getLogger("tailrace.chat")

router = APIRouter(tags=["service"])

SLOW_LOOP = 0.5
"""The server is unhealthy if one iteration of the event loop takes more seconds than this."""

PAGES = {
    "GET /demo": "The chat page",
    "GET /docs": "The API documentation",
    "GET /openapi.json": "The OpenAPI document",
}
"""Endpoints that are not in the OpenAPI document."""

STREAM = STREAMS[False][0].media_type
"""The media type by which an endpoint counts as streaming."""


@router.get("/", summary="Server information")
async def information(request: Request, chat: Chat) -> ServerInformation:
    """Describe this server and its endpoints."""
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
        framework=FRAMEWORK,
        endpoints=endpoints,
        streaming_endpoints=streaming,
    )


@router.get("/health", summary="Health", responses={503: {"model": Health, "description": "Unhealthy."}})
async def health(chat: Chat, counted: Counted, response: Response) -> Health:
    """Tell whether the database accepts writes and the event loop is responsive."""
    began = time.perf_counter()
    await asyncio.sleep(0)
    lag = time.perf_counter() - began
    reasons = [f"one iteration of the event loop takes {lag:.1f} s"] if lag > SLOW_LOOP else []
    if chat.engine.draining:
        reasons.append("the server is shutting down")
    try:
        await chat.store.ping()
        reachable = True
    except StoreError as error:
        reachable = False
        logger.error("%s", error)  # the error names the database, so clients do not see it
        reasons.append("the database cannot be written to")
    if reasons:
        response.status_code = 503
    return Health(
        status="unhealthy" if reasons else "healthy",
        reason=", ".join(reasons) or None,
        active_streams=chat.active,
        active_connections=chat.engine.statistics().readers,
        database="reachable" if reachable else "unreachable",
        last_write=round(chat.store.last_write, 3),
        event_loop_lag=lag,
        uptime=counted.uptime,
        html=chat.rendering.available,
    )


@router.get("/stats", summary="Statistics", responses=refusals(Unauthorized))
async def stats(chat: Chat, counted: Counted, access: Known, owner: Owner) -> Stats:
    """Show the statistics of your key over all workers. An administrator's key sees those of all keys together."""
    of, elsewhere = access.sees(owner), chat.elsewhere()
    totals = sum((Totals.of(figures, of) for figures in elsewhere), counted.totals(of))
    return Stats(
        uptime=max(counted.uptime, time.time() - min((figures["began"] for figures in elsewhere), default=math.inf)),
        requests=Requests(
            total=totals.requests_total, successful=totals.requests_successful, failed=totals.requests_failed
        ),
        active_sessions=await _stored(chat, of),
        active_streams=totals.active_streams,
        sessions_created=totals.sessions_created,
        average_response_time=totals.average_response_time,
        chunks=totals.chunks,
        model=chat.model.name,
        framework=FRAMEWORK,
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(Unauthorized)},
)
async def metrics(request: Request, chat: Chat, counted: Counted, access: Known, owner: Owner) -> Response:
    """Return the metrics of your key in Prometheus' text format, or as OpenMetrics by Accept.

    An administrator's key sees the metrics of all keys, and those of the server.
    """
    of = access.sees(owner)
    body, content_type = counted.render(
        of,
        connections=chat.engine.statistics().readers,
        sessions=await _stored(chat, of),
        accept=request.headers.get("accept"),
    )
    return Response(body, media_type=content_type)


async def _stored(chat: Conversations, owner: str | None) -> int | None:
    """Return the number of sessions, or None if the database fails. The other figures matter most then."""
    try:
        return await chat.store.count(owner)
    except StoreError:
        return None
