"""One bar plot for each metric that is worth seeing."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.finding import finding
from benchmarks.results import Results, ScenarioResult
from benchmarks.scenarios import SCENARIOS, Metric, Scenario

mpl.use("Agg")

ACCENT = "#0b6e8f"
GREY = "#9aa5ab"
INK = "#22292d"

STYLE = Path(__file__).with_suffix(".mplstyle")


def plots(results: Results, directory: Path) -> None:
    for name, result in results.scenarios.items():
        for metric in plotted(SCENARIOS[name], result):
            plot(SCENARIOS[name], result, metric, directory / filename(name, metric))


def plotted(scenario: Scenario, result: ScenarioResult) -> list[Metric]:
    """A single bar compares nothing."""
    return [metric for metric in scenario.metrics if metric.plotted] if len(result.peers) > 1 else []


def filename(scenario: str, metric: Metric) -> str:
    return f"{scenario}-{metric.name.replace('_', '-')}.svg"


def plot(scenario: Scenario, result: ScenarioResult, metric: Metric, path: Path) -> None:
    spreads = {
        peer: result.peers[peer.name][metric.name] for peer in reversed(scenario.peers) if peer.name in result.peers
    }
    medians = [spread.median for spread in spreads.values()]
    below = [spread.median - spread.min for spread in spreads.values()]
    above = [spread.max - spread.median for spread in spreads.values()]
    colors = [ACCENT if peer.name.startswith("tailrace") else GREY for peer in spreads]
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 1.4 + 0.36 * len(spreads)), layout="constrained")
        bars = axes.barh([peer.label for peer in spreads], medians, color=colors, xerr=[below, above], ecolor=INK)
        axes.bar_label(bars, labels=[metric.show(value) for value in medians], padding=8)
        axes.margins(x=0.2)
        axes.set_xlabel(f"{metric.label}, {metric.unit} (bar: median, line: range of {rounds(result)} rounds)")
        axes.set_title(wrapped(scenario, result, metric), loc="left", fontsize=11, fontweight="bold")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def rounds(result: ScenarioResult) -> int:
    return max(len(spread.rounds) for spreads in result.peers.values() for spread in spreads.values())


def wrapped(scenario: Scenario, result: ScenarioResult, metric: Metric) -> str:
    first, _, rest = finding(scenario, result, metric).partition(", ")
    return f"{scenario.title}\n{first},\n{rest}" if rest else f"{scenario.title}\n{first}"
