"""Everything that the client raises, below tailrace.TailraceError.

ClientError
├── StreamFailed       the stream ended as `error`
├── StreamReset        the cursor cannot be continued: what was built from the stream is void
├── StreamLost         the stream may go on, but this client cannot follow it any longer
├── StreamRefused      the server answered with a status that is not worth a repetition
│   └── SessionBusy    a chat session that is answering already
├── NotAStream         the answer is of a media type that is no stream
├── NotStoppable       the stream has said no way to stop it
└── Unreachable        a request beside streams has got no answer

A stream that breaks its wire raises tailrace.DecodeError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

from pydantic_core import from_json

from ..errors import TailraceError

_LONGEST = 300
"""Characters of a server's words in an error's text."""
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)


class ClientError(TailraceError):
    """What goes wrong between a client and its server."""


class StreamFailed(ClientError):
    """The stream ended as `error`; `code` and `message` are the server's words, and `members` is all that it says."""

    def __init__(self, code: str | None, message: str | None, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.members = dict(members or {})

    def __str__(self) -> str:
        return f"the stream failed: {_line(self.message or 'no message')} ({_line(self.code or 'no code')})"


class StreamReset(ClientError):
    """The stream cannot be continued from where the client was. `cursor` is where what is kept begins."""

    def __init__(self, reason: str, cursor: str | None) -> None:
        super().__init__(reason, cursor)
        self.reason = reason
        self.cursor = cursor

    def __str__(self) -> str:
        return f"the stream was reset ({_line(self.reason)}); go on from {self.cursor or 'its beginning'}"


class StreamLost(ClientError):
    """The client has given up. `cursor` is where another one may go on, after `attempts` failures in a row."""

    def __init__(self, reason: str, cursor: str | None = None, attempts: int = 0) -> None:
        super().__init__(reason, cursor, attempts)
        self.reason = reason
        self.cursor = cursor
        self.attempts = attempts

    def __str__(self) -> str:
        tried = f" after {self.attempts} failures in a row" if self.attempts > 1 else ""
        return f"the stream is lost{tried}: {_line(self.reason)}"


class StreamRefused(ClientError):
    """The server does not give the stream.

    `status` is HTTP's (on a socket that was open already: the close code), `code` and `detail` are what the answer
    says of it, and `members` is all that it says.
    """

    def __init__(
        self, status: int, code: str | None = None, detail: str | None = None, members: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.members = dict(members or {})

    def __str__(self) -> str:
        code = f" ({_line(self.code)})" if self.code else ""
        return f"the server refused with {self.status}{code}{f': {_line(self.detail)}' if self.detail else ''}"


class SessionBusy(StreamRefused):
    """The session is answering: resume or stop the reply that has `stream_id`."""

    @property
    def session_id(self) -> str:
        return str(self.members.get("session_id", ""))

    @property
    def stream_id(self) -> str:
        return str(self.members.get("stream_id", ""))


class NotAStream(ClientError):
    """A successful answer in which no events can be."""

    def __init__(self, media_type: str, expected: str) -> None:
        super().__init__(media_type, expected)
        self.media_type = media_type
        self.expected = expected

    def __str__(self) -> str:
        return f"expected a stream ({self.expected}), but got {_line(self.media_type[:80]) or 'no media type'}"


class NotStoppable(ClientError):
    """The server has named no address at which the stream is stopped."""

    def __str__(self) -> str:
        return "expected a response with a Link rel=stop, but the stream has none: close it instead"


class Unreachable(ClientError):
    """A request has got no answer, or only that the server cannot answer now."""

    def __init__(self, reason: str, attempts: int) -> None:
        super().__init__(reason, attempts)
        self.reason = reason
        self.attempts = attempts

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return f"the server was asked {times} and gave no answer: {_line(self.reason)}"


_KINDS: dict[str, type[StreamRefused]] = {"session_busy": SessionBusy}


def refusal(status: int, body: bytes) -> StreamRefused:
    """What an answer says, as an error: an object with `detail` and `code`, one of another server's, or any text."""
    try:
        members = from_json(body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        members = {"detail": _read_text(body.decode("utf-8", "replace"))}
    return told_refusal(status, members)


def redirection(status: int, location: str) -> StreamRefused:
    """An answer from elsewhere, which a client that follows no redirections does not ask for."""
    return StreamRefused(status, None, f"it is at {location!r}, and this client follows no redirections")


def told_refusal(status: int, members: Mapping[str, Any]) -> StreamRefused:
    """The same of what was already read; a socket's error has a `message`, and perhaps more than a text as `detail`."""
    inner = members.get("error")
    said = inner if isinstance(inner, Mapping) else members  # an API like OpenAI's has everything inside
    code = said.get("code")
    kind = _KINDS.get(code, StreamRefused) if isinstance(code, str) else StreamRefused
    return kind(status, None if code is None else str(code), _read_detail(said), members)


def _read_detail(said: Mapping[str, Any]) -> str | None:
    detail = next((said[name] for name in ("message", "detail", "error", "title") if said.get(name) is not None), None)
    if isinstance(detail, list):
        return "; ".join(map(_read_mistake, detail))
    return None if detail is None else str(detail)


def _read_mistake(mistake: Any) -> str:
    """One of those that FastAPI finds in a request."""
    if not isinstance(mistake, dict) or not isinstance(mistake.get("loc"), list):
        return str(mistake)
    return f"{'.'.join(map(str, mistake['loc']))}: {mistake.get('msg', 'no reason given')}"


def _read_text(text: str) -> str | None:
    """A text for people; of a page its title."""
    if not text.lstrip().startswith("<"):
        return text[:500].strip()
    title = _TITLE.search(text)
    return None if title is None else unescape(title[1]).strip()


def _line(said: str) -> str:
    """What a server has said, in one line that can be printed."""
    words = " ".join("".join(c if c.isprintable() else " " for c in said[: 2 * _LONGEST]).split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
