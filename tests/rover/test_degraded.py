"""The dashboard while its server cannot reach Redis."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.access import check_access
from tests.chat.conftest import browser as browser
from tests.log.redis.redis_server import redis_server
from tests.rover.browsing import paint, serving_site, visit

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
async def test_each_feed_says_that_it_may_be_late(browser: Browser, tmp_path: Path, options: dict[str, object]) -> None:
    image = paint(tmp_path / "panorama.jpg")
    with redis_server() as redis:
        async with serving_site(image, redis.url) as site, visit(browser, site, options=options) as board:
            await board.open()
            states = [board.telemetry, *(pane.state for pane in board.panes)]
            for state in states:
                await expect(state).to_have_text("Connected")
            with redis.frozen():
                for state in states:
                    await expect(state).to_have_text("Updates may be late")
                await expect(board.telemetry).to_have_attribute("title", "The server cannot reach its store.")
                await expect(board.announced).to_contain_text("Telemetry: updates may be late")
                await check_access(board.page)
            for state in states:
                await expect(state).to_have_text("Connected")
            await expect(board.announced).to_contain_text("Telemetry: up to date again")
            await site.read()
            await expect(board.page.locator("#odometer")).to_have_text(await site.odometer())
