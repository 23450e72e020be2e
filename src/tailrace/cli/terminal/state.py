"""The state of a chat between two messages: the session, a message without a reply, and statistics."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..text import duration, short

if TYPE_CHECKING:
    from ...client import Loss


@dataclass
class Message:
    """A message in a session, or in a new one if it has none. The server recognises it by its `key`."""

    text: str
    session_id: str | None
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    clock: Callable[[], float] = time.monotonic
    _was_sent: bool = False
    _next: float = 0.0

    @property
    def may_have_arrived(self) -> bool:
        """False if all attempts so far failed to connect and the next one has not begun."""
        return self._was_sent or self.clock() >= self._next

    def miss(self, loss: Loss, seconds: float) -> None:
        """Note that an attempt has failed and that the next one begins in `seconds`."""
        self._was_sent |= loss.kind != "unsent"
        self._next = self.clock() + seconds

    def is_repeated_by(self, text: str, session_id: str | None) -> bool:
        return (self.text, self.session_id) == (text, session_id)


@dataclass
class State:
    """The state of a chat between two messages.

    - `session_id`: None until the first message begins a session.
    - `unsent`: a message for the next prompt, because the server may not have it.
    - `unanswered`: a message that may have arrived, but whose reply has not begun.
    """

    session_id: str | None = None
    unsent: str = ""
    unanswered: Message | None = None
    statistics: ClientStatistics = field(default_factory=lambda: ClientStatistics())

    @property
    def name(self) -> str:
        """The session's name in the prompt."""
        return "new" if self.session_id is None else short(self.session_id)


@dataclass
class ClientStatistics:
    """The statistics of this client since it started.

    A stream counts once it has begun, so a refused message has none. `chunks` counts all chunks that arrived. The
    averages are those of complete replies, because a stopped or lost reply does not tell how long replies are.
    """

    clock: Callable[[], float] = time.monotonic
    messages: int = 0
    successful: int = 0
    stopped: int = 0
    failed: int = 0
    chunks: int = 0
    reconnections: int = 0
    sessions_created: int = 0
    began: float = field(init=False)
    _seconds: float = field(init=False, default=0.0)
    _chunks: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def succeed(self, chunks: int, seconds: float) -> None:
        """Count a complete reply."""
        self.successful += 1
        self._chunks += chunks
        self._seconds += seconds

    def rows(self) -> Iterator[tuple[str, str]]:
        complete = self.successful
        yield "Session duration", duration(self.clock() - self.began)
        yield "Messages sent", str(self.messages)
        yield "Successful streams", str(complete)
        yield "Stopped streams", str(self.stopped)
        yield "Failed streams", str(self.failed)
        yield "Reconnections", str(self.reconnections)
        yield "Chunks received", str(self.chunks)
        yield "Average chunks a stream", f"{self._chunks / complete:.1f}" if complete else "–"
        yield "Sessions created", str(self.sessions_created)
        yield "Average response time", f"{self._seconds / complete:.2f} s" if complete else "–"
