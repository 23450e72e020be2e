"""What a measurement says, in one sentence computed from it."""

from benchmarks.results import ScenarioResult, Spread
from benchmarks.scenarios import Metric, Scenario

ALIKE = 0.05


def finding(scenario: Scenario, result: ScenarioResult, metric: Metric) -> str:
    """tailrace's median beside the least and the most of the others."""
    labels = {peer.name: peer.label for peer in scenario.peers}
    medians = {labels[name]: spreads[metric.name].median for name, spreads in result.peers.items()}
    rivals = [name for name in result.peers if not name.startswith("tailrace") and name != scenario.own.name]
    others = {labels[name]: medians[labels[name]] for name in rivals}
    own = medians.get(scenario.own.label)
    if own is None:
        return f"{metric.label[0].upper()}{metric.label[1:]}, by peer"
    sentence = f"tailrace: {metric.show(own)} {metric.label}"
    ends = dict.fromkeys(pick(others, key=others.__getitem__) for pick in (min, max)) if others else {}
    return ", ".join([sentence, *(compare(own, others[label], label) for label in ends)])


def compare(own: float, other: float, label: str) -> str:
    if abs(own - other) <= ALIKE * other:
        return f"as much as {label}"
    if not own or not other:  # nothing has no multiple
        return f"{'less' if own < other else 'more'} than {label}"
    if own < other:
        return f"{other / own:.1f}× less than {label}"
    return f"{own / other:.1f}× as much as {label}"


def relative(spreads: dict[str, Spread], own: dict[str, Spread] | None, metric: Metric) -> str:
    """A peer's median as a multiple of tailrace's."""
    if own is None or own[metric.name].median == 0:
        return "–"
    return f"{spreads[metric.name].median / own[metric.name].median:.2f}×"
