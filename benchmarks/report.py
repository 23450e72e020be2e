"""Writes the report: a page that is computed from the results, and says so."""

from collections.abc import Iterator, Sequence
from textwrap import fill

from benchmarks.environment import Environment
from benchmarks.finding import finding, relative
from benchmarks.floors import FLOORS, Verdict, verdicts
from benchmarks.plot import filename, plotted
from benchmarks.results import Results, ScenarioResult, Spread
from benchmarks.scenarios import SCENARIOS, Metric, Scenario

SATURATED = 97.0

INTRODUCTION = """\
<!-- Written by `python -m benchmarks`; edit the benchmarks, not this page. -->

# Benchmarks

This page compares tailrace with its peers. All peers of a scenario were measured in one run on one machine.
`make bench` measures everything in about 50 minutes and rewrites this page, its plots and [results.json](results.json).
`make bench ARGS='NAME… --keep'` measures some scenarios and puts them on this page, and `make bench ARGS=--quick` only
checks that everything runs.

## How to read this

- **Compare only ratios.** Absolute numbers belong to one machine and one day. On some days the machine was slower or
  busy with other work. Each section says when it was measured, and how busy the machine was. Peers take turns in every
  round, so noise affects all alike. A number is the median of its rounds, and the range in brackets is their minimum
  and maximum.
- **Server CPU is the measure**: user and system time of the server process, including the kernel's work for its
  sockets. The load client is a separate process on a core of its own. It reads raw sockets and only counts. Where it
  uses nearly 100 % of its core, the rate is its limit and not the server's.
- **No peer gains by losing events.** The run fails unless every stream brings exactly the events that it should, and
  every finite one ends cleanly. Before the first stream is timed, each peer's response is decoded and compared.
- Every peer sends the same pydantic model as JSON, `{"id": 17, "name": "sensor", "value": 3.25}`. Python servers run
  in one process under uvicorn with uvloop and httptools, without an access log; nchan runs in one nginx worker.
- tailrace does more work for its numbers: its events carry an `id:` to resume from, its streams say how they ended,
  and its idle connections get pings. A bare `StreamingResponse` does none of that.
- The benchmark starts a Redis of its own, without persistence. Libraries that pass events through it are compared in
  processes without clients. The title says whether a rate, a time or CPU is measured, and each section says where an
  event counts as delivered.
- The sections after those measure the chat server, started by `tailrace serve` as by a user. Every peer sends the
  objects of a chat as NDJSON, and the built-in demo model writes the same text for all, so no model's own time is
  compared.
- The last sections measure clients, each in a process of its own: the client's CPU, or how long a user waits.
"""


def report(results: Results) -> str:
    """The whole page."""
    environments = results.environments()
    return "\n".join([INTRODUCTION, *floors(results), *scenarios(results), *machines(environments)]) + "\n"


def summary(results: Results, *, judged: bool) -> str:
    """The numbers alone, for a run that is not kept."""
    tables = (line for name, result in results.scenarios.items() for line in [name, "", *rows(SCENARIOS[name], result)])
    return "\n".join([*(floors(results) if judged and verdicts(results) else ()), *tables])


def floors(results: Results) -> Iterator[str]:
    found = verdicts(results)
    reached = sum(verdict.reached for verdict in found)
    yield "## Floors\n"
    yield "Targets that tailrace must reach. A ratio is the median of the rounds' ratios, with their range beside it.\n"
    judged = sum(floor.scenario in results.scenarios for floor in FLOORS)
    yield f"**{reached} of {len(found)} are reached{unmeasured(judged - len(found))}.**\n"
    yield from table(
        ("what", "floor", "measured", "range", "verdict"),
        [(verdict.work, verdict.floor, verdict.measured, verdict.spread, judgement(verdict)) for verdict in found],
    )
    if missed := [verdict for verdict in found if not verdict.reached]:
        yield "\nWhy the others are missed:\n"
        yield from (f"- {verdict.work} ({verdict.floor}): {verdict.holds}." for verdict in missed)
        yield ""


def unmeasured(count: int) -> str:
    return f"; {count} could not be measured" if count else ""


def judgement(verdict: Verdict) -> str:
    spare = f"{abs(verdict.spare) * 100:.0f} %"
    return f"reached, {spare} to spare" if verdict.reached else f"**missed by {spare}**"


def scenarios(results: Results) -> Iterator[str]:
    for name, result in results.scenarios.items():
        scenario = SCENARIOS[name]
        yield f"## {scenario.title}\n"
        yield f"{finding(scenario, result, scenario.metrics[0])}.\n"
        yield f"{fill(scenario.about, 120)}\n"
        yield (
            f"Measured on {result.environment.date:%Y-%m-%d}. Other work took "
            f"{result.foreign_percent:.0f} % of the machine meanwhile.\n"
        )
        for metric in plotted(scenario, result):
            yield f"![{scenario.title}: {metric.label} by peer]({filename(name, metric)})\n"
        yield from rows(scenario, result)
        yield from saturated(scenario, result)
        for peer, reason in result.missing.items():
            yield f"{peer} was not measured: {reason}.\n"


def saturated(scenario: Scenario, result: ScenarioResult) -> Iterator[str]:
    """Name the peers that could not keep up: their gaps show a full core, not delays of their own."""
    full = [
        peer.label
        for peer in scenario.peers
        if (core := result.peers.get(peer.name, {}).get("core")) and core.median >= SATURATED
    ]
    if full:
        yield f"These saturate the core, so their gaps show a server that cannot keep up: {', '.join(full)}.\n"


def rows(scenario: Scenario, result: ScenarioResult) -> Iterator[str]:
    """A scenario's numbers, with its first metric relative to tailrace's."""
    first = scenario.metrics[0]
    own = result.peers.get(scenario.own.name)
    yield from table(
        ("peer", "relative", *(f"{metric.label}, {metric.unit}" for metric in scenario.metrics)),
        [
            (peer.label, relative(spreads, own, first), *cells(spreads, scenario.metrics))
            for peer in scenario.peers
            if (spreads := result.peers.get(peer.name))
        ],
    )


def cells(spreads: dict[str, Spread], metrics: Sequence[Metric]) -> Iterator[str]:
    return (cell(spreads[metric.name], metric) for metric in metrics)


def cell(spread: Spread, metric: Metric) -> str:
    middle, low, high = (f"{value:,.{metric.digits}f}" for value in (spread.median, spread.min, spread.max))
    return middle if len(spread.rounds) == 1 else f"{middle} ({low} – {high})"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in body:
        yield f"| {' | '.join(line)} |"
    yield ""


def machines(environments: Sequence[Environment]) -> Iterator[str]:
    """Each with the versions that were measured there, in a column of its own."""
    yield "## Machine and versions\n"
    for environment in environments:
        yield (
            f"{environment.date:%Y-%m-%d}: {environment.system}, {environment.cores} cores, "
            f"{environment.memory_gb} GB, {environment.python}.\n"
        )
    packages = dict.fromkeys(package for environment in environments for package in environment.versions)
    yield from table(
        ("package", *(f"{environment.date:%Y-%m-%d}" for environment in environments)),
        [(package, *(environment.versions.get(package, "–") for environment in environments)) for package in packages],
    )
