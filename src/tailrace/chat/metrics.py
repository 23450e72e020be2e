"""/metrics for Prometheus, read from the same counters as /stats.

What language model servers have in common has vLLM's names, so that dashboards made for it fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .sessions import TurnState
from .statistics import ENDED, Histogram, Statistics

MODEL = ("model_name",)

# Names with a colon are valid everywhere, but prometheus_client 0.26 escapes them here unless it is told not to.
OPENMETRICS = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"

FINISHED: dict[TurnState, str] = {
    "complete": "stop",
    "stopped": "abort",
    "failed": "error",
    "interrupted": "abort",
}
"""vLLM's words for how a turn ended."""


@dataclass(frozen=True, slots=True)
class Build:
    """What is measured, for labels."""

    version: str
    model: str
    framework: str


def render_metrics(
    statistics: Statistics, build: Build, *, connections: int, sessions: int | None = None, accept: str | None = None
) -> tuple[bytes, str]:
    """The body of /metrics and its content type: Prometheus' text format 0.0.4, or OpenMetrics where `accept` asks.

    `connections` are readers of streams, `sessions` those that are stored, left out if nobody knows.
    """
    encode, content_type = choose_encoder(accept or "")
    if content_type.startswith("application/openmetrics-text"):
        encode, content_type = choose_encoder(OPENMETRICS)
    return encode(_Scrape(statistics, build, connections, sessions)), content_type


class _Scrape(Collector):
    def __init__(self, statistics: Statistics, build: Build, connections: int, sessions: int | None) -> None:
        self._statistics = statistics
        self._build = build
        self._connections = connections
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        yield from self._latencies()
        yield from self._model()
        yield from self._turns()
        yield from self._requests()
        yield from self._server()

    def _latencies(self) -> Iterator[Metric]:
        counted = self._statistics
        yield self._histogram("vllm:time_to_first_token_seconds", "Time to the first chunk.", counted.first_chunks)
        yield self._histogram("vllm:inter_token_latency_seconds", "Time between two chunks.", counted.gaps)
        yield self._histogram("vllm:e2e_request_latency_seconds", "Time of a whole turn.", counted.turn_seconds)

    def _model(self) -> Iterator[Metric]:
        counted = self._statistics
        model = [self._build.model]
        running = GaugeMetricFamily("vllm:num_requests_running", "Replies that are being written.", labels=MODEL)
        running.add_metric(model, counted.active_streams)
        yield running
        waiting = GaugeMetricFamily("vllm:num_requests_waiting", "Always 0: nothing waits for a place.", labels=MODEL)
        waiting.add_metric(model, 0)
        yield waiting
        prompt = CounterMetricFamily("vllm:prompt_tokens", "Tokens sent to the model.", labels=MODEL)
        prompt.add_metric(model, counted.input_tokens)
        yield prompt
        generated = CounterMetricFamily("vllm:generation_tokens", "Tokens that the model wrote.", labels=MODEL)
        generated.add_metric(model, counted.output_tokens)
        yield generated
        finished = CounterMetricFamily(
            "vllm:request_success", "Turns that ended, by how they did.", labels=[*MODEL, "finished_reason"]
        )
        for reason in dict.fromkeys(FINISHED.values()):
            turns = sum(counted.turns[state] for state in ENDED if FINISHED[state] == reason)
            finished.add_metric([*model, reason], turns)
        yield finished

    def _turns(self) -> Iterator[Metric]:
        counted = self._statistics
        turns = CounterMetricFamily("tailrace_turns", "Turns that ended, by their state.", labels=["state"])
        for state, count in counted.turns.items():
            turns.add_metric([state], count)
        yield turns
        yield CounterMetricFamily("tailrace_chunks", "Chunks of turns that ended.", value=counted.chunks)
        yield CounterMetricFamily(
            "tailrace_sessions_created", "Sessions begun since the start.", value=counted.sessions_created
        )
        if self._sessions is not None:
            yield GaugeMetricFamily("tailrace_sessions", "Sessions that are stored.", value=self._sessions)
        yield GaugeMetricFamily(
            "tailrace_streams_active", "Replies that are being written.", value=counted.active_streams
        )
        yield GaugeMetricFamily("tailrace_connections", "Readers of streams.", value=self._connections)

    def _requests(self) -> Iterator[Metric]:
        counted = self._statistics
        labels = ["method", "route", "status", "outcome"]
        requests = CounterMetricFamily(
            "tailrace_http_requests", "HTTP requests that have been answered.", labels=labels
        )
        seconds = CounterMetricFamily(
            "tailrace_http_request_seconds", "Time of those requests, streams included.", labels=labels
        )
        for kind, total in counted.requests.items():
            values = [kind.method, kind.route, kind.status, "ok" if kind.ok else "failed"]
            requests.add_metric(values, total.count)
            seconds.add_metric(values, total.seconds)
        yield requests
        yield seconds
        said = counted.snapshot()
        running = said.requests_total - said.requests_successful - said.requests_failed
        yield GaugeMetricFamily("tailrace_http_requests_in_flight", "HTTP requests being answered.", value=running)
        refused = CounterMetricFamily("tailrace_refused", "Requests refused, by code.", labels=["code"])
        for code, count in counted.refusals.items():
            refused.add_metric([code], count)
        yield refused

    def _server(self) -> Iterator[Metric]:
        build = self._build
        yield GaugeMetricFamily("tailrace_uptime_seconds", "Since the server started.", value=self._statistics.uptime)
        info = GaugeMetricFamily(
            "tailrace_build_info", "Always 1; the labels tell.", labels=["version", "model", "framework"]
        )
        info.add_metric([build.version, build.model, build.framework], 1)
        yield info

    def _histogram(self, name: str, documentation: str, histogram: Histogram) -> HistogramMetricFamily:
        family = HistogramMetricFamily(name, documentation, labels=MODEL)
        buckets = [("+Inf" if bound == inf else str(bound), count) for bound, count in histogram.cumulative()]
        family.add_metric([self._build.model], buckets, histogram.total)
        return family
