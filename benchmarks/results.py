"""What a run found, and how it is kept."""

from statistics import median

from pydantic import BaseModel

from benchmarks.environment import Environment
from benchmarks.scenarios import Sample


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
    """Metrics by peer, why a peer was not measured, and how busy others kept the machine meanwhile."""

    foreign_percent: float
    peers: dict[str, dict[str, Spread]]
    missing: dict[str, str]

    @classmethod
    def of(
        cls, samples: dict[str, list[Sample]], *, missing: dict[str, str], foreign_percent: float
    ) -> "ScenarioResult":
        peers = {peer: spreads(rounds) for peer, rounds in samples.items() if rounds}
        return cls(foreign_percent=foreign_percent, peers=peers, missing=missing)


class Results(BaseModel):
    environment: Environment
    scenarios: dict[str, ScenarioResult]


def spreads(rounds: list[Sample]) -> dict[str, Spread]:
    return {metric: Spread.of([sample[metric] for sample in rounds]) for metric in rounds[0]}
