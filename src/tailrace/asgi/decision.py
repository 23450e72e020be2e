"""Decide how to answer a request, from the request and the store alone, before calling or starting anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode

from starlette.types import Scope

from ..cursor import Cursor
from ..errors import LogReset, StreamError, TailraceError
from ..log.base import Log
from ..modes import negotiate, stream_flag
from ..wire.base import Wire

MAX_QUERY = 16 << 10
"""The most bytes in a query string. A longer one gets status 414 unread."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A request for a stream: its path, the wire it asks for, and its cursor if it has one.

    `query` is the request's query without `after`, `stream` and `takeover`. The stream's other addresses repeat it.
    `route` is the path as the application declared it, if a router found it. With `takes_over`, the request may take
    the place of another reader, if the stream has one reader at a time.
    """

    method: str
    path: str
    wire: Wire
    cursor: Cursor | None = None
    query: str = ""
    route: str = ""
    takes_over: bool = False

    @classmethod
    def read(cls, scope: Scope, wires: Sequence[Wire]) -> StreamRequest:
        """Read a request. Raise CursorError for a malformed cursor, NotAcceptable if no wire fits, StreamError for a
        query that is too long.
        """
        accept, last_event_id = _headers(scope)
        if (size := len(scope["query_string"])) > MAX_QUERY:
            message = f"expected a query of at most {MAX_QUERY} bytes, but got {size}"
            raise StreamError(message, code="query_too_long", status=414)
        query = _query(scope)
        asked = dict(query)
        # A browser's EventSource repeats its URL, with the old ?after=, when it reconnects with a newer id.
        token = last_event_id or asked.get("after")
        return cls(
            method=scope["method"],
            path=address(scope),
            wire=negotiate(accept, stream_flag(asked.get("stream")), wires),
            cursor=Cursor.parse(token) if token else None,
            query=_without_own(query),
            route=getattr(scope.get("route"), "path", ""),
            takes_over=stream_flag(asked.get("takeover")) is True,
        )


@dataclass(frozen=True, slots=True)
class Start:
    """Start a stream."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read an existing log, after an offset."""

    log: Log
    after: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Answer 204, because the client already has the end."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Send the headers alone, for HEAD."""


@dataclass(frozen=True, slots=True)
class ResetTo:
    """Tell the client that its cursor cannot be continued."""

    error: LogReset


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an error."""

    error: TailraceError


Decision: TypeAlias = Start | Read | Ended | Headers | ResetTo | Refuse


async def place_of(cursor: Cursor | None, log: Log | None) -> int | LogReset | None:
    """Return the offset that a request's cursor has in the log it names, or the reset if there is no such place."""
    if cursor is None or cursor.ended or log is None:
        return None
    try:
        return await log.resolve(cursor)
    except LogReset as reset:
        return reset


def decide(
    request: StreamRequest,
    log: Log | None,
    place: int | LogReset | None = None,
    *,
    whole: bool = False,
    history: int | None = None,
    same: bool = True,
    draining: bool = False,
) -> Decision:
    """Decide how to answer a request, given the log it names. This opens, calls and starts nothing.

    - `log`: the application's own log, or the stream named by the cursor, the address or the idempotency key, if any.
    - `place`: what `place_of` returns for the request's cursor.
    - `whole`: whether a reader without a cursor must get the log from its beginning.
    - `history`: how many of the newest entries a reader without a cursor gets. None means all that are kept.
    - `same`: whether the request has the same query and body as the request that started the log.
    - `draining`: whether the server refuses new streams.
    """
    cursor = request.cursor
    if cursor is not None and cursor.ended:
        # A browser's EventSource reconnects after every end; only 204 stops it (HTML, section 9.2.3).
        return Ended()
    if request.method == "HEAD":
        return Headers()
    if log is not None:
        return _continue(log, place, whole, history) if same else Refuse(_key_reused())
    if cursor is not None:
        return ResetTo(LogReset(request.path, "epoch_changed", str(replace(cursor, ended=True))))
    if draining:
        return Refuse(StreamError("the server is shutting down", code="shutting_down", status=503))
    return Start()


def _continue(log: Log, place: int | LogReset | None, whole: bool, history: int | None) -> Decision:
    if place is None:
        log.trim()
        reason = log.broken_off or ("trimmed" if whole and log.base > 0 else None)
        start = log.base if history is None else max(log.base, log.top - history)
        place = start if reason is None else log.reset(reason)
    return ResetTo(place) if isinstance(place, LogReset) else Read(log, place)


def _key_reused() -> StreamError:
    return StreamError(
        "expected the request that this Idempotency-Key was first sent with, but got another query or body",
        code="idempotency_key_reused",
        status=409,
    )


def address(scope: Scope) -> str:
    """Return the path as the client sees it, without a trailing slash."""
    root: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    inside = path == root or path.startswith(root + "/")
    return (path if inside else root + path).rstrip("/")


def _headers(scope: Scope) -> tuple[str | None, str | None]:
    accepts: list[str] = []
    last_event_id: str | None = None
    for name, value in scope["headers"]:
        if name == b"accept":
            accepts.append(value.decode("latin-1"))
        elif name == b"last-event-id":
            last_event_id = value.decode("latin-1").strip()
    return (",".join(accepts) if accepts else None), last_event_id


def remaining_query(scope: Scope) -> str:
    """Return the query without `after`, `stream` and `takeover`, which belong to one request alone."""
    return _without_own(_query(scope))


def _query(scope: Scope) -> list[tuple[str, str]]:
    query: bytes = scope["query_string"]
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else []


def _without_own(query: list[tuple[str, str]]) -> str:
    return urlencode([(name, value) for name, value in query if name not in _OWN])


_OWN = frozenset({"after", "stream", "takeover"})
