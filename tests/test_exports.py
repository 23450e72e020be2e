from __future__ import annotations

import ast
import inspect
import re
import statistics
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

import pytest

import tailrace
import tailrace.client

EXTRAS = (
    "alembic",
    "anthropic",
    "asyncpg",
    "httpx",
    "httpx2",
    "hypothesis",
    "markdown_it",
    "nh3",
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
# Type aliases, which do not know where they are from.
ALIASES = {"DEFAULT_WIRES": "tailrace.modes", "Notice": "tailrace.events", "OnDisconnect": "tailrace.producer"}

# Their names are imported when they are first used.
LAZY = [tailrace, tailrace.client]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("package", LAZY)
def test_the_public_names_are_sorted_and_each_stands_once(package: ModuleType) -> None:
    # As the linter sorts: constants, then classes, then functions.
    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert package.__all__ == sorted(set(package.__all__), key=rank)


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in LAZY for name in package.__all__])
def test_a_public_name_can_be_imported_and_says_what_it_is(package: ModuleType, name: str) -> None:
    value = getattr(package, name)
    assert name in ALIASES or (inspect.getdoc(value) and value.__module__.startswith("tailrace."))


def told(package: ModuleType) -> dict[str, str]:
    """The modules that type checkers and editors are told, by the names from them."""
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    return {
        alias.name: resolve_name("." * node.level + (node.module or ""), package.__name__)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_are_told_what_programs_get(package: ModuleType) -> None:
    homes = {name: ALIASES.get(name) or getattr(package, name).__module__ for name in package.__all__}
    assert told(package) == homes


@pytest.mark.parametrize("package", LAZY)
def test_nothing_else_looks_public(package: ModuleType) -> None:
    assert set(dir(package)) - {"__version__"} == set(package.__all__)


@pytest.mark.parametrize("package", LAZY)
def test_the_public_names_are_listed_before_they_are_imported(package: ModuleType) -> None:
    name = package.__name__
    assert run(f"import {name}; print(set({name}.__all__) <= set(dir({name})))") == "True\n"


@pytest.mark.parametrize("package", LAZY)
def test_another_name_is_refused_as_by_any_module(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"^module '{package.__name__}' has no attribute 'Cursr'$") as refused:
        package.Cursr  # noqa: B018
    # Python finds what was meant with these.
    assert (refused.value.name, refused.value.obj) == ("Cursr", package)
    with pytest.raises(ImportError, match=f"'Cursr' from '{package.__name__}'"):
        exec(f"from {package.__name__} import Cursr")


def test_a_public_name_is_searched_once() -> None:
    assert run("import tailrace; tailrace.Cursor; print('Cursor' in vars(tailrace))") == "True\n"


@pytest.mark.parametrize("first", ["Tail", "tail", "Retry", "ChatClient"])
def test_a_function_of_the_client_is_not_hidden_by_a_module(first: str) -> None:
    code = f"from tailrace.client import {first}\nfrom tailrace.client import tail\nprint(tail.__name__)"
    assert run(code) == "tail\n"


def test_every_error_is_public() -> None:
    from tailrace import errors

    found = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert found <= set(tailrace.__all__)


def test_a_star_import_brings_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from tailrace import *", names)
    assert set(names) - {"__builtins__"} == set(tailrace.__all__)


def test_the_types_are_published() -> None:
    assert (Path(tailrace.__file__).parent / "py.typed").exists()


def imported_by(code: str) -> set[str]:
    """The modules that a new process has after `code`."""
    return set(run(f"{code}\nimport sys; print(*sys.modules)").split())


def test_the_public_names_need_nothing_that_only_extras_bring() -> None:
    assert imported_by("from tailrace import *") & set(EXTRAS) == set()


def test_the_public_names_need_none_of_the_applications() -> None:
    modules = imported_by("from tailrace import *")
    assert "tailrace.engine" in modules
    assert {name for name in modules if re.match(r"tailrace\.(chat|cli|client|testing)\b", name)} == set()


# What `tailrace chat` imports before its prompt.
PROMPT = "import tailrace.cli.commands, tailrace.cli.terminal.start, tailrace.cli.terminal.app"


@pytest.mark.parametrize(
    ("code", "needless"),
    [
        ("import tailrace", {"asyncio", "pydantic_core", "tailrace.errors"}),
        ("from tailrace import Cursor, StreamError", {"asyncio", "pydantic_core"}),
        ("from tailrace import SSE, MemoryLog, Producer, lifespan", {"fastapi", "pydantic"}),
        ("from tailrace import StreamResponse", {"fastapi"}),
        ("import tailrace.client", {"asyncio", "pydantic", "httpx"}),
        ("from tailrace.client import SessionInfo, Retry, StreamLost", {"fastapi", "starlette", "httpx", "websockets"}),
        (
            "from tailrace.client import PacketType, RequestFailed, SocketPacket",
            {"asyncio", "httpx", "tailrace.client.errors"},
        ),
        ("from tailrace.client import ChatClient, tail", {"fastapi", "starlette", "tailrace.packet"}),
        ("import tailrace.testing", {"fastapi", "starlette", "pydantic"}),
        (PROMPT, {"fastapi", "starlette", "httpx", "markdown_it", "pydantic_core", "pygments", "rich", "websockets"}),
    ],
)
def test_who_needs_little_imports_little(code: str, needless: set[str]) -> None:
    assert imported_by(code) & needless == set()


def memory_after(imports: str) -> float:
    """The median resident memory of three new processes."""
    code = f"{imports}\nimport psutil; print(psutil.Process().memory_info().rss)"
    return statistics.median(int(run(code)) for _ in range(3))


def test_the_public_names_take_little_memory_beside_fastapi() -> None:
    # In processes of their own: within one, the import would fill what importing FastAPI has left free.
    both, fastapi = memory_after("import fastapi\nfrom tailrace import *"), memory_after("import fastapi")
    assert both - fastapi < 12 * MEGABYTE
