"""The chat page while its server cannot reach Redis."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.access import check_access
from tests.chat.api.talking import Hold
from tests.chat.browsing import serving_site, visit
from tests.log.redis.redis_server import redis_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark"}


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
async def test_the_page_says_that_updates_may_be_late(
    browser: Browser, tmp_path: Path, options: dict[str, object]
) -> None:
    hold = Hold()
    with redis_server() as redis:
        async with (
            serving_site(tmp_path, "one ", hold, "two", streams=redis.url) as site,
            visit(browser, site, options=options) as demo,
        ):
            await demo.open()
            with redis.frozen():  # while the page follows the changes to its sessions
                await expect(demo.connection).to_have_text("Updates may be late")
                await expect(demo.announced).to_have_text("The server cannot reach its store. Updates may be late.")
            await expect(demo.connection).to_have_text("Connected")
            await expect(demo.announced).to_have_text("Up to date again")
            await demo.say("Go")
            await expect(demo.replies).to_have_text("one")
            with redis.frozen():  # while it reads a reply
                await expect(demo.connection).to_have_text("Updates may be late")
                await check_access(demo.page)
                hold.release.set()
            await demo.ends()
            await expect(demo.replies).to_have_text("one two")
            await expect(demo.connection).to_have_text("Connected")
            await demo.page.locator("#inspect").press("Enter")
            await expect(demo.page.locator("#lines")).to_contain_text("The server cannot reach its store")
