"""Format log records: as one JSON object per line for programs, and as frames and plain lines for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from rich.box import ROUNDED
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .journal import printable, request_id, session_id

LogFormat = Literal["auto", "rich", "json"]

LOGGERS = ("tailrace", "uvicorn")

# uvicorn logs this for each body that is cut short on purpose. The request's own record has more facts.
BROKEN_OFF = "ASGI callable returned without completing response."

# The engine logs this for each failed stream. The record of the turn's end has the same facts and more.
FAILED = "log %s failed: %s (%s)"
STREAMS = "/chat/stream/"

# The attributes that every record has. All others come from `extra`.
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

WIDTH = 80
"""The width of a frame in columns, if the terminal is wide enough."""

STATE_STYLES = {"complete": "green", "stopped": "yellow", "failed": "red", "interrupted": "magenta"}
LEVEL_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


def configure_logging(format: LogFormat = "auto", stream: TextIO | None = None) -> logging.Handler:
    """Make tailrace and uvicorn log to a stream, by default stderr, at level INFO. `auto` is `rich` on a terminal.

    Start uvicorn with `log_config=None`, otherwise it overrides this configuration. uvicorn's access log is off,
    because the server logs each finished request itself.
    """
    stream = stream or sys.stderr
    if format == "auto":
        format = "rich" if stream.isatty() else "json"
    handler: logging.Handler = RichHandler(stream) if format == "rich" else JsonHandler(stream)
    handler.addFilter(_is_news)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)  # an earlier server in this process may have set it
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False
    return handler


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of ASCII JSON.

    Its members are `timestamp`, `level`, `logger`, `message`, `request_id`, `session_id`, then those from `extra`.
    """

    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, Any] = {
            "timestamp": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            "session_id": session_id.get(),
        }
        members |= {name: value for name, value in extras(record).items() if value is not None}
        if exception := _exception(record, self):
            members["exception"] = exception
        return json.dumps(members, default=str, separators=(",", ":"))


class JsonHandler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter())


class RichHandler(logging.Handler):
    """Writes frames for the banner and for the start and end of streams, and plain lines that copy well for the rest.

    It uses no colours if the stream is not a terminal or if NO_COLOR is set.
    """

    def __init__(self, stream: TextIO, *, width: int | None = None) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())
        self._console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            render = RENDERERS.get(getattr(record, "event", ""))
            if render is None:
                self._line(_line(record, _exception(record, self.formatter)))
            else:
                self._framed(render(record))
        except Exception:  # as in the standard library's handlers, because logging must not break the program
            self.handleError(record)

    def _framed(self, what: RenderableType) -> None:
        if isinstance(what, Text):
            self._line(what)
        else:
            self._console.print(what, width=min(WIDTH, self._console.width))

    def _line(self, line: Text) -> None:
        # Let the terminal wrap the line, so that users copy it as one line.
        self._console.print(line, soft_wrap=True)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return the attributes that come from `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _ORDINARY}


def _exception(record: logging.LogRecord, formatter: logging.Formatter | None) -> str:
    """Return the traceback. `exc_text` has one that was formatted before."""
    if record.exc_info and formatter is not None:
        return formatter.formatException(record.exc_info)
    return record.exc_text or ""


def _is_news(record: logging.LogRecord) -> bool:
    if record.name == "uvicorn.error":
        return record.msg != BROKEN_OFF
    return not (record.name == "tailrace" and record.msg == FAILED and record.getMessage().startswith(f"log {STREAMS}"))


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _clock(record: logging.LogRecord) -> str:
    return _moment(record).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _line(record: logging.LogRecord, exception: str) -> Text:
    line = Text().append(f"{_clock(record)} ", style="dim")
    if record.levelno != logging.INFO:
        line.append(f"{record.levelname.lower()} ", style=LEVEL_STYLES.get(record.levelname))
    line.append(printable(record.getMessage()))
    for part in exception.splitlines():
        line.append("\n" + printable(part))
    return line


def frame(title: str, rows: Iterable[tuple[str, object]], style: str) -> Panel:
    """Return a panel of names and values. Values are text, never markup. Long values continue on the next line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(printable(str(value)), overflow="fold"))
    heading = Text(printable(title), style=f"bold {style}")
    return Panel(grid, title=heading, title_align="left", border_style=style, box=ROUNDED, width=None, padding=(0, 1))


def _server_started(record: logging.LogRecord) -> RenderableType:
    facts: Mapping[str, Any] = vars(record)
    rows = [
        ("Model", facts["model"]),
        ("Framework", facts["framework"]),
        ("Multi-turn", "yes, sessions keep the whole conversation"),
        ("Streaming", "yes, and a lost connection resumes"),
        ("Address", facts["address"]),
        ("Demo page", f"{facts['address']}/demo"),
        ("API", f"{facts['address']}/docs"),
        ("Database", facts["database"]),
        *([("Streams", facts["streams"])] if facts["streams"] else []),
        ("Status", facts["status"]),
        *([("Note", facts["note"])] if facts["note"] else []),
        ("To stop", facts["stop"]),
    ]
    return frame("tailrace chat server", rows, "cyan")


def _stream_started(record: logging.LogRecord) -> RenderableType:
    facts = extras(record)
    rows = [
        ("Client", facts["client"] or "unknown"),
        ("Session", facts["session_id"]),
        ("Stream", facts["stream_id"]),
        ("Message", facts["excerpt"]),
        ("Model", facts["model"]),
        ("Active streams", facts["active_streams"]),
        ("Transfer-Encoding", facts["transfer_encoding"]),
    ]
    return frame(f"{_clock(record)} stream started", rows, "cyan")


def _stream_chunk(record: logging.LogRecord) -> RenderableType:
    session = printable(record.__dict__["session_id"])[:8]
    return Text(f"{_clock(record)} {session} {record.getMessage()}", style="dim")


def _stream_ended(record: logging.LogRecord) -> RenderableType:
    facts = extras(record)
    rows = [
        ("Session", facts["session_id"]),
        ("Chunks", f"{facts['chunks']:,}"),
        ("Time", f"{facts['seconds']:.3f} s"),
        ("Active streams", facts["active_streams"]),
        ("Status", facts["status"]),
    ]
    if facts["error_code"]:
        rows.append(("Error", f"{facts['error_code']}: {facts['error_message']}"))
    return frame(f"{_clock(record)} stream {facts['status']}", rows, STATE_STYLES.get(facts["status"], "white"))


RENDERERS: dict[str, Callable[[logging.LogRecord], RenderableType]] = {
    "server_started": _server_started,
    "stream_started": _stream_started,
    "stream_chunk": _stream_chunk,
    "stream_ended": _stream_ended,
}
"""Functions that format a record as a frame, by its `event`. All other records are lines."""
