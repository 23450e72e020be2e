"""How a stream of chunks ends that has no outcomes: https://platform.openai.com/docs/api-reference/chat-streaming."""

from __future__ import annotations

from typing import Any

from ..events import Outcome
from ..wire.base import Frame


def read_failure(last: Frame | None) -> Outcome | None:
    """The error that the last event is, if it is one: `{"error": {"message": …, "code": …}}`, without an id."""
    if last is None or last.id is not None or not isinstance(last.data, dict) or last.data.keys() != {"error"}:
        return None
    error: Any = last.data["error"]
    if not isinstance(error, dict):
        return None
    return Outcome("error", _text(error.get("code") or error.get("type")), _text(error.get("message")))


def is_unfinished(last: Frame | None) -> bool:
    """Whether the last event is a chunk that more have to follow: no choice has a reason to be finished."""
    if last is None or not isinstance(last.data, dict) or last.data.get("object") != "chat.completion.chunk":
        return False
    choices = last.data.get("choices")
    return isinstance(choices, list) and bool(choices) and all(_goes_on(choice) for choice in choices)


def _goes_on(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("finish_reason") is None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
