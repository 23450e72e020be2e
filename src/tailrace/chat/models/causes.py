"""Why a model failed, for whoever runs the server: once in the log, without keys."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import httpx2

from ..printable import printable
from .spec import ModelSpec

logger = logging.getLogger("tailrace.chat.models")

LONGEST = 1000
"""How many characters of a cause are logged, at most."""

HIDDEN = "***"

# How keys look that are not this server's own: those that a proxy holds, for one.
_KEYS = re.compile(r"\b(?:sk-|AIza)[\w-]+")


class Causes:
    """Tells the causes of one model's failures."""

    def __init__(self, spec: ModelSpec) -> None:
        self._name = spec.name
        self._secrets = [secret for secret in (spec.key, urlsplit(spec.base_url).password) if secret]

    def log(self, error: Exception, response: httpx2.Response | None, *, unknown: bool) -> None:
        """A line with the class, the HTTP status and the vendor's text; the traceback of what is `unknown`."""
        if not logger.isEnabledFor(logging.WARNING):
            return
        status = getattr(error, "status_code", None) or (response and response.status_code)
        name = type(error).__name__ + (f" (HTTP {status})" if status else "")
        line = ": ".join(filter(None, (name, "; ".join(_texts(error)))))
        # A message, and so a traceback, may quote a key; as `exc_info` it would be formatted with it.
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
        return _KEYS.sub(HIDDEN, text)


def _texts(error: Exception) -> list[str]:
    """What the vendor says, else what each of the exceptions says that led to this one, on one line."""
    said = _said(getattr(error, "body", None))
    lines: list[str] = []
    for text in [said] if said else [str(each) for each in _chain(error)]:
        line = " ".join(text.split())
        if not any(line in before for before in lines):  # a library's exception often repeats the one below it
            lines.append(line)
    return [line for line in lines if line]


def _said(body: object) -> str:
    """The message in the body of an error; all of the body where it has none."""
    if isinstance(body, Mapping):
        message = body.get("message") or body.get("error")
        return message if isinstance(message, str) else _said(message) or str(body)
    return str(body or "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
