"""The life of each stream, told as log records: its start, how far it is, and its end."""

from __future__ import annotations

import logging
from typing import Any

from .printable import printable
from .requests import request_id
from .sessions import Turn

logger = logging.getLogger("tailrace.chat")

EXCERPT = 60
"""How many characters of a message are logged, at most."""

LEVELS = {"failed": logging.WARNING, "interrupted": logging.WARNING}


class Journal:
    """One for a server. What it says beside its sentence is in the record's attributes; the reply's text is nowhere.

    Each record has `event` (`stream_started`, `stream_chunks` or `stream_ended`), `request_id`, `session_id` and
    `stream_id`.
    """

    def started(self, turn: Turn, client: str | None, active_streams: int) -> None:
        """A turn begins; this stream is among the active ones. `client` is the address that asked."""
        excerpt = excerpt_of(turn.message)
        logger.info(
            "stream started for %s: %s",
            client or "unknown",
            excerpt,
            extra=_named("stream_started", turn)
            | {"client": client, "model": turn.model, "excerpt": excerpt, "active_streams": active_streams},
        )

    def chunks(self, turn: Turn, number: int, seconds: float) -> None:
        """So many chunks have come, so long after the start of the turn. Said of the first, and of powers of ten."""
        if is_milestone(number):
            logger.info(
                "%s after %.3f s",
                "first chunk" if number == 1 else f"{number:,} chunks",
                seconds,
                extra=_named("stream_chunks", turn) | {"chunks": number, "seconds": round(seconds, 6)},
            )

    def ended(self, turn: Turn, active_streams: int) -> None:
        """A turn ended, as it says itself; this stream is no longer among the active ones."""
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


def is_milestone(number: int) -> bool:
    """1, 10, 100 and so on."""
    # Called for every chunk, so the usual answer comes first.
    if number % 10:
        return number == 1
    while number % 10 == 0:
        number //= 10
    return number == 1


def excerpt_of(message: str) -> str:
    """The beginning of a message on one line, with nothing in it that a terminal would obey."""
    # A message may be long; its first words are among its first characters.
    line = printable(" ".join(message[: 8 * EXCERPT].split()))
    whole = len(line) <= EXCERPT and len(message) <= 8 * EXCERPT
    return line if whole else line[: EXCERPT - 1].rstrip() + "…"


def _named(event: str, turn: Turn) -> dict[str, Any]:
    return {
        "event": event,
        "request_id": request_id.get(),
        "session_id": turn.session_id,
        "stream_id": turn.stream_id,
    }
