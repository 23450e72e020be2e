"""How Google's Gemini API spells a reply."""

from __future__ import annotations

from typing import Any

from tests.chat.models.upstream import Dialect, Refuse, data


def _chunk(part: dict[str, Any], finish_reason: str | None = None) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
    if finish_reason is not None:
        candidate["finishReason"] = finish_reason
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 11, "totalTokenCount": 18}
    return data({**_HEAD, "candidates": [candidate], "usageMetadata": usage})


_HEAD = {"modelVersion": "gemini-of-the-test", "responseId": "r-1"}


def _error(code: int, status: str, message: str, **detail: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": [detail] if detail else []}}


def _sides(body: Any) -> list[tuple[str, str]]:
    names = {"user": "user", "model": "assistant"}
    return [(names[content["role"]], content["parts"][0]["text"]) for content in body["contents"]]


_BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
_QUOTA = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}

GOOGLE = Dialect(
    model="gemini-of-the-test",
    environment=lambda url: {"GOOGLE_GEMINI_BASE_URL": url, "GOOGLE_API_KEY": "sk-test"},
    path="/v1beta/models/gemini-of-the-test:streamGenerateContent",
    sides=_sides,
    begin=b"",
    text=lambda text: _chunk({"text": text}),
    thought=lambda text: _chunk({"text": text, "thought": True}),
    ends={
        "whole": _chunk({"text": ""}, "STOP"),
        "length": _chunk({"text": ""}, "MAX_TOKENS"),
        "refused": _chunk({"text": ""}, "SAFETY"),
        "odd": _chunk({"text": ""}, "MALFORMED_FUNCTION_CALL"),
        "blocked": data({**_HEAD, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    },
    refusals={
        "unauthorized": Refuse(400, _error(400, "INVALID_ARGUMENT", "API key sk-test not valid.", **_BAD_KEY)),
        "unknown": Refuse(404, _error(404, "NOT_FOUND", "models/gemini-of-the-test is not found")),
        "limited": Refuse(429, _error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted"), {"retry-after": "7"}),
        "spent": Refuse(429, _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", **_QUOTA)),
        "failed": Refuse(500, _error(500, "INTERNAL", "An internal error has occurred")),
        "overloaded": Refuse(503, _error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")),
        "too long": Refuse(
            400,
            _error(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed"),
        ),
        "rejected": Refuse(400, _error(400, "INVALID_ARGUMENT", "Invalid value at 'contents'")),
    },
    error=data(_error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")),
)
