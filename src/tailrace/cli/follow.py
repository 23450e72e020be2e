"""The work of `tailrace tail`: request a stream, print its events, and tell the user how to continue."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import to_json

from ..client import Retry, StreamLost, StreamRefused, StreamReset, Tail, Timeouts, tail
from ..cursor import Cursor
from ..errors import CursorError, FrameTooLarge, TailraceError
from ..events import Outcome
from ..wire.base import MAX_FRAME_BYTES, Frame
from ..wire.text import Text
from .command import CommandError, Notices, UsageError
from .output import NobodyReads, Output
from .text import SafeStream, safe, safe_json

SOCKETS = ("ws", "wss")

BROKEN_PIPE = 141
"""The exit status if nobody reads the output: 128 plus the number of SIGPIPE, as in a shell."""


def follow(options: Namespace) -> int:
    """Print the events until the stream ends or the options say to stop. Return the exit status."""
    notices = Notices("tail", quiet=options.quiet)
    try:
        follower = Follower(options, notices, open_stream(options, notices))
        return _run(follower)
    except ValueError as error:  # the client raises this for an impossible request
        raise UsageError(str(error)) from None


def _run(follower: Follower) -> int:
    try:
        asyncio.run(follower.run())
    except NobodyReads:
        return BROKEN_PIPE
    except KeyboardInterrupt:  # pragma: no cover - Python 3.11 may lose a cancellation in a traced coroutine
        follower.tell_way_on()
        raise
    return 0


class Follower:
    """Prints the events of one stream."""

    def __init__(self, options: Namespace, notices: Notices, stream: Tail[Frame]) -> None:
        self._options = options
        self._notices = notices
        self._stream = stream
        self._way_on = WayOn(options)
        self._output = Output(sys.stdout.fileno())
        self._printer = Printer(objects=options.json, terminal=sys.stdout.isatty())

    async def run(self) -> None:
        """Print to the end. Raise CommandError if the stream does not end as the options want."""
        try:
            await self._output.during(self._follow())
        except TailraceError as error:
            raise CommandError(explain(error, self._options, self._way_on, self._output.mark)) from None

    def tell_way_on(self) -> None:
        if (way_on := self._way_on.after(self._output.mark)) is not None:
            self._notices.tell(way_on)

    async def _follow(self) -> None:
        left = self._options.max
        event = None
        async with self._stream as events:
            self._output.mark = events.cursor
            self._way_on.note(events.address)
            async for event in events:
                await self._output.put(self._printer.line(event, events.media_type), event.id)
                left = left and left - 1
                if left == 0 or self._is_last(event):
                    return
                self._way_on.note(events.address)
        # On some wires, the stream's result is an event. On others, only the end has it.
        if (outcome := events.outcome) is not None and outcome.data is not None:
            result = Frame(outcome.data, None, events.cursor)
            if event is None or event.data != result.data:
                await self._output.put(self._printer.line(result, events.media_type), result.id)
            if self._is_last(result):
                return
        self._end(outcome)

    def _is_last(self, event: Frame) -> bool:
        name, data = self._options.until, event.data
        return name is not None and (event.event == name or (isinstance(data, dict) and data.get("type") == name))

    def _end(self, outcome: Outcome | None) -> None:
        state = None if outcome is None else outcome.state
        if outcome is not None and state == "cancelled":
            reason = outcome.message or outcome.code or "no reason given"
            self._notices.tell(f"the stream was stopped: {reason}")
        if self._options.until not in (None, state):
            raise CommandError(f"the stream ended without an event `{self._options.until}`")


class Printer:
    """Turns events into lines: text unchanged and everything else as JSON, or all of them as objects.

    On a terminal, it makes control characters visible. Elsewhere, it changes nothing.
    """

    def __init__(self, *, objects: bool, terminal: bool) -> None:
        self._prints_objects = objects
        self._is_terminal = terminal
        self._text = SafeStream()

    def line(self, event: Frame, media_type: str | None) -> bytes:
        if self._prints_objects:
            line = self._json({"id": event.id, "event": event.event, "data": event.data})
        elif not isinstance(event.data, str):
            line = self._json(event.data)
        elif media_type == Text.media_type:
            # Plain text has its own line breaks, at any place in its pieces.
            return (self._text.feed(event.data) if self._is_terminal else event.data).encode("utf-8", "replace")
        else:
            line = safe(event.data) if self._is_terminal else event.data
        return f"{line}\n".encode("utf-8", "replace")

    def _json(self, value: Any) -> str:
        # A large number becomes infinity, which JSON lacks. Write null, as a browser's JSON.stringify does.
        line = to_json(value, inf_nan_mode="null").decode()
        return safe_json(line) if self._is_terminal else line


# The request


def open_stream(options: Namespace, notices: Notices) -> Tail[Frame]:
    """Make the stream that the options describe. Raise UsageError if they describe no possible request."""
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
        timeouts=Timeouts(idle=options.idle, event=None),  # wait without a limit, as `tail -f` does
        on_reconnect=notices.tell_reconnect,
        on_degraded=notices.tell_degraded,
        allow_gaps=options.allow_gaps,
        max_bytes=MAX_FRAME_BYTES if options.max_bytes is None else options.max_bytes,
    )


def _join(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Join headers with the same name (RFC 9110, section 5.3; for cookies RFC 6265, section 5.4)."""
    headers: dict[str, str] = {}
    for name, value in fields:
        between = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{between}{value}" if name in headers else value
    return headers


def _read(source: str) -> bytes:
    if source in ("-", "@-"):
        if sys.stdin is None:
            raise UsageError(f"cannot read --data {source}: the standard input is closed")
        return sys.stdin.buffer.read()
    if not source.startswith("@"):
        return source.encode("utf-8", "surrogateescape")
    try:
        return Path(source[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read --data from {source[1:]}: {error.strerror}") from None


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
    except (ValueError, RecursionError):  # also for invalid UTF-8
        return False
    return True


# How to continue

# These options describe the first request. Do not repeat them, because the stream that it started has its own address.
OF_THE_REQUEST = ("url", "after", "data", "method", "idempotency_key")

_FLAGS = ("json", "allow_gaps", "quiet")
_VALUES = ("max", "until", "retries", "idle", "max_bytes")

# Any other header may be a secret, and notices may end up in a log.
_PUBLIC = frozenset({"accept", "accept-language", "user-agent"})
_HIDDEN = "…"

GONE = "the stream is gone; read it from its beginning, without --after"
_GONE_STATUSES = (404, 410)
_WITHOUT_EVENTS = ("", "HEAD", "OPTIONS")


class WayOn:
    """Tells the user how to continue from any place in a stream, as a shell command."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._address: str = options.url
        self._asks_once = options.data is not None or options.method not in (None, "GET")

    def note(self, address: str | None) -> None:
        """Remember the stream's own address, once its server has named it."""
        self._address = address or self._address

    def after(self, token: str | None) -> str | None:
        """Tell how to continue after a cursor. Return None if nothing can follow."""
        cursor = _parse(token)
        if token is None or (cursor is not None and cursor.ended):
            return None
        # Write an equals sign before the cursor, because it may begin with a dash.
        after = f"--after={quote(token)}"
        if self._asks_once and self._address != self._options.url:
            return f"continue with: {' '.join(['tailrace tail', quote(self._address), *self._repeated(), after])}"
        if self._asks_once and cursor is None:
            return None  # another server may start a new stream instead
        return f"continue with {after}"

    def _repeated(self) -> Iterator[str]:
        options = self._options
        for name in _FLAGS:
            if getattr(options, name):
                yield _option(name)
        for name in _VALUES:
            if (value := getattr(options, name)) != options.parser.get_default(name):
                yield f"{_option(name)}={quote(str(value))}"
        for name, value in options.header:
            if not name.startswith("content-"):
                yield f"--header {quote(f'{name}: {value if name in _PUBLIC else _HIDDEN}')}"


def explain(error: TailraceError, options: Namespace, way: WayOn, mark: str | None) -> str:
    """Describe a failure in one line, and how to continue after `mark`, the id of the last printed event."""
    if isinstance(error, StreamReset):
        return f"the stream was reset ({error.reason}); {way.after(error.cursor) or GONE}"
    if isinstance(error, FrameTooLarge):
        return _joined(f"{error}; --max-bytes allows more", way.after(mark))
    if isinstance(error, StreamLost):
        return _joined(str(error), way.after(error.cursor))
    if isinstance(error, StreamRefused):
        return _joined(str(error), _advice(error, options, None if mark == options.after else way.after(mark)))
    return str(error)


def _advice(error: StreamRefused, options: Namespace, way_on: str | None) -> str | None:
    """Return advice about a refusal. `way_on` is set only if an earlier request for this stream was answered."""
    if way_on is not None:
        return GONE if error.status in _GONE_STATUSES else way_on
    if error.status == 405:
        method = options.method or ("GET" if options.data is None else "POST")
        allowed = [each.strip() for each in str(error.members.get("allow", "")).split(",")]
        allowed = [each for each in allowed if each not in _WITHOUT_EVENTS]
        expected = " or ".join(allowed)
        return f"expected the method {expected}, but got {method}" if allowed else f"the method was {method}"
    return None


def _joined(text: str, more: str | None) -> str:
    return f"{text}; {more}" if more else text


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parse(token: str | None) -> Cursor | None:
    try:
        return Cursor.parse(token or "")
    except CursorError:
        return None
