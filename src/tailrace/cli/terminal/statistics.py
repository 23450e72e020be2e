"""What the client itself has counted since it started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .formatting import duration


@dataclass
class ClientStatistics:
    """A stream is counted once it has begun: a message that was refused has none.

    `chunks` are all that came. The averages are of complete replies alone, as those that were stopped, left or lost say
    nothing of how long a reply is.
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
        """A reply is complete, so long after its message."""
        self.successful += 1
        self._chunks += chunks
        self._seconds += seconds

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and values."""
        complete = self.successful
        yield "Duration", duration(self.clock() - self.began)
        yield "Messages sent", str(self.messages)
        yield "Successful streams", str(complete)
        yield "Stopped streams", str(self.stopped)
        yield "Failed streams", str(self.failed)
        yield "Reconnections", str(self.reconnections)
        yield "Chunks received", str(self.chunks)
        yield "Average chunks a stream", f"{self._chunks / complete:.1f}" if complete else "–"
        yield "Sessions created", str(self.sessions_created)
        yield "Average response time", f"{self._seconds / complete:.2f} s" if complete else "–"
