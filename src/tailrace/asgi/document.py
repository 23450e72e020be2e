"""A response with a log as one JSON document."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import LogReset, StreamError
from ..events import Outcome
from ..wire.batch import Batch, document
from .decision import StreamRequest
from .reading import Delivery, Reading
from .reply import Header, refusal_of, reset_refusal_of


class Document(Delivery):
    """A response with a log as one JSON document.

    If the request started the stream, the document has all entries, or the response is the stream's failure. For any
    other log, the document has the entries that exist now.
    """

    __slots__ = ("_headers", "_request", "_status", "_tail", "_wire")

    def __init__(
        self,
        reading: Reading,
        request: StreamRequest,
        status: int,
        headers: Iterable[Header],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        assert isinstance(reading.wire, Batch)
        self._request = request
        self._tail = reading.tail
        self._wire = reading.wire
        self._status = status
        self._headers = headers
        super().__init__(reading, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the document. Raise the error of the application's generator, unless it is a StreamError."""
        response = await self._response()
        await response(scope, receive, send)

    async def _response(self) -> Response:
        tail, started = self._tail, self._reading.producer is not None
        first, parts = tail.position, list[bytes]()
        try:
            await self._collect(parts)
        except LogReset as error:
            return reset_refusal_of(error, self._request, started=started, data=_list_of(parts))
        except StreamError as error:
            return refusal_of(error)
        data = _list_of(parts)
        outcome = tail.log.outcome if tail.ended else None
        if started and outcome is not None and outcome.state != "done":
            return self._failed(outcome, data)
        after = str(tail.log.cursor(first)) if first > 0 and self._request.cursor is None else None
        response = Response(document(data, outcome, str(tail.cursor()), after), self._status)
        response.raw_headers += self._headers
        return response

    def _failed(self, outcome: Outcome, data: bytes) -> Response:
        """Refuse with the partial data, so that no client mistakes it for a complete document."""
        assert self._reading.producer is not None
        failure = self._reading.producer.error or StreamError(
            outcome.message or "", code=outcome.code or "cancelled", status=503
        )
        if not isinstance(failure, StreamError):
            raise failure
        return refusal_of(failure, data=data)

    async def _collect(self, parts: list[bytes]) -> None:
        """Add the entries to `parts`, as JSON. Raise LogReset, and StreamError if they exceed the wire's bound."""
        tail, wire = self._tail, self._wire
        encoder = tail.log.encoder(wire)
        size = 0
        while True:
            if entries := await tail.read():
                parts.append(encoder.encode(entries))
                size += len(parts[-1])
                if size > wire.max_bytes:
                    raise StreamError(
                        f"expected at most {wire.max_bytes} bytes in a document, but there are more: ask for a stream",
                        code="document_too_large",
                    )
            elif tail.ended or self._reading.producer is None:
                return
            else:
                await tail.wait()


def _list_of(parts: list[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"
