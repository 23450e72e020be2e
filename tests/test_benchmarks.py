"""The benchmarks' report and what is kept of runs. No test measures speed."""

from collections.abc import Callable
from datetime import date

import pytest

from benchmarks.__main__ import DOCS, kept, parse
from benchmarks.client import Undelivered
from benchmarks.crowd import Reader
from benchmarks.environment import Environment
from benchmarks.finding import compare, finding
from benchmarks.floors import FLOORS, Floor, RatioFloor
from benchmarks.report import report
from benchmarks.results import Results, ScenarioResult, Spread
from benchmarks.scenarios import SCENARIOS, Scenario

EARLIER, LATER = date(2026, 1, 1), date(2026, 2, 3)
FIRST, SECOND, THIRD = list(SCENARIOS)[:3]


def environment(day: date, **versions: str) -> Environment:
    return Environment(date=day, system="Linux", cores=2, memory_gb=8, python="CPython 3.11", versions=versions)


def result(name: str, where: Environment, value: float = 1.0) -> ScenarioResult:
    scenario = SCENARIOS[name]
    sample = {metric.name: value for metric in scenario.metrics}
    samples = {peer.name: [sample] for peer in scenario.peers}
    return ScenarioResult.of(samples, missing={}, environment=where, foreign_percent=0.0)


def test_scenarios_of_a_new_run_take_the_places_of_the_old_ones() -> None:
    then, now = environment(EARLIER), environment(LATER)
    old = Results(scenarios={name: result(name, then) for name in (FIRST, THIRD)})
    new = Results(scenarios={name: result(name, now) for name in (SECOND, THIRD)})
    merged = old.merged(new)
    assert [(name, one.environment) for name, one in merged.scenarios.items()] == [
        (FIRST, then),
        (SECOND, now),
        (THIRD, now),
    ]
    assert merged.environments() == [now, then]


def without_a_peer(results: dict[str, ScenarioResult]) -> None:
    results[FIRST].peers["vanished"] = results[FIRST].peers.popitem()[1]


def without_a_metric(results: dict[str, ScenarioResult]) -> None:
    next(iter(results[FIRST].peers.values())).popitem()


def without_a_scenario(results: dict[str, ScenarioResult]) -> None:
    results["vanished"] = results.pop(FIRST)


@pytest.mark.parametrize("change", [without_a_peer, without_a_metric, without_a_scenario])
def test_a_scenario_that_has_changed_is_dropped(change: Callable[[dict[str, ScenarioResult]], None]) -> None:
    old = {name: result(name, environment(EARLIER)) for name in (FIRST, SECOND)}
    change(old)
    assert list(Results(scenarios=old).merged(Results(scenarios={})).scenarios) == [SECOND]


def test_the_page_says_when_and_with_which_versions_each_scenario_was_measured() -> None:
    then, now = environment(EARLIER, fastapi="1", gone="3"), environment(LATER, fastapi="2")
    page = report(Results(scenarios={FIRST: result(FIRST, then), SECOND: result(SECOND, now)}))
    sections = page.partition(f"## {SCENARIOS[FIRST].title}\n")[2].partition(f"## {SCENARIOS[SECOND].title}\n")
    assert ["Measured on 2026-01-01." in section for section in sections[::2]] == [True, False]
    assert ["Measured on 2026-02-03." in section for section in sections[::2]] == [False, True]
    assert "| package | 2026-02-03 | 2026-01-01 |" in page
    assert "| fastapi | 2 | 1 |" in page
    assert "| gone | – | 3 |" in page


def test_the_page_is_that_of_the_kept_results() -> None:
    assert (DOCS / "README.md").read_text() == report(kept()), (
        "expected the page to be new: python -m benchmarks --report"
    )


@pytest.mark.parametrize("options", [["--quick"], ["--peer", "tailrace"]])
def test_what_is_not_measured_as_a_whole_is_not_kept(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([FIRST, "--keep"]).keep
    with pytest.raises(SystemExit):
        parse([FIRST, "--keep", *options])
    assert "expected --keep with all peers and whole loads" in capsys.readouterr().err


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_scenario_compares_its_own_with_peers_of_other_names(scenario: Scenario) -> None:
    names = [peer.name for peer in scenario.peers]
    assert scenario.own.name in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.scenario}-{floor.metric}")
def test_a_floor_is_of_what_its_scenario_measures(floor: Floor) -> None:
    peers = SCENARIOS[floor.scenario].peers
    assert floor.definition in SCENARIOS[floor.scenario].metrics
    assert floor.peer in peers
    assert not isinstance(floor, RatioFloor) or floor.rival in peers


@pytest.mark.parametrize("number", [1, 3])
def test_a_reader_that_comes_back_tells_what_is_lost_or_comes_twice(number: int) -> None:
    reader = Reader("/feeds/0")
    for given in (0, 1):
        reader.take(b"feed.epoch.%d" % given, given)
    with pytest.raises(Undelivered, match=f"expected event 2 of /feeds/0 after 'feed.epoch.1', but got {number}"):
        reader.take(b"feed.epoch.9", number)


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        (0.0, 0.0, "as much as it"),
        (1.02, 1.0, "as much as it"),
        (0.0, 3.0, "less than it"),
        (3.0, 0.0, "more than it"),
        (1.0, 3.0, "3.0× less than it"),
        (3.0, 1.0, "3.0× as much as it"),
    ],
)
def test_a_finding_compares_also_what_is_nothing(own: float, other: float, said: str) -> None:
    assert compare(own, other, "it") == said


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_finding_does_not_compare_tailrace_with_itself(name: str) -> None:
    scenario = SCENARIOS[name]
    peers = {**result(name, environment(EARLIER)).peers, scenario.own.name: extreme(name)}
    measured = result(name, environment(EARLIER)).model_copy(update={"peers": peers})
    assert f" {scenario.own.label}" not in finding(scenario, measured, scenario.metrics[0])


def extreme(name: str) -> dict[str, Spread]:
    """Numbers of a peer that are larger than those of all others."""
    return next(iter(result(name, environment(EARLIER), 9.0).peers.values()))
