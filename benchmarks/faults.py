"""`python -m benchmarks.faults`: run the fault tests several times, and write their times into docs/reliability.md."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environment import environment
from benchmarks.process import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- python -m benchmarks.faults writes from here -->\n", "<!-- to here -->\n"
ROUNDS = 4

HEAD = "| fault | noticed by | noticed after | repaired after | what the reader sees | what the writer sees |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description="time each fault")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often to run the tests, by default {ROUNDS}")
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "faults")
        for _ in range(rounds):
            command = [sys.executable, "-m", "pytest", "-q", "tests/reliability"]
            subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "FAULTS_FILE": str(file)})
        measured = [json.loads(line) for line in file.read_text().splitlines()]
    page = PAGE.read_text()
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:begin] + table(measured) + conditions(rounds) + page[end:])
    print(f"wrote the table of {PAGE.relative_to(ROOT)}")


def table(measured: Sequence[dict[str, Any]]) -> str:
    """Return a row for each fault, in the order of the tests."""
    samples: dict[str, list[list[float | None]]] = {}
    about = {}
    for each in measured:
        about[each["fault"]] = each
        samples.setdefault(each["fault"], []).extend(each["samples"])
    rows = [
        [fault, each["noticed"], *map(times, zip(*samples[fault], strict=True)), each["reader"], each["writer"]]
        for fault, each in about.items()
    ]
    return "\n".join([HEAD, "|---" * HEAD.count(" | ") + "|---|", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def times(taken: Sequence[float | None]) -> str:
    """Format the median and the longest of some times, or a dash if there are none."""
    known = [seconds for seconds in taken if seconds is not None]
    if not known:
        return "–"
    return f"{spelled(median(known))} ({spelled(max(known))})"


def spelled(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


def conditions(rounds: int) -> str:
    where = environment()
    redis = where.versions.get("redis-server", "")
    return (
        f"\nMedian (longest) of {rounds} runs, on {where.system} with {where.cores} cores, {where.python}, "
        f"Redis {redis}, {where.date}.\n"
    )


if __name__ == "__main__":
    main()
