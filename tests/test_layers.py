"""A module imports only from lower layers; a folder's `base` imports none of its siblings; nothing goes in circles.

Applications that come with tailrace use what any other application has: its public names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import tailrace
import tailrace.blocks
import tailrace.client
import tailrace.pages
import tailrace.rooms

SOURCE = Path(tailrace.__file__).parent

# Lowest first. A name is a module or a folder; those of one layer do not know each other.
LAYERS: list[set[str]] = [
    {"blocks", "coroutine", "errors"},
    {"cursor", "events"},
    {"flow", "packet", "wire"},
    {"client", "iterators", "modes", "pulse", "stepping", "widgets"},
    {"log"},
    {"producer"},
    {"engine"},
    {"asgi"},
    {"pages", "routing"},
    {"__init__", "packets", "rooms", "testing"},
    {"chat", "examples", "rover"},
    {"cli"},
    {"__main__"},
]

# These import nothing of tailrace but the public names of these packages, as any other application would.
APPLICATIONS = {"chat", "examples", "rover"}
PUBLIC = {
    "__init__": tailrace,
    "blocks": tailrace.blocks,
    "client": tailrace.client,
    "pages": tailrace.pages,
    "rooms": tailrace.rooms,
}

# Who may import what comes from elsewhere: modules, or folders with all their modules.
FOREIGN: dict[str, set[str]] = {
    "fastapi": {"chat", "examples", "packets", "rooms", "routing", "rover"},
    "starlette": {"asgi", "chat", "packets", "pages", "rooms", "routing", "rover"},
    # Only extras bring these.
    "alembic": {"chat.store"},
    "anthropic": {"chat.models"},
    "asyncpg": {"chat.store"},
    "hiredis": {"log.redis"},
    "httpx": {"client"},
    "httpx2": {"chat.models"},
    "numpy": {"rover.deck", "rover.panorama", "rover.terrain"},
    "openai": {"chat.models"},
    "PIL": {"rover"},
    "platformdirs": {"chat.settings", "rover.image"},
    "pydantic_settings": {"chat.settings"},
    "prometheus_client": {"chat.metrics"},
    "pydantic_ai": {"chat.models"},
    "redis": {"log.redis"},
    "rich": {"chat", "cli"},
    "prompt_toolkit": {"cli.terminal"},
    "markdown_it": {"blocks", "chat.markdown", "cli.terminal"},
    "nh3": {"chat.markdown"},
    "pygments": {"chat.markdown"},
    "sqlalchemy": {"chat.store"},
    "uvicorn": {"cli", "examples.serving"},
    "websockets": {"client"},
}


class Import(NamedTuple):
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer.replace('.', '/')}.py:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    """`asgi/response.py` is asgi.response; a folder's `__init__.py` is the folder."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py")}


def imports(module: str) -> Iterator[Import]:
    """All imports, wherever they stand, by absolute names."""
    path = MODULES[module]
    package = ["tailrace", *path.parent.relative_to(SOURCE).parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield Import(module, name if inner_name(name) in MODULES else base, node.lineno)


def inner_name(name: str) -> str | None:
    """How MODULES calls a module of tailrace; None for any other."""
    root, _, inside = name.partition(".")
    return (inside or "__init__") if root == "tailrace" else None


INNER: list[Import] = []
OUTER: list[Import] = []
for found in (found for module in sorted(MODULES) for found in imports(module)):
    inner = inner_name(found.imported)
    (OUTER if inner is None else INNER).append(found._replace(imported=inner or found.imported))


def part(module: str) -> str:
    """The name under which a module stands in a layer. `python -m` runs what is above all others, wherever it is."""
    return "__main__" if module.endswith("__main__") else module.partition(".")[0]


def within(module: str, places: set[str]) -> bool:
    """Whether a module is one of `places`, or in a folder that is."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def is_allowed(found: Import) -> bool:
    importer, imported = found.importer, found.imported
    if part(importer) != part(imported):
        if part(importer) in APPLICATIONS:
            return imported in PUBLIC
        return RANK[part(imported)] < RANK[part(importer)]
    # A contract knows none of those who fulfil it.
    return importer.rpartition(".")[2] != "base"


def test_every_module_has_a_layer() -> None:
    assert {part(module) for module in MODULES} - set(RANK) == set()


def test_the_design_shows_the_layers() -> None:
    page = (Path(__file__).parent.parent / "docs" / "design.md").read_text()
    table = re.search(r"^\| layer \|.*\n\|---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None
    shown = [re.findall(r"`(\w+)(/?)`", row.split("|")[1]) for row in table[1].splitlines()]
    assert [{name for name, _ in row} for row in reversed(shown)] == LAYERS
    folders = {module.partition(".")[0] for module in MODULES if "." in module}
    assert {name for row in shown for name, slash in row if slash} == folders


def test_every_inner_import_names_a_module() -> None:
    assert [str(found) for found in INNER if found.imported not in MODULES] == []


def test_modules_import_only_from_lower_layers() -> None:
    assert [str(found) for found in INNER if not is_allowed(found)] == []


@pytest.mark.parametrize("package", PUBLIC)
@pytest.mark.parametrize("application", sorted(APPLICATIONS))
def test_an_application_names_only_what_is_public(application: str, package: str) -> None:
    names = {
        alias.name
        for module, path in MODULES.items()
        if part(module) == application
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and package_of(node, path) == package
        for alias in node.names
    }
    assert names - {*PUBLIC[package].__all__, "__version__"} == set()


def package_of(node: ast.ImportFrom, path: Path) -> str | None:
    """The package of tailrace that `from … import` names, with dots or without, as MODULES calls it."""
    package = ["tailrace", *path.parent.relative_to(SOURCE).parts]
    above = package[: len(package) - node.level + 1] if node.level else []
    return inner_name(".".join([*above, node.module] if node.module else above))


def test_there_are_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for found in INNER:
        graph.setdefault(found.importer, set()).add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


@pytest.mark.parametrize("package", FOREIGN)
def test_a_foreign_package_appears_only_where_it_is_spoken_to(package: str) -> None:
    allowed = FOREIGN[package]
    found = [one for one in OUTER if one.imported.split(".")[0] == package]
    assert [str(one) for one in found if not within(one.importer, allowed)] == []


def test_the_table_of_foreign_packages_names_only_what_is_there() -> None:
    assert set().union(*FOREIGN.values()) <= set(MODULES)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("engine", "log.base", True),
        ("log.base", "engine", False),
        ("log.memory", "log.base", True),
        ("log.base", "log.memory", False),
        ("asgi.reply", "asgi.decision", True),
        ("chat.app", "__init__", True),
        ("chat.app", "engine", False),
        ("chat.app", "testing", False),
        ("client.core", "wire.sse", True),
        ("client.core", "engine", False),
        ("chat.app", "client", True),
        ("chat.app", "client.stream", False),
        ("cli.serve", "client.stream", True),
        ("chat.app", "chat.store.store", True),
        ("chat.app", "cli.serve", False),
        ("cli.serve", "chat.app", True),
        ("__init__", "chat.app", False),
        ("rover.app", "chat.app", False),
        ("rover.app", "cli.main", False),
        ("rover.__main__", "cli.main", True),
    ],
)
def test_an_import_is_allowed_or_not(importer: str, imported: str, allowed: bool) -> None:
    assert is_allowed(Import(importer, imported, 1)) is allowed


@pytest.mark.parametrize(
    ("module", "places", "expected"),
    [
        ("chat.store.upgrade", {"chat.store"}, True),
        ("chat.store", {"chat.store"}, True),
        ("chat.app", {"chat"}, True),
        ("chat.stores", {"chat.store"}, False),
        ("chat", {"chat.store"}, False),
        ("chat", set(), False),
    ],
)
def test_a_place_is_a_module_or_a_folder_with_all_below(module: str, places: set[str], expected: bool) -> None:
    assert within(module, places) is expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from . import log", {"tailrace.log"}),
        ("from .log import base", {"tailrace.log.base"}),
        ("from .log.base import Log", {"tailrace.log.base"}),
        ("import tailrace.log.base", {"tailrace.log.base"}),
        ("from tailrace import Log", {"tailrace"}),
        ("from tailrace.log import base as b, memory", {"tailrace.log.base", "tailrace.log.memory"}),
        ("def f():\n    from .engine import Engine", {"tailrace.engine"}),
        ("if TYPE_CHECKING:\n    from .engine import Engine", {"tailrace.engine"}),
        ("import asyncio, os.path", {"asyncio", "os.path"}),
        ("from fastapi import FastAPI", {"fastapi"}),
    ],
)
def test_imports_are_found_wherever_and_however_they_stand(
    source: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path)
    monkeypatch.setitem(MODULES, "module", path)
    assert {found.imported for found in imports("module")} == expected


def test_a_relative_import_starts_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wire" / "module.py"
    path.parent.mkdir()
    path.write_text("from .base import Wire\nfrom ..events import Entry\nfrom .. import flow\nfrom . import sse\n")
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path)
    monkeypatch.setitem(MODULES, "wire.module", path)
    names = ["tailrace.wire.base", "tailrace.events", "tailrace.flow", "tailrace.wire.sse"]
    assert [found.imported for found in imports("wire.module")] == names
