"""What a request asks of a stream, read from its scope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from ..cursor import Cursor
from ..modes import negotiate, stream_flag
from ..wire.base import Wire

Scope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The wire and the cursor that a request asks for, and the path at which it asks."""

    method: str
    path: str
    wire: Wire
    cursor: Cursor | None

    @classmethod
    def read(cls, scope: Any, wires: Sequence[Wire]) -> StreamRequest:
        """CursorError for a cursor that is none, NotAcceptable if no wire fits."""
        accept, last_event_id = _headers(scope)
        query = parse_qs(scope["query_string"].decode("latin-1")) if scope["query_string"] else {}
        # A browser's EventSource repeats its URL with the old ?after= when it comes back with a newer id.
        token = last_event_id or _last(query, "after")
        return cls(
            method=scope["method"],
            path=address(scope),
            wire=negotiate(accept, stream_flag(_last(query, "stream")), wires),
            cursor=Cursor.parse(token) if token else None,
        )


def address(scope: Any) -> str:
    """The path as the client sees it, without a trailing slash."""
    root: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    inside = path == root or path.startswith(root + "/")
    return (path if inside else root + path).rstrip("/")


def _headers(scope: Any) -> tuple[str | None, str | None]:
    accepts: list[str] = []
    last_event_id: str | None = None
    for name, value in scope["headers"]:
        if name == b"accept":
            accepts.append(value.decode("latin-1"))
        elif name == b"last-event-id":
            last_event_id = value.decode("latin-1").strip()
    return (",".join(accepts) if accepts else None), last_event_id


def _last(query: dict[str, list[str]], name: str) -> str | None:
    values = query.get(name)
    return values[-1] if values else None
