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

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from ..errors import TailraceError


class ClientError(TailraceError):
    """What goes wrong between a client and its server."""


class StreamFailed(ClientError):
    """The stream ended as `error`; `code` and `message` are the server's words."""

    def __init__(self, code: str | None, message: str | None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"the stream failed: {self.message or 'no message'} ({self.code or 'no code'})"


class StreamReset(ClientError):
    """The stream cannot be continued from where the client was. `cursor` is where what is kept begins."""

    def __init__(self, reason: str, cursor: str | None) -> None:
        super().__init__(reason, cursor)
        self.reason = reason
        self.cursor = cursor

    def __str__(self) -> str:
        return f"the stream was reset ({self.reason}); go on from {self.cursor or 'its beginning'}"


class StreamLost(ClientError):
    """The client has given up. `cursor` is where another one may go on, after `attempts` failures in a row."""

    def __init__(self, reason: str, cursor: str | None = None, attempts: int = 0) -> None:
        super().__init__(reason, cursor, attempts)
        self.reason = reason
        self.cursor = cursor
        self.attempts = attempts

    def __str__(self) -> str:
        tried = f" after {self.attempts} failures in a row" if self.attempts > 1 else ""
        return f"the stream is lost{tried}: {self.reason}"


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
        said = f": {self.detail}" if self.detail else ""
        return f"the server refused with {self.status}{f' ({self.code})' if self.code else ''}{said}"


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
        return f"expected a stream ({self.expected}), but got {self.media_type[:80] or 'no media type'}"


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
        return f"the server was asked {times} and gave no answer: {self.reason}"


_KINDS: dict[str, type[StreamRefused]] = {"session_busy": SessionBusy}


def refusal(status: int, body: bytes) -> StreamRefused:
    """What an answer says, as an error: an object with `detail` and `code`, or any text."""
    try:
        members = from_json(body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        members = {"detail": body.decode("utf-8", "replace")[:500].strip()}
    return told_refusal(status, members)


def told_refusal(status: int, members: Mapping[str, Any]) -> StreamRefused:
    """The same of what was already read; a socket's error has a `message`, and perhaps more than a text as `detail`."""
    code = members.get("code")
    detail = members.get("message", members.get("detail"))
    kind = _KINDS.get(code, StreamRefused) if isinstance(code, str) else StreamRefused
    return kind(status, None if code is None else str(code), None if detail is None else str(detail), members)
