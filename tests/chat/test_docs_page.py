"""The page of the API in headless Chromium."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.chat.api.talking import lines, text
from tests.chat.browsing import PATIENCE, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_api_is_documented_without_a_script_from_elsewhere(browser: Browser, tmp_path: Path) -> None:
    async with visiting(browser, tmp_path, options={"viewport": {"width": 360, "height": 640}}) as demo:
        await demo.page.goto(f"{demo.relay.url}/docs")
        await expect(demo.page.get_by_text("Reading openapi.json")).to_have_count(0)
        api = await demo.chat.get("/openapi.json")
        endpoints = [f"{method.upper()} {path}" for path, methods in api["paths"].items() for method in methods]
        assert await demo.page.locator("#operations h3").all_inner_texts() == endpoints
        assert await demo.page.locator("#schemas h3").all_text_contents() == list(api["components"]["schemas"])
        assert await demo.page.evaluate("document.documentElement.scrollWidth") == 360
        post = demo.page.locator("#operations section").first
        await expect(post.get_by_role("row", name="Idempotency-Key header")).to_be_visible()
        await expect(post.get_by_role("row", name="200 application/x-ndjson")).to_contain_text("SessionInfo or Status")
        await post.get_by_role("link", name="ChatRequest").click()
        await expect(demo.page.locator("#object-ChatRequest h3")).to_be_in_viewport()

        pasted = [await paste(line) for line in await post.locator("pre").all_text_contents()]
        lined, events, document = pasted
        assert text(lines(lined)) == "one two three"
        assert b"event: done" in events
        assert json.loads(document)["text"] == "one two three"


async def paste(line: str) -> bytes:
    """What a shell prints."""
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE / 1000):
        printed, _ = await shell.communicate()
    return printed
