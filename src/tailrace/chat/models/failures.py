"""What went wrong at a provider, in words for the user: no keys, no stacks, no more of an address than its host."""

from __future__ import annotations

import math
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
from pydantic_ai import exceptions as vendor

from .base import ModelError
from .spec import PROVIDERS, VARIABLE, ModelSpec


class _Words(NamedTuple):
    code: str
    status: int
    message: str


BROKEN_OFF = _Words("model_truncated", 502, "{host} broke off before the end of the reply")

# The first class that fits decides, so the narrow ones are above.
FAILURES: dict[type[BaseException], _Words] = {
    vendor.ModelNotFoundError: _Words(
        "model_not_found",
        502,
        "{host} has no model {name}: --model or {variable} names another one, and {address} another server",
    ),
    vendor.ModelAuthenticationError: _Words("model_unauthorized", 502, "{host} does not accept {credentials}"),
    vendor.ModelContextWindowExceededError: _Words(
        "context_too_long", 413, "the conversation is longer than the model {name} can read"
    ),
    vendor.ModelRequestRejectedError: _Words("model_error", 502, "{host} did not accept the request"),
    vendor.ModelQuotaExceededError: _Words("model_rate_limited", 503, "the quota or the credit at {host} is used up"),
    vendor.ModelRateLimitError: _Words("model_rate_limited", 503, "{host} is asked too often"),
    vendor.ModelUnavailableError: _Words("model_unavailable", 503, "{host} is not available at the moment"),
    vendor.ModelServerError: _Words("model_error", 502, "{host} failed"),
    vendor.ModelConnectionError: _Words("model_unavailable", 503, "there is no connection to {host}"),
    httpx2.TransportError: _Words("model_unavailable", 503, "there is no connection to {host}"),
    vendor.UnexpectedModelBehavior: BROKEN_OFF,  # raised for a stream without anything in it
}
UNKNOWN = _Words("model_error", 502, "the model {name} failed")
TOO_SLOW = _Words("model_unavailable", 503, "{host} was silent for {seconds} seconds")

# How a reply may end, in pydantic-ai's words, besides `stop`.
ENDINGS: dict[str | None, _Words] = {
    "length": _Words("model_truncated", 502, "the model {name} reached the length that a reply may have"),
    "content_filter": _Words("model_refused", 422, "the model {name} refuses to answer this"),
    None: BROKEN_OFF,
}
ODD_ENDING = _Words("model_error", 502, "the model {name} ended its reply for no reason that fits a chat")
NOTHING = _Words("model_error", 502, "the model {name} answered without a word")

# Refusals that are said as an HTTP error.
REFUSALS = {"content_filter", "content_policy_violation"}


class Failures:
    """Makes each of a model's failures a ModelError. `seconds` is how long it may be silent."""

    def __init__(self, spec: ModelSpec, seconds: float) -> None:
        provider = PROVIDERS[spec.provider]
        self._facts = {
            "variable": VARIABLE,
            "address": provider.address,
            "name": spec.name,
            "host": urlsplit(spec.base_url).hostname,
            "seconds": f"{seconds:g}",
            "credentials": f"the key in {' or '.join(provider.keys)}" if provider.keys else "the request",
        }

    def of_exception(self, error: Exception, *, began: bool) -> ModelError:
        """`began` says that some of the reply had come; then a lost connection has cut it."""
        if isinstance(error, TimeoutError):
            return self._error(TOO_SLOW)
        if getattr(error, "provider_error_code", None) in REFUSALS:
            return self._error(ENDINGS["content_filter"])
        if _cut(error, began=began):
            return self._error(BROKEN_OFF)
        words = next((words for kind, words in FAILURES.items() if isinstance(error, kind)), UNKNOWN)
        wait = getattr(error, "retry_after", None)
        return self._error(words, f", and wants {math.ceil(wait)} seconds of rest" if wait else "")

    def of_ending(self, finish_reason: str | None, *, began: bool) -> ModelError | None:
        """None if the reply came to a good end."""
        if finish_reason == "stop":
            return None if began else self._error(NOTHING)
        return self._error(ENDINGS.get(finish_reason, ODD_ENDING))

    def _error(self, words: _Words, more: str = "") -> ModelError:
        return ModelError(words.message.format(**self._facts) + more, code=words.code, status=words.status)


def _cut(error: Exception, *, began: bool) -> bool:
    """Whether the reply was not whole when its connection or its stream ended."""
    if isinstance(error, vendor.ModelConnectionError | httpx2.TransportError):
        return began
    # pydantic-ai's own verdict, of no category and on nothing that a vendor's library raised: no finish reason came.
    return type(error) is vendor.ModelAPIError and error.__cause__ is None
