"""How log records look: one JSON object a line, or frames and plain lines for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from .banner import ServerFacts, banner
from .frames import WIDTH, frame
from .printable import printable
from .requests import request_id, session_id

LogFormat = Literal["auto", "rich", "json"]

LOGGERS = ("tailrace", "uvicorn")

# uvicorn says this of each body that is broken off on purpose; the request's own record says it with more.
BROKEN_OFF = "ASGI callable returned without completing response."

# The engine's word for each failed stream; the record of the turn's end says the same, and more.
FAILED = "log %s failed: %s (%s)"
STREAMS = "/chat/stream/"

# What every record has; the rest of its attributes came by `extra`.
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

STATE_STYLES = {"complete": "green", "stopped": "yellow", "failed": "red", "interrupted": "magenta"}
LEVEL_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


def configure_logging(format: LogFormat = "auto", stream: TextIO | None = None) -> logging.Handler:
    """Let tailrace and uvicorn log to a stream, by default stderr, from INFO on; `auto` is `rich` on a terminal.

    uvicorn has to be told `log_config=None`, or it configures its own loggers over this. Its access log is silent,
    because a record of each finished request is here already.
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
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)  # an earlier server of this process may have set it
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False
    return handler


class JsonFormatter(logging.Formatter):
    """One line of ASCII: `timestamp`, `level`, `logger`, `message`, `request_id`, `session_id`, then what is extra."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "timestamp": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            "session_id": session_id.get(),
        }
        said |= {name: value for name, value in extras(record).items() if value is not None}
        if exception := _exception(record, self):
            said["exception"] = exception
        return json.dumps(said, default=str, separators=(",", ":"))


class JsonHandler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter())


class RichHandler(logging.Handler):
    """Frames for the start, the end and the banner; plain lines that copy well for the rest.

    Colours are left out where the stream is no terminal, or NO_COLOR is set.
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
        except Exception:  # as every handler of the standard library: logging must not break what it tells of
            self.handleError(record)

    def _framed(self, what: RenderableType) -> None:
        if isinstance(what, Text):
            self._line(what)
        else:
            self._console.print(what, width=min(WIDTH, self._console.width))

    def _line(self, line: Text) -> None:
        # The terminal wraps it, so that it is copied as one line.
        self._console.print(line, soft_wrap=True)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What was said beside the message, by `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _ORDINARY}


def _exception(record: logging.LogRecord, formatter: logging.Formatter | None) -> str:
    """Its traceback; `exc_text` is one that is text already."""
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
    return f"{_moment(record).astimezone():%H:%M:%S}"


def _line(record: logging.LogRecord, exception: str) -> Text:
    line = Text().append(f"{_clock(record)} ", style="dim")
    if record.levelno != logging.INFO:
        line.append(f"{record.levelname.lower()} ", style=LEVEL_STYLES.get(record.levelname))
    line.append(printable(record.getMessage()))
    for part in exception.splitlines():
        line.append("\n" + printable(part))
    return line


def _started(record: logging.LogRecord) -> RenderableType:
    said = extras(record)
    rows = [
        ("Client", said["client"] or "unknown"),
        ("Session", said["session_id"]),
        ("Stream", said["stream_id"]),
        ("Message", said["excerpt"]),
        ("Model", said["model"]),
        ("Active streams", said["active_streams"]),
    ]
    return frame(f"{_clock(record)} stream started", rows, "cyan")


def _chunks(record: logging.LogRecord) -> RenderableType:
    session = printable(record.__dict__["session_id"])[:8]
    return Text(f"{_clock(record)} {session} {record.getMessage()}", style="dim")


def _ended(record: logging.LogRecord) -> RenderableType:
    said = extras(record)
    rows = [
        ("Session", said["session_id"]),
        ("Chunks", f"{said['chunks']:,}"),
        ("Time", f"{said['seconds']:.3f} s"),
        ("Active streams", said["active_streams"]),
        ("Status", said["status"]),
    ]
    if said["error_code"]:
        rows.append(("Error", f"{said['error_code']}: {said['error_message']}"))
    return frame(f"{_clock(record)} stream {said['status']}", rows, STATE_STYLES.get(said["status"], "white"))


def _banner(record: logging.LogRecord) -> RenderableType:
    said: Mapping[str, Any] = vars(record)
    return banner(ServerFacts(**{name: said[name] for name in ServerFacts.__dataclass_fields__}))


RENDERERS: dict[str, Callable[[logging.LogRecord], RenderableType]] = {
    "stream_started": _started,
    "stream_chunks": _chunks,
    "stream_ended": _ended,
    "server_started": _banner,
}
"""How a record is shown by its `event`; all others are lines."""
