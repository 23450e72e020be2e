"""What is counted, and how it is told: as totals, and for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from pydantic_core import from_json, to_json

from tailrace.chat.journal import Journal
from tailrace.chat.metrics import FIRST_CHUNK_BUCKETS, GAP_BUCKETS, TURN_BUCKETS, Metrics, Observer, Totals
from tailrace.chat.models.base import Usage
from tailrace.chat.store import Turn, TurnState
from tests.chat.counting import refusals, requests, total

MODEL = 'a "model"\n'
TURN = Turn(1, "session", "S" * 22, None, "Hello", MODEL, 0.0)

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


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def started(*owners: str, clock: Clock | None = None) -> Metrics:
    metrics = Metrics(clock) if clock else Metrics()
    metrics.start(owners or ("",), version="1.2.3", model=MODEL, framework="none")
    return metrics


def end(observer: Observer, state: TurnState, seconds: float, chunks: int, usage: Usage | None, owner: str) -> None:
    watch = observer.turn_started(TURN, owner, "127.0.0.1")
    watch.ended(replace(TURN, state=state, seconds=seconds, chunks=chunks, usage=usage))


def used(owner: str = "") -> Metrics:
    """The metrics of a server on which a bit of everything has happened, and goes on."""
    metrics = started(owner)
    metrics.in_flight.inc(2)
    metrics.request_ended("GET", "/stats", 200, True, 0.25, owner)
    metrics.request_ended("GET", "/stats", 200, True, 0.25, owner)
    metrics.request_ended("POST", "/chat/stream", 500, False, 1.0, owner)
    metrics.request_ended("POST", "/chat/stream", None, True, 1.0, owner)
    observer = Observer(metrics, Journal())
    for _ in range(5):
        observer.session_created(owner)
    observer.turn_started(TURN, owner, None)
    metrics.first_chunk.labels(MODEL, owner).observe(0.05)
    for seconds in (0.01, 0.02, 100.0):
        metrics.gap.labels(MODEL, owner).observe(seconds)
    end(observer, "complete", 1.0, 4, Usage(100, 20), owner)
    end(observer, "stopped", 3.0, 3, None, owner)
    end(observer, "failed", 0.5, 0, None, owner)
    end(observer, "interrupted", 1.5, 1, None, owner)
    metrics.refuse("session_busy")
    return metrics


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


def scrape(metrics: Metrics, accept: str | None = None, parse: Parse = parse_text, owner: str | None = None) -> Scraped:
    body, _ = metrics.render(owner, connections=7, sessions=41, accept=accept)
    return Scraped(body, parse)


# Counting


@pytest.mark.parametrize("bounds", [FIRST_CHUNK_BUCKETS, GAP_BUCKETS, TURN_BUCKETS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_a_new_server_has_done_nothing() -> None:
    clock = Clock()
    metrics = started(clock=clock)
    clock.now += 2.5
    assert metrics.uptime == 2.5
    assert metrics.totals(None) == Totals()


def test_a_turn_is_counted_from_its_start_to_its_end() -> None:
    metrics = started()
    watch = Observer(metrics, Journal()).turn_started(TURN, "", "127.0.0.1")
    assert metrics.totals(None).active_streams == 1
    for number in range(1, 12):
        watch.chunk(number, "text")
    assert total(metrics, "vllm:time_to_first_token_seconds_count") == 1
    assert total(metrics, "vllm:inter_token_latency_seconds_count") == 10
    assert watch.seconds >= total(metrics, "vllm:inter_token_latency_seconds_sum")
    watch.ended(replace(TURN, state="complete", chunks=11, seconds=2.0, usage=Usage(3, 4)))
    found = metrics.totals(None)
    assert (found.active_streams, found.chunks, found.average_response_time) == (0, 11, 2.0)
    assert total(metrics, "vllm:generation_tokens_total") == 4


def test_a_turn_that_goes_on_has_not_ended() -> None:
    metrics = started()
    watch = Observer(metrics, Journal()).turn_started(TURN, "", None)
    with pytest.raises(KeyError):
        watch.ended(TURN)
    assert metrics.totals(None).active_streams == 1


def test_requests_are_in_flight_then_successful_or_failed() -> None:
    found = used().totals(None)
    assert (found.requests_total, found.requests_successful, found.requests_failed) == (6, 3, 1)


def test_made_up_methods_are_counted_together() -> None:
    metrics = started()
    for method in ("BREW", "WHEN"):
        metrics.request_ended(method, "unmatched", 405, False, 0.0)
    assert requests(metrics) == {("other", "unmatched", "4xx", "failed"): 2}


def test_refusals_are_counted_by_code() -> None:
    metrics = started()
    for code in ("session_busy", "unauthorized", "session_busy"):
        metrics.refuse(code)
    assert refusals(metrics) == {"session_busy": 2, "unauthorized": 1}


def test_an_owner_sees_nothing_of_another() -> None:
    metrics = used("alice")
    assert metrics.totals("alice") == replace(metrics.totals(None), requests_total=4)
    assert metrics.totals("bob") == Totals()
    found = scrape(metrics, owner="alice")
    assert found.value("vllm:prompt_tokens_total") == 100
    assert {sample.labels.get("owner") for sample in found.samples} == {"alice"}
    assert "tailrace_refused" not in found.families
    assert [sample.name for sample in scrape(metrics, owner="bob").samples] == ["tailrace_sessions"]


def test_other_workers_get_the_figures_of_each_owner() -> None:
    metrics = used("alice")
    figures = from_json(to_json(metrics.figures()))
    for owner in (None, "alice", "bob"):
        assert Totals.of(figures, owner) == metrics.totals(owner)
    figures["totals"]["alice"]["of a newer version"] = 1
    both = Totals.of(figures, "alice") + Totals.of(figures, "alice")
    assert both.requests_total == 2 * metrics.totals("alice").requests_total > 0
    assert both.average_response_time == metrics.totals("alice").average_response_time > 0


# Telling


def test_the_format_is_what_was_asked_for(form: tuple[str | None, str, Parse]) -> None:
    accept, expected, _ = form
    _, content_type = used().render(None, connections=0, sessions=None, accept=accept)
    assert content_type.startswith(expected)


def test_the_figures_are_those_of_the_totals(form: tuple[str | None, str, Parse]) -> None:
    accept, _, parse = form
    metrics = used()
    totals, found = metrics.totals(None), scrape(metrics, accept, parse)
    assert found.value("tailrace_http_requests_total", outcome="ok") == totals.requests_successful == 3
    assert found.value("tailrace_http_requests_total", outcome="failed") == totals.requests_failed == 1
    assert found.value("tailrace_http_requests_in_flight") == 2
    assert totals.requests_total == 6
    assert found.value("tailrace_streams_active") == totals.active_streams == 1
    assert found.value("vllm:num_requests_running") == totals.active_streams
    assert found.value("tailrace_sessions_created_total") == totals.sessions_created == 5
    assert found.value("tailrace_chunks_total") == totals.chunks == 8
    turns = found.value("vllm:e2e_request_latency_seconds_count")
    assert found.value("vllm:e2e_request_latency_seconds_sum") / turns == totals.average_response_time == 1.5
    assert found.value("tailrace_uptime_seconds") > 0


def test_what_the_caller_knows_is_there_too() -> None:
    found = scrape(used())
    assert found.value("tailrace_connections") == 7
    assert found.value("tailrace_sessions") == 41
    assert found.value("tailrace_build_info", version="1.2.3", model=MODEL, framework="none") == 1
    body, _ = used().render(None, connections=0, sessions=None)
    assert "tailrace_sessions" not in Scraped(body, parse_text).families


@pytest.mark.parametrize(
    ("name", "bounds", "count", "expected"),
    [
        ("vllm:time_to_first_token_seconds", FIRST_CHUNK_BUCKETS, 1, 0.05),
        ("vllm:inter_token_latency_seconds", GAP_BUCKETS, 3, 100.03),
        ("vllm:e2e_request_latency_seconds", TURN_BUCKETS, 4, 6.0),
    ],
)
def test_latencies_have_vllm_s_names_and_bounds(
    name: str, bounds: tuple[float, ...], count: int, expected: float, form: tuple[str | None, str, Parse]
) -> None:
    accept, _, parse = form
    found = scrape(used(), accept, parse)
    buckets = [sample for sample in found.families[name].samples if sample.name == f"{name}_bucket"]
    assert [float(one.labels["le"]) for one in buckets] == [*bounds, float("inf")]
    assert {one.labels["model_name"] for one in buckets} == {MODEL}
    assert buckets[-1].value == count
    assert [one.value for one in buckets] == sorted(one.value for one in buckets)
    assert found.value(f"{name}_sum") == pytest.approx(expected)


def test_tokens_and_ends_have_vllm_s_names() -> None:
    found = scrape(used())
    assert found.value("vllm:num_requests_waiting", model_name=MODEL) == 0
    assert found.value("vllm:prompt_tokens_total", model_name=MODEL) == 100
    assert found.value("vllm:generation_tokens_total", model_name=MODEL) == 20
    ended = "vllm:request_success_total"
    reasons = {one.labels["finished_reason"]: one.value for one in found.samples if one.name == ended}
    assert reasons == {"stop": 1, "abort": 2, "error": 1}


def test_turns_requests_and_refusals_have_labels() -> None:
    found = scrape(used())
    states = {one.labels["state"]: one.value for one in found.samples if one.name == "tailrace_turns_total"}
    assert states == {"complete": 1, "stopped": 1, "failed": 1, "interrupted": 1}
    labels = {"method": "GET", "route": "/stats", "status": "2xx", "outcome": "ok"}
    assert found.value("tailrace_http_requests_total", **labels) == 2
    assert found.value("tailrace_http_request_seconds_total", **labels) == 0.5
    assert found.value("tailrace_http_requests_total", status="none", outcome="ok") == 1
    assert found.value("tailrace_refused_total", code="session_busy") == 1


def test_a_server_that_has_done_nothing_can_be_scraped(form: tuple[str | None, str, Parse]) -> None:
    accept, _, parse = form
    found = scrape(started(), accept, parse)
    assert found.value("vllm:time_to_first_token_seconds_count") == 0
    assert found.value("tailrace_turns_total") == 0


def test_all_names_are_tailrace_s_or_vllm_s() -> None:
    names = set(scrape(used()).families)
    assert {name for name in names if not name.startswith(("tailrace_", "vllm:"))} == set()
    assert {name for name in names if name.endswith("_created")} <= {"tailrace_sessions_created"}
