"""uvicorn's HTTP protocol, with bounds on what one connection may send.

By default, uvicorn parses with httptools, which bounds nothing. One connection without a key could take all memory.
Measured: 200 MB of header lines `a:` made the server grow from 93 to 5,982 MB, and 20 MB of pipelined requests from 119
to 1,043 MB. A connection with half a head or half a body stayed open forever.

uvicorn's other parser, h11, bounds the head and the pipeline, but not the time. It also costs more. Measured: 105 µs of
CPU for a small request and 7.3 µs for an event of a stream. httptools takes 37 and 3.2 µs, this class 47 and 3.2 µs.

You can use it with any application: `uvicorn --http tailrace.cli.protocol:BoundedProtocol main:app`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle


class Refused(Exception):
    """Ends the parsing from inside a callback."""


class PipelineFlow(FlowControl):
    """Stops reading while requests wait for the answer to an earlier one.

    uvicorn pauses too, but resumes whenever the application receives a message and whenever an answer ends.
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
    """Refuses requests that are too large, too many or too slow. Subclass it to choose other bounds.

    - `max_head`: the most bytes of a request line with its headers, and of trailers. Beyond them, the answer is 431.
    - `max_waiting`: the most pipelined requests that wait for an answer. The answer to the last of them closes the
      connection, and the client sends the other requests again (RFC 9112, section 9.3.2).
    - `head_seconds`: the time for a head, and for a new connection to begin one. After it, the answer is 408.
    - `request_seconds`: the time for a head and its body together. It starts again after each pause of the application.
    - `linger_seconds`: the time for a refused client to read the refusal.
    """

    max_head = 1 << 16
    max_waiting = 32
    head_seconds = 20.0
    request_seconds = 60.0
    linger_seconds = 2.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._running: RequestResponseCycle | None = None  # what is being answered; `cycle` is what came last
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._in_head = True
        self._pending = 0  # bytes since the parser last completed a part
        self._is_deaf = False
        self._status = HTTPStatus.BAD_REQUEST

    # Calls from the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = PipelineFlow(transport, self.pipeline, self._restart_time)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        # uvicorn tells only the last request that its client has left, which may still wait behind this one.
        if (running := self._running) is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
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

    # Calls from the parser

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= self.max_waiting:
            self._is_deaf = True
            self.pipeline[0][0].keep_alive = False  # the last request that gets an answer
            raise Refused
        super().on_message_begin()
        self._in_head = True
        if self._timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        # A whole head can come in one read of up to 256 KB.
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self.max_head:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise Refused
        self._pending = 0
        super().on_headers_complete()
        self._in_head = False
        if not self.pipeline:
            self._running = self.cycle

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        self._stop_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that the parser cannot read or that a method above refuses."""
        if not self._is_deaf:
            self._refuse(self._status)

    # Calls from the application

    def on_response_complete(self) -> None:
        self._running = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if not self.transport.is_closing():
            self.flow.resume_reading()

    # The bounds

    def _restart_time(self) -> None:
        """Restart the time, because the client could not send until now."""
        self._began = self.loop.time()

    def _start_timer(self) -> None:
        self._began = self.loop.time()
        self._timer = self.loop.call_later(self.head_seconds, self._check_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_time(self) -> None:
        """Refuse a late request, unless the application makes it wait."""
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
        """True if the application has paused reading, or still answers."""
        cycle = self.cycle
        if self.flow.read_paused:
            return True
        return cycle is not None and not cycle.response_complete and (self._in_head or cycle.response_started)

    @property
    def _can_answer(self) -> bool:
        """True if a refusal cannot end up within the answer to another request."""
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
                # The application must not answer after the refusal, so tell it that the client has left.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if self.transport.can_write_eof():
                # Do not close immediately: the client may still be sending, and that would reset the connection before
                # it has read the answer (RFC 9112, section 9.6).
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
