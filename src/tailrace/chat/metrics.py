"""The server's metrics: the only source of `/stats` and `/metrics`.

Metrics that are common to language model servers have vLLM's names and buckets, so that its dashboards work here. Most
metrics have the label `owner`, the digest of an API key. So each key sees its own numbers, and an administrator's key
sees all.
"""

from __future__ import annotations

import operator
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from .journal import Journal
from .store import Turn, TurnState

FIRST_CHUNK_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
GAP_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
TURN_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)

FINISHED: dict[TurnState, str] = {
    "complete": "stop",
    "stopped": "abort",
    "failed": "error",
    "interrupted": "abort",
}
"""The final states of a turn, with vLLM's names for them."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

# Names with a colon are valid everywhere, but prometheus_client 0.26 escapes them in OpenMetrics by default.
OPENMETRICS = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers of `/stats`. Requests in progress count as neither successful nor failed.

    `turns`, `turn_seconds` and `chunks` are of the turns that have ended, in any state.
    """

    requests_total: int = 0
    requests_successful: int = 0
    requests_failed: int = 0
    active_streams: int = 0
    sessions_created: int = 0
    turns: int = 0
    turn_seconds: float = 0.0
    chunks: int = 0

    @classmethod
    def of(cls, figures: Mapping[str, Any], owner: str | None) -> Totals:
        """Return the numbers of an owner, or of all, in the figures of another worker."""
        found = figures["totals"].get(owner or "", {})
        return cls(**{each.name: found[each.name] for each in fields(cls) if each.name in found})

    def __add__(self, other: Totals) -> Totals:
        return Totals(*map(operator.add, astuple(self), astuple(other)))

    @property
    def average_response_time(self) -> float:
        return self.turn_seconds / self.turns if self.turns else 0.0


class Metrics:
    """The metrics of one server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self.began = time.time()
        """When the counting began. Only to tell other workers."""
        self._registry = registry = CollectorRegistry()
        owned, labels = ("owner",), ("model_name", "owner")
        self.first_chunk = Histogram(
            "vllm:time_to_first_token_seconds",
            "Time to the first chunk.",
            labels,
            buckets=FIRST_CHUNK_BUCKETS,
            registry=registry,
        )
        self.gap = Histogram(
            "vllm:inter_token_latency_seconds",
            "Time between two chunks.",
            labels,
            buckets=GAP_BUCKETS,
            registry=registry,
        )
        self.turn_seconds = Histogram(
            "vllm:e2e_request_latency_seconds",
            "Time of a whole turn.",
            labels,
            buckets=TURN_BUCKETS,
            registry=registry,
        )
        self.running = Gauge("vllm:num_requests_running", "Replies in progress.", labels, registry=registry)
        self.waiting = Gauge("vllm:num_requests_waiting", "Always 0: nothing waits.", labels, registry=registry)
        self.prompt = Counter("vllm:prompt_tokens", "Tokens sent to the model.", labels, registry=registry)
        self.generated = Counter("vllm:generation_tokens", "Tokens that the model wrote.", labels, registry=registry)
        self.finished = Counter(
            "vllm:request_success", "Turns that ended, by reason.", (*labels, "finished_reason"), registry=registry
        )
        self.turns = Counter(
            "tailrace_turns", "Turns that ended, by their state.", ("state", "owner"), registry=registry
        )
        self.chunks = Counter("tailrace_chunks", "Chunks of turns that ended.", owned, registry=registry)
        self.created = Counter("tailrace_sessions_created", "Sessions that began.", owned, registry=registry)
        self.active = Gauge("tailrace_streams_active", "Replies in progress.", owned, registry=registry)
        self.in_flight = Gauge("tailrace_http_requests_in_flight", "HTTP requests being answered.", registry=registry)
        kind = ("method", "route", "status", "outcome", "owner")
        self.requests = Counter("tailrace_http_requests", "HTTP requests that were answered.", kind, registry=registry)
        self.request_seconds = Counter(
            "tailrace_http_request_seconds", "Time of those requests, streams included.", kind, registry=registry
        )
        self.refused = Counter("tailrace_refused", "Requests refused, by code.", ("code",), registry=registry)
        self._sessions = Gauge("tailrace_sessions", "Sessions that are stored.", owned, registry=registry)
        self._connections = Gauge("tailrace_connections", "Readers of streams.", registry=registry)
        uptime = Gauge("tailrace_uptime_seconds", "Since the server started.", registry=registry)
        uptime.set_function(lambda: self.uptime)
        self._build = Gauge(
            "tailrace_build_info", "Always 1; see the labels.", ("version", "model", "framework"), registry=registry
        )

    @property
    def uptime(self) -> float:
        return self._clock() - self._began

    @property
    def active_streams(self) -> int:
        """The number of replies in progress, of all owners."""
        return int(sum(sample.value for metric in self.active.collect() for sample in metric.samples))

    def start(self, owners: Collection[str], *, version: str, model: str, framework: str) -> None:
        """Create each time series at 0, so that it exists from the start."""
        self._build.labels(version, model, framework).set(1)
        for owner in owners:
            latencies = (self.first_chunk, self.gap, self.turn_seconds)
            of_model = (*latencies, self.running, self.waiting, self.prompt, self.generated)
            for metric in of_model:
                metric.labels(model, owner)
            for counted in (self.chunks, self.created, self.active):
                counted.labels(owner)
            for state, reason in FINISHED.items():
                self.turns.labels(state, owner)
                self.finished.labels(model, owner, reason)

    def refuse(self, code: str) -> None:
        """Count a refused request."""
        self.refused.labels(code).inc()

    def request_ended(
        self, method: str, route: str, status: int | None, ok: bool, seconds: float, owner: str = ""
    ) -> None:
        """Count a request. `route` is a path's template. `status` is None if the client left before the response."""
        # Clients can invent methods, and each would add a time series.
        method = method if method in METHODS else "other"
        kind = (method, route, "none" if status is None else f"{status // 100}xx", "ok" if ok else "failed", owner)
        self.requests.labels(*kind).inc()
        self.request_seconds.labels(*kind).inc(seconds)

    def totals(self, owner: str | None) -> Totals:
        """Return the numbers of an owner, or of all owners together."""
        return _totals(list(_of_owner(self._samples(), owner)))

    def figures(self) -> dict[str, Any]:
        """Return the numbers of each owner and of all together, and when the counting began. For other workers."""
        samples = defaultdict[str, list[Sample]](list)
        for sample in self._samples():
            samples[""].append(sample)
            if owner := sample.labels.get("owner"):
                samples[owner].append(sample)
        return {"began": self.began, "totals": {owner: asdict(_totals(found)) for owner, found in samples.items()}}

    def render(
        self, owner: str | None, *, connections: int, sessions: int | None, accept: str | None = None
    ) -> tuple[bytes, str]:
        """Return the body of `/metrics` and its content type: OpenMetrics if `accept` asks for it, else Prometheus'.

        The body has the series of `owner`, or all if that is None. It has no number of sessions if `sessions` is None.
        """
        self._connections.set(connections)
        self._sessions.clear()
        if sessions is not None:
            self._sessions.labels(owner or "").set(sessions)
        encode, content_type = choose_encoder(accept or "")
        if content_type.startswith("application/openmetrics-text"):
            encode, content_type = choose_encoder(OPENMETRICS)
        return encode(_View(self._registry, owner)), content_type

    def _samples(self) -> Iterator[Sample]:
        for metric in self._registry.collect():
            yield from metric.samples


class _View(Collector):
    """The part of a registry that an owner sees, without the creation times of the series."""

    def __init__(self, registry: CollectorRegistry, owner: str | None) -> None:
        self._registry = registry
        self._owner = owner

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample for sample in _of_owner(metric.samples, self._owner) if sample.name != f"{metric.name}_created"
            ]
            if metric.samples:
                yield metric


def _of_owner(samples: Iterator[Sample] | list[Sample], owner: str | None) -> Iterator[Sample]:
    return (sample for sample in samples if owner is None or sample.labels.get("owner") == owner)


def _totals(samples: list[Sample]) -> Totals:
    answered = _sum(samples, "tailrace_http_requests_total")
    failed = _sum(samples, "tailrace_http_requests_total", outcome="failed")
    in_flight = _sum(samples, "tailrace_http_requests_in_flight")
    return Totals(
        requests_total=int(answered + in_flight),
        requests_successful=int(answered - failed),
        requests_failed=int(failed),
        active_streams=int(_sum(samples, "tailrace_streams_active")),
        sessions_created=int(_sum(samples, "tailrace_sessions_created_total")),
        turns=int(_sum(samples, "vllm:e2e_request_latency_seconds_count")),
        turn_seconds=_sum(samples, "vllm:e2e_request_latency_seconds_sum"),
        chunks=int(_sum(samples, "tailrace_chunks_total")),
    )


def _sum(samples: list[Sample], name: str, **labels: str) -> float:
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


class Observer:
    """Counts and logs the events of sessions and turns."""

    def __init__(self, metrics: Metrics, journal: Journal) -> None:
        self._metrics = metrics
        self._journal = journal

    def figures(self) -> dict[str, Any]:
        """Return what `/stats` of other workers needs."""
        return self._metrics.figures()

    def session_created(self, owner: str) -> None:
        self._metrics.created.labels(owner).inc()

    def turn_started(self, turn: Turn, owner: str, client: str | None, transfer: str = "chunked") -> TurnWatch:
        metrics = self._metrics
        metrics.active.labels(owner).inc()
        metrics.running.labels(turn.model, owner).inc()
        self._journal.started(turn, client, metrics.active_streams, transfer)
        return TurnWatch(turn, owner, metrics, self._journal)


class TurnWatch:
    """The clock of one running turn."""

    __slots__ = ("_began", "_first", "_gap", "_journal", "_last", "_metrics", "_owner", "_turn")

    def __init__(self, turn: Turn, owner: str, metrics: Metrics, journal: Journal) -> None:
        self._turn = turn
        self._owner = owner
        self._metrics = metrics
        self._journal = journal
        # Looking these up once saves a lookup under a lock for each chunk.
        self._first = metrics.first_chunk.labels(turn.model, owner).observe
        self._gap = metrics.gap.labels(turn.model, owner).observe
        self._began = self._last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The seconds since the turn started."""
        return time.perf_counter() - self._began

    def chunk(self, number: int, text: str) -> None:
        """Record the arrival of a chunk from the model."""
        now = time.perf_counter()
        if number == 1:
            self._first(now - self._began)
        else:
            self._gap(now - self._last)
        self._last = now
        if self._journal.logs_chunk(number):
            self._journal.chunk(self._turn, number, text, now - self._began)

    def final_chunk(self, number: int) -> None:
        """Record the last chunk, which comes from the server and has no text."""
        self._journal.chunk(self._turn, number, "", self.seconds, is_final=True)

    def ended(self, turn: Turn) -> None:
        metrics, model, owner = self._metrics, turn.model, self._owner
        metrics.turns.labels(turn.state, owner).inc()
        metrics.finished.labels(model, owner, FINISHED[turn.state]).inc()
        metrics.turn_seconds.labels(model, owner).observe(turn.seconds)
        metrics.chunks.labels(owner).inc(turn.chunks)
        if turn.usage is not None:
            metrics.prompt.labels(model, owner).inc(turn.usage.input_tokens)
            metrics.generated.labels(model, owner).inc(turn.usage.output_tokens)
        metrics.active.labels(owner).dec()
        metrics.running.labels(model, owner).dec()
        self._journal.ended(turn, metrics.active_streams)
