"""What went wrong at a provider, in words for the user: no keys, no stacks, no more of an address than its host."""

from __future__ import annotations

import math
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
from pydantic_ai import exceptions as vendor

from .base import ModelError
from .causes import Causes
from .spec import PROVIDERS, VARIABLE, ModelSpec


class _Words(NamedTuple):
    code: str
    message: str


BROKEN_OFF = _Words("model_truncated", "{host} broke off before the end of the reply")

# The first class that fits decides, so the narrow ones are above.
FAILURES: dict[type[BaseException], _Words] = {
    vendor.ModelNotFoundError: _Words(
        "model_not_found",
        "{host} has no model {name}: --model or {variable} names another one, and {address} another server",
    ),
    vendor.ModelAuthenticationError: _Words("model_unauthorized", "{host} does not accept {credentials}"),
    vendor.ModelContextWindowExceededError: _Words(
        "context_too_long", "the conversation is longer than the model {name} can read"
    ),
    vendor.ModelRequestRejectedError: _Words("model_error", "{host} did not accept the request"),
    vendor.ModelQuotaExceededError: _Words("model_rate_limited", "the quota or the credit at {host} is used up"),
    vendor.ModelRateLimitError: _Words("model_rate_limited", "{host} is asked too often"),
    vendor.ModelUnavailableError: _Words("model_unavailable", "{host} is not available at the moment"),
    vendor.ModelServerError: _Words("model_error", "{host} failed"),
    vendor.ModelConnectionError: _Words("model_unavailable", "there is no connection to {host}"),
    httpx2.TransportError: _Words("model_unavailable", "there is no connection to {host}"),
    vendor.UnexpectedModelBehavior: BROKEN_OFF,  # raised for a stream without anything in it
}
UNKNOWN = _Words("model_error", "the model {name} failed")
NO_API = _Words("model_error", "{host} answers with {kind}, which no API does: {address} names the address")
TOO_SLOW = _Words("model_unavailable", "{host} was silent for {seconds} seconds")

# How a reply may end, in pydantic-ai's words, besides `stop`.
ENDINGS: dict[str | None, _Words] = {
    "length": _Words("model_truncated", "the model {name} reached the length that a reply may have"),
    "content_filter": _Words("model_refused", "the model {name} refuses to answer this"),
    None: BROKEN_OFF,
}
ODD_ENDING = _Words("model_error", "the model {name} ended its reply for no reason that fits a chat")
NOTHING = _Words("model_error", "the model {name} answered without a word")

# What passes with time, so that it helps to know how much.
PASSING = {"model_rate_limited", "model_unavailable"}

# Refusals that are said as an HTTP error.
REFUSALS = {"content_filter", "content_policy_violation"}


class Failures:
    """Makes each of a model's failures a ModelError. `seconds` is how long it may be silent."""

    def __init__(self, spec: ModelSpec, seconds: float) -> None:
        provider = PROVIDERS[spec.provider]
        self._causes = Causes(spec)
        self._facts = {
            "variable": VARIABLE,
            "address": provider.address,
            "name": spec.name,
            "host": urlsplit(spec.base_url).hostname,
            "seconds": f"{seconds:g}",
            "credentials": f"the key in {' or '.join(provider.keys)}" if provider.keys else "the request",
        }

    def of_exception(self, error: Exception, response: httpx2.Response | None, *, began: bool) -> ModelError:
        """The error for the user; the cause is logged.

        `response` is what had come of the provider's, and `began` says that some of the reply had come; then a lost
        connection has cut it.
        """
        words = _words(error, began=began)
        kind = _foreign(response) if not began else None
        if kind is not None and words in (BROKEN_OFF, UNKNOWN):
            words = NO_API
        self._causes.log(error, response, unknown=words is UNKNOWN)
        wait = getattr(error, "retry_after", None) if words.code in PASSING else None
        return self._error(words, f", and wants {math.ceil(wait)} seconds of rest" if wait else "", kind=kind)

    def of_ending(self, finish_reason: str | None, *, began: bool) -> ModelError | None:
        """None if the reply came to a good end."""
        if finish_reason == "stop":
            return None if began else self._error(NOTHING)
        return self._error(ENDINGS.get(finish_reason, ODD_ENDING))

    def _error(self, words: _Words, more: str = "", **facts: str | None) -> ModelError:
        return ModelError(words.message.format(**self._facts, **facts) + more, code=words.code)


def _words(error: Exception, *, began: bool) -> _Words:
    if isinstance(error, TimeoutError):
        return TOO_SLOW
    if getattr(error, "provider_error_code", None) in REFUSALS:
        return ENDINGS["content_filter"]
    if _cut(error, began=began):
        return BROKEN_OFF
    return next((words for kind, words in FAILURES.items() if isinstance(error, kind)), UNKNOWN)


def _cut(error: Exception, *, began: bool) -> bool:
    """Whether the reply was not whole when its connection or its stream ended."""
    if isinstance(error, vendor.ModelConnectionError | httpx2.TransportError):
        return began
    # pydantic-ai's own verdict, of no category and on nothing that a vendor's library raised: no finish reason came.
    return type(error) is vendor.ModelAPIError and error.__cause__ is None


def _foreign(response: httpx2.Response | None) -> str | None:
    """The media type of an answer that is neither a stream nor JSON: a page, where the address is a wrong one."""
    if response is None or not response.is_success:
        return None
    kind: str = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return None if not kind or kind == "text/event-stream" or "json" in kind else kind
