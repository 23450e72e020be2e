"""What a scenario is."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers import TAILRACE, Peer

Sample = dict[str, float]


@dataclass(frozen=True)
class Metric:
    name: str
    label: str
    unit: str
    digits: int = 1
    plotted: bool = False
    more_is_better: bool = False

    def show(self, value: float) -> str:
        return f"{value:,.{self.digits}f} {self.unit}"


@dataclass(frozen=True)
class Scenario:
    """Something done by each of its peers in turn, for several rounds; less of its first metric is better."""

    name: str
    title: str
    about: str
    peers: tuple[Peer, ...]
    metrics: tuple[Metric, ...]
    # Measures one peer once; True asks for a load of a second or two that only shows that it runs.
    measure: Callable[[Peer, bool], Sample]
    rounds: int = 3
    # Whom the others are compared with.
    own: Peer = TAILRACE

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)
