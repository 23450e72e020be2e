"""What is asked of a server."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from urllib.parse import urlsplit

from ...client import Retry, Tail, Timeouts, tail
from ...client.settings import OnReconnect
from ...wire.base import MAX_FRAME_BYTES, Frame
from ..command import UsageError
from .values import SOCKETS


def ask(options: Namespace, on_reconnect: OnReconnect) -> Tail[Frame]:
    """The stream that the options mean; UsageError if there is no such request."""
    headers = _join(options.header)
    body = None if options.data is None else _read(options.data)
    if urlsplit(options.url).scheme in SOCKETS:
        _check_socket(options.method, headers, body)
    elif body is not None and _is_json(body):
        headers.setdefault("content-type", "application/json")
    return tail(
        options.url,
        after=options.after,
        method=options.method,
        headers=headers,
        content=body,
        idempotency_key=options.idempotency_key,
        retry=None if options.retries is None else Retry(limit=options.retries),
        timeouts=Timeouts(idle=options.idle, event=None),  # as `tail -f` waits
        on_reconnect=on_reconnect,
        allow_gaps=options.allow_gaps,
        max_bytes=MAX_FRAME_BYTES if options.max_bytes is None else options.max_bytes,
    )


def _join(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Several headers of one name are one (RFC 9110, section 5.3; of cookies RFC 6265, section 5.4)."""
    headers: dict[str, str] = {}
    for name, value in fields:
        between = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{between}{value}" if name in headers else value
    return headers


def _read(said: str) -> bytes:
    if said in ("-", "@-"):
        if sys.stdin is None:
            raise UsageError(f"cannot read --data {said}: the standard input is closed")
        return sys.stdin.buffer.read()
    if not said.startswith("@"):
        return said.encode("utf-8", "surrogateescape")
    try:
        return Path(said[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read --data from {said[1:]}: {error.strerror}") from None


def _check_socket(method: str | None, headers: dict[str, str], body: bytes | None) -> None:
    if method is not None:
        raise UsageError(f"expected no --method for a WebSocket, but got {method}")
    if "host" in headers:
        raise UsageError(f"expected no --header Host for a WebSocket, but got {headers['host']}")
    if body is not None and not _is_text(body):
        raise UsageError("expected UTF-8 text as --data, which is the first message of a WebSocket")


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):  # the first also of what is not UTF-8
        return False
    return True
