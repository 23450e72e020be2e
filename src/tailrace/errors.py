"""The exceptions of tailrace.

TailraceError
├── CursorError        a token that is not a cursor (also a ValueError)
├── EventError         an event that cannot become an entry (also a ValueError)
├── LogClosed          an append to a log that has ended
├── LogExists          a log whose name is taken (also a ValueError)
├── LogFenced          an append to a log that somebody else writes
├── LogReset           a place where no reader can continue: trimmed, epoch_changed, diverged, ahead
├── SlowReader         a reader that fell too far behind, under the flow policy disconnect
├── NotAcceptable      no wire satisfies the Accept header
├── StoreUnavailable   a store that does not answer
├── StreamError        an application's own failure, with a message for the client
├── FileChanged        a file that was written to while it was sent
└── DecodeError        bytes that are not what their wire promises
    ├── FrameTooLarge  a frame beyond the decoder's bound
    └── Truncated      bytes that stop inside a frame, or before the end of the stream
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

ResetReason = Literal["trimmed", "epoch_changed", "diverged", "ahead"]


class TailraceError(Exception):
    """The base class of all exceptions here."""


class CursorError(TailraceError, ValueError):
    """A token that is not a cursor."""

    def __init__(self, token: str, expected: str) -> None:
        super().__init__(token, expected)
        self.token = token
        self.expected = expected

    def __str__(self) -> str:
        return f"expected a cursor like {self.expected}, but got {self.token[:80]!r}"


class EventError(TailraceError, ValueError):
    """An event that cannot become an entry: its name is reserved or unprintable, or its data is not JSON-able."""


class LogClosed(TailraceError):
    """An append to a log that has ended."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__(name, state)
        self.name = name
        self.state = state

    def __str__(self) -> str:
        return f"expected log {self.name!r} to be open, but it has ended as {self.state!r}"


class LogExists(TailraceError, ValueError):
    """A log that cannot be made, because there is one with its name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"expected no log named {self.name!r} yet, but there is one"


class LogFenced(TailraceError):
    """An append to a log that somebody else writes, or a second lease of it. `fence` is the number of its lease."""

    def __init__(self, name: str, fence: int) -> None:
        super().__init__(name, fence)
        self.name = name
        self.fence = fence

    def __str__(self) -> str:
        return f"expected to be the writer of log {self.name!r}, but it belongs to the holder of lease {self.fence}"


_RESETS: dict[ResetReason, str] = {
    "trimmed": "log {name!r} no longer has the next event",
    "epoch_changed": "the store has forgotten or lost the log {name!r} that was read",
    "diverged": "the store has lost events of log {name!r} that were read",
    "ahead": "log {name!r} has fewer events than were read",
}


class LogReset(TailraceError):
    """A place where no reader can continue. Go on from `resume`, the cursor of the oldest kept entry or of the end."""

    def __init__(self, name: str, reason: ResetReason, resume: str) -> None:
        super().__init__(name, reason, resume)
        self.name = name
        self.reason: ResetReason = reason
        self.resume = resume

    def __str__(self) -> str:
        return f"{_RESETS[self.reason].format(name=self.name)} ({self.reason}); go on from {self.resume}"


class SlowReader(TailraceError):
    """A reader that fell behind by more than its flow policy allows."""

    def __init__(self, name: str, behind: int, high: int) -> None:
        super().__init__(name, behind, high)
        self.name = name
        self.behind = behind
        self.high = high

    def __str__(self) -> str:
        return (
            f"expected a reader of log {self.name!r} to be at most {self.high} entries behind, but it is {self.behind}"
        )


class NotAcceptable(TailraceError):
    """No wire satisfies the Accept header."""

    def __init__(self, accept: str, available: Sequence[str]) -> None:
        super().__init__(accept, available)
        self.accept = accept
        self.available = tuple(available)

    def __str__(self) -> str:
        return f"expected Accept to allow one of {', '.join(self.available)}, but got {self.accept[:200]!r}"


class StoreUnavailable(TailraceError):
    """A store that does not answer. The call may or may not have taken effect."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"expected the store to answer about log {self.name!r}, but it did not: {self.reason}"


class StreamError(TailraceError):
    """Raise this in a generator to tell the client what went wrong, by `message` and `code`.

    Before the first event, the response gets `status`, and a Retry-After of `retry_after` seconds if you give that.
    After it, an `error` event ends the stream. Clients see any other exception as `internal_error`, without its text.
    """

    def __init__(self, message: str, *, code: str = "error", status: int = 500, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.retry_after = retry_after


class FileChanged(TailraceError):
    """A file that was written to, or could not be read any more, while it was sent. The response was cut short."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"expected {self.path} to stay as it is while it is sent, but it {self.reason}"


class DecodeError(TailraceError, ValueError):
    """Bytes that are not what their wire promises. `before` has the frames that precede them in the same piece."""

    def __init__(self, *args: object, before: Sequence[Any] = ()) -> None:
        super().__init__(*args)
        self.before = before


class FrameTooLarge(DecodeError):
    """A frame with more bytes than the decoder's bound."""

    def __init__(self, limit: int, size: int, *, before: Sequence[Any] = ()) -> None:
        super().__init__(limit, size, before=before)
        self.limit = limit
        self.size = size

    def __str__(self) -> str:
        return f"expected a frame of at most {self.limit} bytes, but got at least {self.size}"


class Truncated(DecodeError):
    """Bytes that stop inside a frame, or before the end of the stream."""
