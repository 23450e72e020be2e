"""Runs a scenario: every peer in turn, round after round, so that noise falls on all alike."""

import sys
import time
from collections.abc import Sequence

from benchmarks.environment import Environment
from benchmarks.foreign import ForeignLoad
from benchmarks.peers import Peer, missing
from benchmarks.results import ScenarioResult
from benchmarks.scenarios import Sample, Scenario


def run(scenario: Scenario, environment: Environment, *, quick: bool, only: Sequence[str] = ()) -> ScenarioResult:
    chosen = [peer for peer in scenario.peers if not only or peer.name in only]
    absent = {peer.name: reason for peer in chosen if (reason := missing(peer))}
    peers = [peer for peer in chosen if peer.name not in absent]
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    foreign = ForeignLoad()
    for number in range(1 if quick else scenario.rounds):
        for peer in peers:
            samples[peer.name].append(measure(scenario, peer, number, quick))
    return ScenarioResult.of(samples, missing=absent, environment=environment, foreign_percent=foreign.percent())


def measure(scenario: Scenario, peer: Peer, number: int, quick: bool) -> Sample:
    start = time.perf_counter()
    sample = scenario.measure(peer, quick)
    metric = scenario.metrics[0]
    print(
        f"{scenario.name:18} round {number + 1}  {peer.name:22} {metric.show(sample[metric.name]):>12} {metric.label}"
        f"  ({time.perf_counter() - start:.1f} s)",
        file=sys.stderr,
        flush=True,
    )
    return sample
