"""From a source and a request to a reader of a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..engine import Engine
from ..errors import LogReset, StreamError
from ..flow import Flow
from ..log.base import Log, Tail
from ..producer import Items, Producer, as_async, close_items
from .request import StreamRequest
from .settings import StreamSettings

Source: TypeAlias = Log | Items | Callable[[], Items]


@dataclass(slots=True)
class Opening:
    """A request's reader and, if the request started the stream, the stream's producer."""

    engine: Engine
    request: StreamRequest
    settings: StreamSettings
    tail: Tail
    producer: Producer | None = None


async def open_source(source: Source, settings: StreamSettings, engine: Engine, request: StreamRequest) -> Opening:
    """A reader at the request's cursor: of a log, of the stream that the cursor names, or of a stream that starts now.

    A request that repeats an Idempotency-Key reads the stream that the key started.

    LogReset if the cursor cannot be continued, StreamError (503) for a new stream while the server shuts down.
    """
    cursor = request.cursor
    if isinstance(source, Log):
        log = source
    elif cursor is None:
        if (repeated := await _repeated(engine, request)) is None:
            return _start(source, settings, engine, request)
        log = repeated
        if not callable(source):
            await close_items(as_async(source))
    elif (found := await engine.find(f"{request.path}/{cursor.stream}")) is not None:
        log = found
    else:
        raise LogReset(request.path, "epoch_changed", str(replace(cursor, ended=True)))
    # A document's reader is this process, which is never slow: it passes nothing over.
    flow = settings.flow if request.wire.streaming else None
    return Opening(engine, request, settings, log.tail(cursor, flow=flow))


async def _repeated(engine: Engine, request: StreamRequest) -> Log | None:
    """The stream that an earlier request with the same Idempotency-Key has started. Of a document nothing is kept."""
    if request.stream_id is None or not request.wire.streaming:
        return None
    return await engine.find(f"{request.path}/{request.stream_id}")


def _start(
    source: Items | Callable[[], Items], settings: StreamSettings, engine: Engine, request: StreamRequest
) -> Opening:
    if engine.draining:
        raise StreamError("the server is shutting down", code="shutting_down", status=503)
    streaming = request.wire.streaming
    flow = settings.flow if streaming else Flow.block()
    items = source() if callable(source) else source
    stream_id = request.stream_id if streaming else None
    log = engine.new_stream(request.path, stream_id=stream_id, retention=settings.retention)
    producer = engine.produce(
        log,
        items,
        encode=settings.encode,
        describe=settings.describe,
        flow=flow,
        on_disconnect=settings.on_disconnect,
        reports=False,
        # Of a document nobody knows an address at which to come back.
        grace=settings.grace if streaming else 0.0,
    )
    return Opening(engine, request, settings, log.tail(flow=flow), producer)
