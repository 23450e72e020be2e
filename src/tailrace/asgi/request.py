"""What a request asks of a stream, read from its scope."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from ..cursor import Cursor
from ..modes import negotiate, stream_flag
from ..wire.base import Wire

Scope = dict[str, Any]

_CREDENTIALS = {b"authorization", b"cookie"}


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The wire and the cursor that a request asks for, and the path at which it asks.

    `stream_id` is that of a stream which it starts, where it says so by an Idempotency-Key: the same each time.
    """

    method: str
    path: str
    wire: Wire
    cursor: Cursor | None
    stream_id: str | None = None

    @classmethod
    def read(cls, scope: Any, wires: Sequence[Wire]) -> StreamRequest:
        """CursorError for a cursor that is none, NotAcceptable if no wire fits."""
        accept, last_event_id, key = _headers(scope)
        query = parse_qs(scope["query_string"].decode("latin-1")) if scope["query_string"] else {}
        # A browser's EventSource repeats its URL with the old ?after= when it comes back with a newer id.
        token = last_event_id or _last(query, "after")
        path = address(scope)
        return cls(
            method=scope["method"],
            path=path,
            wire=negotiate(accept, stream_flag(_last(query, "stream")), wires),
            cursor=Cursor.parse(token) if token else None,
            stream_id=_stream_id(path, key, scope["headers"]) if key else None,
        )


def address(scope: Any) -> str:
    """The path as the client sees it, without a trailing slash."""
    root: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    inside = path == root or path.startswith(root + "/")
    return (path if inside else root + path).rstrip("/")


def _headers(scope: Any) -> tuple[str | None, str | None, bytes | None]:
    accepts: list[str] = []
    last_event_id: str | None = None
    key: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"accept":
            accepts.append(value.decode("latin-1"))
        elif name == b"last-event-id":
            last_event_id = value.decode("latin-1").strip()
        elif name == b"idempotency-key":
            key = value
    return (",".join(accepts) if accepts else None), last_event_id, key


def _stream_id(path: str, key: bytes, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Whose request it is goes in, too: nobody gets another's stream by guessing a key."""
    credentials = [value for name, value in headers if name in _CREDENTIALS]
    told = b"\0".join([path.encode("utf-8", "surrogateescape"), key, *credentials])
    return urlsafe_b64encode(hashlib.sha256(told).digest()[:16]).rstrip(b"=").decode()


def _last(query: dict[str, list[str]], name: str) -> str | None:
    values = query.get(name)
    return values[-1] if values else None
