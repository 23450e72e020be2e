"""What a server has counted."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tailrace.chat.metrics import Metrics


def counted(metrics: Metrics, name: str, *labels: str) -> dict[Any, float]:
    """The samples of a name that are not 0, by the values of these labels."""
    body, _ = metrics.render(None, connections=0, sessions=None)
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name == name and sample.value:
                key = tuple(sample.labels[label] for label in labels)
                found[key if len(key) != 1 else key[0]] = sample.value
    return found


def total(metrics: Metrics, name: str) -> float:
    return sum(counted(metrics, name, "owner").values())


def refusals(metrics: Metrics) -> dict[str, float]:
    """How many requests were refused, by code."""
    return counted(metrics, "tailrace_refused_total", "code")


def requests(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """How many requests were answered, by method, route, status and outcome."""
    return counted(metrics, "tailrace_http_requests_total", "method", "route", "status", "outcome")
