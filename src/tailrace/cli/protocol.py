"""uvicorn's HTTP protocol, with bounds on what one connection may send.

uvicorn parses with httptools by default, which bounds nothing. One connection without a key could take all memory:
200 MB of header lines `a:` took it from 93 to 5,982 MB, 20 MB of pipelined requests from 119 to 1,043 MB. Half a head
or half a body stayed open for ever.

uvicorn's other parser, h11, bounds the head and the pipeline, but not the time. And it costs more: 105 µs of CPU for a
small request and 7.3 µs for an event of a stream, where httptools takes 37 and 3.2, and this class 47 and 3.2.

Any application can use it: `uvicorn --http tailrace.cli.protocol:BoundedProtocol main:app`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol


class Refused(Exception):
    """Ends the parsing from inside a callback."""


class PipelineFlow(FlowControl):
    """Reads nothing while requests wait for the answer to an earlier one.

    uvicorn pauses too, but reads on with each message that the application receives and each answer that ends.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any], on_resume: Callable[[], None]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline
        self._on_resume = on_resume

    def resume_reading(self) -> None:
        if self.read_paused and not self._pipeline:
            super().resume_reading()
            self._on_resume()


class BoundedProtocol(HttpToolsProtocol):
    """Refuses what is too large, too much or too slow. Subclass it to choose other bounds.

    - `max_head`: bytes of a request line with its headers, and of trailers. Beyond them the answer is 431.
    - `max_waiting`: pipelined requests that wait for an answer. The answer to the last one closes the connection, and
      the client sends the others again (RFC 9112, section 9.3.2).
    - `head_seconds`: how long a head may take, and a new connection to begin one. Then the answer is 408.
    - `request_seconds`: how long a head and its body may take together, again after each pause of the application.
    - `linger_seconds`: how long a refused client may take to read the refusal.
    """

    max_head = 1 << 16
    max_waiting = 32
    head_seconds = 20.0
    request_seconds = 60.0
    linger_seconds = 2.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._in_head = True
        self._pending = 0  # bytes since the parser last completed something
        self._is_deaf = False
        self._status = HTTPStatus.BAD_REQUEST

    # Calls of the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = PipelineFlow(transport, self.pipeline, self._restart_time)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._pending += len(data)
        super().data_received(data)
        if self._pending > self.max_head and not self._is_deaf:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def handle_websocket_upgrade(self) -> None:
        self._stop_timer()
        self._pending = 0
        super().handle_websocket_upgrade()

    # Calls of the parser

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= self.max_waiting:
            self._is_deaf = True
            self.pipeline[0][0].keep_alive = False  # the last one
            raise Refused
        super().on_message_begin()
        self._in_head = True
        if self._timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        # A whole head can come in one read, which takes up to 256 KB.
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self.max_head:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise Refused
        self._pending = 0
        super().on_headers_complete()
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        self._stop_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read ends here, and so does what the methods above refuse."""
        if not self._is_deaf:
            self._refuse(self._status)

    # Calls of the application

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self.flow.resume_reading()

    # The bounds

    def _restart_time(self) -> None:
        """The client could not send until now."""
        self._began = self.loop.time()

    def _start_timer(self) -> None:
        self._began = self.loop.time()
        self._timer = self.loop.call_later(self.head_seconds, self._check_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_time(self) -> None:
        """Refuse a request that is late, unless it is the application that lets it wait."""
        limit = self.head_seconds if self._in_head else self.request_seconds
        left = self._began + limit - self.loop.time()
        if left > 0 or self._is_busy:
            self._timer = self.loop.call_later(left if left > 0 else limit, self._check_time)
        elif self.scope is None:
            self.transport.close()  # no request has begun
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    @property
    def _is_busy(self) -> bool:
        """Whether the application does not read the body now, or still answers."""
        cycle = self.cycle
        if self.flow.read_paused:
            return True
        return cycle is not None and not cycle.response_complete and (self._in_head or cycle.response_started)

    @property
    def _can_answer(self) -> bool:
        """Whether a refusal would not get into the answer to another request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return not (self._in_head or self.pipeline or cycle.response_started)

    def _refuse(self, status: HTTPStatus) -> None:
        self._is_deaf = True
        self._stop_timer()
        if self._can_answer:
            self.transport.write(self._refusal(status))
            if self.cycle is not None:
                # The application must not answer after the refusal. For it, the client has gone.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if self.transport.can_write_eof():
                # Closed at once, what the client still sends would reset the connection before it has read the answer
                # (RFC 9112, section 9.6).
                self.transport.write_eof()
                self._timer = self.loop.call_later(self.linger_seconds, self.transport.close)
                return
        self.transport.close()

    def _refusal(self, status: HTTPStatus) -> bytes:
        text = status.phrase.encode()
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),
        ]
        return b"".join([STATUS_LINE[status], *(b"%s: %s\r\n" % field for field in fields), b"\r\n", text])
