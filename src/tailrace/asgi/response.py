"""A response is a reader of a log at a cursor."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from typing import Any

# What Starlette and FastAPI recognise as an answer; nothing else of them is used here.
from starlette.background import BackgroundTask
from starlette.responses import Response

from ..engine import Engine
from ..errors import CursorError, LogReset, NotAcceptable, StreamError
from ..producer import UNTOLD, Producer
from .connection import Connection
from .disconnect import Disconnected, Receive, Send, run_until_disconnect
from .document import send_document
from .headers import Header, stream_headers
from .lifespan import engine_of
from .opening import Opening, Source, open_source
from .reply import send_refusal, send_whole
from .request import StreamRequest
from .reset import send_reset
from .settings import StreamSettings
from .socket import serve_socket

_LISTS = {b"vary", b"link"}

logger = logging.getLogger("tailrace")


class StreamResponse(Response):
    """An ASGI application that reads a log to its client, on the wire and from the cursor that the request asks for.

    `source` is a Log (shared by many readers), or a generator or a function that makes one: then each request without a
    cursor starts a stream of its own, and one with a cursor goes on with the stream that the cursor names.

    Answers 400 to what is no cursor, 406 if no wire fits, 410 for a reset where the wire has no room for one,
    503 to a new stream while the server shuts down, and 204 to a client that already has the end.
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
        addressed: bool = False,
    ) -> None:
        """`addressed`: streams can be resumed and stopped below the request's path, and the response says where.

        Without an `engine` the application's own is used.
        """
        self.source = source
        self.settings = settings or StreamSettings()
        self.status_code = status_code
        self.background = background
        self.init_headers(headers)
        self._engine = engine
        self._addressed = addressed

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await serve_socket(self, scope, receive, send)
            return
        try:
            request = StreamRequest.read(scope, self.settings.wires)
        except (CursorError, NotAcceptable) as refusal:
            await send_refusal(send, refusal, head=scope["method"] == "HEAD")
            return
        if request.cursor is not None and request.cursor.ended:
            # A browser's EventSource comes back after every end; only this stops it.
            await send_whole(send, 204, b"", self._head(request))
        elif request.method == "HEAD":
            await send({"type": "http.response.start", "status": self.status_code, "headers": self._head(request)})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._answer(self._engine or engine_of(scope), request, receive, send)
        if self.background is not None:
            await self.background()

    async def _answer(self, engine: Engine, request: StreamRequest, receive: Receive, send: Send) -> None:
        try:
            opening = await open_source(self.source, self.settings, engine, request)
        except StreamError as refusal:
            await send_refusal(send, refusal)
            return
        except LogReset as reset:
            await send_reset(request, reset, send, self.status_code, self._head(request))
            return
        failure: Exception | None = None
        try:
            await run_until_disconnect(self._read(opening, send), receive)
        except Disconnected:
            pass
        except Exception as error:
            failure = error
        finally:
            opening.tail.close()
        if opening.producer is not None:
            # The request's dependencies stay open as long as this coroutine: until nobody writes any more.
            await opening.producer.wait()
            if failure is None:
                _report(opening.producer)
        # An OSError that is not the generator's is how servers say that the client has gone (ASGI 2.4).
        if failure is not None and (not isinstance(failure, OSError) or failure is _error_of(opening)):
            raise failure

    def _read(self, opening: Opening, send: Send) -> Coroutine[Any, Any, None]:
        wire = opening.request.wire
        # A document of a stream that the request started is all that there will ever be of it.
        tail = opening.tail if wire.streaming or opening.producer is None else None
        headers = self._with_own(stream_headers(wire, tail, addressed=self._addressed))
        if wire.streaming:
            return Connection(opening, send, self.status_code, headers).run()
        return send_document(opening, send, self.status_code, headers)

    def _head(self, request: StreamRequest) -> list[Header]:
        return self._with_own(stream_headers(request.wire))

    def _with_own(self, headers: list[Header]) -> list[Header]:
        """The application's own headers take the place of the stream's; lists come together."""
        own = {name for name, _ in self.raw_headers} - _LISTS
        return [*(header for header in headers if header[0] not in own), *self.raw_headers]


def _error_of(opening: Opening) -> Exception | None:
    return None if opening.producer is None else opening.producer.error


def _report(producer: Producer) -> None:
    """Log what the outcome hides and nobody was there any more to raise."""
    outcome = producer.log.outcome
    if producer.error is not None and outcome is not None and outcome.code in UNTOLD:
        logger.error("log %s: the generator raised, its client was gone", producer.log.name, exc_info=producer.error)
