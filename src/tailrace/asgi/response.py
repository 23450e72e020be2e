"""StreamResponse: a response that reads a log from a cursor."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast
from urllib.parse import quote

# Starlette and FastAPI recognise an answer by this class.
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..engine.engine import Engine
from ..errors import LogExists, StoreUnavailable, StreamError, TailraceError
from ..events import Outcome
from ..flow import Flow
from ..iterators import Items, Job, as_async, close_items
from ..log.base import Log
from ..producer import UNTOLD, Producer
from .connection import Connection
from .decision import Decision, Ended, Read, Refuse, ResetTo, Start, StreamRequest, decide, place_of
from .disconnect import Disconnected
from .document import Document
from .lifespan import engine_of
from .reading import Delivery, Reading, warn_of_frames
from .reply import Header, cursor_header, refusal_of, reset_of, stream_headers
from .settings import DEFAULT_SETTINGS, StreamSettings
from .socket import serve_socket

Given: TypeAlias = Log | Items
Source: TypeAlias = Given | Callable[[], Given | Awaitable[Given]]

_LISTS = {b"vary", b"link"}

_STILL_ENDING = StreamError(
    "the stream that this Idempotency-Key started was forgotten, but its generator still runs",
    code="still_ending",
    status=503,
)

_CANCELLED = Outcome("cancelled", "disconnected", "the request was cancelled")

ALREADY_READ = StreamError(
    "another client reads this stream: add ?takeover=true to read it instead",
    code="already_read",
    status=409,
    retry_after=1,
)
"""The refusal of a second reader, where a stream has one reader at a time."""

_SHARED = StreamError("the answer is a log that many read: send the request again without a key", code="not_a_stream")

logger = logging.getLogger("tailrace")


@dataclass(slots=True)
class Plan:
    """The answer to one request. `items` is set if the request starts a stream."""

    engine: Engine
    request: StreamRequest | None
    decision: Decision
    items: Items | None = None


class StreamResponse(Response):
    """An ASGI application that sends a log to its client, on the wire and from the cursor that the request asks for.

    `source` is a Log, a generator, a Job, or a function that returns one of these. All requests read the same Log. With
    a generator or a Job, a request without a cursor starts a stream, and a request with a cursor resumes the stream
    that it names.

    It answers 204 if the client already has the end, 400 to a malformed cursor, 406 if no wire fits, 409 if
    `fingerprint` differs from that of the existing stream or an `exclusive` stream has a reader, 410 for a reset on a
    wire without notices, 414 to a query that is too long, and 503 to a new stream while the server shuts down. In these
    cases, no generator begins.
    """

    def __init__(
        self,
        source: Source,
        settings: StreamSettings | None = None,
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
        engine: Engine | None = None,
        addressed: bool | str = False,
        duplex: bool = False,
        stream_id: str | None = None,
        fingerprint: bytes = b"",
        exclusive: bool | StreamError = False,
        history: int | None = None,
        websocket: bool = False,
    ) -> None:
        """Describe the response. Nothing runs until it is prepared or sent.

        - `engine`: where the stream lives. Default: the application's own engine.
        - `addressed`: whether the stream has addresses below the request's path, to resume and stop it. If so, the
          headers name them. Its own address is the name of its log, or the path that you pass.
        - `duplex`: whether the stream's own address also takes messages by POST. If so, the headers say it.
        - `stream_id`: the id of the stream to start. A stream that has it already is read instead.
        - `fingerprint`: a digest of the request. An existing stream with another fingerprint gets 409.
        - `exclusive`: whether the stream has one reader at a time, or the error that tells a second one so. A request
          with `?takeover=true` takes the place of the reader, and so does a repeated request with the same `stream_id`.
          That reader may be in another process.
        - `history`: how many of the newest entries of a shared log a reader without a cursor gets. Default: all.
        - `websocket`: whether to answer WebSockets too. HTTP middleware does not see them.
        """
        self.source = source
        self.settings = settings or DEFAULT_SETTINGS
        self.status_code = status_code
        self.background = background
        self.init_headers(headers)
        self._engine = engine
        self._addressed = addressed
        self._duplex = duplex
        self._stream_id = stream_id
        self._fingerprint = fingerprint
        self._busy = ALREADY_READ if exclusive is True else exclusive or None
        self._history = history
        self._websocket = websocket
        self._plan: Plan | None = None

    async def prepare(self, scope: Scope) -> None:
        """Decide how to answer, and run `source` if necessary, while the caller's dependencies are still open."""
        self._plan = await self._plan_for(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self._websocket:
            await serve_socket(self, scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "expected an HTTP request"})
        else:
            # Each idle connection waits here, so save memory: keep neither the plan nor a context manager.
            try:  # noqa: SIM105
                await self._answer(await self._take_plan(scope), scope, receive, send)
            except Disconnected:
                pass
            if self.background is not None:
                await self.background()

    # Decide

    async def _take_plan(self, scope: Scope) -> Plan:
        plan, self._plan = self._plan, None
        return plan or await self._plan_for(scope)

    async def _plan_for(self, scope: Scope) -> Plan:
        engine = self._engine_for(scope)
        try:
            request = StreamRequest.read(scope, self.settings.wires)
        except TailraceError as error:
            await _close_unused(self.source)
            return Plan(engine, None, Refuse(error))
        try:
            return await self._decide(engine, request, self.source)
        except StoreUnavailable as error:
            await _close_unused(self.source)
            return Plan(engine, request, Refuse(error))

    async def _decide(self, engine: Engine, request: StreamRequest, source: Source) -> Plan:
        if isinstance(source, Log):
            return Plan(engine, request, await self._decide_shared(request, source))
        decision, log = await self._claim(engine, request)
        plan = Plan(engine, request, decision)
        unknown = isinstance(decision, Start) or (isinstance(decision, ResetTo) and log is None)
        if unknown and callable(source) and not _yields(source):
            await self._call_source(plan, request, source, log)
        elif isinstance(decision, Start):
            log = log or await self._new_log(engine, request)
            plan.decision, plan.items = Read(log, 0), cast("Items", source() if callable(source) else source)
        else:
            await _close_unused(source)
        return plan

    async def _decide_shared(self, request: StreamRequest, log: Log) -> Decision:
        """Decide how to answer a request with a log that the application returned, or that its address names."""
        cursor = request.cursor
        if cursor is not None and log.passing and request.path == log.name and cursor.stream != log.stream:
            # The address names the stream, so the end of another stream must not pass for its end.
            request = replace(request, cursor=replace(cursor, ended=False))
        place = await place_of(request.cursor, log)
        return decide(request, log, place, whole=log.passing, history=self._history)

    def _engine_for(self, scope: Scope) -> Engine:
        engine = self._engine or engine_of(scope)
        if "app" not in scope:
            # If the response is used as an application itself, keep its engine, so that streams can be resumed.
            self._engine = engine
        return engine

    async def _claim(self, engine: Engine, request: StreamRequest) -> tuple[Decision, Log | None]:
        """Decide, and return the log that the request names, if there is one. Make it if an idempotency key names it.

        So a repeated request finds the log before anything of the application's runs. If several requests with one key
        come at once, even in different processes, one makes the log and the others read it.
        """
        while True:
            log = await self._find(engine, request)
            same = log is None or request.cursor is not None or log.fingerprint == self._fingerprint
            place = await place_of(request.cursor, log)
            decision = decide(request, log, place, whole=True, same=same, draining=engine.draining)
            if not isinstance(decision, Start) or self._stream_id is None:
                return decision, log
            try:
                return decision, await self._new_log(engine, request)
            except LogExists:
                if await self._find(engine, request) is None:
                    return Refuse(_STILL_ENDING), None

    async def _find(self, engine: Engine, request: StreamRequest) -> Log | None:
        """Return the stream that the request's cursor or the response's `stream_id` names, or None."""
        if request.cursor is not None:
            return await engine.find_stream(request.path, request.cursor.stream)
        if self._stream_id is not None and request.wire.streaming:
            return await engine.find_stream(request.path, self._stream_id)
        return None

    async def _new_log(self, engine: Engine, request: StreamRequest) -> Log:
        return await engine.new_stream(
            request.path,
            stream_id=self._stream_id if request.wire.streaming else None,
            retention=self.settings.retention,
            fingerprint=self._fingerprint,
        )

    async def _call_source(
        self, plan: Plan, request: StreamRequest, source: Callable[[], Given | Awaitable[Given]], log: Log | None
    ) -> None:
        """Run a function that may return one of the application's logs. The request's cursor may belong to that log.

        `log` is the request's own stream, if an idempotency key names it.
        """
        try:
            given = source()
            if inspect.isawaitable(given):
                given = await given
        except BaseException as error:  # a cancellation, too: a repeated request would wait for the stream forever
            await self._discard(plan.engine, log, error)
            raise
        if isinstance(given, Log):
            await self._discard(plan.engine, log, _SHARED)
            plan.decision = await self._decide_shared(request, given)
        elif isinstance(plan.decision, Start):
            try:
                plan.decision, plan.items = Read(log or await self._new_log(plan.engine, request), 0), given
            except BaseException:  # a cancellation, too: nobody else would close the items
                await _close_unused(given)
                raise
        else:
            await _close_unused(given)

    async def _discard(self, engine: Engine, log: Log | None, error: BaseException) -> None:
        """End and forget a stream that does not start. A repeated request may be reading it already."""
        if log is not None:
            failure = error if isinstance(error, Exception) else StreamError("the request was cancelled")
            await log.close(self.settings.describe(failure))
            await engine.forget(log)

    def _admit(self, plan: Plan) -> None:
        """Refuse to read a stream that has one reader at a time, if somebody reads it already.

        This is decided at the last moment: until the reader takes its seat, nothing may be awaited.
        """
        request, decision = plan.request, plan.decision
        if self._busy is None or request is None or not isinstance(decision, Read) or not request.wire.streaming:
            return
        # Only the client that started the stream knows its idempotency key.
        takes_over = request.takes_over or (self._stream_id is not None and request.cursor is None)
        if not takes_over and plan.engine.readers.is_taken(decision.log):
            plan.decision = Refuse(self._busy)

    # Answer

    def _answer(self, plan: Plan, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the whole answer to await. It raises Disconnected if the client leaves before."""
        self._admit(plan)
        request, read = plan.request, plan.decision
        if not isinstance(read, Read):
            return self._refuse(plan)(scope, receive, send)
        assert request is not None
        # This process reads the document itself and is never slow, so no flow policy applies.
        flow = self.settings.flow if request.wire.streaming else None
        # Add the reader before the producer starts, or the grace without readers would begin.
        reading = Reading(plan.engine, request.wire, read.log.tail(read.after, flow=flow))
        if self._busy is not None and request.wire.streaming:
            reading.seat = plan.engine.readers.take_seat(read.log, first=plan.items is not None)
        if plan.items is None:
            return self._delivery(reading, request, scope, receive, send).run(scope, receive)
        return self._run(reading, request, plan.items, scope, receive, send)

    def _refuse(self, plan: Plan) -> Response:
        """Return the answer to a request that reads nothing."""
        decision, request = plan.decision, plan.request
        if isinstance(decision, Refuse):
            return refusal_of(decision.error)
        assert request is not None
        assert not isinstance(decision, Start)
        headers = self._with_own(stream_headers(request, self.settings.cache_control))
        if isinstance(decision, ResetTo):
            return reset_of(decision.error, request, self.status_code, headers)
        response = Response(status_code=204 if isinstance(decision, Ended) else self.status_code)
        response.raw_headers = headers
        return response

    async def _run(
        self, reading: Reading, request: StreamRequest, items: Items, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Start a stream, send it, and see its producer out."""
        producer = await self._start(reading, items)
        failure: Exception | None = None
        try:
            try:
                await self._delivery(reading, request, scope, receive, send).run(scope, receive)
            except Disconnected:
                pass
            except Exception as error:
                failure = error
            await self._see_out(reading, producer)
        except asyncio.CancelledError:
            # A middleware's timeout or the server's end cancels this. The dependencies close when this returns.
            producer.reports = True  # because this request raises no error any more
            if self.settings.on_disconnect == "cancel":
                producer.stop(_CANCELLED)
                await self._see_out(reading, producer)
            _report(producer)
            raise
        if failure is not None:
            raise failure
        _report(producer)

    async def _start(self, reading: Reading, items: Items) -> Producer:
        """Run the request's items into the log and return their producer."""
        settings, streaming = self.settings, reading.wire.streaming
        log = reading.tail.log
        try:
            reading.producer = await reading.engine.produce(
                log,
                items,
                encode=settings.encode,
                describe=settings.describe,
                flow=settings.flow if streaming else Flow.block(),
                on_disconnect=settings.on_disconnect,
                reports=False,
                # A document has no address, so its reader cannot come back.
                grace=settings.grace if streaming else 0.0,
            )
        except BaseException as error:
            reading.close()
            await self._discard(reading.engine, log, error)
            raise
        return reading.producer

    async def _see_out(self, reading: Reading, producer: Producer) -> None:
        """Wait for a producer's end. The generator may use the request's dependencies until then."""
        await producer.wait()
        if not reading.wire.streaming:
            # A document has no address of its own, so no client can ask for this log again.
            await reading.engine.forget(producer.log)

    def _delivery(
        self, reading: Reading, request: StreamRequest, scope: Scope, receive: Receive, send: Send
    ) -> Delivery:
        headers = self._headers_of(reading, request)
        try:
            if not request.wire.streaming:
                return Document(reading, request, self.status_code, headers, scope, receive, send)
            start = {"type": "http.response.start", "status": self.status_code, "headers": headers}
            ready = None if reading.producer is None else partial(self._ready, reading, request, scope, receive, send)
            return Connection(reading, send, start, ready)
        except BaseException:  # an application's own wire may fail to make an encoder
            reading.close()
            raise

    async def _ready(
        self, reading: Reading, request: StreamRequest, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Wait for the first event of the stream that this request started. Return False if the answer is another."""
        if (failure := await reading.first_failure(self.settings.status_wait)) is not None:
            # The status is the whole answer. A request sent again under the same key must be able to succeed.
            await reading.engine.forget(reading.tail.log)
            if not isinstance(failure, StreamError):
                raise failure
            await refusal_of(failure)(scope, receive, send)
            return False
        tail = reading.tail
        if tail.log.base <= tail.position:
            warn_of_frames(request, tail.log)
            return True
        reset = tail.log.reset(tail.log.broken_off or "trimmed")
        response = reset_of(reset, request, self.status_code, self._headers_of(reading, request), started=True)
        await response(scope, receive, send)
        return False

    def _headers_of(self, reading: Reading, request: StreamRequest) -> list[Header]:
        tail = reading.tail
        headers = stream_headers(request, self.settings.cache_control)
        # If the request started the stream, its document is whole, so there is nothing to continue.
        if request.wire.streaming or reading.producer is None:
            headers.append(cursor_header(tail.cursor()))
        if self._addressed and request.wire.streaming and tail.log.passing:
            path = self._addressed if isinstance(self._addressed, str) else tail.log.name
            headers += _addresses(request, path, duplex=self._duplex)
        return self._with_own(headers)

    def _with_own(self, headers: list[Header]) -> list[Header]:
        """Add the application's own headers, which replace the stream's except where both are lists."""
        own = {name for name, _ in self.raw_headers} - _LISTS
        return [*(header for header in headers if header[0] not in own), *self.raw_headers]


def _addresses(request: StreamRequest, path: str, *, duplex: bool) -> list[Header]:
    """Return the headers that name a stream's addresses. They keep the query, which dependencies may need there too."""
    path, query = quote(path), f"?{request.query}" if request.query else ""
    links = f'<{path}/stop{query}>; rel="stop"'
    if duplex:
        links += f', <{path}{query}>; rel="send"'
    return [(b"content-location", f"{path}{query}".encode()), (b"link", links.encode())]


def _yields(source: Callable[..., Any]) -> bool:
    """Tell whether a function is a generator function. If so, calling it runs nothing and never returns a Log."""
    return inspect.isasyncgenfunction(source) or inspect.isgeneratorfunction(source)


async def _close_unused(source: Source) -> None:
    """Close items that no request will read."""
    if not (callable(source) or isinstance(source, Log | Job)):
        await close_items(as_async(source))


def _report(producer: Producer) -> None:
    """Log an error that the outcome hides, if the client left, or the request was cancelled, before it was raised."""
    outcome = producer.log.outcome
    if producer.error is not None and outcome is not None and outcome.code in UNTOLD:
        logger.error(
            "log %s: the generator raised after its client had left", producer.log.name, exc_info=producer.error
        )
