"""The check of each exercise passes for its solution, and every test of it fails for the starting point."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "exercises"
EXERCISES = sorted(path for path in FOLDER.iterdir() if (path / "exercise.py").exists())


def check(exercise: Path, *options: str) -> tuple[int, dict[str, int]]:
    """Run the check of an exercise. Return its exit code and the number of tests for each result."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(exercise), *options]
    result = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, timeout=100, check=False)
    counts = re.findall(r"(\d+) (passed|failed|errors?|skipped)", result.stdout.splitlines()[-1])
    return result.returncode, {kind: int(count) for count, kind in counts}


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda path: path.name)
def test_the_solution_passes(exercise: Path) -> None:
    code, counts = check(exercise, "--solution")
    assert code == 0
    assert list(counts) == ["passed"]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda path: path.name)
def test_the_starting_point_fails_every_check(exercise: Path) -> None:
    code, counts = check(exercise)
    assert code == 1
    assert list(counts) == ["failed"]


def test_there_are_three_and_each_is_complete() -> None:
    assert [path.name[:4] for path in EXERCISES] == ["ex1_", "ex2_", "ex3_"]
    for exercise in EXERCISES:
        assert (exercise / "README.md").read_text().startswith("# Exercise ")
        assert f"({exercise.name}/README.md)" in (FOLDER / "README.md").read_text()
        command = f".venv/bin/python -m pytest exercises/{exercise.name}\n"
        assert command in (exercise / "README.md").read_text()
