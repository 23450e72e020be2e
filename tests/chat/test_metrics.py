from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tailrace.chat.metrics import Build, render_metrics
from tailrace.chat.models.base import Usage
from tailrace.chat.statistics import FIRST_CHUNK_BOUNDS, GAP_BOUNDS, TURN_BOUNDS, Statistics

BUILD = Build(version="1.2.3", model='a "model"\n', framework="none")

Parse = Callable[[str], Iterable[Any]]
FORMATS: list[tuple[str | None, str, Parse]] = [
    (None, "text/plain; version=0.0.4", parse_text),
    ("*/*", "text/plain; version=0.0.4", parse_text),
    ("text/plain;version=1.0.0", "text/plain; version=1.0.0", parse_text),
    ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0", parse_openmetrics),
    (
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
        "application/openmetrics-text; version=1.0.0",
        parse_openmetrics,
    ),
]


def used_statistics() -> Statistics:
    """Of a server on which a bit of everything has happened, and goes on."""
    statistics = Statistics()
    for _ in range(6):
        statistics.request_started()
    statistics.request_ended("GET", "/stats", 200, True, 0.25)
    statistics.request_ended("GET", "/stats", 200, True, 0.25)
    statistics.request_ended("POST", "/chat/stream", 500, False, 1.0)
    statistics.request_ended("POST", "/chat/stream", None, True, 1.0)
    for _ in range(5):
        statistics.turn_started()
        statistics.session_created()
    statistics.first_chunk(0.05)
    for seconds in (0.01, 0.02, 100.0):
        statistics.gap(seconds)
    statistics.turn_ended("complete", 1.0, 4, Usage(100, 20))
    statistics.turn_ended("stopped", 3.0, 3, None)
    statistics.turn_ended("failed", 0.5, 0, None)
    statistics.turn_ended("interrupted", 1.5, 1, None)
    statistics.refused("session_busy")
    return statistics


class Scraped:
    def __init__(self, body: bytes, parse: Parse) -> None:
        self.families = {family.name: family for family in parse(body.decode())}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with at least these labels."""
        found = [float(one.value) for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        assert found, f"expected a sample {name} {labels}"
        return sum(found)


@pytest.fixture(params=FORMATS, ids=["default", "any", "text 1.0.0", "OpenMetrics", "Prometheus"])
def form(request: pytest.FixtureRequest) -> tuple[str | None, str, Parse]:
    chosen: tuple[str | None, str, Parse] = request.param
    return chosen


def scrape(statistics: Statistics, accept: str | None = None, parse: Parse = parse_text) -> Scraped:
    body, _ = render_metrics(statistics, BUILD, connections=7, sessions=41, accept=accept)
    return Scraped(body, parse)


def test_the_format_is_what_was_asked_for(form: tuple[str | None, str, Parse]) -> None:
    accept, expected, _ = form
    _, content_type = render_metrics(used_statistics(), BUILD, connections=0, accept=accept)
    assert content_type.startswith(expected)


def test_the_figures_are_those_of_the_statistics(form: tuple[str | None, str, Parse]) -> None:
    accept, _, parse = form
    statistics = used_statistics()
    said, found = statistics.snapshot(), scrape(statistics, accept, parse)
    assert found.value("tailrace_http_requests_total", outcome="ok") == said.requests_successful == 3
    assert found.value("tailrace_http_requests_total", outcome="failed") == said.requests_failed == 1
    assert found.value("tailrace_http_requests_in_flight") == 2
    assert said.requests_total == 6
    assert found.value("tailrace_streams_active") == said.active_streams == 1
    assert found.value("vllm:num_requests_running") == said.active_streams
    assert found.value("tailrace_sessions_created_total") == said.sessions_created == 5
    assert found.value("tailrace_chunks_total") == said.chunks == 8
    turns = found.value("vllm:e2e_request_latency_seconds_count")
    assert found.value("vllm:e2e_request_latency_seconds_sum") / turns == said.average_response_time == 1.5
    assert found.value("tailrace_uptime_seconds") >= said.uptime


def test_what_the_caller_knows_is_there_too() -> None:
    found = scrape(used_statistics())
    assert found.value("tailrace_connections") == 7
    assert found.value("tailrace_sessions") == 41
    assert found.value("tailrace_build_info", version="1.2.3", model='a "model"\n', framework="none") == 1
    body, _ = render_metrics(used_statistics(), BUILD, connections=0)
    assert "tailrace_sessions" not in Scraped(body, parse_text).families


@pytest.mark.parametrize(
    ("name", "bounds", "count", "total"),
    [
        ("vllm:time_to_first_token_seconds", FIRST_CHUNK_BOUNDS, 1, 0.05),
        ("vllm:inter_token_latency_seconds", GAP_BOUNDS, 3, 100.03),
        ("vllm:e2e_request_latency_seconds", TURN_BOUNDS, 4, 6.0),
    ],
)
def test_latencies_have_vllm_s_names_and_bounds(
    name: str, bounds: tuple[float, ...], count: int, total: float, form: tuple[str | None, str, Parse]
) -> None:
    accept, _, parse = form
    found = scrape(used_statistics(), accept, parse)
    buckets = [sample for sample in found.families[name].samples if sample.name == f"{name}_bucket"]
    assert [float(one.labels["le"]) for one in buckets] == [*bounds, float("inf")]
    assert {one.labels["model_name"] for one in buckets} == {BUILD.model}
    assert buckets[-1].value == count
    assert [one.value for one in buckets] == sorted(one.value for one in buckets)
    assert found.value(f"{name}_sum") == pytest.approx(total)


def test_tokens_and_ends_have_vllm_s_names() -> None:
    found, model = scrape(used_statistics()), BUILD.model
    assert found.value("vllm:num_requests_waiting", model_name=model) == 0
    assert found.value("vllm:prompt_tokens_total", model_name=model) == 100
    assert found.value("vllm:generation_tokens_total", model_name=model) == 20
    ended = "vllm:request_success_total"
    reasons = {one.labels["finished_reason"]: one.value for one in found.samples if one.name == ended}
    assert reasons == {"stop": 1, "abort": 2, "error": 1}


def test_turns_requests_and_refusals_have_labels() -> None:
    found = scrape(used_statistics())
    states = {one.labels["state"]: one.value for one in found.samples if one.name == "tailrace_turns_total"}
    assert states == {"complete": 1, "stopped": 1, "failed": 1, "interrupted": 1}
    labels = {"method": "GET", "route": "/stats", "status": "2xx", "outcome": "ok"}
    assert found.value("tailrace_http_requests_total", **labels) == 2
    assert found.value("tailrace_http_request_seconds_total", **labels) == 0.5
    assert found.value("tailrace_http_requests_total", status="none", outcome="ok") == 1
    assert found.value("tailrace_refused_total", code="session_busy") == 1


def test_a_server_that_has_done_nothing_can_be_scraped(form: tuple[str | None, str, Parse]) -> None:
    accept, _, parse = form
    found = scrape(Statistics(), accept, parse)
    assert found.value("vllm:time_to_first_token_seconds_count") == 0
    assert found.value("tailrace_turns_total") == 0


def test_all_names_are_tailrace_s_or_vllm_s() -> None:
    assert {name for name in scrape(used_statistics()).families if not name.startswith(("tailrace_", "vllm:"))} == set()
