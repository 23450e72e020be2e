"""`tailrace tail`: the events of a stream, as they arrive."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .command import Command, CommandError, UsageError
from .output import NobodyReads, Output

if TYPE_CHECKING:
    from ..client import AsyncEvents, Tail
    from ..errors import TailraceError
    from ..wire.base import Frame

BROKEN_PIPE = 141
"""The exit status when nobody reads any more, as shells have it of those whom SIGPIPE ends."""

PLAIN_TEXT = "text/plain"
SOCKETS = ("ws", "wss")
SCHEMES = ("http", "https", *SOCKETS)

EPILOG = """\
Text is printed as it is (what would control a terminal is made visible there), all else as JSON in one line. Notices
and errors are on the standard error. The exit status is 0 when the stream has ended or was stopped, or --max or --until
is reached; 1 when it failed, was refused, or is lost; 2 when the command line is wrong; 130 after Ctrl-C; 141 when
nobody reads the output any more. Leaving a stream does not stop it."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e]*)")
_VALUE = re.compile(r"[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?")
_PRINTABLE = re.compile(r"[^\x00-\x20\x7f]+")


def configure(parser: ArgumentParser) -> None:
    parser.epilog = EPILOG
    add = parser.add_argument
    add("url", metavar="URL", type=_url, help="http://, https://, ws:// or wss://, and where the stream is")
    add(
        "--after",
        metavar="CURSOR",
        type=_value,
        help="go on after the event with this id [default: where the server begins]",
    )
    add("--json", action="store_true", help="print each event as an object with id, event and data")
    add("--max", metavar="N", type=_count, help="end after so many events")
    add("--until", metavar="NAME", help='end after an event of this name, or an object with this "type"')
    add(
        "--header",
        metavar="'NAME: VALUE'",
        type=_header,
        action="append",
        default=[],
        help="send a header; may be repeated",
    )
    add("--data", metavar="BODY", help="send a body: the text itself, @FILE, or - for the standard input")
    add("--method", type=_method, help="how to ask [default: POST with a body, else GET]")
    add(
        "--idempotency-key",
        metavar="KEY",
        type=_value,
        help="name the request, so that it may be sent again before it was answered and starts only one stream",
    )
    add(
        "--idle",
        metavar="SECONDS",
        type=_seconds,
        default=45.0,
        help="connect again when the server is silent for so long [default: 45]",
    )
    add("--no-reconnect", action="store_true", help="end when the connection is lost")
    add("--allow-gaps", action="store_true", help="connect again also when the events have no ids to go on after")
    add("--quiet", action="store_true", help="print no notices, only errors")


def run(options: Namespace) -> int:
    """Print the events until the stream, or what the options ask for, has ended; the exit status."""
    try:
        from ..client import tail
    except ModuleNotFoundError as error:
        raise UsageError(
            f"needs the extra client, but there is no {error.name}: pip install 'tailrace[client]'"
        ) from None
    if sys.stdout is None:
        raise CommandError("the standard output is closed")
    follower = Follower(options, _request(options, tail))
    try:
        return asyncio.run(follower.run())
    except NobodyReads:
        return BROKEN_PIPE
    except KeyboardInterrupt:  # pragma: no cover - where it is traced, Python 3.11 may lose a cancellation
        follower.notify(follower.way_on(follower.output.mark))
        raise


class Follower:
    """A stream, on its way to the standard output."""

    def __init__(self, options: Namespace, make: Callable[[Callable[[int, float, str], None]], Tail[Frame]]) -> None:
        self.output = Output(sys.stdout.fileno())
        self._options = options
        self._stream = make(self._tell_reconnect)
        self._address: str = options.url
        self._is_special = options.data is not None or options.method is not None
        self._is_terminal = sys.stdout.isatty()

    async def run(self) -> int:
        from ..errors import TailraceError

        try:
            await self.output.during(self._follow())
        except TailraceError as error:
            raise CommandError(self._printable(self._explain(error))) from None
        return 0

    async def _follow(self) -> None:
        left = self._options.max
        async with self._stream as events:
            self.output.mark = events.cursor
            self._note_address(events)
            async for event in events:
                await self.output.put(self._line(event, events.media_type), event.id)
                left = left and left - 1
                if left == 0 or self._is_last(event):
                    return
                self._note_address(events)
        if (outcome := events.outcome) is not None and outcome.state == "cancelled":
            self.notify(f"the stream was stopped: {outcome.message or outcome.code or 'no reason is given'}")

    def _note_address(self, events: AsyncEvents[Frame]) -> None:
        if urlsplit(self._address).scheme not in SOCKETS:
            self._address = events.address or self._address

    def _line(self, event: Frame, media_type: str | None) -> bytes:
        from pydantic_core import to_json

        from .terminal.safe import safe

        if self._options.json:
            line = to_json({"id": event.id, "event": event.event, "data": event.data}).decode()
        else:
            line = event.data if isinstance(event.data, str) else to_json(event.data).decode()
        # Plain text has lines of its own, which its pieces know nothing of.
        end = "" if media_type == PLAIN_TEXT and not self._options.json else "\n"
        return ((safe(line) if self._is_terminal else line) + end).encode("utf-8", "replace")

    def _is_last(self, event: Frame) -> bool:
        name, data = self._options.until, event.data
        return name is not None and (event.event == name or (isinstance(data, dict) and data.get("type") == name))

    # What is said besides

    def notify(self, text: str | None) -> None:
        """A line on the standard error, unless it is not wanted there; nobody has to read it."""
        if text is None or self._options.quiet:
            return
        try:
            print(f"tailrace tail: {self._printable(text)}", file=sys.stderr, flush=True)
        except OSError:
            return

    def way_on(self, cursor: str | None) -> str | None:
        """How to read on after a cursor, for the shell; None if there is none."""
        if cursor is None:
            return None
        # A cursor may begin with a dash, so it stands behind =.
        after = f"--after={shlex.quote(cursor)}"
        if self._address == self._options.url or not self._is_special:
            return f"go on with {after}"
        return f"go on with: tailrace tail {shlex.quote(self._address)} {after}"

    def _tell_reconnect(self, attempt: int, delay: float, reason: str) -> None:
        again = "" if attempt == 1 else f" (attempt {attempt})"
        self.notify(f"{reason}; connecting again in {delay:.1f} s{again}")

    def _explain(self, error: TailraceError) -> str:
        from ..client import StreamLost, StreamRefused, StreamReset

        if isinstance(error, StreamReset):
            way = self.way_on(error.cursor) or "read it from its beginning, without --after"
            return f"the stream was reset ({error.reason}); {way}"
        if isinstance(error, StreamLost):
            way_on = self.way_on(error.cursor)
        elif isinstance(error, StreamRefused) and self.output.mark != self._options.after:
            way_on = self.way_on(self.output.mark)
        else:
            way_on = None
        return f"{error}; {way_on}" if way_on else str(error)

    @staticmethod
    def _printable(text: str) -> str:
        from .terminal.safe import safe_line

        return safe_line(text)


TAIL = Command("tail", "Print the events of a stream as they arrive.", configure, run)


def _request(options: Namespace, tail: Callable[..., Tail[Frame]]) -> Callable[..., Tail[Frame]]:
    """What makes the request, told whom to call before it connects again; UsageError if there is no such request."""
    from ..client import Retry, Timeouts

    headers: dict[str, str] = {}
    for name, value in options.header:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    body = None if options.data is None else _body(options.data)
    if urlsplit(options.url).scheme in SOCKETS:
        if options.method is not None:
            raise UsageError(f"expected no --method for a WebSocket, but got {options.method}")
        if body is not None and not _is_text(body):
            raise UsageError("expected UTF-8 text as --data, which is the first message of a WebSocket")
    elif body is not None and _is_json(body):
        headers.setdefault("content-type", "application/json")
    return lambda on_reconnect: tail(
        options.url,
        after=options.after,
        method=options.method,
        headers=headers,
        content=body,
        idempotency_key=options.idempotency_key,
        retry=Retry(limit=0) if options.no_reconnect else None,
        timeouts=Timeouts(idle=options.idle),
        on_reconnect=on_reconnect,
        allow_gaps=options.allow_gaps,
    )


def _body(said: str) -> bytes:
    if said in ("-", "@-"):
        return sys.stdin.buffer.read()
    if not said.startswith("@"):
        return said.encode("utf-8", "surrogateescape")
    try:
        return Path(said[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read --data from {said[1:]}: {error.strerror}") from None


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:  # also of what is not UTF-8
        return False
    return True


# The types of options


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        right = False
    if not (right and _PRINTABLE.fullmatch(value)):
        raise ArgumentTypeError(f"expected an address with http://, https://, ws:// or wss://, but got {value!r}")
    return value


def _header(value: str) -> tuple[str, str]:
    if (match := _HEADER.fullmatch(value)) is None:
        raise ArgumentTypeError(f"expected 'Name: value' in ASCII, but got {value!r}")
    return match[1].lower(), match[2].rstrip()


def _value(value: str) -> str:
    """What is sent in a header."""
    if _VALUE.fullmatch(value) is None:
        raise ArgumentTypeError(f"expected printable ASCII, but got {value!r}")
    return value


def _method(value: str) -> str:
    if _TOKEN.fullmatch(value) is None:
        raise ArgumentTypeError(f"expected a method like POST, but got {value!r}")
    return value.upper()


def _count(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ArgumentTypeError(f"expected a whole number above 0, but got {value!r}")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ArgumentTypeError(f"expected seconds above 0, but got {value!r}")
    return seconds
