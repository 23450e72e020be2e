"""`python -m benchmarks`: measure, and write the report."""

import argparse
import signal
import sys
from collections.abc import Sequence

from benchmarks.client import raise_file_limit
from benchmarks.environment import environment
from benchmarks.plot import plots
from benchmarks.process import ROOT, pin_client
from benchmarks.report import report, summary
from benchmarks.results import Results
from benchmarks.rounds import run
from benchmarks.scenarios import SCENARIOS

DOCS = ROOT / "docs" / "benchmarks"
KEPT = DOCS / "results.json"
CONNECTIONS = 6_144


def main() -> None:
    options = parse()
    if options.report:
        write(Results(scenarios={}))
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    # A terminated run must still reach the finally clauses that kill its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    raise_file_limit(CONNECTIONS)
    pin_client()
    names, here = options.scenario or list(SCENARIOS), environment()
    results = Results(
        scenarios={name: run(SCENARIOS[name], here, quick=options.quick, only=options.peer) for name in names}
    )
    if options.keep or not (options.quick or options.scenario or options.peer):
        write(results)
    else:
        print(summary(results, judged=not options.quick))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="tailrace beside its peers")
    parser.add_argument("scenario", nargs="*", help=f"{', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small loads and one round: shows that everything runs")
    parser.add_argument("--peer", action="append", default=[], help="measure only this one; may be repeated")
    parser.add_argument(
        "--keep", action="store_true", help="put what is measured into the report, as a whole run always does"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing: write the report again")
    options = parser.parse_args(arguments)
    if options.keep and (options.quick or options.peer):
        # Numbers of a small load mean nothing, and those of one peer were not measured beside the others.
        parser.error("expected --keep with all peers and whole loads, but got it with --quick or --peer")
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"expected scenarios out of {', '.join(SCENARIOS)}, but got {', '.join(unknown)}")
    return options


def write(newer: Results) -> None:
    """Write the report of these results and, for other scenarios, of those that were kept before."""
    DOCS.mkdir(parents=True, exist_ok=True)
    earlier = kept()
    results = earlier.merged(newer)
    for name in earlier.scenarios.keys() - results.scenarios.keys():
        print(f"left out {name}, which has changed since it was measured")
    for stale in DOCS.glob("*.svg"):
        stale.unlink()
    KEPT.write_text(results.model_dump_json(indent=1) + "\n")
    plots(results, DOCS)
    (DOCS / "README.md").write_text(report(results))
    print(f"wrote {DOCS.relative_to(ROOT)}/README.md, its plots and results.json")


def kept() -> Results:
    return Results.model_validate_json(KEPT.read_text()) if KEPT.exists() else Results(scenarios={})


if __name__ == "__main__":
    main()
