"""What a chat server has counted since it started: the one source of /stats and of /metrics."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import NamedTuple

from .models.base import Usage
from .sessions import TurnState

# The bounds are those of vLLM's metrics, so that dashboards made for it fit.
FIRST_CHUNK_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
GAP_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
TURN_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)

ENDED: tuple[TurnState, ...] = ("complete", "stopped", "failed", "interrupted")
"""The states of a turn that is over."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class Histogram:
    """How often a value fell between two bounds; a value on a bound counts below it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """0.0 of no values."""
        return self.total / self.count if self.count else 0.0

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound with how many values are at most that; the last bound is infinite."""
        return zip((*self.bounds, inf), accumulate(self.counts), strict=True)


class HttpKind(NamedTuple):
    """Requests that are counted together. `status` is a class like `2xx`, or `none` if the client left before it."""

    method: str
    route: str
    status: str
    ok: bool


@dataclass(slots=True)
class HttpTotal:
    """How many requests there were of a kind, and how long they took together."""

    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StatisticsSnapshot:
    """What /stats says of the server itself; times are in seconds.

    Requests that are still being answered are neither successful nor failed. The average is that of turns that ended,
    however they did, and 0.0 before there is one; `chunks` are theirs too.
    """

    uptime: float
    requests_total: int
    requests_successful: int
    requests_failed: int
    active_streams: int
    sessions_created: int
    average_response_time: float
    chunks: int


class Statistics:
    """One for an application. Everything is counted in the event loop's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at = clock()
        self.first_chunks = Histogram(FIRST_CHUNK_BOUNDS)
        self.gaps = Histogram(GAP_BOUNDS)
        self.turn_seconds = Histogram(TURN_BOUNDS)
        self.gap: Callable[[float], None] = self.gaps.observe
        """Between two chunks of a reply, in seconds; called for each, so there is no call in between."""
        self.active_streams = 0
        self.turns: dict[TurnState, int] = dict.fromkeys(ENDED, 0)
        self.chunks = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.sessions_created = 0
        self.refusals: Counter[str] = Counter()
        self.requests_total = 0
        self.requests: dict[HttpKind, HttpTotal] = {}

    @property
    def uptime(self) -> float:
        return self._clock() - self._started_at

    def turn_started(self) -> None:
        self.active_streams += 1

    def first_chunk(self, seconds: float) -> None:
        """A reply's first chunk came, so long after the turn started."""
        self.first_chunks.observe(seconds)

    def turn_ended(self, state: TurnState, seconds: float, chunks: int, usage: Usage | None) -> None:
        """KeyError for a state that is no end."""
        self.turns[state] += 1
        self.active_streams -= 1
        self.turn_seconds.observe(seconds)
        self.chunks += chunks
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens

    def session_created(self) -> None:
        self.sessions_created += 1

    def refused(self, code: str) -> None:
        """A request was refused with one of the server's own codes."""
        self.refusals[code] += 1

    def request_started(self) -> None:
        self.requests_total += 1

    def request_ended(self, method: str, route: str, status: int | None, ok: bool, seconds: float) -> None:
        """`status` is None if the client left before there was one, `route` the template of a path."""
        # A client can make up methods; each would be a time series of its own.
        method = method if method in METHODS else "other"
        kind = HttpKind(method, route, "none" if status is None else f"{status // 100}xx", ok)
        total = self.requests.get(kind)
        if total is None:
            total = self.requests[kind] = HttpTotal()
        total.count += 1
        total.seconds += seconds

    def snapshot(self) -> StatisticsSnapshot:
        counted = {True: 0, False: 0}
        for kind, total in self.requests.items():
            counted[kind.ok] += total.count
        return StatisticsSnapshot(
            uptime=self.uptime,
            requests_total=self.requests_total,
            requests_successful=counted[True],
            requests_failed=counted[False],
            active_streams=self.active_streams,
            sessions_created=self.sessions_created,
            average_response_time=self.turn_seconds.mean,
            chunks=self.chunks,
        )
