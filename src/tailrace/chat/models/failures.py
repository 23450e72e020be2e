"""Turn a provider's failures into one sentence for the user, and log their causes.

Users never see keys or stack traces. They see only the host of an address.
"""

from __future__ import annotations

import logging
import math
import re
import traceback
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
from pydantic_ai import exceptions as vendor

from ..journal import HIDDEN, printable, without_secrets
from .base import ModelError
from .spec import PROVIDERS, VARIABLE, ModelSpec
from .upstream import Proxy, UpstreamFault

logger = logging.getLogger("tailrace.chat.models")


class _Words(NamedTuple):
    code: str
    message: str


BROKEN_OFF = _Words("model_truncated", "{host} broke off before the end of the reply")
TOO_LONG = _Words("context_too_long", "the conversation is longer than the model {name} can read")
NO_CONNECTION = _Words("model_unavailable", "cannot connect to {host}{proxy}")

# The first class that matches decides, so subclasses come before their base classes.
FAILURES: dict[type[BaseException], _Words] = {
    vendor.ModelNotFoundError: _Words(
        "model_not_found",
        "{host} has no model {name}: name another one by --model or {variable}, or another server by {address}",
    ),
    vendor.ModelAuthenticationError: _Words("model_unauthorized", "{host} does not accept {credentials}"),
    vendor.ModelContextWindowExceededError: TOO_LONG,
    vendor.ModelRequestRejectedError: _Words("model_error", "{host} did not accept the request"),
    vendor.ModelQuotaExceededError: _Words("model_rate_limited", "the quota or the credit at {host} is used up"),
    vendor.ModelRateLimitError: _Words("model_rate_limited", "{host} is getting too many requests"),
    vendor.ModelUnavailableError: _Words("model_unavailable", "{host} is not available at the moment"),
    vendor.ModelServerError: _Words("model_error", "{host} failed"),
    vendor.ModelConnectionError: NO_CONNECTION,
    httpx2.TransportError: NO_CONNECTION,
    vendor.UnexpectedModelBehavior: BROKEN_OFF,  # raised for an empty stream
}
UNKNOWN = _Words("model_error", "the model {name} failed")
NO_API = _Words("model_error", "{host} answers with {kind}, so it is not a model server: check {address}")
TOO_SLOW = _Words("model_unavailable", "{host} was silent for {seconds} seconds")
FAULT = _Words("model_error", "{host} {fault}")

# The ends of a reply besides `stop`, by pydantic-ai's finish reasons.
ENDINGS: dict[str | None, _Words] = {
    "length": _Words("model_truncated", "the model {name} reached the maximum length of a reply"),
    "content_filter": _Words("model_refused", "the model {name} refuses to answer this"),
    None: BROKEN_OFF,
}
ODD_ENDING = _Words("model_error", "the model {name} ended its reply for a reason that does not fit a chat")
NOTHING = _Words("model_error", "the model {name} answered without any text")
ONLY_THOUGHTS = _Words("model_error", "the model {name} thought, but did not answer")

# For these failures, waiting helps, so the message includes how long to wait.
PASSING = {"model_rate_limited", "model_unavailable"}

# The error codes of servers that refuse content with an HTTP error.
REFUSALS = {"content_filter", "content_policy_violation"}

# Servers have no common code for a conversation that is too long. Some have these codes and types,
OVERFLOWS = {"context_length_exceeded", "exceed_context_size_error", "request_too_large"}
# and others only say it in these words.
_OVERFLOW = re.compile(
    r"""
      maximum\ context\ length                          # OpenAI, vLLM, DeepSeek, Mistral, OpenRouter
    | exceed\w*\ [^.]{0,80}\bcontext\ (size|length|window|limit)    # llama.cpp, Ollama, OpenAI, Anthropic
    | context\ (size|length|window)\ [^.]{0,40}exceed               # llama.cpp in mid-reply, MiniMax
    | (reached|than\ the|loaded\ with)\ context\ length             # LM Studio, in mid-reply and before it
    | than\ the\ (model's|maximum\ model)\ (context\ )?length       # SGLang, vLLM
    | context\ length\ is\ only | too\ long\ to\ fit                # vLLM
    | prompt\ (is\ )?too\ long | input\ is\ too\ long               # Anthropic, Ollama, Bedrock
    | maximum\ prompt\ length | prompt\ token\ count                # xAI, GitHub Copilot
    | exceeds\ the\ maximum\ number\ of\ tokens                     # Gemini
    | exceeded\ model\ token\ limit                                 # Moonshot
    | `inputs`\ (tokens|must\ have)                                 # Hugging Face TGI
    | reduce\ the\ length\ of\ the\ (messages|input|prompt)         # Groq
    """,
    re.IGNORECASE | re.VERBOSE,
)


class Failures:
    """Turns each failure of a model into a ModelError, and logs its cause. `seconds` is the bound of its silence."""

    def __init__(self, spec: ModelSpec, seconds: float, proxy: Proxy | None) -> None:
        provider = PROVIDERS[spec.provider]
        self._causes = Causes(spec)
        self._facts = {
            "variable": VARIABLE,
            "address": provider.address,
            "name": spec.name,
            "host": urlsplit(spec.base_url).hostname,
            "proxy": f" through the proxy in {proxy.variable}" if proxy else "",
            "seconds": f"{seconds:g}",
            "credentials": f"the key in {' or '.join(provider.keys)}" if provider.keys else "the request",
        }

    def of_exception(self, error: Exception, response: httpx2.Response | None, *, began: bool) -> ModelError:
        """Return the error for the user, and log the cause.

        `response` is the provider's response, if there was one. `began` is True if part of the reply had arrived. If
        so, a lost connection means that the reply is incomplete.
        """
        words = _words(error, began=began)
        kind = _foreign(response) if not began else None
        if kind is not None and words in (BROKEN_OFF, UNKNOWN):
            words = NO_API
        self._causes.log(error, response, unknown=words is UNKNOWN)
        wait = getattr(error, "retry_after", None) if words.code in PASSING else None
        more = f"; it asks for a pause of {math.ceil(wait)} seconds" if wait else ""
        return self._error(words, more, kind=kind, fault=str(error))

    def of_ending(self, finish_reason: str | None, *, answered: bool, thought: bool) -> ModelError | None:
        """Return the error for a reply's end, or None if the reply is complete."""
        if finish_reason == "stop":
            return None if answered else self._error(ONLY_THOUGHTS if thought else NOTHING)
        return self._error(ENDINGS.get(finish_reason, ODD_ENDING))

    def _error(self, words: _Words, more: str = "", **facts: str | None) -> ModelError:
        return ModelError(words.message.format(**self._facts, **facts) + more, code=words.code)


def _words(error: Exception, *, began: bool) -> _Words:
    if isinstance(error, UpstreamFault):
        return FAULT
    if isinstance(error, TimeoutError):
        return TOO_SLOW
    if getattr(error, "provider_error_code", None) in REFUSALS:
        return ENDINGS["content_filter"]
    if _overflows(error):
        return TOO_LONG
    if _cut(error, began=began):
        return BROKEN_OFF
    return next((words for kind, words in FAILURES.items() if isinstance(error, kind)), UNKNOWN)


def _overflows(error: Exception) -> bool:
    """Tell whether the server calls the conversation too long, by an HTTP status or in its stream."""
    if not isinstance(error, vendor.ModelAPIError) or isinstance(
        error, vendor.ModelRateLimitError | vendor.ModelQuotaExceededError | vendor.ModelConnectionError
    ):
        return False
    if getattr(error, "status_code", None) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return True
    kinds = {error.provider_error_code, error.provider_error_type}
    return bool(OVERFLOWS & kinds) or _OVERFLOW.search(_said(error.body) or str(error)) is not None


def _cut(error: Exception, *, began: bool) -> bool:
    """Tell whether the connection or the stream ended before the reply was complete."""
    if isinstance(error, vendor.ModelConnectionError | httpx2.TransportError):
        return began
    # pydantic-ai raises this itself, without a cause, if no finish reason arrived. It has no class for that.
    return type(error) is vendor.ModelAPIError and error.__cause__ is None


def _foreign(response: httpx2.Response | None) -> str | None:
    """Return the media type of an answer that is neither a stream nor JSON, such as a web page at a wrong address."""
    if response is None or not response.is_success:
        return None
    kind: str = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return None if not kind or kind == "text/event-stream" or "json" in kind else kind


# Causes, for the server's operator

LONGEST = 1000
"""The most characters of a cause that are logged."""

SHORTEST_KEY = 8
"""The least characters of a real key. If a server needs no key, people set something like `OPENAI_API_KEY=none`."""


class Causes:
    """Logs the cause of each failure of one model once, without keys."""

    def __init__(self, spec: ModelSpec) -> None:
        self._name = spec.name
        secrets = (spec.key, urlsplit(spec.base_url).password)
        self._secrets = [secret for secret in secrets if secret and len(secret) >= SHORTEST_KEY]

    def log(self, error: Exception, response: httpx2.Response | None, *, unknown: bool) -> None:
        """Log the class, the HTTP status and the vendor's text, and also the traceback if the failure is `unknown`."""
        if not logger.isEnabledFor(logging.WARNING):
            return
        status = getattr(error, "status_code", None) or (response and response.status_code)
        name = type(error).__name__ + (f" (HTTP {status})" if status else "")
        line = ": ".join(filter(None, (name, "; ".join(_texts(error)))))
        # The message and the traceback may quote a key, and logging would format `exc_info` without hiding it.
        record = logger.makeRecord(
            logger.name,
            logging.WARNING,
            __file__,
            0,
            "the model %s failed: %s",
            (self._name, printable(self._hide(line)[:LONGEST])),
            None,
        )
        if unknown:
            record.exc_text = self._hide("".join(traceback.format_exception(error)).rstrip())
        logger.handle(record)

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return without_secrets(text)  # they need not be this server's own: a proxy may quote its key


def _texts(error: Exception) -> list[str]:
    """Return the vendor's message or, without one, the messages of the chain of exceptions, each on one line."""
    said = _said(getattr(error, "body", None))
    lines: list[str] = []
    for text in [said] if said else [str(each) for each in _chain(error)]:
        line = " ".join(text.split())
        if not any(line in before for before in lines):  # a library's exception often repeats its cause
            lines.append(line)
    return [line for line in lines if line]


def _said(body: object) -> str:
    """Return the message in the body of an error, or the whole body if it has none."""
    if isinstance(body, Mapping):
        message = body.get("message") or body.get("error")
        return message if isinstance(message, str) else _said(message) or str(body)
    return str(body or "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
