"""What a run found, and how it is kept."""

from statistics import median

from pydantic import BaseModel

from benchmarks.environment import Environment
from benchmarks.scenarios import SCENARIOS, Sample


class Spread(BaseModel):
    """One metric of one peer over the rounds."""

    median: float
    min: float
    max: float
    rounds: list[float]

    @classmethod
    def of(cls, rounds: list[float]) -> "Spread":
        return cls(median=median(rounds), min=min(rounds), max=max(rounds), rounds=rounds)


class ScenarioResult(BaseModel):
    """Metrics by peer, why a peer was not measured, when and where, and how busy others kept the machine meanwhile."""

    environment: Environment
    foreign_percent: float
    peers: dict[str, dict[str, Spread]]
    missing: dict[str, str]

    @classmethod
    def of(
        cls,
        samples: dict[str, list[Sample]],
        *,
        missing: dict[str, str],
        environment: Environment,
        foreign_percent: float,
    ) -> "ScenarioResult":
        peers = {peer: spreads(rounds) for peer, rounds in samples.items() if rounds}
        return cls(environment=environment, foreign_percent=foreign_percent, peers=peers, missing=missing)

    def fits(self, name: str) -> bool:
        """Tell whether the scenario still is as it was measured: its metrics and peers have their names."""
        if (scenario := SCENARIOS.get(name)) is None:
            return False
        metrics = {metric.name for metric in scenario.metrics}
        return self.peers.keys() <= {peer.name for peer in scenario.peers} and all(
            spreads.keys() == metrics for spreads in self.peers.values()
        )


class Results(BaseModel):
    """What was measured, by scenario: the peers of each side by side, the scenarios perhaps in several runs."""

    scenarios: dict[str, ScenarioResult]

    def merged(self, newer: "Results") -> "Results":
        """Put newer results in the places of these, in the order of the report.

        Results of a scenario that has changed since are left out, since they cannot be shown any more.
        """
        merged = {**self.scenarios, **newer.scenarios}
        return Results(
            scenarios={name: merged[name] for name in SCENARIOS if name in merged and merged[name].fits(name)}
        )

    def environments(self) -> list[Environment]:
        """Where and when scenarios were measured, the newest first."""
        found: list[Environment] = []
        for result in self.scenarios.values():
            if result.environment not in found:
                found.append(result.environment)
        return sorted(found, key=lambda environment: environment.date, reverse=True)


def spreads(rounds: list[Sample]) -> dict[str, Spread]:
    return {metric: Spread.of([sample[metric] for sample in rounds]) for metric in rounds[0]}
