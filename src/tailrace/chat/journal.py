"""Log the server's start and the life of each stream, as records with attributes.

`logs.py` formats the records.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Literal
from unicodedata import category

import fastapi

from .store import Turn

logger = logging.getLogger("tailrace.chat")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request. Tasks that the request starts inherit it."""

session_id: ContextVar[str | None] = ContextVar("session_id", default=None)
"""The id of the current request's session."""

FRAMEWORK = f"FastAPI {fastapi.__version__}, HTTP streaming"

EXCERPT = 60
"""The most characters of a message or a chunk that are logged."""

LogChunks = Literal["some", "all"]

LOGGED: dict[LogChunks, Callable[[int], bool]] = {
    "some": lambda number: number == 1 or number % 10 == 0,
    "all": lambda number: True,
}
"""Functions that choose the chunks to log besides the last, by setting."""

LEVELS = {"failed": logging.WARNING, "interrupted": logging.WARNING}


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The facts that a server logs when it starts.

    - `address`: the server's URL, without a path.
    - `database`: the database's URL, without its password.
    - `streams`: the URL of the streams, without its password, if other processes can share them.
    - `note`: a sentence on the choice of the model, if there is one.
    - `stop`: how to stop the server.
    """

    model: str
    address: str
    database: str
    framework: str = FRAMEWORK
    streams: str | None = None
    status: str = "ready"
    note: str | None = None
    stop: str = "press Ctrl-C"


def announce(facts: ServerFacts) -> None:
    """Log the facts as one record. On a terminal, it becomes the banner."""
    logger.info(
        "chat server %s on %s with %s",
        facts.status,
        facts.address,
        facts.model,
        extra={"event": "server_started", **asdict(facts)},
    )


class Journal:
    """Logs the life of each stream.

    Each record has `event` (`stream_started`, `stream_chunk` or `stream_ended`), `request_id`, `session_id` and
    `stream_id`.
    """

    def __init__(self, chunks: LogChunks = "some") -> None:
        self.logs_chunk = LOGGED[chunks]

    def started(self, turn: Turn, client: str | None, active_streams: int, transfer: str = "chunked") -> None:
        """Log the beginning of a turn. `client` is the client's address; `active_streams` includes the new one."""
        excerpt = excerpt_of(turn.message)
        logger.info(
            "stream started for %s: %s",
            client or "unknown",
            excerpt,
            extra=_named("stream_started", turn)
            | {
                "client": client,
                "model": turn.model,
                "excerpt": excerpt,
                "active_streams": active_streams,
                "transfer_encoding": transfer,
            },
        )

    def chunk(self, turn: Turn, number: int, text: str, seconds: float, *, is_final: bool = False) -> None:
        """Log a chunk. `seconds` is the time since the start of its turn."""
        excerpt = excerpt_of(text)
        logger.info(
            'Chunk #%d: "%s"%s',
            number,
            excerpt,
            " (final)" if is_final else "",
            extra=_named("stream_chunk", turn)
            | {"chunk_number": number, "excerpt": excerpt, "is_final": is_final, "seconds": round(seconds, 6)},
        )

    def ended(self, turn: Turn, active_streams: int) -> None:
        """Log the end of a turn. `active_streams` no longer includes its stream."""
        logger.log(
            LEVELS.get(turn.state, logging.INFO),
            "stream %s: %s chunks in %.3f s",
            turn.state,
            f"{turn.chunks:,}",
            turn.seconds,
            extra=_named("stream_ended", turn)
            | {
                "model": turn.model,
                "status": turn.state,
                "chunks": turn.chunks,
                "seconds": turn.seconds,
                "active_streams": active_streams,
                "error_code": turn.error_code,
                "error_message": turn.error_message,
            },
        )


def excerpt_of(text: str) -> str:
    """Return the beginning of a text on one line, with control characters escaped."""
    # Cut first, because the text may be long.
    line = printable(" ".join(text[: 8 * EXCERPT].split()))
    whole = len(line) <= EXCERPT and len(text) <= 8 * EXCERPT
    return line if whole else line[: EXCERPT - 1].rstrip() + "…"


def _named(event: str, turn: Turn) -> dict[str, Any]:
    return {
        "event": event,
        "request_id": request_id.get(),
        "session_id": turn.session_id,
        "stream_id": turn.stream_id,
    }


# Controls (which begin escape codes), invisible formatting (which can reverse text), surrogates, and line breaks.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINER = "\u200d"  # joins the parts of an emoji

HIDDEN = "***"
# A password may have characters that should be percent-encoded. A run ends at the next URL, for the sake of speed, too.
_SECRETS = re.compile(r"\b(?:sk-|AIza)[\w-]+|(?<=://)(?:(?!://)[^\s\"'<>])+(?=@)")


def printable(text: str) -> str:
    r"""Return the text on one line, with an escape like `\x1b` for each character that could control a terminal."""
    if text.isprintable():
        return text
    return "".join(_escaped(char) if category(char) in _HARMFUL and char != _JOINER else char for char in text)


def without_secrets(text: str) -> str:
    """Return a text with `***` for what looks like a key, and for the users and passwords of URLs."""
    return _SECRETS.sub(HIDDEN, text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
