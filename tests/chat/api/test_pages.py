"""The pages as HTTP serves them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from posixpath import dirname, join, normpath

import pytest
import pytest_asyncio

import tailrace
from tailrace.chat.api.pages import PAGES
from tailrace.pages import CLIENT, MEDIA_TYPES
from tests.chat.api.talking import Chat, Scripted, chatting

TYPES = {
    "/demo": "text/html; charset=utf-8",
    "/docs": "text/html; charset=utf-8",
    "/assets/demo.js": "text/javascript; charset=utf-8",
    "/assets/base.css": "text/css; charset=utf-8",
    "/assets/icon.svg": "image/svg+xml",
    "/tailrace.js": "text/javascript; charset=utf-8",
    "/js/tailrace.js": "text/javascript; charset=utf-8",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types tailrace"
)


ASSETS = {
    file.name: file
    for folder in (PAGES / "assets", Path(tailrace.__file__).parent / "pages")
    for file in folder.iterdir()
    if file.suffix in MEDIA_TYPES
}


# One server for all, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chat]:
    async with chatting(tmp_path_factory.mktemp("pages"), Scripted()) as chat:
        yield chat


@pytest.mark.parametrize("path", TYPES)
async def test_a_page_may_load_nothing_from_elsewhere(chat: Chat, path: str) -> None:
    answer = await chat.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[path]
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", TYPES)
async def test_who_has_a_page_is_not_sent_it_again(chat: Chat, path: str) -> None:
    first = await chat.http.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = await chat.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == POLICY
    head = await chat.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(first.content))


@pytest.mark.parametrize(
    "path", ["/assets/none.js", "/assets/", "/assets/../demo.html", "/assets/%2e%2e/demo.html", "/js/"]
)
async def test_there_is_nothing_beside_the_assets(chat: Chat, path: str) -> None:
    assert (await chat.http.get(path)).status_code == 404


async def test_pages_are_open_where_the_server_asks_for_a_key(tmp_path: Path) -> None:
    async with chatting(tmp_path, Scripted(), api_keys=("secret",)) as chat:
        assert (await chat.http.get("/demo")).status_code == 200
        assert (await chat.http.get("/sessions")).status_code == 401


async def test_pages_are_not_in_the_document_of_the_api(chat: Chat) -> None:
    paths = (await chat.get("/openapi.json"))["paths"]
    assert not [path for path in paths if path.startswith(("/demo", "/docs", "/assets", "/tailrace.js", "/js"))]


@pytest.mark.parametrize("page", ["demo", "docs"])
async def test_a_page_names_all_its_modules_so_that_none_waits_for_another(page: str) -> None:
    named = set(re.findall(r'(?:src|href)="([^"]+\.js)"', (PAGES / f"{page}.html").read_text()))
    assert named == modules_of(f"assets/{page}.js")


def modules_of(script: str) -> set[str]:
    """The paths of a module and of all that it imports, which are there."""
    files = {f"assets/{name}": file for name, file in ASSETS.items()} | {
        f"js/{file.name}": file for file in CLIENT.iterdir()
    }
    found, left = set(), {script}
    while left:
        path = left.pop()
        found.add(path)
        imported = re.findall(r'^(?:import|export|\}).* from "([^"]+)";$', files[path].read_text(), re.MULTILINE)
        left |= {normpath(join(dirname(path), reference)) for reference in imported} - found
    return found


async def test_there_is_no_asset_that_nothing_names() -> None:
    named = set()
    for page in ("demo", "docs"):
        named |= set(re.findall(r'(?:src|href)="assets/([^"]+)"', (PAGES / f"{page}.html").read_text()))
    assert named == set(ASSETS)


@pytest.mark.parametrize("page", ["demo.html", "docs.html"])
async def test_a_page_has_nothing_inline(page: str) -> None:
    text = (PAGES / page).read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)
    assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL) == [""]
