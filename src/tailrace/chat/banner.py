"""What a chat server says of itself as it starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich.panel import Panel

from .frames import frame

logger = logging.getLogger("tailrace.chat")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What there is to say. `address` is a URL without a path; `database` must not have a password.

    - `note`: a sentence on how the model was chosen, if there is one.
    - `stop`: how the server is stopped.
    """

    model: str
    framework: str
    address: str
    database: str
    status: str = "ready"
    note: str | None = None
    stop: str = "press Ctrl-C"


def banner(facts: ServerFacts) -> Panel:
    """The facts in a frame."""
    return frame("tailrace chat server", _rows(facts), "cyan")


def announce(facts: ServerFacts) -> None:
    """Log the facts as one record; on a terminal it becomes the banner."""
    logger.info(
        "chat server %s on %s with %s",
        facts.status,
        facts.address,
        facts.model,
        extra={"event": "server_started", **asdict(facts)},
    )


def _rows(facts: ServerFacts) -> Iterator[tuple[str, str]]:
    yield "Model", facts.model
    yield "Framework", facts.framework
    yield "Multi-turn", "yes, sessions keep the whole conversation"
    yield "Streaming", "yes, and a lost connection resumes"
    yield "Address", facts.address
    yield "Demo page", f"{facts.address}/demo"
    yield "API", f"{facts.address}/docs"
    yield "Database", facts.database
    yield "Status", facts.status
    if facts.note:
        yield "Note", facts.note
    yield "To stop", facts.stop
