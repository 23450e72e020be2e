"""What the client itself has counted since it started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class ClientStatistics:
    """`seconds` is the time of all replies together, from the message to the end of its reply."""

    clock: Callable[[], float] = time.monotonic
    messages: int = 0
    successful: int = 0
    stopped: int = 0
    failed: int = 0
    chunks: int = 0
    reconnections: int = 0
    sessions_created: int = 0
    seconds: float = 0.0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def streams(self) -> int:
        """Those that ended, however they did."""
        return self.successful + self.stopped + self.failed

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and values; the averages are those of streams that ended."""
        streams = self.streams
        yield "Duration", duration(self.clock() - self.began)
        yield "Messages sent", str(self.messages)
        yield "Successful streams", str(self.successful)
        yield "Stopped streams", str(self.stopped)
        yield "Failed streams", str(self.failed)
        yield "Reconnections", str(self.reconnections)
        yield "Chunks received", str(self.chunks)
        yield "Average chunks a stream", f"{self.chunks / streams:.1f}" if streams else "–"
        yield "Sessions created", str(self.sessions_created)
        yield "Average response time", f"{self.seconds / streams:.2f} s" if streams else "–"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def count(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
