"""The exceptions of the client, all of them subclasses of tailrace.TailraceError.

ClientError
├── StreamFailed         the stream ended as `error`
├── StreamReset          the cursor cannot be continued: discard everything that you read from the stream
├── StreamLost           the stream may continue, but this client can no longer follow it
├── StreamRefused        the server answered with a status after which repeating the request is useless
│   ├── SessionBusy      the chat session is already answering
│   ├── TurnNotLast      the turn to replace is not the last one of its chat session
│   └── AlreadyRead      another client reads the stream, which has one reader at a time
├── NotAStream           the response has a media type that cannot carry events
├── NotStoppable         the server has named no address at which to stop the stream
├── NotASession          the response names no packet session
├── SessionEnded         the packet session has ended without a RESULT, or before an answer
├── RequestTimedOut      a request packet was not answered in time (also a TimeoutError)
├── TooManyUnread        a request packet cannot be answered before other packets are read
├── Unreachable          a request other than for a stream got no answer
└── UnusableEnvironment  an environment variable names a proxy or certificates that cannot be used

A stream that breaks its wire raises tailrace.DecodeError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

from pydantic_core import ValidationError, from_json

from ..errors import DecodeError, TailraceError
from .settings import Loss, LossKind

_LONGEST = 300
"""The most characters of a server's message in an error's text."""
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)


class ClientError(TailraceError):
    """The base class for failures between a client and its server."""


class StreamFailed(ClientError):
    """The stream ended as `error`. `code` and `message` are the server's; `members` is all data of its error."""

    def __init__(self, code: str | None, message: str | None, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.members = dict(members or {})

    def __str__(self) -> str:
        return f"the stream failed: {_line(self.message or 'no message')} ({_line(self.code or 'no code')})"


class StreamReset(ClientError):
    """The stream cannot be continued from the client's cursor. The server's remaining events begin at `cursor`."""

    def __init__(self, reason: str, cursor: str | None) -> None:
        super().__init__(reason, cursor)
        self.reason = reason
        self.cursor = cursor

    def __str__(self) -> str:
        return f"the stream was reset ({_line(self.reason)}); go on from {self.cursor or 'its beginning'}"


class StreamLost(ClientError):
    """The client has given up, after `attempts` failures in a row. Another client may continue from `cursor`.

    `loss` is the last failure. `note` gives a further reason why the client could not continue, if there is one.
    """

    def __init__(self, loss: Loss, cursor: str | None = None, attempts: int = 0, note: str = "") -> None:
        super().__init__(loss, cursor, attempts, note)
        self.loss = loss
        self.cursor = cursor
        self.attempts = attempts
        self.note = note

    @property
    def kind(self) -> LossKind:
        return self.loss.kind

    @property
    def reason(self) -> str:
        return _with_note(self.loss, self.note)

    def __str__(self) -> str:
        tried = f" after {self.attempts} failures in a row" if self.attempts > 1 else ""
        return f"the stream is lost{tried}: {_line(self.reason)}"


class StreamRefused(ClientError):
    """The server refuses the request.

    `status` is the HTTP status, or the close code of a socket. `code` and `detail` are the server's; `members` is all
    data of its answer.
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
    """The session is already answering. Resume or stop the reply with `stream_id`."""

    @property
    def session_id(self) -> str:
        return str(self.members.get("session_id", ""))

    @property
    def stream_id(self) -> str:
        return str(self.members.get("stream_id", ""))


class TurnNotLast(StreamRefused):
    """The turn to replace is not the session's last one. `stream_id` is that of the last one, or None without turns."""

    @property
    def stream_id(self) -> str | None:
        last = self.members.get("stream_id")
        return None if last is None else str(last)


class AlreadyRead(StreamRefused):
    """Another client reads the stream, which has one reader at a time."""


class NotAStream(ClientError):
    """A successful response with a media type that cannot carry events."""

    def __init__(self, media_type: str, expected: str) -> None:
        super().__init__(media_type, expected)
        self.media_type = media_type
        self.expected = expected

    def __str__(self) -> str:
        return f"expected a stream ({self.expected}), but got {_line(self.media_type[:80]) or 'no media type'}"


class NotStoppable(ClientError):
    """The server has named no address at which to stop the stream."""

    def __str__(self) -> str:
        return "expected a response with a Link rel=stop, but the stream has none: close it instead"


class NotASession(ClientError):
    """A successful response that names no address to which its packets could be sent."""

    def __str__(self) -> str:
        return "expected a packet session, whose response has a Content-Location, but this one names no address"


class SessionEnded(ClientError):
    """The packet session has ended, as `state`: `done` by its RESULT, `error` or `cancelled`."""

    def __init__(self, state: str | None = None, code: str | None = None, message: str | None = None) -> None:
        super().__init__(state, code, message)
        self.state = state
        self.code = code
        self.message = message

    def __str__(self) -> str:
        state, code = (f" {_line(said)}" if said else "" for said in (self.state, self.code and f"({self.code})"))
        return (
            f"the session has ended{state and f' as{state}'}{code}{f': {_line(self.message)}' if self.message else ''}"
        )


class RequestTimedOut(ClientError, TimeoutError):
    """The packet with the id `packet_id` was not answered within `timeout` seconds. It may have arrived."""

    def __init__(self, packet_id: str, timeout: float) -> None:
        super().__init__(packet_id, timeout)
        self.packet_id = packet_id
        self.timeout = timeout

    def __str__(self) -> str:
        return f"expected an answer to packet {self.packet_id!r} within {self.timeout:g} s, but none came"


class TooManyUnread(ClientError):
    """The client holds as many packets for the iteration as it may. None is lost: iterate to get them.

    If the request was `sent`, do not send it again: its answer comes in the iteration, after them.
    """

    def __init__(self, packets: int, size: int, bound: str, *, sent: bool) -> None:
        super().__init__(packets, size, bound)
        self.packets = packets
        self.size = size
        self.bound = bound
        self.sent = sent

    def __str__(self) -> str:
        unread = f"{self.packets} packets ({self.size} bytes)"
        if not self.sent:
            return f"expected fewer than {self.bound} before a request, but {unread} wait to be read"
        return f"expected an answer after fewer than {self.bound}, but {unread} wait to be read"


class Unreachable(ClientError):
    """A request got no answer in `attempts` attempts. `loss` is the last failure."""

    def __init__(self, loss: Loss, attempts: int, note: str = "") -> None:
        super().__init__(loss, attempts, note)
        self.loss = loss
        self.attempts = attempts
        self.note = note

    @property
    def kind(self) -> LossKind:
        return self.loss.kind

    @property
    def reason(self) -> str:
        return _with_note(self.loss, self.note)

    def __str__(self) -> str:
        if self.kind == "unavailable":
            tries = "" if self.attempts <= 1 else f" in {self.attempts} attempts"
            return f"the server did not accept the request{tries}: {_line(self.reason)}"
        times = "" if self.attempts <= 1 else f" to {self.attempts} requests"
        return f"no answer from the server{times}: {_line(self.reason)}"


class UnusableEnvironment(ClientError):
    """An environment variable names a proxy or certificates that cannot be used.

    `value` is its value without passwords, `reason` says what is wrong with it, and `remedy` what to do.
    """

    def __init__(self, variable: str, value: str, reason: str, remedy: str) -> None:
        super().__init__(variable, value, reason, remedy)
        self.variable = variable
        self.value = value
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.variable} is {self.value!r}, but {_line(self.reason)}: {self.remedy}"


def _with_note(loss: Loss, note: str) -> str:
    return f"{loss}; {note}" if note else str(loss)


def unexpected(model: type, error: ValidationError) -> DecodeError:
    """Make an error of what a server sent instead of an object that fits a model."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    return DecodeError(f"expected {model.__name__} from the server, but in {place}: {first['msg']}")


# Reading refusals


_KINDS: dict[str, type[StreamRefused]] = {
    "session_busy": SessionBusy,
    "turn_not_last": TurnNotLast,
    "already_read": AlreadyRead,
}


def refusal(status: int, body: bytes) -> StreamRefused:
    """Make an error of a refusal's body: an object with `detail` and `code`, another server's object, or any text."""
    try:
        members = from_json(body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        members = {"detail": _read_text(body.decode("utf-8", "replace"))}
    return told_refusal(status, members)


def redirection(status: int, location: str) -> StreamRefused:
    """Make an error of a redirection that is not followed."""
    return StreamRefused(status, None, f"it is at {location!r}, and this client follows no redirections")


def told_refusal(status: int, members: Mapping[str, Any]) -> StreamRefused:
    """Make an error of a refusal's members. A socket's refusal has a `message`."""
    inner = members.get("error")
    said = inner if isinstance(inner, Mapping) else members  # OpenAI's API nests all members in `error`
    code = said.get("code")
    kind = _KINDS.get(code, StreamRefused) if isinstance(code, str) else StreamRefused
    return kind(status, None if code is None else str(code), _read_detail(said), members)


def _read_detail(said: Mapping[str, Any]) -> str | None:
    detail = next((said[name] for name in ("message", "detail", "error", "title") if said.get(name) is not None), None)
    if isinstance(detail, list):
        return "; ".join(map(_read_mistake, detail))
    return None if detail is None else str(detail)


def _read_mistake(mistake: Any) -> str:
    """Return one line for a mistake that FastAPI found in a request."""
    if not isinstance(mistake, dict) or not isinstance(mistake.get("loc"), list):
        return str(mistake)
    return f"{'.'.join(map(str, mistake['loc']))}: {mistake.get('msg', 'no reason given')}"


def _read_text(text: str) -> str | None:
    """Return a text for people, or the title of a web page."""
    if not text.lstrip().startswith("<"):
        return text[:500].strip()
    title = _TITLE.search(text)
    return None if title is None else unescape(title[1]).strip()


def _line(said: str) -> str:
    """Return a server's message as one printable line."""
    words = " ".join("".join(c if c.isprintable() else " " for c in said[: 2 * _LONGEST]).split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
