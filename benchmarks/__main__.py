"""`python -m benchmarks`: measure, and write the report if everything was measured."""

import argparse
import signal
import sys

from benchmarks.client import raise_file_limit
from benchmarks.environment import environment
from benchmarks.plot import plots
from benchmarks.process import ROOT, pin_client
from benchmarks.report import report, summary
from benchmarks.results import Results
from benchmarks.rounds import run
from benchmarks.scenarios import SCENARIOS

DOCS = ROOT / "docs" / "benchmarks"
CONNECTIONS = 4_096


def main() -> None:
    options = parse()
    if options.report:
        write(Results.model_validate_json((DOCS / "results.json").read_text()))
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    # A terminated run must still reach the finally clauses that kill its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    raise_file_limit(CONNECTIONS)
    pin_client()
    names = options.scenario or list(SCENARIOS)
    results = Results(
        environment=environment(),
        scenarios={name: run(SCENARIOS[name], quick=options.quick, only=options.peer) for name in names},
    )
    if options.quick or options.scenario or options.peer:
        # What is only a part was not measured side by side in one run: it may be looked at, but not kept.
        print(summary(results, judged=not options.quick))
    else:
        write(results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="tailrace beside its peers")
    parser.add_argument("scenario", nargs="*", help=f"{', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small loads and one round: shows that everything runs")
    parser.add_argument("--peer", action="append", default=[], help="measure only this one; may be repeated")
    parser.add_argument("--report", action="store_true", help="measure nothing: write the report of the last run again")
    options = parser.parse_args()
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"expected scenarios out of {', '.join(SCENARIOS)}, but got {', '.join(unknown)}")
    return options


def write(results: Results) -> None:
    DOCS.mkdir(parents=True, exist_ok=True)
    for stale in DOCS.glob("*.svg"):
        stale.unlink()
    (DOCS / "results.json").write_text(results.model_dump_json(indent=1) + "\n")
    plots(results, DOCS)
    (DOCS / "README.md").write_text(report(results))
    print(f"wrote {DOCS.relative_to(ROOT)}/README.md, its plots and results.json")


if __name__ == "__main__":
    main()
