"""How OpenAI, and every server that speaks its chat completions, spells a reply."""

from __future__ import annotations

from typing import Any

from tests.chat.models.upstream import Dialect, Refuse, data


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return data({**_HEAD, "choices": [choice], "usage": None})


_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-of-the-test"}
_USAGE = data({**_HEAD, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}})
_DONE = b"data: [DONE]\n\n"


def _error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _sides(body: Any) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in body["messages"]]


OPENAI = Dialect(
    model="openai:gpt-of-the-test",
    environment=lambda url: {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sk-test"},
    path="/v1/chat/completions",
    sides=_sides,
    begin=_chunk({"role": "assistant", "content": ""}),
    text=lambda text: _chunk({"content": text}),
    thought=lambda text: _chunk({"reasoning_content": text}),
    ends={
        "whole": _chunk({}, "stop") + _USAGE + _DONE,
        "length": _chunk({}, "length") + _USAGE + _DONE,
        "refused": _chunk({}, "content_filter") + _USAGE + _DONE,
        "odd": _chunk({}, "tool_calls") + _USAGE + _DONE,
        "uncounted": _chunk({}, "stop") + _DONE,
    },
    refusals={
        "unauthorized": Refuse(
            401, _error("Incorrect API key provided: sk-test", "invalid_request_error", "invalid_api_key")
        ),
        "unknown": Refuse(404, _error("The model does not exist", "invalid_request_error", "model_not_found")),
        "limited": Refuse(429, _error("Rate limit reached", "requests", "rate_limit_exceeded"), {"retry-after": "7"}),
        "spent": Refuse(429, _error("You exceeded your quota", "insufficient_quota", "insufficient_quota")),
        "failed": Refuse(500, _error("The server had an error", "server_error", None)),
        "overloaded": Refuse(503, _error("The engine is overloaded", "server_error", "overloaded")),
        "too long": Refuse(
            400, _error("maximum context length is 9 tokens", "invalid_request_error", "context_length_exceeded")
        ),
        "rejected": Refuse(400, _error("Unsupported value", "invalid_request_error", "unsupported_value")),
    },
    error=data(_error("The server is overloaded", "server_error", "server_is_overloaded")),
)

# The same words from a server of one's own, which wants no key.
OLLAMA = Dialect(
    **{
        **vars(OPENAI),
        "model": "ollama:llama-of-the-test:8b",
        "environment": lambda url: {"OLLAMA_BASE_URL": f"{url}/v1"},
    }
)
