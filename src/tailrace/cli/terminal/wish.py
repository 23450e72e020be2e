"""What a command line of `tailrace chat` asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for. `message` is None for a chat."""

    url: str
    key: str | None
    session_id: str | None
    message: str | None
    json: bool
