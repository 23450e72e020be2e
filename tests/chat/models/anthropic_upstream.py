"""How Anthropic spells a reply."""

from __future__ import annotations

from typing import Any

from tests.chat.models.upstream import Dialect, Refuse, data


def _event(kind: str, **fields: Any) -> bytes:
    return data({"type": kind, **fields}, event=kind)


def _block(index: int, start: dict[str, Any], delta: dict[str, Any]) -> bytes:
    return (
        _event("content_block_start", index=index, content_block=start)
        + _event("content_block_delta", index=index, delta=delta)
        + _event("content_block_stop", index=index)
    )


def _end(stop_reason: str) -> bytes:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return _event("message_delta", delta=delta, usage={"output_tokens": 11}) + _event("message_stop")


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def _sides(body: Any) -> list[tuple[str, str]]:
    return [(message["role"], message["content"][0]["text"]) for message in body["messages"]]


_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-of-the-test",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 1},
}

ANTHROPIC = Dialect(
    model="claude-of-the-test",
    environment=lambda url: {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-test"},
    path="/v1/messages",
    sides=_sides,
    begin=_event("message_start", message=_MESSAGE) + _event("ping"),
    text=lambda text: _block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": text}),
    thought=lambda text: _block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": text},
    ),
    ends={
        "whole": _end("end_turn"),
        "length": _end("max_tokens"),
        "refused": _end("refusal"),
        "odd": _end("tool_use"),
    },
    refusals={
        "unauthorized": Refuse(401, _error("authentication_error", "invalid x-api-key sk-test")),
        "unknown": Refuse(404, _error("not_found_error", "model: claude-of-the-test")),
        "limited": Refuse(429, _error("rate_limit_error", "rate limit"), {"retry-after": "7"}),
        "spent": Refuse(400, _error("invalid_request_error", "Your credit balance is too low")),
        "failed": Refuse(500, _error("api_error", "Internal server error")),
        "overloaded": Refuse(529, _error("overloaded_error", "Overloaded")),
        "too long": Refuse(400, _error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")),
        "rejected": Refuse(400, _error("invalid_request_error", "messages: at least one message is required")),
    },
    error=data(_error("overloaded_error", "Overloaded"), event="error"),
)
