from __future__ import annotations

import inspect
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import tailrace

EXTRAS = (
    "alembic",
    "anthropic",
    "asyncpg",
    "httpx",
    "httpx2",
    "hypothesis",
    "openai",
    "platformdirs",
    "prometheus_client",
    "pydantic_ai",
    "redis",
    "rich",
    "sqlalchemy",
    "uvicorn",
    "websockets",
)
MEGABYTE = 1 << 20


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_the_public_names_are_sorted_and_each_stands_once() -> None:
    # As the linter sorts: constants, then classes, then functions.
    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert tailrace.__all__ == sorted(set(tailrace.__all__), key=rank)


@pytest.mark.parametrize("name", tailrace.__all__)
def test_a_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(tailrace, name)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("tailrace.")


def test_nothing_else_looks_public() -> None:
    imported = {
        name for name, value in vars(tailrace).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imported == set(tailrace.__all__)


def test_every_error_is_public() -> None:
    errors = {
        name for name, value in vars(tailrace.errors).items() if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert errors <= set(tailrace.__all__)


def test_a_star_import_brings_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from tailrace import *", names)
    assert set(names) - {"__builtins__"} == set(tailrace.__all__)


def test_the_types_are_published() -> None:
    assert (Path(tailrace.__file__).parent / "py.typed").exists()


def test_importing_tailrace_imports_nothing_that_only_extras_bring() -> None:
    code = f"import sys, tailrace; print(*sorted({set(EXTRAS)} & set(sys.modules)))"
    assert run(code).split() == []


def test_importing_tailrace_imports_none_of_its_applications() -> None:
    code = "import sys, tailrace; print(*(name for name in sys.modules if name.startswith('tailrace.')))"
    modules = run(code).split()
    assert "tailrace.engine" in modules
    assert [name for name in modules if name.split(".")[1] in ("chat", "cli", "client", "testing")] == []


def memory_after(imports: str) -> float:
    """The median resident memory of three new processes."""
    code = f"import psutil, {imports}; print(psutil.Process().memory_info().rss)"
    return statistics.median(int(run(code)) for _ in range(3))


def test_importing_tailrace_takes_little_memory_beside_fastapi() -> None:
    # In processes of their own: within one, the import would fill what importing FastAPI has left free.
    assert memory_after("fastapi, tailrace") - memory_after("fastapi") < 12 * MEGABYTE
