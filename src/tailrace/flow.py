"""Policies for readers that are slower than their producer, and bounds for the history of a log."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .events import Entry

Policy = Literal["block", "log", "latest", "drop", "disconnect"]


def _by_event(entry: Entry) -> Hashable:
    return entry.event


@dataclass(frozen=True, slots=True)
class Flow:
    """A policy for slow readers, with its bound.

    - `block`: the producer waits while its fastest reader is `high` entries behind. That reader loses nothing. Slower
      readers read the log's history.
    - `log`: the producer never waits. A reader gets a reset if its next entry was trimmed.
    - `latest`: a reader that is behind gets only the newest entry of each `key`.
    - `drop`: a reader more than `high` entries behind skips to the newest `high` ones, and learns how many it missed.
    - `disconnect`: a reader more than `high` entries behind is disconnected. It can come back with its cursor.
    """

    policy: Policy
    high: int = 1024
    key: Callable[[Entry], Hashable] = _by_event

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"expected policy to be one of {', '.join(get_args(Policy))}, but got {self.policy!r}")
        if self.high < 1:
            raise ValueError(f"expected high to be at least 1 entry, but got {self.high}")

    @classmethod
    def block(cls, high: int = 1024) -> Flow:
        """Let the producer wait for its fastest reader."""
        return cls("block", high)

    @classmethod
    def log(cls) -> Flow:
        """Let readers fall behind as far as the log's retention allows."""
        return cls("log")

    @classmethod
    def latest(cls, key: Callable[[Entry], Hashable] = _by_event) -> Flow:
        """Give readers that are behind only the newest entry of each key. The default key is the event name."""
        return cls("latest", key=key)

    @classmethod
    def drop(cls, high: int = 1024) -> Flow:
        """Let readers that are behind skip entries."""
        return cls("drop", high)

    @classmethod
    def disconnect(cls, high: int = 1024) -> Flow:
        """Disconnect readers that are behind."""
        return cls("disconnect", high)


@dataclass(frozen=True, slots=True)
class Retention:
    """The bounds of a log's history. A log keeps the newest entries within all three; None means no bound.

    `count` is in entries, `size` in bytes of JSON, `age` in seconds. The newest entry is always kept.
    """

    count: int | None = 10_000
    size: int | None = 8 << 20
    age: float | None = None

    def __post_init__(self) -> None:
        for name in ("count", "size", "age"):
            value: Any = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"expected {name} to be above 0 or None, but got {value}")


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """A log's current numbers. Offsets count from 1, and `base` is the last trimmed offset."""

    name: str
    state: str
    base: int
    top: int
    entries: int
    size: int
    readers: int
    dropped: int
    conflated: int
    resets: int
